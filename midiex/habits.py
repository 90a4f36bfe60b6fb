"""The song's own habits: what it did so far in like places, counted, for every decision the network takes.

A song repeats itself more than music in general does, and counting the song tells what a network of any training
foresees badly: this singer's usual next note, this drummer's velocity on the third sixteenth. Each field of a note is
looked at in a few contexts, from general to specific; how often the song was in a context, and what it did there, is
evidence that the network mixes with its own opinion (`Heads` in layers.py), as the pointer-sentinel mixture (Merity et
al., arXiv 1609.07843) and the continuous cache (Grave et al., arXiv 1612.04426) do with words. Knows rows; knows no
network.

Contexts are written as columns: r1, r2, r3 the notes before; v1 … v4 those of the same voice before; endings v voice,
p pitch, d duration, e velocity, m micro-offset. same: the note before has the same onset; m and k count the notes
before at this onset, of all and of the voice; vs: k > 0; i1, i2: the ways between the last onsets, in positions or, to
another bar, how many bars and where in the bar; a2, a3: pitches of v2, v3 counted from v1; up: the next note is in
another bar. With a + the value is counted from the column of FROM, which makes it an interval or a way ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from .grid import POSITIONS_PER_BEAT
from .occurrences import NONE, at, bucket_of, changes, latest_alike, run_start, so_far
from .tokens import (
    BAR,
    DRUM_PROGRAM,
    DURATION,
    FIELD_SIZES,
    HEAD_ORDER,
    INSTANCE,
    MAX_INSTANCES,
    MICRO,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
)

HABITS: dict[int, tuple[str, ...]] = {  # of BAR is counted only whether the next note is in the same one
    PROGRAM: ("", "same r1v", "same r1v pos", "same r1v r1p r2v r2p", "same r1v r1p r2v r2p r3v r3p pos"),
    INSTANCE: ("program same r1v", "program same r1v r1p r2v pos"),
    PITCH: ("voice", "voice vs v1p", "+voice a2 a3", "voice vs v1p r1v r1p r2v r2p", "voice vs pos v1p v2p r1v r1p",
            "voice vs v1p v2p v3p v4p"),
    DURATION: ("voice", "voice v1d vs pos", "voice pitch", "voice pitch v1p v1d vs", "voice pitch v1p v2p v1d v2d pos"),
    VELOCITY: ("voice", "voice v1e", "voice pitch pos", "voice pitch v1p v1e", "voice pitch v1e v2e v3e"),
    MICRO: ("drum beat", "voice pos", "same r1m voice beat", "voice pos pitch v1p same"),
    BAR: ("pos i1 i2 m", "pos voice pitch", "pos voice pitch r1v r1p", "pos voice pitch duration i1 i2"),
    POSITION: ("+up pos", "+up pos voice k", "+up pos voice pitch duration", "+up pos i1 i2 m",
               "+up i1 i2 voice pitch r1v r1p"),
}  # fmt: skip
CONTEXTS = sum(map(len, HABITS.values()))
FROM = {PITCH: "ref", POSITION: "from"}
LEVELS = 8  # of how right a context was: of its shares' running mean
STAYS = 1  # the symbol of a next note in the same bar

_RIGHT_DECAY = 0.9  # of that running mean, a decision
_NO_INTERVAL = 999
_MOST_OF_VOICE, _MOST_AT_ONSET, _MOST_BARS = 9, 15, 3  # more count as this
_POSITIONS = 128  # more than a bar has
_ENDINGS = {"p": PITCH, "d": DURATION, "e": VELOCITY, "m": MICRO}
SYMBOLS = 256  # the low byte of a pair holds the symbol, the rest the context

Told = dict[str, int]  # columns of one decision


def _first_contexts() -> dict[int, int]:
    first, found = 0, {}
    for name in HEAD_ORDER:
        found[name] = first
        first += len(HABITS[name])
    return found


FIRST_CONTEXT = _first_contexts()  # of each field, among all


def columns_of(spec: str) -> tuple[str, ...]:
    """Names of a context's columns."""
    return tuple(spec.removeprefix("+").split())


# ---- a song at once --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What the contexts tell of N decisions of every field, all contexts of HABITS in HEAD_ORDER."""

    share: np.ndarray  # (N, CONTEXTS) float32, of the times the song was in a context, those it did as it does now
    bucket: np.ndarray  # (N, CONTEXTS) int64 of how often that was (occurrences.bucket_of), 0: never
    level: np.ndarray  # (N, CONTEXTS) int64, below LEVELS, how right the context was of late


def habits(rows: np.ndarray) -> Evidence:
    """Evidence on each row of a song (n, 8), bars counted from the song's beginning, in the rows before it. Of BAR it
    is that on the decision behind the row, of all other fields on the row itself."""
    rows = rows.astype(np.int64)
    share, bucket = np.zeros((len(rows), CONTEXTS)), np.zeros((len(rows), CONTEXTS), np.int64)
    if len(rows) == 0:
        return Evidence(share.astype(np.float32), bucket, bucket)
    columns = _columns(rows)
    ahead = _columns_ahead(rows, columns)
    number = 0
    for name in HEAD_ORDER:
        told = ahead if name == POSITION else columns
        value = columns["stays"] if name == BAR else rows[:, name]
        for spec in HABITS[name]:
            reference = told[FROM[name]] if spec.startswith("+") else 0
            symbol = ((value - reference) % SYMBOLS).astype(np.uint64)
            seen, kinds, times = so_far(_hashed(spec, told), symbol)
            share[:, number] = times / np.maximum(seen, 1)
            bucket[:, number] = bucket_of(seen, kinds)
            number += 1
    right = np.zeros_like(share)
    for row in range(1, len(rows)):
        right[row] = _RIGHT_DECAY * right[row - 1] + (1 - _RIGHT_DECAY) * share[row - 1]
    return Evidence(share.astype(np.float32), bucket, _level(right))


def _level(right: np.ndarray) -> np.ndarray:
    return np.minimum((LEVELS * right).astype(np.int64), LEVELS - 1)


def _columns(rows: np.ndarray) -> dict[str, np.ndarray]:
    """What surrounds each row (n, 8) of a song; columns of the next note's position are told as of the row itself."""
    index = np.arange(len(rows))
    voice, pitch, position, bar = _voice(rows), rows[:, PITCH], rows[:, POSITION], rows[:, BAR]
    onset = bar * _POSITIONS + position
    rank = index - run_start(onset)
    of_voice = index - run_start(onset * FIELD_SIZES[PROGRAM] * MAX_INSTANCES + voice)
    drum = rows[:, PROGRAM] == DRUM_PROGRAM
    found = {
        "pos": position, "beat": position % POSITIONS_PER_BEAT, "program": rows[:, PROGRAM], "voice": voice,
        "pitch": pitch, "duration": rows[:, DURATION], "drum": drum, "same": rank > 0, "vs": of_voice > 0,
        "m": np.minimum(rank, _MOST_AT_ONSET), "k": np.minimum(of_voice, _MOST_OF_VOICE),
        "stays": np.append(bar[1:] == bar[:-1], False),
    }  # fmt: skip
    for j in (1, 2, 3):
        before = np.where(index >= j, index - j, NONE)
        found |= {f"r{j}v": at(voice, before), f"r{j}p": at(pitch, before), f"r{j}m": at(rows[:, MICRO], before)}
    previous = latest_alike(voice)
    found["ref"] = np.where(drum | (previous < 0), 0, at(pitch, previous))
    before = previous
    for j in (1, 2, 3, 4):
        found |= {f"v{j}{end}": at(rows[:, field], before) for end, field in _ENDINGS.items()}
        found[f"a{j}"] = np.where(before >= 0, pitch[before] - found["ref"], _NO_INTERVAL)
        before = at(previous, before)
    starts = changes(onset)
    first, group = np.flatnonzero(starts), np.cumsum(starts) - 1  # group: which onset is each row's
    bars = np.minimum(np.diff(bar[first]), _MOST_BARS)
    way = np.where(bars == 0, np.diff(position[first]), _POSITIONS * bars + position[first][1:])
    way = np.append(NONE, way)  # to each onset from the one before
    return {n: c.astype(np.int64) for n, c in (found | {"i1": way[group], "i2": np.append(NONE, way)[group]}).items()}


def _columns_ahead(rows: np.ndarray, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is known when each row's position is decided: the columns of the row before, and whether it is in another
    bar."""
    up = np.append(True, rows[1:, BAR] != rows[:-1, BAR])
    before = {name: np.append(NONE, column[:-1]) for name, column in columns.items()}
    return before | {"up": up.astype(np.int64), "from": np.where(up, 0, before["pos"])}


def _hashed(spec: str, columns: dict[str, np.ndarray]) -> np.ndarray:
    """The hash of each row's context, (n,) uint64, its low byte empty."""
    mixed = np.zeros(len(columns["pos"]), np.uint64)
    for name in columns_of(spec):
        mixed = (mixed ^ columns[name].view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(31)
    return mixed & ~np.uint64(SYMBOLS - 1)


def _voice(rows: np.ndarray) -> np.ndarray:
    return rows[..., PROGRAM] * MAX_INSTANCES + rows[..., INSTANCE]


# ---- note by note ----------------------------------------------------------------------------------------------------


Key = tuple[int, Any]  # number of a context, and what its columns are


def _readers() -> list[Callable[[Told], Any]]:
    """For each context a function from columns to what tells it from others of its number."""
    specs = [columns_of(spec) for name in HEAD_ORDER for spec in HABITS[name]]
    return [itemgetter(*columns) if columns else (lambda told: ()) for columns in specs]


READERS = _readers()
RELATIVE = {
    name: [FROM[name] if spec.startswith("+") else "" for spec in specs] for name, specs in HABITS.items()
}  # column from which each context's values are counted


class Habits:
    """The same note by note: counts of a sequence that grows, on top of those of another one that does not meanwhile.

    `coming` tells of a note at an onset, `of_voice` of its voice once that is chosen, `behind` of the onset after the
    latest note; with these columns `seen` gives the evidence for a field.
    """

    def __init__(self, before: Habits | None = None):
        self.before = before
        self.counts: dict[Key, dict[int, int]] = {}
        self.of_voices: dict[int, Told] = {}  # each voice's columns that its latest four notes decide
        self.latest: tuple[int, ...] = before.latest if before else ()  # the latest note
        self.notes_before: Told = before.notes_before if before else _NO_NOTES  # columns that the latest three decide
        self.at_onset: dict[int, int] = dict(before.at_onset) if before else {}  # notes of each voice at the latest
        self.ways: tuple[int, int] = before.ways if before else (NONE, NONE)  # to the latest onset, and to that before
        self.last: Told = before.last if before else {}  # columns of the latest note
        self.right: list[float] = before.right[:] if before else [0.0] * CONTEXTS  # running mean of each one's shares

    def coming(self, bar: int, position: int) -> Told:
        """Columns of a note at this onset, bars counted from the song's beginning."""
        same = self.latest[:2] == (bar, position)
        return {**self.notes_before, "pos": position, "beat": position % POSITIONS_PER_BEAT, "same": int(same)}

    def of_voice(self, program: int, instance: int, told: Told) -> Told:
        """Columns of a voice's note, `told` those of its onset."""
        voice, drum = program * MAX_INSTANCES + instance, program == DRUM_PROGRAM
        number = self.at_onset.get(voice, 0) if told["same"] else 0
        return {
            **told, **self._columns_of(voice),
            "program": program, "voice": voice, "drum": int(drum), "vs": int(number > 0),
        }  # fmt: skip

    def behind(self, bar: int | None = None) -> Told:
        """Columns of the decision on the next onset, empty at a song's beginning; with its bar that on its position."""
        if bar is None or not self.last:
            return self.last
        up = bar != self.latest[BAR]
        return self.last | {"up": int(up), "from": 0 if up else self.last["pos"]}

    def levels(self, name: int) -> np.ndarray:
        """How right each context of a field was of late, (contexts,)."""
        first = FIRST_CONTEXT[name]
        return _level(np.array(self.right[first : first + len(HABITS[name])]))

    def seen(self, name: int, told: Told) -> Iterator[tuple[dict[int, int], int]]:
        """For each context of a field the symbols counted in it, and what they are counted from."""
        first = FIRST_CONTEXT[name]
        for k, start in enumerate(RELATIVE[name]):
            key = (first + k, READERS[first + k](told))
            yield self.counted(key), told[start] if start else 0

    def hear(self, note: Sequence[int], count: bool = True, told: Told | None = None) -> None:
        """The next note (8), its bar counted from the song's beginning; not to be counted, it is only what comes
        before the next one. `told`: its columns, where they are already known."""
        row = tuple(int(value) for value in note)
        bar, position = row[BAR], row[POSITION]
        if count and self.latest:
            self._count(BAR, self.last, int(bar == self.latest[BAR]))
            self._count(POSITION, self.behind(bar), position)
        if not told:
            told = self.of_voice(row[PROGRAM], row[INSTANCE], self.coming(bar, position)) | {"pitch": row[PITCH]}
        for name in HEAD_ORDER[:-2] if count else ():
            self._count(name, told, row[name])
        voice = told["voice"]
        if not told["same"]:
            if self.latest:
                bars = min(bar - self.latest[BAR], _MOST_BARS)
                way = _POSITIONS * bars + position if bars else position - self.latest[POSITION]
                self.ways = way, self.ways[0]
            self.at_onset = {}
        number = self.at_onset.get(voice, 0)
        rank = sum(self.at_onset.values())
        self.at_onset[voice] = number + 1
        self.of_voices[voice] = _next_of_voice(self._columns_of(voice), row)
        before = self.notes_before
        self.notes_before = {
            "r1v": voice, "r1p": row[PITCH], "r1m": row[MICRO],
            "r2v": before["r1v"], "r2p": before["r1p"], "r3v": before["r2v"], "r3p": before["r2p"],
        }  # fmt: skip
        self.latest = row
        self.last = told | {
            "k": min(number, _MOST_OF_VOICE), "m": min(rank, _MOST_AT_ONSET), "duration": row[DURATION],
            "i1": self.ways[0], "i2": self.ways[1],
        }  # fmt: skip

    def add(self, other: Habits) -> None:
        """Count what another sequence counted by itself, too."""
        for key, symbols in other.counts.items():
            seen = self.counts.setdefault(key, {})
            for symbol, times in symbols.items():
                seen[symbol] = seen.get(symbol, 0) + times

    def _count(self, name: int, told: Told, value: int) -> None:
        first = FIRST_CONTEXT[name]
        for k, start in enumerate(RELATIVE[name]):
            key = (first + k, READERS[first + k](told))
            symbol = (value - told[start]) % SYMBOLS if start else value
            known = self.counted(key)
            share = known.get(symbol, 0) / sum(known.values()) if known else 0.0
            self.right[first + k] = _RIGHT_DECAY * self.right[first + k] + (1 - _RIGHT_DECAY) * share
            seen = self.counts.setdefault(key, {})
            seen[symbol] = seen.get(symbol, 0) + 1

    def counted(self, key: Key) -> dict[int, int]:
        """How often each symbol followed in a context."""
        own = self.counts.get(key)
        before = self.before.counted(key) if self.before else None
        if not own or not before:
            return own or before or {}
        both = dict(before)
        for symbol, times in own.items():
            both[symbol] = both.get(symbol, 0) + times
        return both

    def _columns_of(self, voice: int) -> Told:
        found = self.of_voices.get(voice)
        if found is None:
            return self.before._columns_of(voice) if self.before else _NO_NOTES_OF_VOICE
        return found


_NO_NOTES: Told = dict.fromkeys(("r1v", "r1p", "r1m", "r2v", "r2p", "r3v", "r3p"), NONE)
_NO_NOTES_OF_VOICE: Told = {
    **{f"v{j}{ending}": NONE for j in (1, 2, 3, 4) for ending in "pde"},
    "a2": _NO_INTERVAL, "a3": _NO_INTERVAL, "ref": 0,
}  # fmt: skip


def _next_of_voice(before: Told, row: tuple[int, ...]) -> Told:
    """A voice's columns after one more note (8)."""
    reference = 0 if row[PROGRAM] == DRUM_PROGRAM else row[PITCH]
    second, third = before["v1p"], before["v2p"]
    return {
        "v1p": row[PITCH], "v1d": row[DURATION], "v1e": row[VELOCITY],
        "v2p": second, "v2d": before["v1d"], "v2e": before["v1e"],
        "v3p": third, "v3d": before["v2d"], "v3e": before["v2e"],
        "v4p": before["v3p"], "v4d": before["v3d"], "v4e": before["v3e"],
        "a2": _NO_INTERVAL if second < 0 else second - reference,
        "a3": _NO_INTERVAL if third < 0 else third - reference,
        "ref": reference,
    }  # fmt: skip
