"""How alike sets of songs are, and two stretches of one song: overlapped areas and divergences of their features.

Overlapped area (OA) and Kullback-Leibler divergence (KLD, in nats) as in Yang and Lerch (On the evaluation of
generative models in music, 2018; mgeval): between densities, of Gaussian kernels as wide as Scott's rule has it, or
between histograms. Here both densities lie on one grid and every song has a weight. Knows features; knows no models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..errors import BadInput
from .excerpts import Excerpt
from .features import BAR_STEPS, by_bar, histograms

GRID = 512  # points at which densities are compared
_TAIL = 4.0  # kernel widths the grid reaches beyond the outermost value
_LEAST = 1e-6  # a share below this counts as this, so that no divergence is infinite
_FINEST = 0.02  # least kernel width, as a share of the values' spread
_SAME = 1e-9  # and as a share of the values, which in sums of floats may differ by chance


def equal_weights(sources: Sequence[str]) -> np.ndarray:
    """A weight for each song, shape (n,), by its source's name: each source weighs the same, all together 1."""
    names, index, count = np.unique(np.asarray(sources, str), return_inverse=True, return_counts=True)
    return 1.0 / (len(names) * count[index])


# ---- two sets of songs ----------------------------------------------------------------------------------------------


def set_distance(
    real: Sequence[Mapping[str, np.ndarray | float]],
    other: Sequence[Mapping[str, np.ndarray | float]],
    weights: np.ndarray | None = None,
) -> dict[str, tuple[float, float]]:
    """(OA, KLD) of each feature: how the distances inside the real set lie to those between the two sets.

    `real[i]` and `other[i]` hold features of one song (any scalars, histograms or matrices of fixed shape by name), and
    `weights[i]` (n,) is how much it counts. The distance of two songs is Euclidean, of their features; a song and its
    own counterpart are no pair. A song that lacks a feature (NaN, all zero) on either side is left out of it; with
    fewer than three songs left both figures are NaN. Raises BadInput when the sets are not of the same songs.
    """
    if len(real) != len(other) or (weights is not None and len(weights) != len(real)):
        raise BadInput(
            f"Sets are compared song by song, but there are {len(real)} real songs, {len(other)} others and "
            f"{len(real) if weights is None else len(weights)} weights; give one of each for every song."
        )
    weight = np.ones(len(real)) if weights is None else np.asarray(weights, np.float64)
    result = {}
    for name in real[0] if real else ():
        ours, theirs = (np.stack([np.ravel(song[name]) for song in songs]).astype(float) for songs in (real, other))
        usable = _present(ours) & _present(theirs) & (weight > 0)
        if usable.sum() < 3:
            result[name] = (np.nan, np.nan)
            continue
        ours, theirs, w = ours[usable], theirs[usable], weight[usable]
        apart = ~np.eye(len(w), dtype=bool)
        pair_weights = np.outer(w, w)[apart]
        intra, inter = _distances(ours, ours)[apart], _distances(ours, theirs)[apart]
        shares = densities(intra, inter, pair_weights, pair_weights)
        result[name] = overlapped_area(*shares), divergence(*shares)
    return result


def _present(values: np.ndarray) -> np.ndarray:
    """Which rows of (n, d) hold something. A scalar may be zero, a histogram may not."""
    there = np.isfinite(values).all(1)
    return there if values.shape[1] == 1 else there & (values != 0).any(1)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean, (n, d) and (m, d) to (n, m); exactly zero between equals."""
    return np.stack([np.linalg.norm(b - one, axis=1) for one in a])


# ---- two stretches of one song --------------------------------------------------------------------------------------


def overlap(a: Excerpt, b: Excerpt) -> dict[str, float]:
    """OA of each feature of two stretches, 0 to 1: of their histograms, and (`by_bar.NAME`) of the densities of their
    bars' figures. 0 where only one of the two has the feature; left out where neither has."""
    return {name: overlapped_area(*pair) for name, pair in _pairs(a, b)}


def divergences(a: Excerpt, b: Excerpt) -> dict[str, float]:
    """KLD of `b` from `a` for the features of `overlap`, in nats."""
    return {name: divergence(*pair) for name, pair in _pairs(a, b)}


def _pairs(a: Excerpt, b: Excerpt) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """The features that either has, as two arrays of shares."""
    ours, theirs = histograms(a), histograms(b)
    for name in ours:
        if ours[name].any() or theirs[name].any():
            yield name, (ours[name], theirs[name])
    ours, theirs = by_bar(a), by_bar(b)
    for name in ours:
        p, q = (series[np.isfinite(series)] for series in (ours[name], theirs[name]))
        if len(p) or len(q):
            yield f"by_bar.{name}", densities(p, q, floor=BAR_STEPS[name])


def mean_overlaps(overlaps: Sequence[Mapping[str, float]], weights: np.ndarray | None = None) -> float:
    """Mean over songs, weighted, of each song's mean over its features; NaN without any."""
    means = np.array([np.mean(list(features.values())) if features else np.nan for features in overlaps])
    weight = np.ones(len(means)) if weights is None else np.asarray(weights, np.float64)
    known = np.isfinite(means) & (weight > 0)
    return float(np.average(means[known], weights=weight[known])) if known.any() else np.nan


def continuation_score(
    ours: Sequence[Mapping[str, float]],
    ceiling: Sequence[Mapping[str, float]],
    weights: np.ndarray | None = None,
    ceiling_weights: np.ndarray | None = None,
) -> float:
    """How near continuations come to the song, where 1 is as near as the song's own music comes to itself.

    `ours` are overlaps of the song's next minute with what was written for it, `ceiling` those of the song's next
    minute with its minute after that, each a result of `overlap`. To compare like with like give the same songs.
    """
    return mean_overlaps(ours, weights) / mean_overlaps(ceiling, ceiling_weights)


# ---- densities ------------------------------------------------------------------------------------------------------


def densities(
    a: np.ndarray,
    b: np.ndarray,
    a_weights: np.ndarray | None = None,
    b_weights: np.ndarray | None = None,
    floor: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel estimates of two samples (n,) and (m,) on one grid, as shares, each shape (GRID,) and of sum 1.

    Each kernel is as wide as Scott's rule has it (Multivariate Density Estimation, 1992; with weights the effective
    number of values counts), but never narrower than `floor` or 1/50 of the whole spread, so that values which are all
    one make a peak. A sample without values gives zeros.
    """
    samples, weights = (a, b), []
    for sample, given in zip(samples, (a_weights, b_weights), strict=True):
        weight = np.ones(len(sample)) if given is None else np.asarray(given, np.float64)
        weights.append(weight / weight.sum() if len(weight) else weight)
    both = np.concatenate(samples).astype(np.float64)
    low, high = both.min(initial=np.inf), both.max(initial=-np.inf)
    if not len(both):
        return np.zeros(GRID), np.zeros(GRID)
    least = max(floor, _FINEST * (high - low), _SAME * max(abs(low), abs(high), 1e-3))
    widths = [max(_scott(s, w), least) for s, w in zip(samples, weights, strict=True)]
    grid = np.linspace(low - _TAIL * max(widths), high + _TAIL * max(widths), GRID)
    p, q = (_density(s, w, h, grid) for s, w, h in zip(samples, weights, widths, strict=True))
    return p, q


def _scott(sample: np.ndarray, weight: np.ndarray) -> float:
    """Kernel width for a weighted sample, weights of sum 1; 0 when it has no spread."""
    lost = (weight**2).sum() if len(weight) else 1.0
    if lost >= 1:
        return 0.0
    variance = weight @ (sample - weight @ sample) ** 2 / (1 - lost)
    return float(np.sqrt(variance) * lost**0.2)


def _density(sample: np.ndarray, weight: np.ndarray, width: float, grid: np.ndarray) -> np.ndarray:
    """Shares on an even grid. Each value is split between its two neighbours on the grid first: samples are many."""
    if not len(sample):
        return np.zeros(len(grid))
    step = grid[1] - grid[0]
    place = (sample - grid[0]) / step
    left = place.astype(np.int64).clip(0, len(grid) - 2)
    part = place - left
    mass = np.bincount(left, weight * (1 - part), len(grid)) + np.bincount(left + 1, weight * part, len(grid))
    kernel = np.exp(-0.5 * (np.arange(1 - len(grid), len(grid)) * step / width) ** 2)
    density = np.convolve(mass, kernel)[len(grid) - 1 :][: len(grid)]
    return density / density.sum()


def overlapped_area(p: np.ndarray, q: np.ndarray) -> float:
    """Sum of minima of two arrays of shares of one shape: 1 for equals, 0 for strangers."""
    return float(np.minimum(p, q).sum())


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Kullback-Leibler divergence of `q` from `p` in nats; shares of nothing count as a millionth."""
    p, q = (np.maximum(x, _LEAST) for x in (p, q))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())
