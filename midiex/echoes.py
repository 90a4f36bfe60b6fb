"""Earlier notes that a note to come may echo: what stood at this place of the bar, what followed the same notes before.

Music repeats itself with changes, and counting shows how much that tells: an n-gram that may look at the song so far
foresees a note better by a quarter than one that may not. A network learns to find such places by attention, but only
after a long time; here they are found for it, and it learns what to do with them. Knows rows; knows no network.

A note's echoes are ECHOES rows of small integers. Each of the POINTERS gives two of them: the earlier note that
corresponds to the one to be written, and the note after it, which corresponds to the one after that. `bar` is counted
so that it does not matter where they lie: how many bars back the first is, and how many bars after it the second. What
is missing is NOTHING in every field.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from .occurrences import NONE, latest_alike
from .tokens import BAR, FIELD_SIZES, INSTANCE, MAX_INSTANCES, PITCH, POSITION, PROGRAM

POINTERS = 4  # same place; after the same note; after the same three notes; after the same two of one voice, anywhere
ECHOES = 2 * POINTERS + 2  # the last two are those of an aligned source (aligned.py)
MOST_BARS = 32  # back, or on: more counts as this
LISTENER_NOTES = 8192  # of new music, a quarter of an hour of a band: an endless piece is not remembered endlessly
ECHO_SIZES = (MOST_BARS + 1, *FIELD_SIZES[1:])  # of each field, without NOTHING
NOTHING = np.array(ECHO_SIZES)  # (8,)
NO_SOURCE = [ECHO_SIZES] * 2  # what stands for the echoes of an aligned source where there is none
_WHAT = slice(PROGRAM, PITCH + 1)  # program, instance, pitch
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def echoes(rows: np.ndarray) -> np.ndarray:
    """Echoes (n, ECHOES, 8) of each row of a song (n, 8), bars counted from the song's beginning, among those before.

    They depend only on earlier notes and on the note's own onset, which is known before the note is. Those of an
    aligned source are NOTHING.
    """
    rows = rows.astype(np.int64)
    found = np.tile(NOTHING, (len(rows), ECHOES, 1))
    if len(rows) == 0:
        return found
    bar = rows[:, BAR]
    index = np.arange(len(rows))
    for number, key in enumerate(_keys(rows)):
        back = np.where(key >= 0, latest_alike(key), NONE)
        known = back >= 0
        echo = rows[back.clip(0)]
        echo[:, BAR] = np.clip(bar - echo[:, BAR], 0, MOST_BARS)
        found[known, 2 * number] = echo[known]
        after = back + 1
        known &= after < index  # what comes after must have been written
        echo = rows[after.clip(0)]
        echo[:, BAR] = np.clip(echo[:, BAR] - bar[back.clip(0)], 0, MOST_BARS)
        found[known, 2 * number + 1] = echo[known]
    return found


class Listener:
    """The same note by note: a sequence of notes that grows, after those of another one that does not meanwhile."""

    def __init__(self, before: Listener | None = None):
        self.before = before
        self.notes = array("i")  # eight numbers each
        self.first = len(before) if before else 0  # notes of `before`
        self.latest: tuple[dict[int, int], ...] = tuple({} for _ in range(POINTERS))  # where each key last led
        self.tail: list[tuple[int, ...]] = before.tail[:] if before else []  # the last three notes
        self.way: int = before.way if before else 0  # to the last note from the one before
        self.rank: int = before.rank if before else 0  # of the last note among those at its onset
        self.alike: list[int | None] = before.alike[:] if before else [None] * (POINTERS - 1)  # see `_remember`
        self.asked: tuple[int, int] | None = None  # the onset that was last asked about, before any other note came
        self.keys: list[int | None] = []  # of it

    def __len__(self) -> int:
        return self.first + len(self.notes) // len(FIELD_SIZES)

    def followed(self, first: Listener) -> Listener:
        """One that goes on from here, once this one has heard LISTENER_NOTES: beside it what `first`, from which both
        come, has heard is kept, and what was heard between them is forgotten. Till then this one itself."""
        if self is not first:
            if len(self.notes) < LISTENER_NOTES * len(FIELD_SIZES):
                return self
            self.before = first
        return Listener(self)

    def expect(self, bar: int, position: int) -> list[tuple[int, ...]]:
        """Echoes (2 * POINTERS) of a note at this onset that may come next."""
        found: list[tuple[int, ...]] = []
        for number, key in enumerate(self._keys(bar, position)):
            back = -1 if key is None else self._find(number, key)
            if back < 0:
                found += (ECHO_SIZES, ECHO_SIZES)
                continue
            echo = self._note(back)
            found.append((min(max(bar - echo[BAR], 0), MOST_BARS), *echo[1:]))
            after = self._note(back + 1)
            on = min(max(after[BAR] - echo[BAR], 0), MOST_BARS) if after else 0
            found.append((on, *after[1:]) if after else ECHO_SIZES)
        return found

    def hear(self, note: Sequence[int]) -> None:
        """The next note (8), its bar counted from the song's beginning."""
        row = tuple(map(int, note))
        bar, position = row[BAR], row[POSITION]
        here = len(self)
        for latest, key in zip(self.latest, self._keys(bar, position), strict=True):
            if key is not None:
                latest[key] = here
        same = bool(self.tail) and self.tail[-1][:2] == row[:2]
        self.rank = self.rank + 1 if same else 0
        self.way = self._way(bar, position)
        self.notes.extend(row)
        self.tail = [*self.tail[-2:], row]
        self.asked = None
        self._remember()

    def _remember(self) -> None:
        """What the next note's keys have of the last notes: of the last one, of the last three, of the last two.

        A key is the hash of its parts: an hour has forty thousand notes, and a tuple takes ten times the room."""
        tail = self.tail
        *_, last = tail
        one = hash((*last[_WHAT], last[POSITION]))
        two = hash((*last[_WHAT], *tail[-2][_WHAT], self.way)) if len(tail) > 1 else None
        three = hash(tuple(v for t in tail for v in (*t[_WHAT], t[POSITION]))) if len(tail) > 2 else None
        self.alike = [one, three, two]

    def _keys(self, bar: int, position: int) -> list[int | None]:
        """What `_keys` gives for a note at this onset, each as one number."""
        if self.asked != (bar, position):
            tail = self.tail
            rank = self.rank + 1 if tail and tail[-1][:2] == (bar, position) else 0
            self.asked, self.keys = (bar, position), [position * 512 + min(rank, 511), None, None, None]
            if tail:
                step = min(max(bar - tail[-1][BAR], 0), 3) * 128 + position
                ways = (step, step, self._way(bar, position))
                self.keys[1:] = [
                    None if alike is None else hash((alike, way)) for alike, way in zip(self.alike, ways, strict=True)
                ]
        return self.keys

    def _way(self, bar: int, position: int) -> int:
        before = self.tail[-1] if self.tail else (0, 0)
        return min(max((bar - before[0]) * 96 + position - before[1], 0), 2047)

    def _find(self, number: int, key: int) -> int:
        found = self.latest[number].get(key)
        if found is not None:
            return found
        return self.before._find(number, key) if self.before else -1

    def _note(self, index: int) -> tuple[int, ...]:
        if index < self.first and self.before:
            return self.before._note(index)
        at = (index - self.first) * len(FIELD_SIZES)
        return tuple(self.notes[at : at + len(FIELD_SIZES)])  # empty: not yet heard, or forgotten


def _keys(rows: np.ndarray) -> Iterator[np.ndarray]:
    """What must agree with an earlier note for it to be an echo, one array (n,) a pointer; negative: nothing may."""
    n = len(rows)
    onset = rows[:, BAR] * 128 + rows[:, POSITION]
    starts = np.append(True, onset[1:] != onset[:-1])
    rank = np.arange(n) - np.maximum.accumulate(np.where(starts, np.arange(n), 0))
    note = _note(rows)
    step = _step(np.diff(rows[:, BAR], prepend=rows[:1, BAR]), rows[:, POSITION])
    voice_pitch = note // 128
    moved = np.diff(onset // 128 * 96 + onset % 128, prepend=0).clip(0, 2047)  # since the note before
    yield rows[:, POSITION] * 512 + np.minimum(rank, 511)
    yield _mixed(1, [_before(note, 1), step])
    yield _mixed(3, [_before(note, 1), _before(note, 2), _before(note, 3), step])
    yield _mixed(2, [_before(voice_pitch, 1), _before(voice_pitch, 2), _before(moved, 1), moved])


def _note(rows: np.ndarray) -> np.ndarray:
    voice = rows[:, PROGRAM] * MAX_INSTANCES + rows[:, INSTANCE]
    return (voice * FIELD_SIZES[PITCH] + rows[:, PITCH]) * 128 + rows[:, POSITION]


def _step(bars_on: np.ndarray, position: np.ndarray) -> np.ndarray:
    """How a note is reached: its position, and whether it lies in the same bar, in the next or further on."""
    return np.clip(bars_on, 0, 3) * 128 + position


def _before(values: np.ndarray, k: int) -> np.ndarray:
    """Each note's predecessor's value, k notes before."""
    return np.concatenate([np.zeros(min(k, len(values)), np.int64), values[:-k]])


def _mixed(fewest: int, values: list[np.ndarray]) -> np.ndarray:
    """Values (n,) as one hash each, below 2^63; -1 for the first `fewest` notes, before which too little stands."""
    mixed = np.zeros(len(values[0]), np.uint64)
    for value in values:
        mixed = (mixed ^ (value.astype(np.uint64) + np.uint64(1))) * _FACTOR
        mixed ^= mixed >> np.uint64(29)
    key = (mixed >> np.uint64(1)).astype(np.int64)
    key[:fewest] = -1
    return key
