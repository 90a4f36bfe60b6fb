"""Cutting bars into chunks of about ten seconds, and thinning what is too full without hollowing it out."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given
from hypothesis import strategies as st

from midiex import chunks, metrics, tokens
from midiex.chunks import chunk_bars, chunk_starts, cut, likeness_set, recall, row_times, thin
from midiex.tokens import BAR, DURATION, INSTANCE, MAX_CHUNK_BARS, MICRO, PITCH, POSITION, PROGRAM, VELOCITY

bar_lengths = st.lists(st.floats(0.3, 20), min_size=1, max_size=120).map(np.array)


@pytest.mark.parametrize(
    ("bar_s", "bars"),
    [
        (1.0, 8),  # ten bars would be exact, but eight are even
        (1.25, 8),
        (1.5, 8),  # 12 s
        (1.6, 6),  # eight are too long and four too short
        (1.8, 6),
        (2.0, 4),  # 8 s, though five would be exact
        (2.4, 4),
        (3.0, 4),
        (3.3, 3),
        (4.0, 2),
        (5.0, 2),
        (6.2, 2),
        (9.0, 1),
        (60.0, 1),
        (0.7, 14),
        (0.2, MAX_CHUNK_BARS),
    ],
)
def test_even_numbers_of_bars_win_near_ten_seconds(bar_s: float, bars: int) -> None:
    assert chunk_bars(np.full(100, bar_s)) == bars


def test_of_several_even_numbers_the_nearest_to_ten_seconds_wins() -> None:
    assert chunk_bars(np.array([3.8, 3.8, 1, 1, 1, 1, 1, 1])) == 4  # 2: 7.6 s, 4: 9.6 s
    assert chunk_bars(np.array([5, 5, 1, 1, 1, 1])) == 2


def test_few_bars_left_are_all_that_can_be_taken() -> None:
    assert chunk_bars(np.array([2.0])) == 1
    assert chunk_bars(np.array([2.0, 2.0, 2.0])) == 3


@given(bar_s=bar_lengths)
def test_a_chunk_is_even_whenever_that_is_near_enough(bar_s: np.ndarray) -> None:
    bars = chunk_bars(bar_s)
    ends = np.cumsum(bar_s)
    low, high = chunks.EVEN_RANGE_S
    even = [n for n in (8, 4, 2) if n <= len(bar_s) and low <= ends[n - 1] <= high]
    assert 1 <= bars <= min(len(bar_s), MAX_CHUNK_BARS)
    if even:
        assert bars in even
    else:
        assert abs(ends[bars - 1] - chunks.TARGET_S) == np.abs(ends[:MAX_CHUNK_BARS] - chunks.TARGET_S).min()


@given(bar_s=bar_lengths, first=st.integers(0, 10))
def test_borders_cover_every_bar_once(bar_s: np.ndarray, first: int) -> None:
    first = min(first, len(bar_s) - 1)
    borders = chunk_starts(bar_s, first)
    assert borders[0] == first and borders[-1] == len(bar_s)
    sizes = np.diff(borders)
    assert (sizes >= 1).all() and (sizes <= MAX_CHUNK_BARS).all()


def test_a_short_tail_joins_the_chunk_before() -> None:
    assert chunk_starts(np.full(9, 2.0)).tolist() == [0, 4, 9]
    assert chunk_starts(np.full(10, 2.0)).tolist() == [0, 4, 8, 10]  # half a chunk stands alone
    assert chunk_starts(np.full(3, 2.0)).tolist() == [0, 3]
    assert chunk_starts(np.full(18, 0.2)).tolist() == [0, 16, 18]  # no room to join


@given(seed=st.integers(0, 2**32 - 1), bars=st.integers(1, 40), bar_s=st.floats(0.5, 8))
def test_chunks_hold_every_note_once(seed: int, bars: int, bar_s: float) -> None:
    rows = random_rows(np.random.default_rng(seed), 150, bars)
    borders = chunk_starts(np.full(bars, bar_s))
    pieces = cut(rows, borders)
    assert [piece.first_bar for piece in pieces] == borders[:-1].tolist()
    assert sum(piece.bars for piece in pieces) == bars
    together = []
    for piece in pieces:
        assert ((piece.rows[:, BAR] >= 0) & (piece.rows[:, BAR] < piece.bars)).all()
        moved = piece.rows.copy()
        moved[:, BAR] += piece.first_bar
        together.append(moved)
    np.testing.assert_array_equal(np.concatenate(together), rows)


def test_cutting_leaves_the_rows_alone_and_thins_full_chunks() -> None:
    rows = random_rows(np.random.default_rng(0), 3000, 4)
    before = rows.copy()
    (piece,) = cut(rows, np.array([0, 4]))
    assert len(rows) > chunks.MAX_CHUNK_NOTES == len(piece.rows)
    np.testing.assert_array_equal(rows, before)


# ---- thinning -------------------------------------------------------------------------------------------------------


def chords(bars: int, sizes: int = 7, inner_worth: int = 0) -> np.ndarray:
    """Chords of `sizes` pitches on every sixteenth; `inner_worth` makes the inner notes that much louder and longer."""
    rows = np.zeros((bars * 16 * sizes, 8), np.int32)
    onset, k = np.divmod(np.arange(len(rows)), sizes)
    more = np.where((k > 0) & (k < sizes - 1), inner_worth, 0)
    rows[:, BAR], rows[:, POSITION], rows[:, MICRO] = onset // 16, onset % 16 * 3, tokens.MICRO_CENTER
    rows[:, PITCH], rows[:, DURATION], rows[:, VELOCITY] = 40 + 5 * k, (5 + more).clip(max=47), (10 + more).clip(max=31)
    return rows


def outer_notes(rows: np.ndarray) -> set[tuple[int, int, int]]:
    """(bar, position, pitch) of the highest and lowest note of each onset."""
    onsets = rows[:, BAR] * 128 + rows[:, POSITION]
    found = set()
    for onset in np.unique(onsets):
        pitches = rows[onsets == onset, PITCH]
        found |= {(onset // 128, onset % 128, pitches.min()), (onset // 128, onset % 128, pitches.max())}
    return found


@given(seed=st.integers(0, 2**32 - 1), most=st.integers(1, 400), bars=st.integers(1, 8))
def test_thin_keeps_a_sorted_part_of_at_most_the_wanted_size(seed: int, most: int, bars: int) -> None:
    rows = random_rows(np.random.default_rng(seed), 300, bars)
    kept = thin(rows, most)
    assert len(kept) == min(most, len(rows))
    keys, kept_keys = tokens.row_key(rows), tokens.row_key(kept)
    assert (np.diff(kept_keys) > 0).all() and np.isin(kept_keys, keys).all()
    if most >= bars:  # no bar falls silent, above all not the first or last
        assert set(kept[:, BAR]) == set(rows[:, BAR])


def test_what_fits_is_left_as_it_is() -> None:
    rows = random_rows(np.random.default_rng(0), 100)
    assert thin(rows, len(rows)) is rows
    assert len(thin(rows[:0], 5)) == 0


def test_every_bar_gives_up_the_same_share() -> None:
    rows = np.concatenate([chords(4), chords(4, 5)])
    rows = tokens.sort_rows(rows)
    kept = thin(rows, len(rows) // 2)
    share = np.bincount(kept[:, BAR]) / np.bincount(rows[:, BAR])
    np.testing.assert_allclose(share, 0.5, atol=0.02)


def test_outer_voices_stay_and_inner_ones_go() -> None:
    rows = chords(4)  # 4 bars x 16 onsets x 7 notes; 128 outer ones
    kept = thin(rows, 200)
    assert outer_notes(kept) == outer_notes(rows)
    first, last = rows[0], rows[-1]
    assert (kept[0, [BAR, POSITION]] == first[[BAR, POSITION]]).all()
    assert (kept[-1, [BAR, POSITION]] == last[[BAR, POSITION]]).all()


def test_outer_voices_stay_however_soft_and_short() -> None:
    rows = chords(4, inner_worth=40)
    rows[np.isin(rows[:, PITCH], (40, 70)), VELOCITY] = 1
    rows[np.isin(rows[:, PITCH], (40, 70)), DURATION] = 0
    assert outer_notes(thin(rows, 200)) == outer_notes(rows)


def test_loud_and_long_inner_notes_go_last() -> None:
    rows = chords(4)
    strong = (rows[:, PITCH] == 55) & (rows[:, POSITION] % 12 == 0)
    rows[strong, VELOCITY] = 31
    rows[strong, DURATION] = 30
    kept = thin(rows, 128 + 16)
    inner = kept[~np.isin(kept[:, PITCH], (40, 70))]
    assert (inner[:, PITCH] == 55).all() and len(inner) == 16
    assert (inner[:, MICRO] == tokens.MICRO_CENTER).all()


# ---- times and likeness ---------------------------------------------------------------------------------------------


def test_times_count_beats_and_bars_from_the_beginning() -> None:
    rows = np.zeros((3, 8), np.int32)
    rows[:, BAR], rows[:, POSITION] = [0, 1, 2], [0, 18, 24]
    times = row_times(rows, np.array([0.0, 4.0, 7.0, 11.0]))  # 4/4, 3/4, 4/4
    assert times.tolist() == [[0, 0], [5.5, 1.5], [9, 2.5]] and times.dtype == np.float32


def test_likeness_tells_programs_pitches_and_onsets_apart() -> None:
    rows = random_rows(np.random.default_rng(0), 60)
    for field, like in ((VELOCITY, True), (INSTANCE, True), (PITCH, False), (PROGRAM, False), (BAR, False)):
        moved = rows.copy()
        moved[:, field] += 1
        likeness = metrics.likeness(likeness_set(rows), likeness_set(moved))
        assert likeness == 1 if like else likeness < 0.3


def test_recall_goes_to_what_followed_the_likest_music() -> None:
    sets = [np.array(s) for s in ([1, 2, 3], [4, 5], [6, 7, 8], [9, 10], [11], [6, 7, 9])]
    assert recall(sets, [0, 1, 2, 3]) == 3  # the chunk after [6, 7, 8]
    assert recall(sets, [0, 1, 2]) == 0  # nothing left is alike: the opening
    assert recall([*sets, np.array([2, 3])], [0, 1, 2, 3, 4]) == 1
    assert recall(sets, []) is None
    assert recall([np.array([1])], [0]) == 0
