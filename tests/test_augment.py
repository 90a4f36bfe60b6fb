"""Augmentation: rows stay rows, drums stay drums, and only what a change is about changes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given
from hypothesis import strategies as st

from midiex import augment, tokens
from midiex.tokens import BAR, DRUM_PROGRAM, FIELD_SIZES, INSTANCE, MAX_INSTANCES, PITCH, PROGRAM, VELOCITY

seeds = st.integers(0, 2**32 - 1)


def rng_and_rows(seed: int, n: int = 120, voices: int = 4) -> tuple[np.random.Generator, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng, random_rows(rng, n, bars=8, voices=voices)


def same_but(before: np.ndarray, after: np.ndarray, *fields: int) -> bool:
    others = [f for f in range(8) if f not in fields]
    return before.shape == after.shape and bool((before[:, others] == after[:, others]).all())


@given(seed=seeds)
def test_transposing_moves_every_tuned_note_alike(seed: int) -> None:
    rng, rows = rng_and_rows(seed)
    rows[:, PITCH] = np.where(rows[:, PROGRAM] == DRUM_PROGRAM, rows[:, PITCH], 20 + rows[:, PITCH] % 80)
    rows = tokens.sort_rows(rows)
    before = rows.copy()
    out = augment.transpose(rows, rng)
    np.testing.assert_array_equal(rows, before)
    drums = rows[:, PROGRAM] == DRUM_PROGRAM
    moved = out[:, PITCH] - rows[:, PITCH]
    assert not moved[drums].any() and len(set(moved[~drums])) == 1 and -5 <= moved[~drums][0] <= 6
    assert same_but(rows, out, PITCH) and (np.diff(tokens.row_key(out)) > 0).all()


@given(seed=seeds, lowest=st.integers(0, 6), highest=st.integers(120, 127))
def test_transposing_stays_on_the_keyboard(seed: int, lowest: int, highest: int) -> None:
    rows = np.zeros((2, 8), np.int32)
    rows[:, PITCH] = lowest, highest
    out = augment.transpose(rows, np.random.default_rng(seed))[:, PITCH]
    assert out[1] - out[0] == highest - lowest and out[0] >= 0 and out[1] <= 127


def test_every_transposition_is_drawn_and_drums_alone_stay() -> None:
    rows = np.zeros((1, 8), np.int32)
    rows[:, PITCH] = 60
    rng = np.random.default_rng(0)
    assert {int(augment.transpose(rows, rng)[0, PITCH]) - 60 for _ in range(300)} == set(range(-5, 7))
    rows[:, PROGRAM], rows[:, PITCH] = DRUM_PROGRAM, 164
    np.testing.assert_array_equal(augment.transpose(rows, rng), rows)


@given(seed=seeds)
def test_swapped_instruments_stay_in_their_family_and_never_meet(seed: int) -> None:
    rng, rows = rng_and_rows(seed, voices=5)
    rows[rows[:, PROGRAM] == 40, PROGRAM] = 1  # beside program 0 in its family
    out = augment.swap_instruments(rows, rng, 1.0)
    assert same_but(rows, out, PROGRAM)
    pairs = set(zip(rows[:, PROGRAM].tolist(), out[:, PROGRAM].tolist(), strict=True))
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    for a, b in pairs:
        assert a == b == DRUM_PROGRAM or (a != b and a // 8 == b // 8)
    np.testing.assert_array_equal(augment.swap_instruments(rows, rng, 0.0), rows)


def test_a_full_family_is_not_swapped() -> None:
    rows = np.zeros((8, 8), np.int32)
    rows[:, PROGRAM] = range(16, 24)
    np.testing.assert_array_equal(augment.swap_instruments(rows, np.random.default_rng(0), 1.0), rows)


@given(seed=seeds)
def test_a_dropped_voice_goes_whole_and_the_fullest_stays(seed: int) -> None:
    rng, rows = rng_and_rows(seed)
    voice = rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE]
    voices, counts = np.unique(voice, return_counts=True)
    out = augment.drop_voice(rows, rng)
    left = set((out[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + out[:, INSTANCE]).tolist())
    assert len(left) == len(voices) - 1 and voices[counts.argmax()] in left
    np.testing.assert_array_equal(out, rows[np.isin(voice, list(left))])


def test_of_two_voices_none_is_dropped() -> None:
    _, rows = rng_and_rows(0)
    rows[:, INSTANCE] = 0
    rows[:, PROGRAM] %= 2
    assert augment.drop_voice(rows, np.random.default_rng(0)) is rows


@given(seed=seeds)
def test_dynamics_move_as_a_whole(seed: int) -> None:
    rng, rows = rng_and_rows(seed)
    out = augment.level_velocity(rows, rng)
    assert same_but(rows, out, VELOCITY)
    assert out[:, VELOCITY].min() >= 1 and out[:, VELOCITY].max() < FIELD_SIZES[VELOCITY]
    inside = (rows[:, VELOCITY] > 3) & (rows[:, VELOCITY] < 29)
    moved = set((out - rows)[inside, VELOCITY].tolist())
    assert len(moved) == 1 and -2 <= moved.pop() <= 2


@given(seed=seeds)
def test_a_score_without_dynamics_gets_a_level_for_each_voice(seed: int) -> None:
    rng, rows = rng_and_rows(seed)
    rows[:, VELOCITY] = 16
    out = augment.level_velocity(rows, rng)
    voice = rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE]
    levels = [set(out[voice == v, VELOCITY].tolist()) for v in np.unique(voice)]
    assert all(len(level) == 1 for level in levels)
    assert all(10 <= level.pop() <= 30 for level in levels)


@pytest.mark.parametrize(("first", "last"), [(0, 8), (0, 7), (3, 8), (2, 3)])
def test_drums_are_laid_under_the_wanted_bars(first: int, last: int) -> None:
    _, rows = rng_and_rows(0)
    rows = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    pattern = np.zeros((8, 8), np.int32)
    pattern[:, BAR], pattern[:, tokens.POSITION] = np.arange(8) // 4, np.arange(8) % 4 * 12
    pattern[:, PROGRAM], pattern[:, PITCH] = DRUM_PROGRAM, 164
    out = augment.overlay_drums(rows, pattern, 2, first, last)
    drums = out[out[:, PROGRAM] == DRUM_PROGRAM]
    assert np.bincount(drums[:, BAR], minlength=8).tolist() == [4 if first <= bar < last else 0 for bar in range(8)]
    np.testing.assert_array_equal(out[out[:, PROGRAM] != DRUM_PROGRAM], rows)
    assert (np.diff(tokens.row_key(out)) > 0).all()
    assert pattern[:, BAR].max() == 1


@given(seed=seeds, many=st.integers(1, MAX_INSTANCES))
def test_instances_under_other_numbers_keep_their_order_and_everything_else(seed: int, many: int) -> None:
    rng, rows = rng_and_rows(seed)
    rows[:, INSTANCE] = rng.integers(0, many, len(rows))
    rows = tokens.sort_rows(rows)
    before = rows.copy()
    out = augment.spread_instances(rows, rng)
    np.testing.assert_array_equal(rows, before)
    assert same_but(rows, out, INSTANCE) and (np.diff(tokens.row_key(out)) > 0).all()
    for program in np.unique(rows[:, PROGRAM]):
        mine = rows[:, PROGRAM] == program
        pairs = sorted(set(zip(rows[mine, INSTANCE].tolist(), out[mine, INSTANCE].tolist(), strict=True)))
        new = [number for _, number in pairs]
        assert len({old for old, _ in pairs}) == len(pairs) == len(set(new))  # each has one number of its own
        assert new == sorted(new) and new[0] >= 0 and new[-1] < MAX_INSTANCES


def test_every_instance_number_is_met_in_training() -> None:
    rng, rows = rng_and_rows(0, n=10, voices=1)
    met = {int(i) for _ in range(600) for i in augment.spread_instances(rows, rng)[:, INSTANCE]}
    assert met == set(range(MAX_INSTANCES))
