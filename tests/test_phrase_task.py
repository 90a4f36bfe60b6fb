"""A planned phrase made ready: what of its source stands, who is written for, what is told, what it came to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given
from hypothesis import strategies as st
from songs import rows_of

from midiex import aligned, conditions, phrase_task, roles
from midiex.conditions import AROUSAL, DENSITY, LOUDNESS, MODE, REGISTER
from midiex.form_plan import HARMONY, KINDS, NEW, NEW_LEAD, SAME, VARIED, PlannedPhrase
from midiex.phrase_task import figures_of, joined, ready, told
from midiex.roles import of_voices, voices_in
from midiex.tokens import BAR, DRUM_PROGRAM, DURATION, DURATIONS, POSITION, sort_rows

DRUMS, BASS, PIANO, FLUTE = (DRUM_PROGRAM, 0), (33, 0), (0, 0), (73, 0)
BAND = frozenset({DRUMS, BASS, PIANO, FLUTE})
ROLES = {DRUMS: roles.DRUMS, BASS: roles.BASS, PIANO: roles.CHORDS, FLUTE: roles.LEAD}
PLANNED = PlannedPhrase(8, 2, "A", SAME, 0, (0, 1, 2, 3), 10.0, 80.0, 60.0, 1.0)


def source() -> np.ndarray:
    """Two bars: 8 strokes of drums, 4 of bass, 6 notes of piano, 2 of flute."""
    notes = [(bar, 12 * beat, DRUM_PROGRAM, 36) for bar in range(2) for beat in range(4)]
    notes += [(bar, place, 33, 40) for bar in range(2) for place in (0, 24)]
    notes += [(bar, 0, 0, pitch) for bar in range(2) for pitch in (60, 64, 67)]
    return rows_of(*notes, *[(bar, 6, 73, 80 + bar) for bar in range(2)])


def as_planned(kind: str, asked: frozenset = BAND, fits: bool = True, lands: bool = False, **more: object):
    phrase = replace(PLANNED, kind=kind, **({"source_bar": None} if kind == NEW else {}), **more)  # type: ignore[arg-type]
    return ready(phrase, source(), asked, ROLES, fits, lands)


@pytest.mark.parametrize(
    ("kind", "stands"), [(SAME, BAND), (NEW_LEAD, BAND - {FLUTE}), (HARMONY, {BASS}), (NEW, set()), (VARIED, set())]
)
def test_what_stands_of_the_source_is_what_the_kind_says(kind: str, stands: set) -> None:
    made = as_planned(kind, likeness=None)
    assert voices_in(made.standing) == stands and made.free == BAND - stands and made.kind == kind
    assert np.array_equal(made.standing, of_voices(source(), stands))
    assert made.is_copy == (kind == SAME)


def test_a_varied_phrase_stands_in_the_roles_that_are_to_be_all_but_the_same() -> None:
    of = {"drums": 0.95, "bass": 0.89, "chords": 0.9, "lead": 0.1}
    assert voices_in(as_planned(VARIED, likeness=0.0, likeness_of=of).standing) == {DRUMS, PIANO}
    everything = dict.fromkeys(roles.ROLES, 1.0)
    assert voices_in(as_planned(VARIED, likeness=1.0, likeness_of=everything).standing) == BAND - {FLUTE}


def test_what_does_not_stand_follows_its_source_as_closely_as_is_asked() -> None:
    of = {"drums": 0.95, "lead": 0.2}
    made = as_planned(VARIED, likeness=0.75, likeness_of=of)
    told = np.zeros(len(conditions.CONDITIONS), np.int64)
    follows = phrase_task.aligned_source(made, told, ROLES)
    assert follows is not None and voices_in(np.array(follows.rows)) == BAND
    bins = {
        (program, instance): said
        for (_, _, _, program, instance, *_), said in zip(follows.rows, follows.bins, strict=False)
    }
    overall = aligned.likeness_bin(0.75)
    expected = {DRUMS: aligned.likeness_bin(0.95), FLUTE: aligned.likeness_bin(0.2), BASS: overall, PIANO: overall}
    assert bins == expected and follows.bins[-1] == overall
    assert told[conditions.LIKENESS :].tolist() == [overall, expected[DRUMS], 0, 0, expected[FLUTE]]
    assert phrase_task.aligned_source(as_planned(NEW), told, ROLES) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", [BAND, {FLUTE}, {DRUMS, FLUTE}, {PIANO}, {(40, 0)}, {DRUMS}], ids=str)
def test_only_those_who_are_asked_play_and_somebody_does(kind: str, asked: frozenset) -> None:
    made = as_planned(kind, frozenset(asked))
    assert voices_in(made.standing) <= asked and voices_in(made.source) <= asked
    assert made.voices == asked and made.free <= asked
    assert not (made.free & voices_in(made.standing))
    assert made.is_copy or made.free
    assert not made.is_copy or len(made.source)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("why", [{"fits": False}, {"lands": True}])
def test_nothing_stands_in_another_meter_or_where_the_music_ends(kind: str, why: dict) -> None:
    made = as_planned(kind, **why)
    assert len(made.standing) == 0 and made.free == BAND and not made.is_copy
    assert len(made.source) == (0 if kind == NEW else len(source()))


# ---- copies ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(3, 96), min_size=1, max_size=8))
def test_nothing_rings_over_the_end_of_a_copy_and_else_all_is_as_it_was(seed: int, positions: list[int]) -> None:
    bars = np.array(positions)
    rows = random_rows(np.random.default_rng(seed), 60, len(bars))
    rows[:, POSITION] %= bars[rows[:, BAR]]
    rows = sort_rows(rows)
    cut = joined(rows, bars)
    assert (np.delete(cut, DURATION, 1) == np.delete(rows, DURATION, 1)).all()
    starts = np.concatenate([[0], np.cumsum(bars)])
    left = 2 * (starts[-1] - starts[rows[:, BAR]] - rows[:, POSITION])
    tuned = rows[:, 3] != DRUM_PROGRAM
    assert (DURATIONS[cut[tuned, DURATION]] <= np.maximum(left[tuned], 1)).all()
    rings = tuned & (DURATIONS[rows[:, DURATION]] > left)
    assert (cut[~rings, DURATION] == rows[~rings, DURATION]).all()


# ---- what is told ---------------------------------------------------------------------------------------------------


USUAL = conditions.features(source(), 8.0, 4.0)


@pytest.mark.parametrize("kind", [VARIED, NEW])
def test_what_is_asked_is_told(kind: str) -> None:
    quiet, loud = (
        told(as_planned(kind, density=d, loudness=v, register=r), USUAL, 8.0, 4.0)
        for d, v, r in ((1.0, 40.0, 45.0), (30.0, 110.0, 75.0))
    )
    assert (quiet[[DENSITY, LOUDNESS, REGISTER, AROUSAL]] < loud[[DENSITY, LOUDNESS, REGISTER, AROUSAL]]).all()
    assert quiet[MODE] == loud[MODE] > 0


def test_asking_for_what_the_source_is_tells_what_the_source_is() -> None:
    figures = figures_of(source(), 4.0)
    asked = as_planned(VARIED, density=figures["density"], loudness=figures["loudness"], register=figures["register"])
    assert told(asked, {}, 8.0, 4.0).tolist() == conditions.note_conditions(USUAL).tolist()
    assert told(as_planned(NEW), {}, 8.0, 4.0).tolist() == [0] * len(conditions.CONDITIONS)
    drums = as_planned(VARIED, frozenset({DRUMS}))
    assert told(drums, USUAL, 8.0, 4.0)[REGISTER] == 0  # nobody with a pitch plays


# ---- what it came to ------------------------------------------------------------------------------------------------


def test_figures_of_a_phrase() -> None:
    rows = rows_of((0, 0, 0, 60, 7, 20), (0, 0, DRUM_PROGRAM, 36, 7, 10), (1, 0, 0, 64, 7, 20))
    assert figures_of(rows, 2.0) == {"density": 1.5, "loudness": pytest.approx(2 + 4 * 50 / 3), "register": 62.0}
    assert figures_of(rows[:0], 2.0) == {"density": 0.0, "loudness": 0.0, "register": 0.0}


def test_leads_are_found_where_no_role_tells() -> None:
    assert phrase_task.leads(source(), {}) == {FLUTE}
    assert phrase_task.leads(of_voices(source(), [DRUMS]), ROLES) == {DRUMS}
