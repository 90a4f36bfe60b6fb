"""Cuts a song into phrases on its own grid, and finds the earlier bars a phrase goes back to.

A phrase is 8, 4 or 2 bars, whichever lies nearest ten seconds. Knows rows and bars; knows no sections, no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import metrics
from .chunks import TARGET_S
from .roles import DRUMS, ROLES
from .tokens import (
    BAR,
    DURATION,
    DURATIONS,
    INSTANCE,
    MAX_CHUNK_BARS,
    MICRO_PER_BEAT,
    MICROS_PER_POSITION,
    PITCH,
    POSITION,
    PROGRAM,
)

MOST_BARS = 1500  # of a song that are compared with each other: more than half an hour of most music
_USUAL_BARS = (1, 2, 4, 8, 16)
_ODD_LENGTH, _HALF_LENGTH, _ODD_FIRST = 1.0, 0.6, 0.25  # what a phrase of such a length costs, in strengths of a border
_LEAST_CHANGE, _LEAST_RISE = 0.3, 0.1  # of texture and of likeness, at what can be a border
_ON_GRID, _GOES_ON = 0.04, 0.06  # likeness that a source may lack for beginning at a likely place


@dataclass(frozen=True)
class Phrase:
    """Bars [first_bar, first_bar + bars) of a song, counted from 0."""

    first_bar: int
    bars: int

    @property
    def end(self) -> int:
        return self.first_bar + self.bars


@dataclass(frozen=True)
class Source:
    """Where a phrase stood before: its first bar there, and the share of notes in common, in all and by role (an entry
    is nan where neither has a note of the role)."""

    bar: int
    likeness: float
    of_role: np.ndarray  # (4,)
    harmony: float


# ---- likeness -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BarMatches:
    """How much any two bars of a song have in common; from this, any two spans of bars."""

    shared: np.ndarray  # (4 roles, bars, bars) float32: notes in common
    counts: np.ndarray  # (4, bars) notes of each bar
    chords: np.ndarray  # (bars, bars) float32: correlation of pitch class profiles, half bar by half bar
    units: np.ndarray  # (bars,) length of each bar in 1/96 beat

    @classmethod
    def of(cls, rows: np.ndarray, role: np.ndarray, units: np.ndarray) -> BarMatches:
        """Of a song's rows (n, 8), the role of each (n,), and its bars' lengths (bars,)."""
        bars = len(units)
        r = rows.astype(np.int64)
        note = ((r[:, POSITION] * 256 + r[:, PROGRAM]) * 256 + r[:, INSTANCE]) * 256 + r[:, PITCH]
        shared = np.zeros((len(ROLES), bars, bars), np.float32)
        counts = np.zeros((len(ROLES), bars), np.float32)
        for number in range(len(ROLES)):
            own = role == number
            shared[number] = metrics.in_common(note[own], r[own, BAR], bars)
            counts[number] = np.diagonal(shared[number])
        return cls(shared, counts, _harmonies(rows, role, units), np.asarray(units))

    def earlier(self, phrase: Phrase, most: int | None = None) -> tuple[np.ndarray, ...]:
        """Likeness to the `phrase` of each span of as many bars that ends at or before bar `most` (default: its first):
        overall (starts,), by role (4, starts), of the harmony (starts,); -1 where bars differ in length."""
        first, bars = phrase.first_bar, phrase.bars
        starts = max(0, (first if most is None else most) - bars + 1)
        shared = np.zeros((len(ROLES), starts), np.float32)
        total = np.zeros((len(ROLES), starts), np.float32)
        harmony = np.zeros(starts, np.float32)
        fits = np.ones(starts, bool)
        for k in range(bars):
            shared += self.shared[:, first + k, k : k + starts]
            total += self.counts[:, k : k + starts]
            harmony += self.chords[first + k, k : k + starts]
            fits &= self.units[k : k + starts] == self.units[first + k]
        total += self.counts[:, first : first + bars].sum(1, keepdims=True) - shared
        overall = shared.sum(0) / np.maximum(total.sum(0), 1)
        by_role = np.where(total > 0, shared / np.maximum(total, 1), np.nan)
        return np.where(fits, overall, -1), by_role, np.where(fits, harmony / bars, -1)

    def best_source(
        self, phrase: Phrase, preferred: frozenset[int] = frozenset(), goes_on: int | None = None
    ) -> Source | None:
        """The likest earlier span; one that begins at a `preferred` bar, or at `goes_on`, where the last phrase's
        source left off, wins over one that is hardly liker. None: none fits."""
        overall, by_role, harmony = self.earlier(phrase)
        if not len(overall) or overall.max() < 0:
            return None
        worth = overall + 0.1 * harmony.clip(0)
        worth[[bar for bar in preferred if bar < len(worth)]] += _ON_GRID
        if goes_on is not None and goes_on < len(worth):
            worth[goes_on] += _GOES_ON
        bar = int(np.where(overall < 0, -9, worth).argmax())
        return Source(bar, float(overall[bar]), by_role[:, bar], float(harmony[bar]))

    def likeness(self) -> np.ndarray:
        """Share of notes that any two bars have in common, (bars, bars)."""
        shared, counts = self.shared.sum(0), self.counts.sum(0)
        return shared / np.maximum(counts[:, None] + counts[None, :] - shared, 1)


def _harmonies(rows: np.ndarray, role: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Correlation of any two bars' pitch class profiles (bars, bars), 0 for a bar without tuned notes: what the song
    has everywhere is taken away, so that being in the same key is no likeness."""
    bars = len(units)
    profile = np.zeros((bars, 2, 12))
    tuned = rows[role != DRUMS]
    if len(tuned):
        half = (2 * MICROS_PER_POSITION * tuned[:, POSITION] >= np.asarray(units)[tuned[:, BAR]]).astype(np.int64)
        weight = np.sqrt(DURATIONS[tuned[:, DURATION]])
        np.add.at(profile, (tuned[:, BAR], half, tuned[:, PITCH] % 12), weight)
    profile /= np.maximum(np.linalg.norm(profile, axis=2, keepdims=True), 1e-9)
    sounding = profile.any((1, 2))
    centred = (profile - profile[sounding].mean(0) if sounding.any() else profile).reshape(bars, 24)
    centred[~sounding] = 0
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    return (centred @ centred.T).astype(np.float32)


# ---- the grid of phrases --------------------------------------------------------------------------------------------


def phrase_bars(bar_s: np.ndarray) -> int:
    """Bars of a phrase: of 1, 2, 4, 8 and 16 what comes nearest ten seconds. `bar_s` (bars,) in seconds."""
    usual_s = float(np.median(bar_s)) if len(bar_s) else TARGET_S / 4
    return min(_USUAL_BARS, key=lambda bars: abs(np.log(max(bars * usual_s, 1e-3) / TARGET_S)))


def cut_phrases(matches: BarMatches, rows: np.ndarray, bar_s: np.ndarray) -> list[Phrase]:
    """A song's phrases, one after another, on its own grid: borders lie where music begins that stood elsewhere
    before, or where the texture changes, as far as phrases keep their usual length; found by dynamic programming."""
    bars = len(bar_s)
    if not bars:
        return []
    usual = phrase_bars(bar_s)
    strength = border_strength(matches, rows, usual)
    most = min(MAX_CHUNK_BARS, max(usual, 2 * usual - 1))
    costs = np.array([_length_cost(length, usual) for length in range(most + 1)])
    best, back = np.full(bars + 1, -np.inf), np.zeros(bars + 1, np.int64)
    best[0] = 0
    for end in range(1, bars + 1):
        lengths = np.arange(1, min(most, end) + 1)
        cost = costs[lengths]
        if end == bars:  # the last phrase may have been cut off
            cost = np.where(lengths <= usual, 0.0, cost)
        if end <= most:  # a first phrase may be a pickup, or an introduction of any length
            cost[-1] = min(cost[-1], _ODD_FIRST)
        worth = best[end - lengths] - cost
        back[end] = lengths[worth.argmax()]
        best[end] = worth.max() + (strength[end] if end < bars else 0)
    borders = [bars]
    while borders[0] > 0:
        borders.insert(0, borders[0] - int(back[borders[0]]))
    return [Phrase(first, last - first) for first, last in zip(borders[:-1], borders[1:], strict=True)]


def _length_cost(length: int, usual: int) -> float:
    if length == usual:
        return 0.0
    return _HALF_LENGTH if 2 * length in (usual, 3 * usual) else _ODD_LENGTH


def border_strength(matches: BarMatches, rows: np.ndarray, usual: int) -> np.ndarray:
    """How much speaks for a border before each bar, shape (bars,), 0 on average: change of texture and the beginning
    of what comes back, over half a phrase to both sides."""
    bars, half = len(matches.units), max(1, usual // 2)
    texture = _texture(matches, rows)
    sums = np.concatenate([np.zeros((1, texture.shape[1])), np.cumsum(texture, 0)])
    here = np.arange(bars)
    before, after = (here - half).clip(0), (here + half).clip(max=bars)
    left = (sums[here] - sums[before]) / np.maximum(here - before, 1)[:, None]
    right = (sums[after] - sums[here]) / np.maximum(after - here, 1)[:, None]
    change = np.abs(right - left).sum(1)
    meter = np.append(False, matches.units[1:] != matches.units[:-1])
    strength = _scaled(change, _LEAST_CHANGE) + _scaled(_beginnings(matches.likeness(), half), _LEAST_RISE) + meter
    strength[0] = 0
    return (strength - strength[1:].mean()) / 2 if bars > 1 else strength


def _texture(matches: BarMatches, rows: np.ndarray) -> np.ndarray:
    """What plays in each bar, (bars, features): each voice or not, and each role's notes."""
    voice = rows[:, PROGRAM].astype(np.int64) * 256 + rows[:, INSTANCE]
    names, number = np.unique(voice, return_inverse=True)
    plays = np.zeros((len(matches.units), len(names)))
    plays[rows[:, BAR], number] = 1 / max(1, len(names)) ** 0.5
    return np.concatenate([plays, 0.5 * np.log1p(matches.counts.T)], 1)


def _beginnings(likeness: np.ndarray, half: int) -> np.ndarray:
    """For each bar how much more the bars from it on are like some other stretch than those before it, (bars,)."""
    bars = len(likeness)
    after, before = np.zeros((bars, bars), np.float32), np.zeros((bars, bars), np.float32)
    for k in range(min(half, bars)):
        after[: bars - k, : bars - k] += likeness[k:, k:] / half
        before[k + 1 :, k + 1 :] += likeness[: bars - k - 1, : bars - k - 1] / half
    rise = after - before
    near = np.abs(np.arange(bars)[:, None] - np.arange(bars)[None, :]) < 2 * half
    rise[near] = 0
    return np.sort(rise, axis=1)[:, -2:].mean(1) if bars > 1 else np.zeros(bars)


def _scaled(values: np.ndarray, least: float) -> np.ndarray:
    """From 0 to about 1: the strongest places of a song lie at 1, or such as have `least` where it has none."""
    return (values / max(float(np.quantile(values, 0.95)), least)).clip(max=1.5) if len(values) else values


def bar_units(beats: np.ndarray) -> np.ndarray:
    """Bars' lengths (bars,) in quarter notes to 1/96 beat, so that they can be compared."""
    return np.round(np.asarray(beats) * MICRO_PER_BEAT).astype(np.int64)
