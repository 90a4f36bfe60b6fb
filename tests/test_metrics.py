"""Figures of a passage: keys move with transposition, moods order as they should, likeness is Jaccard's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midiex import metrics
from midiex.metrics import KEY_NAMES, arousal, key_fit, key_of, likeness, mode_and_clarity, pitch_class_weights, valence

C_MAJOR = np.array([60, 64, 67, 72, 65, 69, 62, 67, 71, 60, 64, 67, 60])
A_MINOR = np.array([57, 60, 64, 69, 62, 65, 68, 71, 64, 57, 60, 64, 57])


def test_weights_fold_octaves_and_count_lengths() -> None:
    assert pitch_class_weights(np.array([0, 12, 127])).tolist() == [2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert pitch_class_weights(np.array([60, 61]), np.array([0.5, 2.0]))[:2].tolist() == [0.5, 2.0]
    assert pitch_class_weights(np.zeros(0)).tolist() == [0] * 12


@pytest.mark.parametrize("shift", range(12))
def test_keys_move_with_the_music(shift: int) -> None:
    name, fit = key_of(pitch_class_weights(C_MAJOR + shift))
    assert name == f"{KEY_NAMES[shift]} major" and fit > 0.8
    name, fit = key_of(pitch_class_weights(A_MINOR + shift))
    assert name == f"{KEY_NAMES[(9 + shift) % 12]} minor" and fit > 0.7


def test_a_profile_fits_its_own_key_perfectly() -> None:
    major, minor = key_fit(np.roll(metrics.MAJOR_PROFILE, 5))
    assert major.argmax() == 5 and major[5] == pytest.approx(1.0) and minor.max() < 0.95
    major, minor = key_fit(np.roll(metrics.MINOR_PROFILE, 2))
    assert minor.argmax() == 2 and minor[2] == pytest.approx(1.0)


@given(weights=st.lists(st.integers(0, 10**6), min_size=12, max_size=12).map(lambda w: np.array(w) / 1000))
def test_fits_are_correlations(weights: np.ndarray) -> None:
    for fit in key_fit(weights):
        assert fit.shape == (12,) and (np.abs(fit) <= 1 + 1e-9).all()
    mode, clarity = mode_and_clarity(weights)
    assert -2 <= mode <= 2 and 0 <= clarity <= 1 + 1e-9


def test_music_without_a_key_has_no_clarity() -> None:
    assert key_of(np.ones(12))[1] == 0
    assert mode_and_clarity(np.zeros(12)) == (0.0, 0.0)


def test_mode_tells_major_from_minor() -> None:
    major, _ = mode_and_clarity(pitch_class_weights(C_MAJOR))
    minor, _ = mode_and_clarity(pitch_class_weights(A_MINOR))
    assert major > 0.05 > -0.05 > minor


def test_arousal_rises_with_density_shortness_and_loudness() -> None:
    calm = arousal(1.0, 1.5, 45)
    assert calm < arousal(8.0, 1.5, 45) < arousal(8.0, 0.1, 45) < arousal(8.0, 0.1, 110)
    assert calm < -1 and arousal(8.0, 0.1, 110) > 1
    assert abs(arousal(4.0, 2**-1.6, 78)) < 0.01
    assert np.isfinite(arousal(0.0, 0.0, 0.0))


def test_valence_rises_with_major_and_falls_with_bass() -> None:
    assert valence(-0.2, 0.8, 0.3) < valence(0.2, 0.8, 0.3)
    assert valence(0.2, 0.8, 0.9) < valence(0.2, 0.8, 0.1)
    assert valence(0.2, 0.5, 0.3) < valence(0.2, 0.9, 0.3)
    assert valence(0.0, 0.75, 0.3) == pytest.approx(0.0)


@given(a=st.lists(st.integers(0, 30)), b=st.lists(st.integers(0, 30)))
def test_likeness_is_shared_over_all(a: list[int], b: list[int]) -> None:
    found = likeness(np.array(a, np.int64), np.array(b, np.int64))
    expected = len(set(a) & set(b)) / len(set(a) | set(b)) if a and b else 0.0
    assert found == pytest.approx(expected)
