"""What may be written next: grammar and music masks over the fields' logits. Pure functions of a small state; numpy.

Onsets never run backwards, notes at one onset rise in (program, instance, pitch), only the song's voices play, each
in its own range and with no more notes struck at once than in the song, no bar stays empty for longer than the song
leaves bars empty, and a chunk ends in its last bar.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .tokens import BAR, DRUM_PROGRAM, FIELD_SIZES, INSTANCE, MAX_INSTANCES, PITCH, POSITION, PROGRAM

END = FIELD_SIZES[BAR]
RANGE_MARGIN = 5  # semitones a tuned voice may go beyond what it has played
CHORD_MARGIN = 1  # notes a tuned voice may strike at once beyond what it has struck


@dataclass(frozen=True)
class Grammar:
    """What a song's chunks may contain. Voices are numbered in the order of (program, instance)."""

    pitches: np.ndarray  # (129, 8, 256) bool: which pitches each voice may play
    chord: np.ndarray  # (129, 8) most notes a voice may strike at one onset
    most_empty_bars: int  # longest run of bars without an onset

    @classmethod
    def of(cls, rows: np.ndarray, bars: int) -> Grammar:
        """Grammar of a song's rows (n, 8) over `bars` bars."""
        pitches = np.zeros((FIELD_SIZES[PROGRAM], MAX_INSTANCES, FIELD_SIZES[PITCH]), bool)
        chord = np.zeros((FIELD_SIZES[PROGRAM], MAX_INSTANCES), np.int64)
        for program, instance in np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0):
            mine = rows[(rows[:, PROGRAM] == program) & (rows[:, INSTANCE] == instance)]
            struck = np.unique(mine[:, BAR].astype(np.int64) * 128 + mine[:, POSITION], return_counts=True)[1].max()
            if program == DRUM_PROGRAM:
                pitches[program, instance, np.unique(mine[:, PITCH])] = True
                chord[program, instance] = struck
            else:
                low, high = mine[:, PITCH].min() - RANGE_MARGIN, mine[:, PITCH].max() + RANGE_MARGIN
                pitches[program, instance, max(0, low) : min(127, high) + 1] = True
                chord[program, instance] = struck + (CHORD_MARGIN if struck > 1 else 0)
        return cls(pitches, chord, longest_empty_run(rows, bars))

    def without(self, voices: set[tuple[int, int]]) -> Grammar:
        """The same without some (program, instance)."""
        pitches = self.pitches.copy()
        for program, instance in voices:
            pitches[program, instance] = False
        return replace(self, pitches=pitches)


def longest_empty_run(rows: np.ndarray, bars: int) -> int:
    """Most consecutive bars in which no note begins, between the first and the last that has one."""
    played = np.unique(rows[:, BAR])
    return int(np.diff(played).max()) - 1 if len(played) > 1 else 0


class State:
    """Where each of K candidates stands: its current onset and the last note there."""

    def __init__(self, grammar: Grammar, bar_positions: np.ndarray, candidates: int):
        self.grammar = grammar
        self.bar_positions = bar_positions  # (bars,) positions in each bar of the chunk
        self.voices_of: np.ndarray = np.any(grammar.pitches, axis=2)  # (129, 8)
        self.top = np.where(self.voices_of, grammar.pitches.shape[2] - 1 - grammar.pitches[:, :, ::-1].argmax(2), -1)
        self.last_instance = np.where(  # of each program, -1 if it has none
            np.any(self.voices_of, axis=1), MAX_INSTANCES - 1 - self.voices_of[:, ::-1].argmax(1), -1
        )
        self.last_program = int(np.flatnonzero(np.any(self.voices_of, axis=1)).max())
        self.bar = np.full(candidates, -1)
        self.position = np.full(candidates, -1)
        self.program = np.full(candidates, -1)
        self.instance = np.full(candidates, -1)
        self.pitch = np.full(candidates, -1)
        self.struck = np.zeros(candidates, np.int64)  # notes of the last voice at this onset
        self.next_bar = np.zeros(candidates, np.int64)
        self.next_position = np.zeros(candidates, np.int64)
        self.same_onset = np.zeros(candidates, bool)

    # ---- where -------------------------------------------------------------------------------------------------

    def _same_voice_open(self) -> np.ndarray:
        """May the last voice strike another note at this onset? (K,)"""
        known = self.program >= 0
        program, instance = self.program.clip(0), self.instance.clip(0)
        room = self.struck < self.grammar.chord[program, instance]
        return known & room & (self.pitch < self.top[program, instance])

    def _same_program_open(self) -> np.ndarray:
        return self._same_voice_open() | (
            (self.program >= 0) & (self.instance < self.last_instance[self.program.clip(0)])
        )

    def _onset_open(self) -> np.ndarray:
        """May any note still be added at this onset?"""
        return self._same_program_open() | (self.program < self.last_program)

    def bars(self) -> np.ndarray:
        """Which bars the next note may lie in, and whether the chunk may end: (K, bar classes + 1) bool."""
        bars = len(self.bar_positions)
        index = np.arange(END + 1)[None]
        furthest = np.minimum(self.bar + self.grammar.most_empty_bars + 1, bars - 1)[:, None]
        mask = (index > self.bar[:, None]) & (index <= furthest)
        begun = self.bar >= 0
        here = begun & (self._onset_open() | (self.position < self.bar_positions[self.bar.clip(0)] - 1))
        mask[begun, self.bar[begun]] = here[begun]
        mask[:, END] = self.bar >= bars - 1
        return mask

    def positions(self, bar: np.ndarray) -> np.ndarray:
        """Positions the next note may lie on in its chosen bar (K,): (K, positions) bool."""
        index = np.arange(FIELD_SIZES[POSITION])[None]
        bar = bar.clip(0, len(self.bar_positions) - 1)
        mask = index < self.bar_positions[bar][:, None]
        earliest = np.where(bar == self.bar, self.position + np.where(self._onset_open(), 0, 1), 0)
        return mask & (index >= earliest[:, None])

    def move(self, bar: np.ndarray, position: np.ndarray) -> None:
        """The next note's onset is chosen."""
        self.same_onset = (bar == self.bar) & (position == self.position)
        self.next_bar, self.next_position = bar, position

    # ---- which note --------------------------------------------------------------------------------------------

    def programs(self) -> np.ndarray:
        index = np.arange(FIELD_SIZES[PROGRAM])[None]
        lowest = np.where(self.same_onset, self.program + np.where(self._same_program_open(), 0, 1), 0)
        return np.any(self.voices_of, axis=1)[None] & (index >= lowest[:, None])

    def instances(self, program: np.ndarray) -> np.ndarray:
        index = np.arange(MAX_INSTANCES)[None]
        same = self.same_onset & (program == self.program)
        lowest = np.where(same, self.instance + np.where(self._same_voice_open(), 0, 1), 0)
        return self.voices_of[program] & (index >= lowest[:, None])

    def pitches(self, program: np.ndarray, instance: np.ndarray) -> np.ndarray:
        index = np.arange(FIELD_SIZES[PITCH])[None]
        same = self.same_onset & (program == self.program) & (instance == self.instance)
        return self.grammar.pitches[program, instance] & (index > np.where(same, self.pitch, -1)[:, None])

    def write(self, program: np.ndarray, instance: np.ndarray, pitch: np.ndarray) -> None:
        """The note at the chosen onset is written."""
        same = self.same_onset & (program == self.program) & (instance == self.instance)
        self.struck = np.where(same, self.struck + 1, 1)
        self.bar, self.position = self.next_bar, self.next_position
        self.program, self.instance, self.pitch = program, instance, pitch
