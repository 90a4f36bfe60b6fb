"""Where values occurred before: the array helpers against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midiex.occurrences import BUCKETS, NONE, TYPE_BUCKETS, at, bucket_of, changes, latest_alike, run_start, so_far

KEYS = st.lists(st.integers(-3, 3), max_size=40).map(lambda keys: np.array(keys, np.int64))
# contexts that differ in their highest and their lowest bits, and symbols
MET = st.lists(st.tuples(st.sampled_from((0, 1, 2, 2**55, 2**55 + 1)), st.sampled_from((0, 1, 7, 255))), max_size=60)


@given(MET)
def test_counts_are_those_of_a_loop_over_the_past(met: list[tuple[int, int]]) -> None:
    contexts = np.array([context << 8 for context, _ in met], np.uint64)
    found = so_far(contexts, np.array([symbol for _, symbol in met], np.uint64))
    assert all(values.shape == (len(met),) for values in found)
    for i, (context, symbol) in enumerate(met):
        before = [s for c, s in met[:i] if c == context]
        assert [int(values[i]) for values in found] == [len(before), len(set(before)), before.count(symbol)]


@given(KEYS)
def test_the_latest_alike_is_the_nearest_equal_before(key: np.ndarray) -> None:
    found = latest_alike(key)
    assert found.shape == key.shape
    for i, value in enumerate(key):
        assert found[i] == max((j for j in range(i) if key[j] == value), default=NONE)


@given(KEYS)
def test_runs_begin_where_values_change(key: np.ndarray) -> None:
    starts, runs = changes(key), run_start(key)
    assert starts.shape == runs.shape == key.shape
    for i in range(len(key)):
        assert starts[i] == (i == 0 or key[i] != key[i - 1])
        assert runs[i] == max(j for j in range(i + 1) if starts[j])


def test_no_element_has_no_value() -> None:
    values = np.array([5, 6, 7])
    assert at(values, np.array([2, NONE, 0])).tolist() == [7, NONE, 5]
    assert at(values, np.array([2, NONE, 0]), none=99).tolist() == [7, 99, 5]


@given(st.integers(0, 10**6), st.integers(0, 300))
def test_a_bucket_is_how_often_by_how_many_in_doublings(seen: int, kinds: int) -> None:
    found = int(bucket_of(np.array(seen), np.array(kinds)))
    if seen == 0:
        assert found == 0
        return
    size = min(next(n for n in range(40) if 2**n >= seen) + 1, BUCKETS // TYPE_BUCKETS - 1)
    variety = min(math.ceil(math.log2(max(1, kinds))), TYPE_BUCKETS - 1)
    assert found == size * TYPE_BUCKETS + variety
    assert TYPE_BUCKETS <= found < BUCKETS


@pytest.mark.parametrize(
    ("seen", "kinds", "bucket"),
    [(0, 0, 0), (1, 1, 6), (2, 1, 12), (2, 2, 13), (3, 1, 18), (4, 3, 20), (5, 1, 24), (10**6, 10**3, BUCKETS - 1)],
)
def test_buckets_keep_their_places(seen: int, kinds: int, bucket: int) -> None:
    """Weights on disk depend on these."""
    assert bucket_of(np.array([seen]), np.array([kinds])).tolist() == [bucket]
