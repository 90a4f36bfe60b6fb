"""Does the mood hold? Arousal and valence of an excerpt's stretches, and how far they drift from the prompt's
(figure 8).

Pure functions on excerpts; knows no songs, files or models. The figures are the rough proxies of metrics.py, of which
`structure.PROXIES` tells how far they can be trusted.
"""

from __future__ import annotations

import numpy as np

from .. import structure
from ..grid import BarGrid
from .excerpts import STEPS_PER_BEAT, Excerpt


def by_stretch(excerpt: Excerpt) -> structure.Mood:
    """Arousal and valence of consecutive stretches of about ten seconds (as chunks.py cuts them)."""
    lines_s = np.concatenate([[0.0], np.cumsum(excerpt.bar_s)])
    grid = BarGrid(STEPS_PER_BEAT, excerpt.bar_starts, lines_s)
    return structure.mood_by_chunk(excerpt.rows, grid, np.zeros(excerpt.bars, bool))


def drift(prompt: Excerpt, continuation: Excerpt) -> dict[str, float]:
    """How far the continuation's mood lies from the prompt's; both have at least one bar.

    For arousal and valence: `_distance`, mean absolute difference of its stretches from the prompt's mean, weighted by
    their seconds; `_own_distance`, the same of the prompt's own stretches; `_slope`, change a minute over the
    continuation (least squares). NaN where no notes tell; the slope also with fewer than two stretches.
    """
    before, after = by_stretch(prompt), by_stretch(continuation)
    found = {}
    for name in structure.PROXIES:
        own, own_s, _ = _known(before, name)
        values, weights_s, middle_s = _known(after, name)
        mean = _average(own, own_s)
        found[f"{name}_distance"] = _average(np.abs(values - mean), weights_s)
        found[f"{name}_own_distance"] = _average(np.abs(own - mean), own_s)
        found[f"{name}_slope"] = _slope(values, weights_s, middle_s / 60)
    return found


def _known(mood: structure.Mood, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, lengths and middles in seconds of the stretches whose notes tell."""
    known = ~np.isnan(mood.figures[name])
    length_s, middle_s = np.diff(mood.edges_s), (mood.edges_s[1:] + mood.edges_s[:-1]) / 2
    return mood.figures[name][known], length_s[known], middle_s[known]


def _average(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(values, weights=weights)) if len(values) else float("nan")


def _slope(values: np.ndarray, weights: np.ndarray, at: np.ndarray) -> float:
    """Slope of the weighted straight line through values at `at`."""
    if len(values) < 2:
        return float("nan")
    off = at - np.average(at, weights=weights)
    return float((weights * off * values).sum() / (weights * off * off).sum())
