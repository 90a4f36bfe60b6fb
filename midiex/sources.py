"""Which earlier bars a span of a song goes back to: the likeness of spans, and sources drawn for training.

Knows rows and bars; knows no network and no plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .tokens import BAR, row_key

LIKEST, ANOTHER, ANYWHERE = 0.55, 0.25, 0.2  # how often each kind of source is drawn in training
SHARPNESS = 8.0  # of the draw of another like source, in nats for a likeness of 1


@dataclass(frozen=True)
class Source:
    """Bars that a chunk goes back to."""

    first_bar: int
    rows: np.ndarray  # (m, 8), bars counted from its first
    times: np.ndarray  # (m, 2) float32 beats and bars since the song's beginning
    start: np.ndarray  # (2,) float32
    likeness: np.ndarray  # (LIKENESSES,) of the chunk to it, as of `aligned.likenesses`


class Spans:
    """Spans of bars of one song, to be compared: notes are the same when place in the bar, voice and pitch agree."""

    def __init__(self, rows: np.ndarray, bar_units: np.ndarray):
        """`rows` (n, 8) of a song, sorted; `bar_units` (bars,) each bar's length."""
        self.bar, self.bar_units = rows[:, BAR].astype(np.int64), np.asarray(bar_units)
        alone = rows.copy()
        alone[:, BAR] = 0
        self.key = row_key(alone)
        self.edges = np.searchsorted(self.bar, np.arange(len(bar_units) + 1))

    def likeness(self, first: int, bars: int) -> np.ndarray:
        """Jaccard likeness of bars [first, first + bars) to the spans that begin at bar 0, 1, … and end by `first`:
        (first - bars + 1,), -1 where the bars' lengths differ."""
        count = first - bars + 1
        if count <= 0:
            return np.zeros(0)
        low, high = self.edges[first], self.edges[first + bars]
        known, which = np.unique(self.key[low:high], return_inverse=True)
        here = np.zeros((bars, max(1, len(known))), np.float32)
        here[self.bar[low:high] - first, which.reshape(-1)] = 1
        before = slice(0, self.edges[first])
        place = np.searchsorted(known, self.key[before])
        shared_key = np.append(known, -1)[place] == self.key[before]  # keys are never negative
        there = np.zeros((first, here.shape[1]), np.float32)
        there[self.bar[before][shared_key], place[shared_key]] = 1
        common = here @ there.T  # (bars, first)
        notes = np.diff(self.edges)  # (all bars,)
        shared, others = np.zeros(count), np.zeros(count)
        same_meter = np.ones(count, bool)
        for k in range(bars):
            shared += common[k, k : k + count]
            others += notes[k : k + count]
            same_meter &= self.bar_units[k : k + count] == self.bar_units[first + k]
        together = others + notes[first : first + bars].sum() - shared
        return np.where(same_meter, shared / np.maximum(together, 1), -1.0)

    def draw(self, first: int, bars: int, rng: np.random.Generator) -> int | None:
        """The first bar of a source for a training chunk: the likest span, another like one, or any; None: there is no
        span of the same meter."""
        likeness = self.likeness(first, bars)
        possible = np.flatnonzero(likeness >= 0)
        if not len(possible):
            return None
        kind = rng.random()
        if kind < LIKEST:
            return int(possible[likeness[possible].argmax()])
        weight = SHARPNESS * likeness[possible] if kind < LIKEST + ANOTHER else np.zeros(len(possible))
        chance = np.exp(weight - weight.max())
        return int(rng.choice(possible, p=chance / chance.sum()))

    def likest(self, first: int, bars: int) -> int | None:
        """The first bar of the likest span, None where none is of the same meter."""
        likeness = self.likeness(first, bars)
        return int(likeness.argmax()) if len(likeness) and likeness.max() >= 0 else None
