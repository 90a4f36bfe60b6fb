"""Steering: chances tilt towards what is asked by how far the notes so far are off, and not where they are right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midiex.steering import FEW, GAP_NATS, HIGH_NATS, LOUD_NATS, MOST_OFF, Asked, Steering
from midiex.tokens import DRUM_PITCH_OFFSET, DRUM_PROGRAM, PITCH, VELOCITY

POSITIONS = 192  # four bars of 4/4
RUNNING = np.zeros(1, bool)


def note(pitch: int = 60, velocity: int = 16, program: int = 0) -> np.ndarray:
    return np.array([[0, 0, 4, program, 0, pitch, 5, velocity]])


def after(asked: Asked, notes: int, **what: int) -> Steering:
    steering = Steering(asked, POSITIONS, 1)
    for _ in range(notes):
        steering.hear(note(**what), RUNNING)
    return steering


@given(notes=st.integers(0, 300), wanted=st.floats(1, 300), at=st.integers(0, POSITIONS))
def test_the_next_onset_moves_away_where_there_are_too_many_notes_and_nearer_where_too_few(
    notes: int, wanted: float, at: int
) -> None:
    steering, place = after(Asked(notes=wanted), notes), np.array([float(at)])
    tilt, leaving = steering.positions_of(place, np.zeros(1)), steering.leaving(place)
    assert tilt is not None and leaving is not None and tilt[0, 0] == 1
    ways = np.diff(np.log(tilt[0, :48]))
    due = wanted * at / POSITIONS
    sign = np.sign(notes - due) if abs(notes - due) > 1e-9 else 0
    assert (np.sign(np.round(ways, 12)) == sign).all() or np.abs(ways).max() < 1e-9
    assert np.abs(ways).max() <= GAP_NATS * MOST_OFF / 12 + 1e-9
    assert (leaving[0] > 1) == (sign > 0) or leaving[0] == pytest.approx(1)


def test_what_is_as_asked_is_left_alone() -> None:
    steering = after(Asked(notes=8, velocity=16, pitch=60), 4)
    halfway = np.array([POSITIONS / 2])
    assert np.allclose(steering.positions_of(halfway, np.zeros(1)), 1) and np.allclose(steering.leaving(halfway), 1)
    for name in (VELOCITY, PITCH):
        assert np.allclose(steering.field(name, np.zeros(1, int)), 1)


def test_what_is_not_asked_is_not_steered() -> None:
    steering, at = after(Asked(), 30), np.zeros(1)
    assert steering.leaving(at) is None and steering.positions_of(at, at) is None
    assert steering.field(VELOCITY, np.zeros(1, int)) is None and steering.field(PITCH, np.zeros(1, int)) is None


@pytest.mark.parametrize(("velocity", "louder"), [(10, True), (22, False)])
def test_soft_playing_makes_loud_strokes_likelier(velocity: int, louder: bool) -> None:
    tilt = after(Asked(velocity=16), 12, velocity=velocity).field(VELOCITY, np.zeros(1, int))
    assert tilt is not None
    steps = np.diff(np.log(tilt[0]))
    missing = (16 - velocity) * 12 / (12 + FEW)
    assert ((steps > 0) == louder).all() and steps[0] == pytest.approx(LOUD_NATS * missing)


def test_register_is_that_of_tuned_notes_alone() -> None:
    steering = after(Asked(pitch=72), 12, pitch=60)
    for _ in range(50):
        steering.hear(note(DRUM_PITCH_OFFSET + 36, program=DRUM_PROGRAM), RUNNING)
    tilt = steering.field(PITCH, np.zeros(1, int))
    assert tilt is not None and np.diff(np.log(tilt[0]))[0] == pytest.approx(HIGH_NATS * 8)  # of twelve, eight count
    assert np.allclose(steering.field(PITCH, np.full(1, DRUM_PROGRAM)), 1)


def test_candidates_that_are_over_hear_no_more() -> None:
    steering = Steering(Asked(notes=4), POSITIONS, 2)
    steering.hear(np.repeat(note(), 2, 0), np.array([False, True]))
    assert steering.notes.tolist() == [1, 0]
