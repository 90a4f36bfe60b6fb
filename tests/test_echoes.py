"""Echoes: the right earlier notes are found, none from the future, and note by note as all at once."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given
from hypothesis import strategies as st
from songs import rows_of

from midiex.echoes import ECHO_SIZES, ECHOES, MOST_BARS, NO_SOURCE, NOTHING, POINTERS, Listener, echoes
from midiex.tokens import BAR, FIELD_SIZES, PITCH, POSITION, VELOCITY

PLACE, NOTE, THREE, VOICE = range(0, 2 * POINTERS, 2)  # the pointers; each is followed by what came after


def song(seed: int, notes: int, bars: int, sameness: int) -> np.ndarray:
    """Random rows that repeat themselves the more, the less there is to choose from."""
    rows = random_rows(np.random.default_rng(seed), notes, bars)
    rows[:, POSITION] = rows[:, POSITION] // sameness * sameness
    rows[:, PITCH] = rows[:, PITCH] // sameness * sameness
    order = np.lexsort((rows[:, PITCH], rows[:, 4], rows[:, 3], rows[:, POSITION], rows[:, BAR]))
    return rows[order]


SONGS = st.builds(
    song, st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 50), st.sampled_from((1, 8, 24, 48))
)


@given(SONGS, st.integers(0, 80))
def test_a_listener_expects_what_is_found_all_at_once(rows: np.ndarray, split: int) -> None:
    found = echoes(rows)
    before = Listener()
    for row in rows[:split]:
        before.hear(row)
    listener = Listener(before)
    for number, row in enumerate(rows[split:], min(split, len(rows))):
        expected = listener.expect(int(row[BAR]), int(row[POSITION])) + NO_SOURCE
        assert expected == [tuple(e) for e in found[number].tolist()]
        listener.hear(row)
    assert len(listener) == len(rows) and len(before) == min(split, len(rows))


@given(SONGS, st.integers(0, 79))
def test_only_the_past_and_the_onset_count(rows: np.ndarray, at: int) -> None:
    at = min(at, len(rows) - 1)
    changed = rows.copy()
    changed[at, PITCH] = (changed[at, PITCH] + 1) % FIELD_SIZES[PITCH]
    changed[at + 1 :, PITCH] = 0
    changed[at:, VELOCITY] = 31
    assert (echoes(changed)[: at + 1] == echoes(rows)[: at + 1]).all()


@given(SONGS)
def test_values_are_in_range(rows: np.ndarray) -> None:
    found = echoes(rows)
    nothing = (found == NOTHING).all(2)
    assert found.shape == (len(rows), ECHOES, 8) and (found >= 0).all()
    assert (found[~nothing] < np.array(ECHO_SIZES)).all()


def test_the_echo_of_a_repeated_bar_is_that_bar() -> None:
    bar = [(0, 0, 0, 60), (0, 12, 0, 64), (0, 24, 0, 67), (0, 36, 0, 72)]
    rows = rows_of(*[(b, *rest) for b in (0, 1, 3) for _, *rest in bar])
    found = echoes(rows)
    assert (found[0] == NOTHING).all()
    for i in range(4, 8):
        assert found[i, PLACE].tolist() == [1, *rows[i - 4, 1:]]  # one bar back
    for i in range(8, 12):
        assert found[i, PLACE].tolist() == [2, *rows[i - 4, 1:]]
    third = 10
    assert found[third, NOTE].tolist() == [2, *rows[third - 4, 1:]]
    assert found[third, NOTE + 1].tolist() == [0, *rows[third - 3, 1:]]  # and what came after it, in the same bar
    assert found[7, THREE].tolist() == [1, *rows[3, 1:]] and (found[6, THREE] == NOTHING).all()  # 2 and 1 before it
    assert found[3, NOTE].tolist() == NOTHING.tolist()
    last = echoes(rows[:5])[4]
    assert last[PLACE].tolist() == [1, *rows[0, 1:]] and last[PLACE + 1].tolist() == [0, *rows[1, 1:]]


def test_a_motif_is_found_at_another_place() -> None:
    motif = [(0, 60), (6, 62), (12, 64), (18, 65)]
    rows = rows_of(*[(0, p, 0, n) for p, n in motif], *[(5, p + 12, 0, n) for p, n in motif])
    found = echoes(rows)
    assert found[7, VOICE].tolist() == [5, *rows[3, 1:]] and (found[7, THREE] == NOTHING).all()
    assert found[7, VOICE + 1].tolist() == [5, *rows[4, 1:]]  # the note that came then


def test_far_away_counts_as_far_away() -> None:
    rows = rows_of((0, 0, 0, 60), (MOST_BARS + 9, 0, 0, 60))
    assert echoes(rows)[1, PLACE, BAR] == MOST_BARS


def test_no_notes_no_echoes() -> None:
    assert echoes(np.zeros((0, 8), np.int32)).shape == (0, ECHOES, 8)
    assert Listener().expect(0, 0) + NO_SOURCE == [tuple(NOTHING.tolist())] * ECHOES


def test_endless_music_is_remembered_by_its_song_and_its_latest_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midiex.echoes.LISTENER_NOTES", 10)
    rows = rows_of(*((number, number, 0, 40 + number) for number in range(40)))
    latest = song = Listener()
    for number, row in enumerate(rows):  # ten notes of the song and thirty new ones, each at a place of its own
        if number >= 10:
            latest = latest.followed(song)
        latest.hear(row)
    found = [latest.expect(40, position)[PLACE] != ECHO_SIZES for position in range(40)]
    assert found == [True] * 10 + [False] * 10 + [True] * 20
    assert latest.expect(40, 3)[PLACE][1:] == tuple(rows[3, 1:])
    assert len(latest) == 40
