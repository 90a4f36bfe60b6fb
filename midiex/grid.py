"""Where beats, bars and seconds lie: a tempo map and a bar grid in plain numpy.

Knows ticks, meters and tempi; knows no notes, no files and no model. The bar grid is normalised for the model's
sake (bogus 1/4 bars merged, endless bars split, a meter change inside a bar tolerated); the file keeps its own meters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import BadInput

POSITIONS_PER_BEAT = 12
MAX_BAR_BEATS = 8  # longer bars are split, so that a position fits its vocabulary
MIN_BAR_BEATS = 1.5  # shorter bars (beat trackers write 1/4 signatures) are merged
MERGED_BAR_BEATS = 4
MAX_BARS = 50_000
DEFAULT_US_PER_BEAT = 500_000
_TOO_LONG = f"The file spans more than {MAX_BARS} bars, which no song has; cut away its far-off last events first."


@dataclass(frozen=True)
class TempoMap:
    """Piecewise constant tempo: from `ticks[i]` on a beat lasts `us_per_beat[i]` microseconds. Both shape (n,)."""

    tpq: float  # ticks a quarter note ("beat")
    ticks: np.ndarray  # int64, strictly rising, first is 0
    us_per_beat: np.ndarray  # float64
    seconds: np.ndarray  # float64, the time of each of `ticks`

    @classmethod
    def build(cls, tpq: float, ticks: np.ndarray, us_per_beat: np.ndarray) -> TempoMap:
        """Sort, drop impossible tempi (not above zero), let the last of several at one tick win."""
        ticks = np.asarray(ticks, np.int64)
        us = np.asarray(us_per_beat, np.float64)
        usable = (us > 0) & (ticks >= 0)
        ticks, us = ticks[usable], us[usable]
        order = np.argsort(ticks, kind="stable")
        ticks, us = ticks[order], us[order]
        last_of_tick = np.append(ticks[1:] != ticks[:-1], True) if len(ticks) else np.zeros(0, bool)
        ticks, us = ticks[last_of_tick], us[last_of_tick]
        if len(ticks) == 0 or ticks[0] > 0:  # before the first tempo event the standard's 120 bpm holds
            ticks, us = np.insert(ticks, 0, 0), np.insert(us, 0, DEFAULT_US_PER_BEAT)
        seconds = np.concatenate([[0.0], np.cumsum(np.diff(ticks) * us[:-1] / tpq / 1e6)])
        return cls(float(tpq), ticks, us, seconds)

    def to_seconds(self, ticks: np.ndarray | float) -> np.ndarray:
        """Time in seconds of each tick; any shape."""
        ticks = np.asarray(ticks, np.float64)
        i = np.clip(np.searchsorted(self.ticks, ticks, side="right") - 1, 0, None)
        return self.seconds[i] + (ticks - self.ticks[i]) * self.us_per_beat[i] / self.tpq / 1e6

    def to_ticks(self, seconds: np.ndarray | float) -> np.ndarray:
        """Tick (float) of each time in seconds; any shape."""
        seconds = np.asarray(seconds, np.float64)
        i = np.clip(np.searchsorted(self.seconds, seconds, side="right") - 1, 0, None)
        return self.ticks[i] + (seconds - self.seconds[i]) * 1e6 * self.tpq / self.us_per_beat[i]

    def us_per_beat_at(self, tick: float) -> float:
        return float(self.us_per_beat[max(0, int(np.searchsorted(self.ticks, tick, side="right")) - 1)])


@dataclass(frozen=True)
class BarGrid:
    """Normalised bars. Bar i spans ticks[i] to ticks[i + 1]; arrays have one entry more than there are bars."""

    tpq: float
    ticks: np.ndarray  # (bars + 1,) int64
    seconds: np.ndarray  # (bars + 1,) float64

    def __len__(self) -> int:
        return len(self.ticks) - 1

    @property
    def bar_beats(self) -> np.ndarray:
        """Length of each bar in quarter notes, shape (bars,)."""
        return np.diff(self.ticks) / self.tpq

    @property
    def bar_s(self) -> np.ndarray:
        """Length of each bar in seconds, shape (bars,)."""
        return np.diff(self.seconds)

    def bar_at(self, ticks: np.ndarray | float) -> np.ndarray:
        """Index of the bar each tick falls into, clipped to the grid."""
        return np.clip(np.searchsorted(self.ticks, ticks, side="right") - 1, 0, len(self) - 1)


def bar_grid(meters: list[tuple[int, int, int]], tempo: TempoMap, end_tick: int) -> BarGrid:
    """Bars from time signatures `(tick, numerator, denominator)`, covering [0, end_tick] and at least one bar.

    Raises BadInput when the file would hold more than MAX_BARS bars.
    """
    tpq = tempo.tpq
    borders = _nominal_borders(_clean_meters(meters, tpq), tpq, end_tick)
    borders = _merge_short(borders, tpq)
    borders = _split_long(borders, tpq)
    if len(borders) > MAX_BARS + 1:
        raise BadInput(_TOO_LONG)
    ticks = np.unique(np.asarray(borders, np.int64))  # rounding may have laid two borders on one tick
    return BarGrid(tpq, ticks, tempo.to_seconds(ticks))


def _clean_meters(meters: list[tuple[int, int, int]], tpq: float) -> list[tuple[int, float]]:
    """(tick, bar length in ticks) of every usable signature, 4/4 where the file begins without one."""
    usable: dict[int, float] = {}
    for tick, numerator, denominator in sorted(meters, key=lambda m: m[0]):
        if numerator > 0 and denominator > 0:
            bar_ticks = 4 * tpq * numerator / denominator
            if bar_ticks >= tpq / 8:
                usable[max(0, tick)] = bar_ticks
    if not usable or min(usable) > 0:
        usable[0] = 4 * tpq
    return sorted(usable.items())


def _nominal_borders(meters: list[tuple[int, float]], tpq: float, end_tick: int) -> list[int]:
    """Bar borders as the file writes them; a signature inside a bar starts a new bar there."""
    end_tick = max(end_tick, 1)
    meters = [meter for meter in meters if meter[0] < end_tick]
    stops = [start for start, _ in meters[1:]] + [end_tick]
    borders: list[int] = []
    for (start, bar_ticks), stop in zip(meters, stops, strict=True):
        count = int(np.ceil((stop - start) / bar_ticks - 1e-9))
        if len(borders) + count > MAX_BARS:
            raise BadInput(_TOO_LONG)
        borders += [round(start + k * bar_ticks) for k in range(count)]
    return [*borders, round(start + count * bar_ticks)]  # the last bar is a whole one


def _merge_short(borders: list[int], tpq: float) -> list[int]:
    """Join runs of bars too short to be bars into bars of about four beats."""
    out = [borders[0]]
    merging = False
    for left, right in zip(borders, borders[1:], strict=False):
        short = right - left < MIN_BAR_BEATS * tpq
        room = right - out[-2] <= MERGED_BAR_BEATS * tpq if len(out) > 1 else False
        if short and merging and room:
            out[-1] = right
        else:
            out.append(right)
        merging = short
    return out


def _split_long(borders: list[int], tpq: float) -> list[int]:
    out = [borders[0]]
    for left, right in zip(borders, borders[1:], strict=False):
        parts = max(1, int(np.ceil((right - left) / (MAX_BAR_BEATS * tpq) - 1e-9)))
        out += [round(left + (right - left) * k / parts) for k in range(1, parts + 1)]
    return out
