"""Tempo maps and bar grids: bogus meters are mended, seconds and ticks are each other's inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midiex import grid
from midiex.errors import BadInput
from midiex.grid import BarGrid, TempoMap, bar_grid

TPQ = 480
STEADY = TempoMap.build(TPQ, np.zeros(1), np.array([500_000]))


def bar_beats(meters: list[tuple[int, int, int]], end_tick: int) -> list[float]:
    return bar_grid(meters, STEADY, end_tick).bar_beats.tolist()


# ---- tempo ----------------------------------------------------------------------------------------------------------


def test_seconds_of_a_tempo_change() -> None:
    tempo = TempoMap.build(TPQ, np.array([0, 960]), np.array([500_000, 1_000_000]))
    assert tempo.to_seconds(np.array([0, 480, 960, 1440])).tolist() == [0, 0.5, 1, 2]
    assert tempo.to_ticks(np.array([0, 0.5, 1, 2])).tolist() == [0, 480, 960, 1440]
    assert [tempo.us_per_beat_at(t) for t in (0, 959, 960, 10**6)] == [500_000, 500_000, 1_000_000, 1_000_000]


def test_impossible_tempi_are_dropped() -> None:
    tempo = TempoMap.build(TPQ, np.array([0, 480, 960, -5]), np.array([400_000, 0, -300_000, 100_000]))
    assert tempo.ticks.tolist() == [0] and tempo.us_per_beat.tolist() == [400_000]


def test_without_a_tempo_at_the_beginning_120_bpm_holds() -> None:
    tempo = TempoMap.build(TPQ, np.array([960]), np.array([250_000]))
    assert tempo.ticks.tolist() == [0, 960] and tempo.us_per_beat.tolist() == [500_000, 250_000]
    assert TempoMap.build(TPQ, np.zeros(0), np.zeros(0)).to_seconds(TPQ) == 0.5


def test_tempi_are_sorted_and_the_last_of_one_tick_wins() -> None:
    tempo = TempoMap.build(TPQ, np.array([960, 0, 960, 0]), np.array([1e5, 2e5, 3e5, 4e5]))
    assert tempo.ticks.tolist() == [0, 960] and tempo.us_per_beat.tolist() == [4e5, 3e5]


tempi = st.lists(st.tuples(st.integers(0, 100_000), st.integers(1, 2**24 - 1)), max_size=8)


@given(tempi=tempi, tpq=st.sampled_from([24, 96, 480, 30_000]), ticks=st.lists(st.integers(0, 200_000), min_size=1))
def test_seconds_and_ticks_are_inverse_and_rising(tempi: list, tpq: int, ticks: list[int]) -> None:
    at, us = np.array(tempi, np.int64).reshape(-1, 2).T
    tempo = TempoMap.build(tpq, at, us)
    seconds = tempo.to_seconds(np.array(ticks))
    np.testing.assert_allclose(tempo.to_ticks(seconds), ticks, rtol=1e-9, atol=1e-4)
    np.testing.assert_allclose(tempo.to_seconds(tempo.to_ticks(seconds)), seconds, rtol=1e-9, atol=1e-9)
    by_tick = tempo.to_seconds(np.unique(ticks))
    assert (np.diff(by_tick) > 0).all()


# ---- bars -----------------------------------------------------------------------------------------------------------


def test_plain_bars_cover_the_end_and_the_last_is_whole() -> None:
    assert bar_grid([(0, 4, 4)], STEADY, 1920).ticks.tolist() == [0, 1920]
    assert bar_grid([(0, 4, 4)], STEADY, 1921).ticks.tolist() == [0, 1920, 3840]
    assert bar_grid([(0, 3, 4)], STEADY, 1).ticks.tolist() == [0, 1440]
    assert bar_grid([(0, 6, 8)], STEADY, 0).ticks.tolist() == [0, 1440]


def test_grid_tells_lengths_and_bars() -> None:
    tempo = TempoMap.build(TPQ, np.array([0, 1920]), np.array([500_000, 250_000]))
    bars = bar_grid([(0, 4, 4), (1920, 3, 4)], tempo, 3360)
    assert len(bars) == 2
    assert bars.bar_beats.tolist() == [4, 3]
    assert bars.bar_s.tolist() == [2, 0.75]
    assert bars.bar_at(np.array([-3, 0, 1919, 1920, 3359, 99_999])).tolist() == [0, 0, 0, 1, 1, 1]


def test_a_song_without_a_meter_at_first_is_in_4_4() -> None:
    assert bar_beats([], 3840) == [4, 4]
    assert bar_beats([(1920, 3, 4)], 1920 + 1440) == [4, 3]


def test_unusable_meters_are_ignored() -> None:
    assert bar_beats([(0, 0, 4), (0, 3, 0), (0, 1, 64)], 3840) == [4, 4]


def test_bogus_quarter_bars_are_merged_to_four_beats() -> None:
    assert bar_beats([(0, 1, 4)], 12 * TPQ) == [4, 4, 4]
    assert bar_beats([(0, 1, 8)], 8 * TPQ) == [4, 4]
    assert bar_beats([(0, 1, 4)], 6 * TPQ) == [4, 2]
    assert bar_beats([(0, 3, 4), (3 * TPQ, 1, 4), (7 * TPQ, 3, 4)], 10 * TPQ) == [3, 4, 3]


def test_a_pickup_bar_stays_a_bar() -> None:
    assert bar_beats([(0, 1, 4), (TPQ, 4, 4)], 9 * TPQ) == [1, 4, 4]


def test_long_bars_are_split_evenly() -> None:
    assert bar_beats([(0, 8, 4)], 8 * TPQ) == [8]
    assert bar_beats([(0, 12, 4)], 12 * TPQ) == [6, 6]
    assert bar_beats([(0, 24, 2)], 48 * TPQ) == [8] * 6


def test_a_meter_change_inside_a_bar_begins_a_new_bar() -> None:
    assert bar_grid([(0, 4, 4), (2880, 3, 4)], STEADY, 2880 + 1440).ticks.tolist() == [0, 1920, 2880, 4320]


def test_meters_beyond_the_end_are_ignored() -> None:
    assert bar_beats([(0, 4, 4), (10**9, 3, 4)], 3840) == [4, 4]
    assert bar_beats([(0, 4, 4), (3840, 3, 4)], 3840) == [4, 4]


def test_the_last_meter_of_a_tick_wins() -> None:
    assert bar_beats([(0, 4, 4), (0, 3, 4)], 1440) == [3]


def test_too_many_bars_are_refused() -> None:
    end = grid.MAX_BARS * 4 * TPQ
    assert len(bar_grid([(0, 4, 4)], STEADY, end)) == grid.MAX_BARS
    with pytest.raises(BadInput, match=str(grid.MAX_BARS)):
        bar_grid([(0, 4, 4)], STEADY, end + 1)
    with pytest.raises(BadInput):
        bar_grid([(0, 4, 4), (end // 2, 3, 4)], STEADY, end)


def test_too_many_bars_are_refused_after_splitting_too() -> None:
    with pytest.raises(BadInput):
        bar_grid([(0, 255, 1)], STEADY, 500 * 1020 * TPQ)


meters = st.lists(
    st.tuples(st.integers(0, 30_000), st.integers(0, 40), st.sampled_from([1, 2, 4, 8, 16, 32, 64])), max_size=6
)


def test_no_bar_is_empty_where_bars_are_no_whole_number_of_ticks() -> None:
    tempo = TempoMap.build(24, np.zeros(1), np.array([500_000]))
    bars = bar_grid([(39, 39, 64), (98, 1, 1)], tempo, 99)
    assert (np.diff(bars.ticks) > 0).all()


@given(meters=meters, tpq=st.sampled_from([96, 240, 480, 1024]), end_tick=st.integers(0, 40_000))
def test_any_meters_give_a_sound_grid(meters: list, tpq: int, end_tick: int) -> None:
    tempo = TempoMap.build(tpq, np.array([0, 777]), np.array([500_000, 300_000]))
    bars: BarGrid = bar_grid(meters, tempo, end_tick)
    assert bars.ticks[0] == 0 and bars.ticks[-1] >= end_tick and len(bars) >= 1
    assert (np.diff(bars.ticks) > 0).all()
    assert bars.bar_beats.max() <= grid.MAX_BAR_BEATS + 1 / tpq
    np.testing.assert_array_equal(bars.seconds, tempo.to_seconds(bars.ticks))
