"""Means over songs with equal weight a source, and how sure they are. Pure functions on numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, SHARE = 1000, 0.95
# A value a song by source; or value and weight (such as the notes it is a mean over).
Values = Mapping[str, Sequence[float] | Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Estimate:
    """A mean and the interval its bootstrap gives (percentiles; Efron and Tibshirani 1993)."""

    mean: float
    low: float
    high: float
    songs: int


def pooled(values: Values, seed: int = 0) -> Estimate:
    """Mean of the sources' means; for the interval songs are drawn anew inside each source. NaN is left out; without
    any value all is NaN."""
    groups = [group for v in values.values() if len(group := _known(v))]
    if not groups:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    drawn = [_mean(group[rng.integers(0, len(group), (RESAMPLES, len(group)))]) for group in groups]  # (RESAMPLES,)
    low, high = np.quantile(np.mean(drawn, 0), [(1 - SHARE) / 2, (1 + SHARE) / 2])
    mean = float(np.mean([_mean(group) for group in groups]))
    return Estimate(mean, float(low), float(high), sum(map(len, groups)))


def by_source(values: Values) -> dict[str, float]:
    """Each source's mean; NaN where it has no value."""
    return {source: float(_mean(group)) if len(group := _known(v)) else float("nan") for source, v in values.items()}


def _known(values: Sequence[float] | Sequence[tuple[float, float]]) -> np.ndarray:
    """(n, 2) values and weights without NaN."""
    if not len(values):
        return np.zeros((0, 2))
    array = np.asarray(values, np.float64).reshape(len(values), -1)
    if array.shape[1] < 2:
        array = np.stack([array.reshape(-1), np.ones(len(array))], 1)
    return array[~np.isnan(array[:, 0])]


def _mean(weighted: np.ndarray) -> np.ndarray:
    """Weighted mean along the last but one axis: (..., n, 2) -> (...)."""
    return (weighted[..., 0] * weighted[..., 1]).sum(-1) / weighted[..., 1].sum(-1)
