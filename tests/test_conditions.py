"""Conditions: always within their vocabularies, 0 where unknown, and moving the way their names say."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given
from hypothesis import strategies as st

from midiex import conditions, tokens
from midiex.aligned import LIKENESS_BINS, LIKENESSES
from midiex.conditions import CONDITION_SIZES, chunks_left_bin, features, frame_conditions, note_conditions
from midiex.roles import ROLES
from midiex.tokens import DRUM_PROGRAM, DURATION, INSTANCE, MAX_INSTANCES, PITCH, PROGRAM, VELOCITY

BEATS, SECONDS = 16.0, 8.0


def told(rows: np.ndarray, seconds: float = SECONDS) -> np.ndarray:
    return note_conditions(features(rows, BEATS, seconds))


def melody(**fields: int) -> np.ndarray:
    """Sixteen quarter notes up and down the C major triad; keywords set whole columns."""
    rows = np.zeros((16, 8), np.int32)
    rows[:, tokens.BAR], rows[:, tokens.POSITION] = np.arange(16) // 4, np.arange(16) % 4 * 12
    rows[:, tokens.MICRO] = tokens.MICRO_CENTER
    rows[:, PITCH] = np.resize([60, 64, 67, 72, 67, 64], 16)
    rows[:, DURATION], rows[:, VELOCITY] = 20, 20
    for name, value in fields.items():
        rows[:, tokens.FIELDS.index(name)] = value
    return rows


def test_names_and_sizes_agree() -> None:
    assert len(conditions.CONDITIONS) == len(CONDITION_SIZES)
    places = {"bars": conditions.BARS, "velocity": conditions.LOUDNESS, "left": conditions.LEFT}
    for name, index in (places | {"likeness": conditions.LIKENESS}).items():
        assert conditions.CONDITIONS[index] == name
    assert len(conditions.CONDITIONS) == conditions.LIKENESS + LIKENESSES
    assert conditions.CONDITIONS[conditions.LIKENESS + 1 :] == tuple(f"likeness_{name}" for name in ROLES)
    assert set(CONDITION_SIZES[conditions.LIKENESS :]) == {LIKENESS_BINS}


def test_chunks_left() -> None:
    bins = [chunks_left_bin(left) for left in (-1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 10_000)]
    assert bins == [0, 0, 1, 2, 3, 4, 4, 5, 5, 6, 6]
    assert CONDITION_SIZES[conditions.LEFT] == 7


def test_the_frame() -> None:
    frame = frame_conditions(bars=4, bar_units=384, beats=16, seconds=8, left=2)
    assert frame[conditions.BARS] == 4
    assert frame[conditions.METER] == 48  # positions in a bar
    assert frame[conditions.LEFT] == 2
    assert not frame[conditions.DENSITY : conditions.LEFT].any()
    slower = frame_conditions(4, 384, 16, 16, 2)
    assert 0 < slower[conditions.TEMPO] < frame[conditions.TEMPO]
    assert frame_conditions(4, 288, 12, 8, 0)[[conditions.METER, conditions.LEFT]].tolist() == [36, 0]


@given(
    bars=st.integers(1, 60), units=st.floats(0, 5000), length=st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), left=...
)
def test_the_frame_stays_within_its_vocabulary(bars: int, units: float, length: tuple[float, float], left: int) -> None:
    frame = frame_conditions(bars, units, *length, left)
    assert (frame >= 0).all() and (frame < CONDITION_SIZES).all()


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 400), seconds=st.floats(0.01, 100))
def test_what_notes_tell_stays_within_its_vocabulary(seed: int, n: int, seconds: float) -> None:
    rows = random_rows(np.random.default_rng(seed), n)
    found = told(rows, seconds)
    assert (found >= 0).all() and (found < CONDITION_SIZES).all()
    assert not found[[conditions.BARS, conditions.METER, conditions.TEMPO, conditions.LEFT]].any()
    if len(rows):
        assert (found[[conditions.DENSITY, conditions.LOUDNESS, conditions.AROUSAL]] > 0).all()


def test_silence_is_of_unknown_mood() -> None:
    silence = np.zeros((0, 8), np.int32)
    only_thin = np.zeros(len(CONDITION_SIZES))
    only_thin[conditions.DENSITY] = 1
    assert told(silence).tolist() == only_thin.tolist()
    assert not conditions.program_vector(silence).any() and not conditions.voice_vector(silence).any()


def test_drums_alone_have_no_register_and_no_key() -> None:
    drums = melody(program=DRUM_PROGRAM)
    drums[:, PITCH] += 128
    found = told(drums)
    assert not found[[conditions.REGISTER, conditions.MODE, conditions.CLARITY, conditions.VALENCE]].any()
    assert (found[[conditions.DENSITY, conditions.LOUDNESS, conditions.AROUSAL]] > 0).all()


@pytest.mark.parametrize(
    ("condition", "low", "high"),
    [
        (conditions.DENSITY, melody()[:4], melody()),
        (conditions.LOUDNESS, melody(velocity=10), melody(velocity=30)),
        (conditions.REGISTER, melody(pitch=40), melody(pitch=80)),
        (conditions.AROUSAL, melody(duration=36, velocity=8), melody(duration=2, velocity=30)),
        (conditions.CLARITY, np.concatenate([melody(pitch=p) for p in range(60, 72)]), melody()),
    ],
)
def test_conditions_move_as_their_names_say(condition: int, low: np.ndarray, high: np.ndarray) -> None:
    assert 0 < told(low)[condition] < told(high)[condition]


def test_mode_and_valence_tell_major_from_minor() -> None:
    minor = melody()
    minor[minor[:, PITCH] == 64, PITCH] = 63
    for condition in (conditions.MODE, conditions.VALENCE):
        assert told(minor)[condition] < told(melody())[condition]


def test_programs_that_play_are_told() -> None:
    rows = melody()
    rows[:3, PROGRAM], rows[3:5, PROGRAM] = 40, DRUM_PROGRAM
    vector = conditions.program_vector(rows)
    assert vector.shape == (129,) and vector.dtype == np.float32
    assert np.flatnonzero(vector).tolist() == [0, 40, 128] and vector.max() == 1


def test_voices_that_play_are_told_up_to_the_eighth_of_a_program() -> None:
    rows = melody()
    rows[:4, INSTANCE] = 0, 1, 7, MAX_INSTANCES - 1  # the last two count as one
    rows[4:6, PROGRAM], rows[4:6, INSTANCE] = DRUM_PROGRAM, 3
    vector = conditions.voice_vector(rows)
    assert vector.shape == (conditions.VOICE_SLOTS,) and vector.dtype == np.float32
    assert np.flatnonzero(vector).tolist() == [0, 1, 7, 128 * 8 + 3] and vector.max() == 1
