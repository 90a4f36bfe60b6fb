"""Where values of a sequence occurred before, and how often: array helpers that know nothing of music."""

from __future__ import annotations

import numpy as np

NONE = -1  # no such element


def at(values: np.ndarray, index: np.ndarray, none: int = NONE) -> np.ndarray:
    """values[index], and `none` where there is no such element."""
    return np.where(index >= 0, values[index], none)


def changes(key: np.ndarray) -> np.ndarray:
    """True where another value begins, (n,)."""
    return np.append(True, key[1:] != key[:-1])[: len(key)]


def run_start(key: np.ndarray) -> np.ndarray:
    """Index at which each element's run of equal values begins, (n,)."""
    return np.maximum.accumulate(np.where(changes(key), np.arange(len(key)), 0))


def latest_alike(key: np.ndarray) -> np.ndarray:
    """Index of the latest earlier element that is equal, (n,); NONE where there is none."""
    order = np.argsort(key, kind="stable")
    again = key[order[1:]] == key[order[:-1]]
    found = np.full(len(key), NONE)
    found[order[1:]] = np.where(again, order[:-1], NONE)
    return found


def so_far(contexts: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How often each element's context stood before, with how many symbols, and how often with its own; all (n,).

    Both are uint64 (n,), a context's low byte empty and a symbol in it.
    """
    times = _rank(contexts | symbols)[0]
    seen, order, start = _rank(contexts)
    new = (times == 0)[order]
    before = np.cumsum(new) - new  # symbols that were new before, in this context and in those sorted before it
    kinds = np.empty_like(before)
    kinds[order] = before - before[start]
    return seen, kinds, times


def _rank(key: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many earlier elements have the same key; the order that sorts keys; where in it each one's equals begin."""
    order = np.argsort(key, kind="stable")
    start = run_start(key[order])
    rank = np.empty_like(start)
    rank[order] = np.arange(len(order)) - start
    return rank, order, start


# Contexts of one bucket tell alike much: seen about as often, with about as many symbols.
TYPE_BUCKETS, BUCKETS = 6, 96


def bucket_of(seen: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """The bucket of contexts seen so often and with so many symbols; that of one never seen is 0."""
    size = np.minimum(np.ceil(np.log2(np.maximum(seen, 1))).astype(np.int64) + 1, BUCKETS // TYPE_BUCKETS - 1)
    variety = np.minimum(np.ceil(np.log2(np.maximum(kinds, 1))).astype(np.int64), TYPE_BUCKETS - 1)
    return np.where(seen == 0, 0, size * TYPE_BUCKETS + variety)
