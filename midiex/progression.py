"""The song's chord progression, if it has one: which pitch classes each bar of its period asks for.

Much music goes round a few bars of harmony; written freely, new music blurs them. So the song's bars are searched for
the period by which their pitch classes are best foreseen from earlier rounds, and how sharply they are is measured on
the song itself: what helps to foresee its own bars guides the new ones, as much as it helped and no more. A song that
does not go round guides nothing. Knows rows and bars; knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    DURATIONS,
    DURATIONS_PER_BEAT,
    FIELD_SIZES,
    PITCH,
    POSITION,
    PROGRAM,
)

HALVES = 2  # of a bar, each with its own harmony
MOST_BARS = 64  # of the song, its latest, that are looked at
PERIODS = range(2, 17)  # bars
ROUND_DECAY = 0.6  # weight of each earlier round beside the one after it
DOUBT = 0.25  # of a half bar's usual weight, that the song's mean has beside what stood there
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
LEAST_GAIN = 0.02  # nats by which a period must foresee pitch classes better than the song's mean
FEW_BARS = 8  # foreseen, which count for half of what they show
NEARLY = 0.9  # of the best gain: a shorter period with so much is as good
MOST_BEATS = 2.0  # a longer note weighs no more
MOST_BIAS = 3.0  # nats


@dataclass(frozen=True)
class Progression:
    """What the bars of a period ask for; bars are counted from the same first bar as the song's rows."""

    period: int  # bars
    gain: float  # nats a note by which it foresaw the song's own bars
    bias: np.ndarray  # (period, HALVES, 12) nats to be added to pitch classes

    @classmethod
    def of(cls, rows: np.ndarray, bar_positions: np.ndarray) -> Progression | None:
        """That of a song's rows (n, 8) in bars of `bar_positions` (bars,), or None: it does not go round."""
        bars = len(bar_positions)
        first = max(0, bars - MOST_BARS)
        chroma = _chroma(rows, first, bar_positions)  # (bars - first, HALVES, 12)
        total = chroma.sum()
        if total == 0:
            return None
        mean = (chroma.sum((0, 1)) + 1e-3 * total) / (1.012 * total)
        found: list[tuple[float, int, float]] = []
        for period in PERIODS:
            foreseen = len(chroma) - period  # bars
            if foreseen < period:
                break
            lift = _lift(chroma, mean, period)[period : len(chroma)]
            gains = [_gain(chroma[period:], mean, strength * lift) for strength in STRENGTHS]
            sure = foreseen / (foreseen + FEW_BARS)
            found.append((sure * max(gains), period, STRENGTHS[int(np.argmax(gains))]))
        best = max(found, default=(0.0, 0, 0.0))[0]
        if best < LEAST_GAIN:
            return None
        gain, period, strength = next(f for f in found if f[0] >= NEARLY * best)
        coming = (strength * _lift(chroma, mean, period)[len(chroma) :]).clip(-MOST_BIAS, MOST_BIAS)
        return cls(period, gain, np.roll(coming, bars % period, 0))

    def of_bars(self, first_bar: int, bars: int) -> np.ndarray:
        """Nats to be added to each pitch in these bars, (bars, HALVES, pitches) float32; none to drums."""
        wanted = self.bias[(first_bar + np.arange(bars)) % self.period]
        found = np.zeros((bars, HALVES, FIELD_SIZES[PITCH]), np.float32)
        found[:, :, :DRUM_PITCH_OFFSET] = wanted[:, :, np.arange(DRUM_PITCH_OFFSET) % 12]
        return found


def _chroma(rows: np.ndarray, first: int, bar_positions: np.ndarray) -> np.ndarray:
    """Beats of each pitch class that begin in each half of bars `first` and later, (bars, HALVES, 12)."""
    found = np.zeros((len(bar_positions) - first, HALVES, 12))
    inside = (rows[:, PROGRAM] != DRUM_PROGRAM) & (rows[:, BAR] >= first) & (rows[:, BAR] < len(bar_positions))
    bar, position, pitch, length = (rows[inside, name].astype(np.int64) for name in (BAR, POSITION, PITCH, DURATION))
    half = np.minimum(HALVES * position // bar_positions[bar], HALVES - 1)
    beats = np.minimum(DURATIONS[length] / DURATIONS_PER_BEAT, MOST_BEATS)
    np.add.at(found, (bar - first, half, pitch % 12), beats)
    return found


def _lift(chroma: np.ndarray, mean: np.ndarray, period: int) -> np.ndarray:
    """Log of how much likelier than on average each pitch class is in every half bar, and in those of one more period,
    by the rounds before it: (bars + period, HALVES, 12)."""
    bars = len(chroma)
    usual = chroma.sum(2).mean()
    rounds = np.zeros((bars + period, *chroma.shape[1:]))
    for bar in range(period, bars + period):
        rounds[bar] = chroma[bar - period] + ROUND_DECAY * rounds[bar - period]
    expected = rounds + DOUBT * usual * mean
    lift: np.ndarray = np.log(expected / expected.sum(2, keepdims=True) / mean)
    return lift


def _gain(chroma: np.ndarray, mean: np.ndarray, lift: np.ndarray) -> float:
    """Nats by which pitch classes (bars, HALVES, 12) are likelier with this lift, normalised, than on average."""
    normal = np.log((mean * np.exp(lift)).sum(2, keepdims=True))
    return float((chroma * (lift - normal)).sum() / max(chroma.sum(), 1e-9))
