"""What may be written next: grammar and music masks over the fields' logits. Pure functions of a small state; numpy.

Onsets never run backwards, notes at one onset rise in (program, instance, pitch), only the song's voices play, each
in its own range and with no more notes struck at once than in the song, drums and tuned voices only where in the beat
the song places theirs (swung stays swung, quantised stays quantised), no bar stays empty for longer than the song
leaves bars empty, no voice strikes one pitch, no note lasts nor does nothing begin for much longer than in the song,
and a chunk ends in its last bar: where the music is to end there, with one chord on its first beat that rings. The
masks of a note that is still possible are never empty.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from .grid import MAX_BAR_BEATS, POSITIONS_PER_BEAT
from .tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    DURATIONS,
    DURATIONS_PER_BEAT,
    FIELD_SIZES,
    INSTANCE,
    MAX_INSTANCES,
    MICRO,
    MICRO_CENTER,
    MICROS_PER_POSITION,
    PITCH,
    POSITION,
    PROGRAM,
)

END = FIELD_SIZES[BAR]
RANGE_MARGIN = 5  # semitones a tuned voice may go beyond what it has played
CHORD_MARGIN = 1  # notes a tuned voice may strike at once beyond what it has struck
STRAY_SHARE = 0.005  # a phase of the beat with less than this share of the notes holds strays, no groove
FEWEST_GROOVE_NOTES = 24  # fewer notes do not tell a groove
# How far beyond the song: of real songs' chunks 1 in 100 goes further than the half minute before it tells.
GAP_MARGIN = 2.0  # times the song's longest time between onsets, and no less than half a bar
RUN_MARGIN = 1.75  # times the most often that a voice of the song strikes one pitch in a row …
FEWEST_RUN = 24  # … and no fewer strikes than these
HELD_MARGIN = 1.25  # times the song's longest tuned note
FEWEST_OF_ONE = 12  # notes of a voice, all of one pitch, that show that it has no other

_IS_DRUM = (np.arange(FIELD_SIZES[PROGRAM]) == DRUM_PROGRAM).astype(np.int64)  # (129,)
_BARS, _POSITIONS, _PROGRAMS, _INSTANCES, _PITCHES = (  # their numbers, in rows
    np.arange(size)[None] for size in (END + 1, *(FIELD_SIZES[f] for f in (POSITION, PROGRAM, INSTANCE, PITCH)))
)


@dataclass(frozen=True)
class Grammar:
    """What a song's chunks may contain. Voices are numbered in the order of (program, instance)."""

    pitches: np.ndarray  # (129, 64, 256) bool: which pitches each voice may play
    chord: np.ndarray  # (129, 64) most notes a voice may strike at one onset
    most_empty_bars: int  # longest run of bars without an onset
    grooves: np.ndarray  # (2, 12, 8) bool as of `grooves_of`
    reach: int  # most positions from one onset to the next
    most_strikes: int  # of one pitch in a row, by a tuned voice that strikes nothing else meanwhile
    longest: int  # the longest duration of tuned notes

    @classmethod
    def of(cls, rows: np.ndarray, bars: int, bar_positions: int = 4 * POSITIONS_PER_BEAT) -> Grammar:
        """Grammar of a song's rows (n, 8) over `bars` bars, usually of `bar_positions`."""
        pitches = np.zeros((FIELD_SIZES[PROGRAM], MAX_INSTANCES, FIELD_SIZES[PITCH]), bool)
        chord = np.zeros((FIELD_SIZES[PROGRAM], MAX_INSTANCES), np.int64)
        alone = of_one_pitch(rows)
        for program, instance in np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0).tolist():
            mine = rows[(rows[:, PROGRAM] == program) & (rows[:, INSTANCE] == instance)]
            struck = np.unique(mine[:, BAR].astype(np.int64) * 128 + mine[:, POSITION], return_counts=True)[1].max()
            if program == DRUM_PROGRAM:
                pitches[program, instance, np.unique(mine[:, PITCH])] = True
                chord[program, instance] = struck
            elif (program, instance) in alone:
                pitches[program, instance, mine[0, PITCH]] = True
                chord[program, instance] = struck
            else:
                low, high = mine[:, PITCH].min() - RANGE_MARGIN, mine[:, PITCH].max() + RANGE_MARGIN
                pitches[program, instance, max(0, low) : min(127, high) + 1] = True
                chord[program, instance] = struck + (CHORD_MARGIN if struck > 1 else 0)
        onsets = np.unique(rows[:, BAR].astype(np.int64) * bar_positions + rows[:, POSITION])
        return cls(
            pitches, chord, longest_empty_run(rows, bars), grooves_of(rows), reach_of(onsets, bar_positions),
            most_strikes(longest_run(rows, alone)), longest_duration(rows),
        )  # fmt: skip

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


def of_one_pitch(rows: np.ndarray) -> set[tuple[int, int]]:
    """The tuned voices (program, instance) of a song's rows (n, 8) that play one pitch only, such as a triangle's."""
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    found = set()
    for program, instance in np.unique(tuned[:, [PROGRAM, INSTANCE]], axis=0).tolist():
        pitch = tuned[(tuned[:, PROGRAM] == program) & (tuned[:, INSTANCE] == instance), PITCH]
        if len(pitch) >= FEWEST_OF_ONE and (pitch == pitch[0]).all():
            found.add((program, instance))
    return found


def longest_duration(rows: np.ndarray) -> int:
    """The longest duration (its number) that tuned notes may have after a song's rows (n, 8)."""
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM, DURATION]
    most = HELD_MARGIN * DURATIONS[tuned.max()] if len(tuned) else DURATIONS[-1]
    return int((most >= DURATIONS).sum()) - 1


def longest_run(rows: np.ndarray, but: Collection[tuple[int, int]] = ()) -> int:
    """Most strikes in a row in which a tuned voice of rows (n, 8), in order, plays one pitch only; `but` for some."""
    longest = 0
    voice = rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE]
    ignored = [program * MAX_INSTANCES + instance for program, instance in but]
    for v in np.setdiff1d(voice[rows[:, PROGRAM] != DRUM_PROGRAM], ignored):
        pitch = rows[voice == v, PITCH]
        changes = np.flatnonzero(np.diff(pitch) != 0)
        runs = np.diff(np.concatenate([[-1], changes, [len(pitch) - 1]]))
        longest = max(longest, int(runs.max()))
    return longest


@dataclass(frozen=True)
class Runs:
    """Which pitch each voice struck last, and how often in a row; (129, 64) each."""

    pitch: np.ndarray = field(default_factory=lambda: np.full((FIELD_SIZES[PROGRAM], MAX_INSTANCES), -1, np.int16))
    times: np.ndarray = field(default_factory=lambda: np.zeros((FIELD_SIZES[PROGRAM], MAX_INSTANCES), np.int16))

    def after(self, rows: np.ndarray) -> Runs:
        """The same after more rows (n, 8)."""
        pitch, times = self.pitch.copy(), self.times.copy()
        for program, instance in np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0).tolist():
            mine = rows[(rows[:, PROGRAM] == program) & (rows[:, INSTANCE] == instance), PITCH]
            others = np.flatnonzero(mine != mine[-1])
            run = len(mine) - 1 - int(others[-1]) if len(others) else len(mine)
            if len(others) == 0 and pitch[program, instance] == mine[-1]:
                run += int(times[program, instance])
            pitch[program, instance], times[program, instance] = mine[-1], min(run, 30_000)
        return Runs(pitch, times)


def reach_of(onsets: np.ndarray, bar_positions: int) -> int:
    """How many positions may lie from one onset to the next, and from the last to the chunk's end, in music like that
    of `onsets` (n,), n >= 1, which count positions from a bar line in bars of `bar_positions`."""
    edges = onsets[0] % bar_positions, bar_positions - onsets[-1] % bar_positions
    return max(int(GAP_MARGIN * np.diff(onsets).max(initial=0)), bar_positions // 2, *map(int, edges))


def most_strikes(run: int) -> int:
    """How often in a row a pitch may be struck where the song's longest such run is `run`."""
    return int(max(FEWEST_RUN, RUN_MARGIN * run))


def grooves_of(rows: np.ndarray) -> np.ndarray:
    """Where in the beat a song's rows (n, 8) lie: (2, 12, 8) bool, [is drum, position in the beat, micro].

    A rare stray opens no position; the beat itself is always open, dead on where the song has nothing there; too few
    notes leave everything open.
    """
    counts = np.zeros((2, POSITIONS_PER_BEAT, MICROS_PER_POSITION), np.int64)
    np.add.at(counts, (_IS_DRUM[rows[:, PROGRAM]], rows[:, POSITION] % POSITIONS_PER_BEAT, rows[:, MICRO]), 1)
    notes = counts.sum((1, 2), keepdims=True)
    grooves = (counts > 0) & (counts.sum(2, keepdims=True) >= STRAY_SHARE * notes)
    grooves[:, 0, MICRO_CENTER] |= ~np.any(grooves[:, 0], axis=1)
    return grooves | (notes < FEWEST_GROOVE_NOTES)


def _final_pitches(pitches: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Which pitches each voice may play in a final chord of the pitch classes `final` (12,): all it has where it has
    none of those; shapes (129, 64, 256)."""
    chord = np.append(final[np.arange(DRUM_PITCH_OFFSET) % 12], np.ones(FIELD_SIZES[PITCH] - DRUM_PITCH_OFFSET, bool))
    fitting = pitches & chord
    return np.where(np.any(fitting, axis=2, keepdims=True), fitting, pitches)


def _highest(mask: np.ndarray) -> np.ndarray:
    """Index of the last True along the last axis, -1 where there is none."""
    return np.where(np.any(mask, axis=-1), mask.shape[-1] - 1 - mask[..., ::-1].argmax(-1), -1)


class State:
    """Where each of K candidates stands: its current onset and the last note there.

    That note may also be one that the grammar would not write (a fixed row): what follows it is still right.
    """

    def __init__(
        self,
        grammar: Grammar,
        bar_positions: np.ndarray,
        candidates: int,
        final: np.ndarray | None = None,
        runs: Runs | None = None,
    ):
        """`bar_positions` (bars,): positions in each bar. With `final` (12,) bool the music ends in the last bar, on a
        chord of these pitch classes. `runs` are those of the music before."""
        self.grammar = grammar
        self.bar_positions = bar_positions
        self.voices_of: np.ndarray = np.any(grammar.pitches, axis=2)  # (129, 64)
        self.top = _highest(grammar.pitches)  # (129, 64)
        self.last_instance = _highest(self.voices_of)  # (129,)
        self.grooves = grammar.grooves.copy()
        self.grooves[:, 0] |= ~self.grooves[:, 0].any(1, keepdims=True)  # every bar has a place for every voice
        phases: np.ndarray = np.any(self.grooves, axis=2)  # (2, 12)
        open_to = phases[_IS_DRUM] & np.any(self.voices_of, axis=1)[:, None]  # (129, 12)
        self.programs_at = np.ascontiguousarray(open_to.T)  # (12, 129) which programs may play where in the beat
        self.last_program = _highest(self.programs_at)  # (12,)
        places: np.ndarray = np.tile(np.any(self.programs_at, axis=1), MAX_BAR_BEATS)  # (positions,)
        self.places = places & (np.arange(len(places)) < bar_positions[:, None])  # (bars, positions)
        self.final_pitches, self.final_top, self.final_lengths = grammar.pitches, self.top, None
        if final is not None:
            self.places[-1, 1:] = False
            self.final_pitches = _final_pitches(grammar.pitches, final)
            self.final_top = _highest(self.final_pitches)
            shortest = bar_positions[-1] / POSITIONS_PER_BEAT * DURATIONS_PER_BEAT  # to the end of the bar
            self.final_lengths = min(shortest, DURATIONS[-1]) <= DURATIONS  # (durations,)
        lengths = np.arange(len(DURATIONS))
        self.allowed_lengths = np.stack([lengths <= grammar.longest, lengths >= 0])  # (2, durations) by is drum
        self.last_place = _highest(self.places)  # (bars,)
        self.starts = np.concatenate([[0], np.cumsum(bar_positions)])  # (bars + 1,) positions before each bar
        first_places = self.places.argmax(1)
        self.first_onsets = self.starts[:-1] + first_places  # (bars,)
        bar, place = np.nonzero(self.places)
        spacing = np.diff(self.starts[bar] + place, prepend=0).max()
        self.reach = max(grammar.reach, int(spacing))  # there is always a place in reach
        self.lands = final is not None
        # the one program, the one instance of each, the one micro-offset by drum or not and by place: None for a choice
        playing = np.flatnonzero(np.any(self.voices_of, axis=1))
        self.one_program = playing[0] if len(playing) == 1 else None
        self.one_instance = self.voices_of.argmax(1) if self.voices_of.sum(1).max() <= 1 else None  # (129,)
        micros = self.grooves[np.unique(_IS_DRUM[playing])].sum(2)
        self.one_micro = self.grooves.argmax(2) if np.all(micros <= 1) else None  # (2, 12)
        self._begin(candidates, runs or Runs())

    def _begin(self, candidates: int, runs: Runs) -> None:
        """All candidates stand before the first onset."""
        self.each = np.arange(candidates)
        self.bar = np.full(candidates, -1)
        self.position = np.full(candidates, -1)
        self.program = np.full(candidates, -1)
        self.instance = np.full(candidates, -1)
        self.pitch = np.full(candidates, -1)
        self.struck = np.zeros(candidates, np.int64)  # notes of the last voice at this onset
        self.next_bar = np.zeros(candidates, np.int64)
        self.next_position = np.zeros(candidates, np.int64)
        self.same_onset = np.zeros(candidates, bool)
        self.run_pitch = np.repeat(runs.pitch[None], candidates, 0)  # (K, 129, 64) last pitch struck
        self.run = np.repeat(runs.times[None], candidates, 0)  # and how often in a row
        # May another note of the last voice, of its program, or any at all still be added at the current onset?
        self.voice_open, self.program_open, self.onset_open = (np.zeros(candidates, bool) for _ in range(3))

    # ---- where -------------------------------------------------------------------------------------------------

    def bars(self) -> np.ndarray:
        """Which bars the next note may lie in, and whether the chunk may end: (K, bar classes + 1) bool."""
        bars = len(self.bar_positions)
        furthest = np.minimum(self.bar + self.grammar.most_empty_bars + 1, bars - 1)[:, None]
        mask = (self.bar[:, None] < _BARS) & (furthest >= _BARS)
        latest = self._latest()
        mask[:, :bars] &= self.first_onsets <= latest[:, None]
        if self.bar[0] < 0:  # nothing is written yet, by any candidate
            return mask
        over = self.position >= self.last_place[self.bar]
        mask[self.each, self.bar] = ~over | (self.onset_open & self.places[self.bar, self.position])
        mask[:, END] = (self.bar == bars - 1) & (self.lands | over | (self.starts[-1] <= latest))
        return mask

    def positions(self, bar: np.ndarray) -> np.ndarray:
        """Positions the next note may lie on in its chosen bar (K,): (K, positions) bool."""
        bar = np.minimum(bar, len(self.bar_positions) - 1)
        earliest = (self.position + ~self.onset_open) * (bar == self.bar)
        latest = self._latest() - self.starts[bar]
        return self.places[bar] & (earliest[:, None] <= _POSITIONS) & (latest[:, None] >= _POSITIONS)

    def _latest(self) -> np.ndarray:
        """The last position, from the chunk's beginning, at which the next onset may lie, (K,)."""
        return self.reach + (self.starts[self.bar] + self.position if self.bar[0] >= 0 else np.zeros_like(self.bar))

    def move(self, bar: np.ndarray, position: np.ndarray) -> None:
        """The next note's onset is chosen."""
        self.same_onset = (bar == self.bar) & (position == self.position)
        self.next_bar, self.next_position = bar, position

    # ---- which note --------------------------------------------------------------------------------------------

    def programs(self) -> np.ndarray:
        lowest = (self.program + ~self.program_open) * self.same_onset
        mask = self.programs_at[self.next_position % POSITIONS_PER_BEAT] & (lowest[:, None] <= _PROGRAMS)
        if self.final_lengths is not None:  # the chord comes before the drums under it
            opens = self._in_last_bar() & ~self.same_onset & np.any(mask[:, :DRUM_PROGRAM], axis=1)
            mask[opens, DRUM_PROGRAM] = False
        return mask

    def instances(self, program: np.ndarray) -> np.ndarray:
        same = self.same_onset & (program == self.program)
        lowest = (self.instance + ~self.voice_open) * same
        here = self.programs_at[self.next_position % POSITIONS_PER_BEAT, program]  # not so where a fixed row leads
        return self.voices_of[program] & (lowest[:, None] <= _INSTANCES) & here[:, None]

    def pitches(self, program: np.ndarray, instance: np.ndarray) -> np.ndarray:
        same = self.same_onset & (program == self.program) & (instance == self.instance)
        playable = self.grammar.pitches[program, instance]
        if self.lands:
            playable = np.where(self._in_last_bar()[:, None], self.final_pitches[program, instance], playable)
        playable &= np.where(same, self.pitch, -1)[:, None] < _PITCHES
        worn_out = self.run[self.each, program, instance] >= self.grammar.most_strikes
        if worn_out.any():
            worn_out &= (program != DRUM_PROGRAM) & (playable.sum(1) > 1)
            playable[worn_out, self.run_pitch[self.each, program, instance][worn_out]] = False
        return playable

    def durations(self, program: np.ndarray) -> np.ndarray:
        usual = self.allowed_lengths[_IS_DRUM[program]]
        if self.final_lengths is None:
            return usual
        drums_alone = not np.any(self.voices_of[:DRUM_PROGRAM])
        rings = self._in_last_bar() & ((program != DRUM_PROGRAM) | drums_alone)
        return np.where(rings[:, None], self.final_lengths, usual)

    def only(self, name: int, program: np.ndarray) -> np.ndarray | None:
        """The values (K,) of a field where the grammar never leaves a choice of it; None: it does."""
        if name == PROGRAM and self.one_program is not None:
            return np.full(len(self.each), self.one_program)
        if name == INSTANCE and self.one_instance is not None:
            return self.one_instance[program]
        if name == MICRO and self.one_micro is not None:
            return self.one_micro[_IS_DRUM[program], self.next_position % POSITIONS_PER_BEAT]
        return None

    def _in_last_bar(self) -> np.ndarray:
        return self.next_bar == len(self.bar_positions) - 1

    def micros(self, program: np.ndarray) -> np.ndarray:
        return self.grooves[_IS_DRUM[program], self.next_position % POSITIONS_PER_BEAT]

    def write(self, program: np.ndarray, instance: np.ndarray, pitch: np.ndarray) -> None:
        """The note at the chosen onset is written, (K,) each; of a voice that the grammar lacks it is a fixed one."""
        same = self.same_onset & (program == self.program) & (instance == self.instance)
        self.struck = self.struck * same + 1
        voice = self.each, program, instance
        self.run[voice] = self.run[voice] * (self.run_pitch[voice] == pitch) + 1
        self.run_pitch[voice] = pitch
        self.bar, self.position = self.next_bar, self.next_position
        self.program, self.instance, self.pitch = program, instance, pitch
        phase = self.position % POSITIONS_PER_BEAT
        room = self.struck < self.grammar.chord[program, instance]
        top = self.top[program, instance]
        if self.lands:
            top = np.where(self._in_last_bar(), self.final_top[program, instance], top)
        here = self.programs_at[phase, program]
        self.voice_open = here & room & (pitch < top)
        self.program_open = self.voice_open | (here & (instance < self.last_instance[program]))
        self.onset_open = self.program_open | (program < self.last_program[phase])
