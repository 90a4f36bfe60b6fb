"""The aligned source: earlier bars that a chunk goes back to, known at every step by what stands there at that place.

A return must be decided once for a phrase and then be kept to; contexts of what was just written lose it with the first
other note. So the note of the source that comes next is found by its place alone: bar in the chunk, position, voice,
pitch. It is an echo, and one more opinion of every field in the mixture (`Heads` in layers.py), as a pointer is in a
pointer-generator network (See et al., arXiv 1704.04368). How much it is trusted depends on how like its source the
chunk is told to be, by the role of the voice in question. Knows rows; knows no network.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import metrics
from .echoes import MOST_BARS, NOTHING
from .habits import STAYS
from .roles import ROLES, Roles, roles_of
from .tokens import (
    BAR,
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
    row_key,
)

UNTOLD = 0  # the bin of a likeness that is not told
LIKENESS_EDGES = (0.1, 0.3, 0.5, 0.7, 0.85, 0.97)
LIKENESS_BINS = len(LIKENESS_EDGES) + 2
OVERALL = 0  # the first likeness told; those of the roles follow in the order of ROLES
LIKENESSES = 1 + len(ROLES)
NO_VALUE = -1
_STATES = 2  # whether the last note was the source's, or whether this one is so far
_KEY_PITCH, _KEY_VOICE = FIELD_SIZES[PITCH], FIELD_SIZES[PITCH] * MAX_INSTANCES * 256
_KEY_PROGRAM = FIELD_SIZES[PITCH] * MAX_INSTANCES
_TELLS_LENGTH = (DURATION, VELOCITY, MICRO)


def likeness_bin(likeness: float) -> int:
    """1 (next to nothing in common) to LIKENESS_BINS - 1 (note for note)."""
    return 1 + bisect_right(LIKENESS_EDGES, likeness)


def likeness(rows: np.ndarray, source: np.ndarray) -> float:
    """The share of notes that a chunk's rows (n, 8) and its source's (m, 8), bars counted from the first of each, have
    in common: equal in bar, position, voice and pitch (Jaccard, 0 to 1); 0 where either has none."""
    return metrics.likeness(row_key(rows), row_key(source))


def likenesses(rows: np.ndarray, source: np.ndarray, roles: Roles) -> np.ndarray:
    """How alike a chunk's rows (n, 8) and its source's (m, 8) are, overall and by role: (LIKENESSES,) as of
    `likeness`; NaN of nothing, as for a role that neither has."""
    key, other = row_key(rows), row_key(source)
    of_role = np.concatenate([roles_of(rows, roles), roles_of(source, roles)])
    everything, counts = np.unique(np.concatenate([key, other]), return_counts=True)
    shared = everything[counts > 1]
    found = np.full(LIKENESSES, np.nan)
    if len(everything):
        found[OVERALL] = len(shared) / len(everything)
    both = np.concatenate([key, other])
    for role in range(len(ROLES)):
        mine = np.unique(both[of_role == role])
        if len(mine):
            found[1 + role] = np.isin(mine, shared).mean()
    return found


def likeness_conditions(likeness: np.ndarray) -> np.ndarray:
    """The bins of `likenesses`, (LIKENESSES,) int64."""
    return np.array([UNTOLD if np.isnan(v) else likeness_bin(float(v)) for v in likeness], np.int64)


def told_bins(source: np.ndarray, told: np.ndarray, roles: Roles) -> np.ndarray:
    """Of each row of a source (m, 8) the likeness that is told of its role, or else overall: bins (m,)."""
    of_role = told[1 + roles_of(source, roles)]
    return np.where(of_role == UNTOLD, told[OVERALL], of_role)


def bucket_of(told: np.ndarray | int, kept: np.ndarray | bool) -> np.ndarray | int:
    """The bucket of trust for a likeness bin and whether the source was kept to; 0 is left to "nothing known"."""
    return 1 + told * _STATES + kept


# ---- a chunk at once -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What a source says of the N + 1 decisions of a chunk's steps, by field in HEAD_ORDER."""

    share: np.ndarray  # (N + 1, 8) float32, 1 where the source has what the chunk has
    bucket: np.ndarray  # (N + 1, 8) int64, 0: it says nothing
    echoes: np.ndarray  # (N + 1, 2, 8) int64, its next note at every step, and the one after that


def evidence(rows: np.ndarray, source: np.ndarray, bins: np.ndarray, overall: int) -> Evidence:
    """What a source's rows (m, 8) say of a chunk's (n, 8), both sorted and counted in bars from their first. `bins`
    (m,) are as of `told_bins`, `overall` is the bin told of all."""
    n, m = len(rows), len(source)
    share, bucket = np.zeros((n + 1, 8), np.float32), np.zeros((n + 1, 8), np.int64)
    echoes = np.tile(NOTHING, (n + 1, 2, 1))
    if not n or not m:
        return Evidence(share, bucket, echoes)
    rows, there = rows.astype(np.int64), np.concatenate([source.astype(np.int64), [[99] * 8]])
    key, keys = row_key(rows), row_key(source)
    bins = np.append(bins, overall)
    onset = key - key % _KEY_VOICE
    of_source = np.isin(key, keys)
    followed = np.append(True, of_source[:-1])
    lowest = np.maximum(onset, np.append(-1, key[:-1]) + 1)

    def say(name: int, step: slice, at: np.ndarray, known: np.ndarray, value: np.ndarray, kept: np.ndarray) -> None:
        head = HEAD_ORDER.index(name)
        share[step, head] = known & (there[at, name] == value)
        bucket[step, head] = np.where(known, bucket_of(bins[at], kept), 0)

    note = slice(1, None)
    upto = {PROGRAM: onset, INSTANCE: onset + rows[:, PROGRAM] * _KEY_PROGRAM}
    upto[PITCH] = upto[INSTANCE] + rows[:, INSTANCE] * _KEY_PITCH
    there_onset, here = (of[:, BAR] * 128 + of[:, POSITION] for of in (there, rows))
    for name in (PROGRAM, INSTANCE, PITCH):
        at = np.searchsorted(keys, np.maximum(lowest, upto[name]))
        known = there_onset[at] == here
        if name != PROGRAM:
            known &= there[at, PROGRAM] == rows[:, PROGRAM]
        if name == PITCH:
            known &= there[at, INSTANCE] == rows[:, INSTANCE]
        say(name, note, at, known, rows[:, name], followed)
    at = np.where(of_source, np.searchsorted(keys, key), at)
    for name in _TELLS_LENGTH:
        say(name, note, at, known | of_source, rows[:, name], of_source)
    _say_onsets(rows, key, keys, there, bins, of_source, share, bucket)
    first = np.searchsorted(keys, lowest)
    for k in (0, 1):
        has = first + k < m
        echo = there[np.minimum(first + k, m)].copy()
        echo[:, BAR] = np.clip(echo[:, BAR] - rows[:, BAR], 0, MOST_BARS)
        echoes[1:, k][has] = echo[has]
    return Evidence(share, bucket, echoes)


def _say_onsets(
    rows: np.ndarray, key: np.ndarray, keys: np.ndarray, there: np.ndarray, bins: np.ndarray, of_source: np.ndarray,
    share: np.ndarray, bucket: np.ndarray,
) -> None:  # fmt: skip
    """What the source says of where each next note lies: whether in the same bar, and where in the bar it is in."""
    bar_head, position_head = HEAD_ORDER.index(BAR), HEAD_ORDER.index(POSITION)
    at = np.searchsorted(keys, key, side="right")
    stays = np.append(rows[1:, BAR] == rows[:-1, BAR], False)
    share[1:, bar_head] = (there[at, BAR] == rows[:, BAR]) == stays
    bucket[1:, bar_head] = bucket_of(bins[at], of_source)
    after = np.append(-1, key[:-1])  # each note and the one before it
    at = np.searchsorted(keys, np.maximum(after + 1, rows[:, BAR] * 128 * _KEY_VOICE))
    known = there[at, BAR] == rows[:, BAR]
    share[:-1, position_head] = known & (there[at, POSITION] == rows[:, POSITION])
    bucket[:-1, position_head] = np.where(known, bucket_of(bins[at], np.append(True, of_source[:-1])), 0)


# ---- note by note ----------------------------------------------------------------------------------------------------


Says = tuple[int, int]  # a value, and the bucket of how much to trust it; NO_VALUE and 0: nothing
NOTHING_SAID: Says = (NO_VALUE, 0)


class AlignedSource:
    """A source to be followed by several candidates."""

    def __init__(self, rows: np.ndarray, bins: np.ndarray, overall: int):
        """`rows` (m, 8), sorted; `bins` and `overall` as of `evidence`."""
        self.rows = [tuple(row) for row in rows.tolist()]
        self.keys: list[int] = row_key(rows).tolist()
        self.known = set(self.keys)
        self.bins = [*bins.tolist(), overall]

    def follow(self) -> Follower:
        """Its follower for one candidate, at the chunk's beginning."""
        return Follower(self)


class Follower:
    """Where one candidate stands in the source. `note` (8) are a note's fields as far as they are chosen."""

    def __init__(self, source: AlignedSource):
        self.source, self.last, self.kept = source, -1, True

    def says(self, name: int, note: Sequence[int]) -> Says:
        """Of a field but BAR and POSITION: what the source has there."""
        source, onset = self.source, (note[BAR] * 128 + note[POSITION]) * _KEY_VOICE
        low = max(onset, self.last + 1)
        chosen = 0 if name == PROGRAM else 1 if name == INSTANCE else 2  # of program and instance
        voice = onset + (chosen > 0) * note[PROGRAM] * _KEY_PROGRAM + (chosen > 1) * note[INSTANCE] * _KEY_PITCH
        if name in _TELLS_LENGTH and voice + note[PITCH] in source.known:
            return self._told(bisect_left(source.keys, voice + note[PITCH]), name, True)
        at = bisect_left(source.keys, max(low, voice))
        if at == len(source.rows):
            return NOTHING_SAID
        row = source.rows[at]
        same_voice = row[PROGRAM : PROGRAM + chosen] == tuple(note[PROGRAM : PROGRAM + chosen])
        if row[:2] != (note[BAR], note[POSITION]) or not same_voice:
            return NOTHING_SAID
        return self._told(at, name, self.kept and name not in _TELLS_LENGTH)

    def stays(self, bar: int) -> Says:
        """Whether (STAYS) the next note lies in the last one's bar; nothing before there is one."""
        if self.last < 0:
            return NOTHING_SAID
        at = bisect_right(self.source.keys, self.last)
        same = at < len(self.source.rows) and self.source.rows[at][BAR] == bar
        return (STAYS if same else 1 - STAYS), int(bucket_of(self.source.bins[at], self.kept))

    def position(self, bar: int) -> Says:
        """Where in `bar` the next note lies."""
        at = bisect_left(self.source.keys, max(self.last + 1, bar * 128 * _KEY_VOICE))
        if at == len(self.source.rows) or self.source.rows[at][BAR] != bar:
            return NOTHING_SAID
        return self._told(at, POSITION, self.kept)

    def expect(self, bar: int, position: int) -> list[tuple[int, ...]]:
        """The source's next note from this onset on, and the one after it, as echoes."""
        at = bisect_left(self.source.keys, max((bar * 128 + position) * _KEY_VOICE, self.last + 1))
        found = []
        for row in self.source.rows[at : at + 2]:
            found.append((min(max(row[BAR] - bar, 0), MOST_BARS), *row[1:]))
        return found + [tuple(NOTHING.tolist())] * (2 - len(found))

    def hear(self, note: Sequence[int]) -> None:
        """A note (8) is written, its bar counted from the chunk's first."""
        voice = note[PROGRAM] * _KEY_PROGRAM + note[INSTANCE] * _KEY_PITCH
        self.last = (note[BAR] * 128 + note[POSITION]) * _KEY_VOICE + voice + note[PITCH]
        self.kept = self.last in self.source.known

    def _told(self, at: int, name: int, kept: bool) -> Says:
        return self.source.rows[at][name], int(bucket_of(self.source.bins[at], kept))
