"""Draws one of the values that a field may have. Knows probabilities; knows no music."""

from __future__ import annotations

import numpy as np

from .config import GenerateConfig


def pick(p: np.ndarray, mask: np.ndarray | None, config: GenerateConfig, rng: np.random.Generator) -> np.ndarray:
    """One sample a row of probabilities p (K, n) above 0, mask True where allowed: temperature, min-p, top-p.

    min-p (Nguyen et al., arXiv 2407.01082) drops what is unlikely beside the likeliest choice; top-p (Holtzman et al.,
    arXiv 1904.09751) the tail beyond a total probability.
    """
    if mask is not None:
        p = p * mask
    p = p / np.maximum.reduce(p, 1, keepdims=True)  # beside the likeliest
    row, value = (p >= config.min_p**config.temperature).nonzero()
    weights, values = (p[row, value] ** (1 / config.temperature)).tolist(), value.tolist()
    draws, ends = rng.random(len(p)).tolist(), row.searchsorted(np.arange(1, len(p) + 1)).tolist()
    picked, begin = [], 0
    for draw, end in zip(draws, ends, strict=True):  # so few are left that numpy would be slower from here on
        picked.append(values[begin + _one_of(weights[begin:end], config.top_p, draw)])
        begin = end
    return np.array(picked)


def _one_of(weights: list[float], top_p: float, draw: float) -> int:
    """Which of the weights, the least likely left out, a number from 0 to below 1 falls upon."""
    if len(weights) == 1:
        return 0
    least, out = weights[0], (1 - top_p) * sum(weights)
    for least in sorted(weights):
        out -= least
        if out < 0:
            break
    kept = [(which, weight) for which, weight in enumerate(weights) if weight >= least]
    left = draw * sum(weight for _, weight in kept)
    for which, weight in kept:
        left -= weight
        if left < 0:
            return which
    return kept[-1][0]  # sums are rounded
