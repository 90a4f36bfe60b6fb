"""Writing with an n-gram: one note after another, each decision sampled among what the prompt's voices may play.

Knows the model's tables and trust; knows nothing of how they were learned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...chunks import MAX_CHUNK_NOTES
from ...occurrences import NONE
from ...tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    FIELD_SIZES,
    INSTANCE,
    MAX_INSTANCES,
    MICRO,
    MICRO_CENTER,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
)
from ..excerpts import Excerpt
from .contexts import ADAPTIVE, SIZES, STATIC, hashed, reference
from .counting import keys, weights
from .decisions import Music, chunks_of, decisions
from .surroundings import NO_PITCH, Columns, Surroundings

if TYPE_CHECKING:
    from .model import NGram

LOOK_BACK_NOTES = 512  # for what surrounds a note
RANGE_MARGIN = 3  # semitones beyond the prompt's range

# Program, instance and pitch as one integer that sorts as they do: a key that can be played.
_INSTANCE_KEYS = FIELD_SIZES[PITCH]
_PROGRAM_KEYS = MAX_INSTANCES * _INSTANCE_KEYS


class Writer:
    """Writes after a prompt, note by note. It looks back LOOK_BACK_NOTES for what surrounds a note; what it counts in
    the song, it counts in all of it."""

    def __init__(self, model: NGram, prompt: Excerpt, rng: np.random.Generator, temperature: float):
        self.model, self.rng, self.temperature = model, rng, temperature
        self.rows = prompt.rows.astype(np.int64)  # the first `length` are written
        self.length = len(self.rows)
        self.bar = prompt.bars  # at which the next chunk begins
        self.playable = _playable(self.rows)
        self.after = self._told(Surroundings.after)
        self.nats = 0.0  # of what was chosen, at temperature 1 and with every choice open
        self.counts: dict[str, dict[int, dict[int, int]]] = {part: {} for part in ADAPTIVE}  # of each context
        if model.adaptive:
            self._listen(prompt)

    def _listen(self, prompt: Excerpt) -> None:
        """Count the prompt."""
        for part, told in decisions(Music.of([chunks_of(prompt.rows, prompt.bar_s)])).items():
            for k in range(len(ADAPTIVE[part])):
                contexts, symbols = keys(part, k, told, np.zeros_like(told.values))
                for context, symbol in zip(contexts.tolist(), symbols.tolist(), strict=True):
                    self._count(part, context, symbol)

    def _count(self, part: str, context: int, symbol: int) -> None:
        seen = self.counts[part].setdefault(context, {})
        seen[symbol] = seen.get(symbol, 0) + 1

    def write_chunk(self, bar_positions: np.ndarray) -> None:
        """The next bars, of so many positions each."""
        first, bars, end = self.bar, len(bar_positions), self.length + MAX_CHUNK_NOTES
        self.bar += bars
        room = np.zeros((MAX_CHUNK_NOTES, len(FIELD_SIZES)), np.int64)
        self.rows = np.concatenate([self.rows[: self.length], room])
        bar, position = self._leap({"begin": 1, "left": bars, "gap": 0}), NONE
        while bar < bars and self.length < end:
            onset = self._choose_onset(bar_positions[bar], position)
            self._write_note(first + bar, onset, chord=onset == position)
            bar, position = self._next_place(bar, onset, bar_positions)

    # A place is a bar of the chunk and the position of the note before there, NONE where the note before has another.

    def _choose_onset(self, bar_positions: int, position: int) -> int:
        """Where in a bar of so many positions the next note begins, not before `position`."""
        up = position == NONE
        earliest = 0 if up else position + (not self._more_here())
        index = np.arange(SIZES["position"])
        told = self.after | {"up": int(up), "from": 0 if up else position}
        return self._choose("position", told, (index >= earliest) & (index < bar_positions))

    def _write_note(self, bar: int, onset: int, chord: bool) -> None:
        """One note, above the last one's key where both are of a chord: the canonical order."""
        open_to = self.playable[self.playable > self._last_key()] if chord else self.playable
        note = self.rows[self.length]
        note[BAR], note[POSITION] = bar, onset
        self.length += 1
        told = self._told(Surroundings.voices)
        note[PROGRAM], open_to = self._narrow("program", told, open_to, open_to // _PROGRAM_KEYS)
        told["program"] = int(note[PROGRAM])
        instances = open_to % _PROGRAM_KEYS // _INSTANCE_KEYS
        note[INSTANCE], open_to = self._narrow("instance", told, open_to, instances)
        offset = DRUM_PITCH_OFFSET if note[PROGRAM] == DRUM_PROGRAM else 0
        note[PITCH] = offset  # so that nobody takes a drum for a note
        told = self._told(Surroundings.notes)
        note[PITCH] = offset + self._narrow("pitch", told, open_to, open_to % _INSTANCE_KEYS - offset)[0]
        pitch = int(note[PITCH])
        told |= {"pitch": pitch, "drump": pitch if offset else 0}
        told["hit"] = 2 if told["lagp"] == NO_PITCH else int(told["lagp"] + told["ref"] == pitch)
        note[DURATION] = self._choose("duration", told)
        note[VELOCITY] = self._choose("velocity", told)
        late = np.arange(SIZES["micro"]) >= (MICRO_CENTER if onset == 0 else 0)  # no note begins before its bar
        note[MICRO] = self._choose("micro", told, late)
        self.after = self._told(Surroundings.after)

    def _next_place(self, bar: int, onset: int, bar_positions: np.ndarray) -> tuple[int, int]:
        """Where the next note may be: in this bar from this position on, in a later one, behind the last."""
        room = onset + 1 < bar_positions[bar] or self._more_here()
        if self._choose("stay", self.after, np.array([True, room])):
            return bar, onset
        left = len(bar_positions) - 1 - bar
        skipped = self._leap({"begin": 0, "left": left, "gap": self.after["gap"]}) if left else 0
        return bar + 1 + skipped, NONE

    def _leap(self, told: dict[str, int]) -> int:
        """How many of the bars left have no notes."""
        return self._choose("leap", told, np.arange(SIZES["leap"]) <= told["left"])

    def _more_here(self) -> bool:
        """May another note begin with the last one?"""
        return bool(self.playable[-1] > self._last_key())

    def _last_key(self) -> int:
        return int(_key(self.rows[self.length - 1]))

    def _told(self, columns: Callable[[Surroundings], Columns]) -> dict[str, int]:
        """The last row's columns."""
        rows = self.rows[max(0, self.length - LOOK_BACK_NOTES) : self.length]
        around = Surroundings(rows, np.zeros(len(rows), np.int64))
        return {name: int(column[-1]) for name, column in columns(around).items()}

    def _narrow(
        self, part: str, told: dict[str, int], open_to: np.ndarray, values: np.ndarray
    ) -> tuple[int, np.ndarray]:
        """Choose one of the values that the keys `open_to` have; returns it and the keys that have it."""
        mask = np.zeros(SIZES[part], bool)
        mask[values] = True
        value = self._choose(part, told, mask)
        return value, open_to[values == value]

    def _choose(self, part: str, told: dict[str, int], mask: np.ndarray | None = None) -> int:
        """One value, sampled among those that mask (size,) allows, and counted."""
        p, adaptive = self.distribution(part, told)
        drawn = p if self.temperature == 1 else (p / p.max()) ** (1 / self.temperature)
        cumulative = np.cumsum(drawn if mask is None else np.where(mask, drawn, 0))
        value = int(np.searchsorted(cumulative, self.rng.random() * cumulative[-1], side="right"))
        self.nats -= float(np.log(p[value]))
        for context, ref in adaptive:
            self._count(part, context, (value - ref) % SIZES[part])
        return value

    def distribution(self, part: str, told: dict[str, int]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Probability of each value, (size,), and context and reference of each adaptive context."""
        specs = [*enumerate(STATIC[part]), *(enumerate(ADAPTIVE[part]) if self.model.adaptive else ())]
        static = len(STATIC[part])
        contexts = [hashed(spec, told, number) for number, spec in specs]
        refs = [reference(part, spec, told) for _, spec in specs]
        kinds, values, counts = self._seen(part, contexts[:static], contexts[static:])
        owner = np.repeat(np.arange(len(specs)), kinds)
        seen = np.bincount(owner, counts, len(specs))
        uniform, *own = weights(self.model.trust[part], seen, kinds)
        share = own / np.maximum(seen, 1)  # of one count
        size = SIZES[part]
        possible = told["left"] + 1 if part == "leap" else size
        p = np.where(np.arange(size) < possible, uniform / possible, 0.0)
        p += np.bincount((values + np.array(refs)[owner]) % size, share[owner] * counts, size)
        return p, list(zip(contexts, refs, strict=True))[static:]

    def _seen(self, part: str, static: list[int], adaptive: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As Table.seen, in the static contexts and then the adaptive ones."""
        here = [self.counts[part].get(context, {}) for context in adaptive]
        own = (
            [len(seen) for seen in here],
            [value for seen in here for value in seen],
            [times for seen in here for times in seen.values()],
        )
        table = self.model.tables[part].seen(np.array(static, np.uint64))
        kinds, values, counts = (
            np.concatenate([known, np.array(more, np.int64)]) for known, more in zip(table, own, strict=True)
        )
        return kinds, values, counts


def _key(rows: np.ndarray) -> np.ndarray:
    return rows[..., PROGRAM] * _PROGRAM_KEYS + rows[..., INSTANCE] * _INSTANCE_KEYS + rows[..., PITCH]


def _playable(rows: np.ndarray) -> np.ndarray:
    """Sorted keys that the prompt's voices may play: their range and a bit more; only drums they have."""
    found = []
    for program, instance in np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0).tolist():
        played = np.unique(_key(rows[(rows[:, PROGRAM] == program) & (rows[:, INSTANCE] == instance)]))
        if program != DRUM_PROGRAM:
            lowest = program * _PROGRAM_KEYS + instance * _INSTANCE_KEYS
            highest = lowest + DRUM_PITCH_OFFSET - 1
            played = np.arange(max(lowest, played[0] - RANGE_MARGIN), min(highest, played[-1] + RANGE_MARGIN) + 1)
        found.append(played)
    return np.concatenate(found)
