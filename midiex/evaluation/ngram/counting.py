"""Counting how often each value was seen in each context, and mixing what the contexts say.

Counts are of training songs (`Table`) or of a song so far. A context is a hash with an empty low byte, a symbol the
value less the context's reference, and both together are a pair. The mixture: p after context k = trust * its relative
frequency + (1 - trust) * p after context k - 1, beginning with the uniform distribution; each context is trusted by how
often it was seen and with how many values. Knows contexts and decisions; knows neither songs nor files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...occurrences import BUCKETS, TYPE_BUCKETS, bucket_of, changes, so_far
from .contexts import ADAPTIVE, SIZES, STATIC, SYMBOLS, columns_of, hashed, reference
from .decisions import Decisions

_EM_STEPS = 25
_LOW_BYTE = np.uint64(SYMBOLS - 1)


# ---- counting -------------------------------------------------------------------------------------------------------


def keys(part: str, number: int, told: Decisions, song: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Context and symbol of each decision, both (D,) uint64, in the part's static context of this number, or, where a
    song (D,) is given, its adaptive one."""
    spec = (STATIC if song is None else ADAPTIVE)[part][number]
    unsigned = {name: told.columns[name].astype(np.int64).view(np.uint64) for name in columns_of(spec)}
    context = np.asarray(hashed(spec, unsigned, number, 0 if song is None else song.astype(np.uint64)), np.uint64)
    symbol = ((told.values - reference(part, spec, told.columns)) % SIZES[part]).astype(np.uint64)
    return np.broadcast_to(context, symbol.shape), symbol


def tally(pairs: np.ndarray, counts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Distinct pairs, sorted, and how often each occurs: once for each mention, or as often as `counts` says."""
    if counts is None:
        pairs = np.sort(pairs)
        first = np.flatnonzero(changes(pairs))
        return pairs[first], np.diff(np.append(first, len(pairs)))
    order = np.argsort(pairs, kind="stable")
    pairs, counts = pairs[order], counts[order]
    first = np.flatnonzero(changes(pairs))
    return pairs[first], np.add.reduceat(counts, first) if len(first) else counts


@dataclass(frozen=True)
class Table:
    """How often each value was seen in each context."""

    pairs: np.ndarray  # (P,) uint64, sorted: context, and the value in the low byte
    ends: np.ndarray  # (P + 1,) int64, counts before each pair

    @classmethod
    def of(cls, pairs: np.ndarray, counts: np.ndarray) -> Table:
        return cls(pairs, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))

    def look_up(self, contexts: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How often each context was seen, with how many values, and how often with this one; all (D,)."""
        asked, back = np.unique(contexts, return_inverse=True)  # there are few, and sorted they are found faster
        low, high = self._span(asked)
        seen, kinds = self.ends[high] - self.ends[low], high - low
        asked_pairs, pair_back = np.unique(contexts | symbols, return_inverse=True)
        begin = np.searchsorted(self.pairs, asked_pairs)
        end = np.searchsorted(self.pairs, asked_pairs, side="right")
        return seen[back], kinds[back], (self.ends[end] - self.ends[begin])[pair_back]

    def seen(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How many values each context was seen with, (K,), and these one after another with how often, (V,) each."""
        low, high = self._span(contexts)
        kinds = high - low
        index = np.arange(kinds.sum()) + np.repeat(low - (np.cumsum(kinds) - kinds), kinds)
        return kinds, (self.pairs[index] & _LOW_BYTE).astype(np.int64), self.ends[index + 1] - self.ends[index]

    def _span(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each context's pairs begin and end."""
        return np.searchsorted(self.pairs, contexts), np.searchsorted(self.pairs, contexts | _LOW_BYTE, side="right")


# ---- mixing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What is known of the value that each decision of one part took: D decisions in K contexts."""

    base: np.ndarray  # (D,) its probability where no context tells
    share: np.ndarray  # (K, D) its relative frequency in each context
    bucket: np.ndarray  # (K, D) of each context

    @classmethod
    def of(cls, part: str, told: Decisions, table: Table, song: np.ndarray | None) -> Evidence:
        """In the static contexts, and, where a song (D,) is given, the adaptive ones."""
        found = [table.look_up(*keys(part, k, told)) for k in range(len(STATIC[part]))]
        if song is not None:
            found += [so_far(*keys(part, k, told, song)) for k in range(len(ADAPTIVE[part]))]
        base = 1 / (told.columns["left"] + 1) if part == "leap" else np.full(told.values.shape, 1 / SIZES[part])
        share = np.stack([times / np.maximum(seen, 1) for seen, _, times in found])
        return cls(base, share, np.stack([bucket_of(seen, kinds) for seen, kinds, _ in found]))

    def first(self, contexts: int) -> Evidence:
        """The same of the first contexts alone."""
        return Evidence(self.base, self.share[:contexts], self.bucket[:contexts])

    def probability(self, trust: np.ndarray) -> np.ndarray:
        """Of each decision's value, (D,), where the contexts are trusted so much (K, BUCKETS)."""
        return self._steps(np.take_along_axis(trust, self.bucket, 1))[-1]

    def _steps(self, weight: np.ndarray) -> list[np.ndarray]:
        """Probability (D,) after each of K contexts of these weights (K, D), the base first."""
        steps = [self.base]
        for share, own in zip(self.share, weight, strict=True):
            steps.append(own * share + (1 - own) * steps[-1])
        return steps

    def learn_trust(self) -> np.ndarray:
        """Trust (K, BUCKETS) in each bucket of each context that makes the decisions likeliest:
        expectation-maximisation, asking of each decision from which context it came."""
        trust = np.full((len(self.share), BUCKETS), 0.5)
        trust[:, :TYPE_BUCKETS] = 0
        for _ in range(_EM_STEPS):
            weight = np.take_along_axis(trust, self.bucket, 1)
            steps = self._steps(weight)
            reached = np.ones(len(self.base))  # how likely it is that no later context decided
            for k in range(len(self.share) - 1, -1, -1):
                stopped = reached * weight[k] * self.share[k] / steps[k + 1]
                total = np.bincount(self.bucket[k], reached, BUCKETS)
                trust[k] = (np.bincount(self.bucket[k], stopped, BUCKETS) + 0.25) / (total + 0.5)
                reached = reached - stopped
            trust[:, :TYPE_BUCKETS] = 0
        return trust


def weights(trust: np.ndarray, seen: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """How much the uniform distribution and K contexts, seen (K,) times with kinds (K,) values, have in the mixture:
    (K + 1,), where the contexts are trusted so much (K, BUCKETS). Sums to 1."""
    own = trust[np.arange(len(seen)), bucket_of(seen, kinds)]
    passed_on = np.append(np.cumprod(1 - own[::-1])[::-1], 1.0)  # what a context and those after it leave
    return np.append(passed_on[0], own * passed_on[1:])
