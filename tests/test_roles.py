"""Which part each voice of a song plays."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given
from hypothesis import strategies as st
from songs import rows_of

from midiex import form_plan
from midiex.roles import BASS, CHORDS, DRUMS, LEAD, ROLES, of_voices, roles_of, voice_roles, voices_in
from midiex.tokens import DRUM_PROGRAM, INSTANCE, PROGRAM, sort_rows


def test_names_and_numbers_go_together() -> None:
    assert [ROLES[role] for role in (DRUMS, BASS, CHORDS, LEAD)] == ["drums", "bass", "chords", "lead"]
    assert form_plan.ROLES is ROLES


def test_a_bands_voices_get_the_roles_they_play() -> None:
    rows = sort_rows(
        np.concatenate(
            [
                rows_of(*[(bar, 12 * i, 128, 36 + i % 3) for bar in range(8) for i in range(4)]),
                rows_of(*[(bar, 12 * i, 33, 38 + i) for bar in range(8) for i in range(4)]),
                rows_of(*[(bar, 0, 0, pitch) for bar in range(8) for pitch in (55, 60, 64)]),
                rows_of(*[(bar, 6 * i, 73, 72 + i % 5) for bar in range(8) for i in range(8)]),
            ]
        )
    )
    assert voice_roles(rows) == {(128, 0): DRUMS, (33, 0): BASS, (0, 0): CHORDS, (73, 0): LEAD}
    assert set(roles_of(rows, voice_roles(rows))) == {DRUMS, BASS, CHORDS, LEAD}


@pytest.mark.parametrize(("pitches", "role"), [((60,), LEAD), ((60, 64, 67), CHORDS)])
def test_a_voice_alone_is_the_lead_when_it_plays_one_note_at_a_time(pitches: tuple[int, ...], role: int) -> None:
    assert voice_roles(rows_of(*[(bar, 0, 0, pitch) for bar in range(4) for pitch in pitches])) == {(0, 0): role}


def test_voices_that_take_turns_are_both_the_lead() -> None:
    first = [(bar, 6 * i, 73, 72 + i) for bar in range(4) for i in range(8)]
    second = [(4 + bar, 6 * i, 40, 66 + i) for bar in range(4) for i in range(8)]
    chords = [(bar, 0, 0, pitch) for bar in range(8) for pitch in (48, 52, 55)]
    assert voice_roles(sort_rows(rows_of(*first, *second, *chords))) == {
        (73, 0): LEAD,
        (40, 0): LEAD,
        (0, 0): CHORDS,
    }


def test_the_upper_of_two_hands_is_the_lead() -> None:
    upper = [
        (bar, 6 * i, 0, 72 + i + third, 7, 20, 0) for bar in range(4) for i in range(8) for third in (0, 4)[: 1 + i % 2]
    ]
    lower = [(bar, 24 * i, 0, 48 + fifth, 7, 20, 1) for bar in range(4) for i in range(2) for fifth in (0, 4, 7)]
    assert voice_roles(sort_rows(rows_of(*upper, *lower))) == {(0, 0): LEAD, (0, 1): CHORDS}


@given(st.integers(0, 500))
def test_every_voice_has_one_role(seed: int) -> None:
    rows = random_rows(np.random.default_rng(seed), 60)
    roles = voice_roles(rows)
    assert set(map(tuple, rows[:, [PROGRAM, INSTANCE]].tolist())) == voices_in(rows) == set(roles)
    assert set(roles.values()) <= set(range(len(ROLES)))
    assert all((role == DRUMS) == (program == DRUM_PROGRAM) for (program, _), role in roles.items())


@given(st.integers(0, 500))
def test_roles_do_not_depend_on_the_order_of_the_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 60)
    assert voice_roles(rng.permutation(rows)) == voice_roles(rows)


def test_no_rows_have_no_roles() -> None:
    nothing = random_rows(np.random.default_rng(0), 10)[:0]
    assert voice_roles(nothing) == {} and len(roles_of(nothing, {})) == 0 and voices_in(nothing) == set()


@given(st.integers(0, 500))
def test_rows_of_a_role_are_those_of_its_voices(seed: int) -> None:
    rows = random_rows(np.random.default_rng(seed), 60)
    roles = voice_roles(rows)
    for role in range(len(ROLES)):
        own = {voice for voice, its in roles.items() if its == role}
        assert np.array_equal(rows[roles_of(rows, roles) == role], of_voices(rows, own))
    unknown = {voice: role for voice, role in roles.items() if role == DRUMS}
    assert set(roles_of(rows, unknown)) <= {DRUMS, CHORDS}
