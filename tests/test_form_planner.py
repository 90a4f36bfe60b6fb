"""The plan before the notes: what any plan must be, and what particular songs must lead to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of

from midiex import tokens
from midiex.errors import BadInput
from midiex.form_facts import PHRASE_FIELDS, Form, song_form
from midiex.form_plan import HARMONY, KINDS, NEW, NEW_LEAD, SAME, VARIED, FormPlan
from midiex.form_planner import plan_form
from midiex.form_shelf import Shelf
from midiex.form_telling import coming_phrases, kind_of, shared_out
from midiex.roles import ROLES
from midiex.tokens import BAR, INSTANCE, PITCH, PROGRAM, VELOCITY

NAN = float("nan")


def voices_in(rows: np.ndarray) -> np.ndarray:
    return np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0)


def verse(bars: int, first_bar: int, base: int, program: int = 0, step: int = 2) -> np.ndarray:
    """Eighths that climb from `base` in every bar, otherwise in each of four."""
    notes = [
        (first_bar + bar, 6 * i, program, base + step * ((i + 3 * (bar % 4)) % 7))
        for bar in range(bars)
        for i in range(8)
    ]
    return rows_of(*notes)


def bass_line(bars: int, first_bar: int, root: int = 36) -> np.ndarray:
    return rows_of(*[(first_bar + bar, 24 * i, 33, root + bar % 3) for bar in range(bars) for i in range(2)])


def song_of_parts(*parts: np.ndarray) -> np.ndarray:
    return tokens.sort_rows(np.concatenate(parts))


def planned(rows: np.ndarray, before: int, new: int, seed: int = 0, **asked: object) -> FormPlan:
    """A plan on bars of 4/4 of two seconds each, with all voices playing."""
    voices = voices_in(rows)
    told = {"playing": frozenset(range(len(voices))), "leads_to": "open"} | asked
    bars = before + new
    return plan_form(
        rows, voices, beats=np.full(bars, 4.0), seconds=np.full(bars, 2.0), before=before, new=new, seed=seed, **told
    )  # type: ignore[arg-type]


@st.composite
def problems(draw: st.DrawFn) -> dict[str, object]:
    """Songs of any size and meter, with any voices allowed, and what they are to lead to."""
    before, new = draw(st.integers(0, 40)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    beats = rng.choice([2.0, 3.0, 4.0, 3.5], before + new) if draw(st.booleans()) else np.full(before + new, 4.0)
    rows = random_rows(rng, draw(st.integers(0, 300)), max(before, 1), draw(st.integers(1, 4)))
    rows = rows[rows[:, BAR] < before]
    voices = voices_in(rows) if len(rows) else np.array([[0, 0]])
    playing = draw(st.sets(st.integers(0, len(voices) - 1)))
    return {
        "rows": rows,
        "voices": voices,
        "playing": frozenset(playing),
        "beats": beats,
        "seconds": beats * draw(st.sampled_from([0.1, 0.5, 3.0])),
        "before": before,
        "new": new,
        "leads_to": draw(st.sampled_from(["ending", "song", "loop", "open"])),
        "seed": draw(st.integers(0, 99)),
        "form": draw(st.sampled_from([None, None, "A", "A"])),
    }


@settings(max_examples=60)
@given(problems())
def test_any_plan_covers_the_new_bars_and_survives_being_written_and_read(problem: dict) -> None:
    plan = plan_form(**problem)
    bars = [bar for p in plan.phrases for bar in range(p.first_bar, p.first_bar + p.bars)]
    assert bars == list(range(problem["before"], problem["before"] + problem["new"]))
    for phrase in plan.phrases:
        assert 1 <= phrase.bars <= 16
        assert set(phrase.voices) <= problem["playing"]
        assert phrase.voices or not problem["playing"]
        assert phrase.kind in KINDS
        assert (phrase.source_bar is None) == (phrase.kind == NEW)
        if phrase.source_bar is not None:
            there = slice(phrase.source_bar, phrase.source_bar + phrase.bars)
            here = slice(phrase.first_bar, phrase.first_bar + phrase.bars)
            assert np.array_equal(problem["beats"][there], problem["beats"][here])
    read = FormPlan.from_dict(plan.to_dict())
    assert read.form == plan.form
    assert [(p.source_bar, p.kind, p.voices) for p in read.phrases] == [
        (p.source_bar, p.kind, p.voices) for p in plan.phrases
    ]
    assert plan_form(**problem) == plan


def test_another_seed_gives_another_plan() -> None:
    rows = song_of_parts(verse(16, 0, 60), bass_line(16, 0), verse(8, 16, 48, step=1), bass_line(8, 16, 41))
    assert len({str(planned(rows, 24, 60, seed).to_dict()["phrases"]) for seed in range(4)}) > 1


def test_a_literal_return_has_exactly_its_sources_voices() -> None:
    rows = song_of_parts(verse(8, 0, 60), bass_line(4, 4), verse(8, 8, 60), bass_line(4, 12))
    voices, found = voices_in(rows), 0
    for seed in range(6):
        for phrase in planned(rows, 16, 60, seed).phrases:
            if phrase.kind == SAME and phrase.source_bar is not None and phrase.source_bar + phrase.bars <= 16:
                at = (rows[:, BAR] >= phrase.source_bar) & (rows[:, BAR] < phrase.source_bar + phrase.bars)
                there = {tuple(v) for v in voices_in(rows[at]).tolist()}
                assert {tuple(voices[v].tolist()) for v in phrase.voices} == there
                found += 1
    assert found


def test_a_song_cut_inside_a_section_finishes_it_first() -> None:
    strophe = [verse(8, 0, 60), verse(8, 8, 70, program=70, step=1), bass_line(8, 8)]
    again = [verse(8, 16, 60), verse(4, 24, 70, program=70, step=1), bass_line(4, 24)]
    plan = planned(song_of_parts(*strophe, *again), 28, 40)
    assert plan.phrases[0].source_bar == 12
    assert plan.phrases[0].kind == SAME
    assert plan.phrases[0].section == plan.song[-1].section


def test_a_song_that_never_repeats_is_made_to_return_less_than_one_that_does() -> None:
    rng = np.random.default_rng(0)
    wild = [(bar, 6 * i, 0, int(rng.integers(40, 90))) for bar in range(32) for i in range(8)]
    tame = np.concatenate([verse(4, first, 60) for first in range(0, 32, 4)])

    def likeness(rows: np.ndarray) -> float:
        plans = [planned(rows, 32, 60, seed) for seed in range(6)]
        return float(np.mean([p.likeness or 0 for plan in plans for p in plan.phrases]))

    assert likeness(tame) > 0.5
    assert likeness(rows_of(*wild)) < 0.25


def test_copies_of_copies_point_to_the_song() -> None:
    rows = np.concatenate([verse(4, first, 60) for first in range(0, 24, 4)])
    for seed in range(5):
        plan = planned(rows, 24, 100, seed)
        literal = {bar for p in plan.phrases if p.kind == SAME for bar in range(p.first_bar, p.first_bar + p.bars)}
        for phrase in plan.phrases:
            if phrase.source_bar is not None and phrase.source_bar >= 24:
                assert phrase.source_bar not in literal or phrase.source_bar + phrase.bars - 1 not in literal


def test_themes_of_the_song_still_come_back_after_twenty_minutes() -> None:
    rows = song_of_parts(verse(16, 0, 60), bass_line(16, 0), verse(8, 16, 48, step=1), verse(8, 24, 60))
    plan = planned(rows, 32, 600)
    late = [p for p in plan.phrases if p.first_bar > 500]
    assert any(p.source_bar is not None and p.source_bar < 32 for p in late)
    assert len({(p.kind, p.source_bar, p.voices) for p in late}) > len(late) / 4


def test_an_ending_is_of_one_of_the_songs_own_sections() -> None:
    rows = song_of_parts(verse(16, 0, 60), verse(8, 16, 48, program=40, step=1), bass_line(24, 0))
    for seed in range(4):
        plan = planned(rows, 24, 40, seed, leads_to="ending")
        assert plan.phrases[-1].section in {p.section for p in plan.song}
        assert plan.phrases[-1].kind == HARMONY


@pytest.mark.parametrize("form", ["A B A C A", "ABACA", "a b a c a", "A-B-A-C-A"])
def test_a_form_of_letters_is_kept_to(form: str) -> None:
    rows = song_of_parts(verse(8, 0, 60), bass_line(8, 0))
    plan = planned(rows, 8, 60, form=form)
    assert plan.form == "A B A C A"
    first = {name: next(p for p in plan.phrases if p.section == name) for name in "ABC"}
    assert first["A"].source_bar == 0
    assert first["B"].source_bar is None
    again = [p for p in plan.phrases if p.section == "A"]
    assert all(p.source_bar is not None for p in again)


def test_a_new_section_that_returns_goes_back_to_where_it_first_was() -> None:
    plan = planned(song_of_parts(verse(8, 0, 60), bass_line(8, 0)), 8, 48, form="B A B")
    first, last = plan.phrases[0], [p for p in plan.phrases if p.section == "B"][-1]
    assert last.source_bar is not None
    assert first.first_bar <= last.source_bar < 24


def test_short_music_has_room_for_every_section_asked_for() -> None:
    plan = planned(verse(8, 0, 60), 8, 6, form="A B C A B C")
    assert plan.form == "A B C A B C"


@pytest.mark.parametrize("form", ["", "A 1 B", "A? B", "A " * 2000])
def test_a_form_that_is_none_is_refused(form: str) -> None:
    with pytest.raises(BadInput, match="form"):
        planned(verse(8, 0, 60), 8, 60, form=form)


def test_more_sections_than_bars_are_refused() -> None:
    with pytest.raises(BadInput, match="4 sections does not fit into 3 new bars"):
        planned(verse(8, 0, 60), 8, 3, form="A B A B")


def test_a_voice_that_may_not_play_is_in_no_phrase() -> None:
    rows = song_of_parts(verse(16, 0, 60), bass_line(16, 0))
    plan = planned(rows, 16, 60, playing=frozenset({1}))
    assert {p.voices for p in plan.phrases} == {(1,)}


def test_intensity_stays_near_the_songs_own() -> None:
    rows = song_of_parts(verse(16, 0, 60), bass_line(16, 0))
    low, high = rows[:, VELOCITY].min() * 4, rows[:, VELOCITY].max() * 4 + 4
    for phrase in planned(rows, 16, 100).phrases:
        assert 1.0 < phrase.density < 10.0  # the song's is 5
        assert low <= phrase.loudness <= high
        assert rows[:, PITCH].min() <= phrase.register <= rows[:, PITCH].max()


def test_a_phrase_in_which_the_song_was_cut_off_is_finished() -> None:
    rows = np.concatenate([verse(4, first, 60 + first % 8) for first in range(0, 16, 4)] + [verse(2, 16, 60)])
    song = song_form(rows, voices_in(rows), np.full(18, 4.0), np.full(18, 2.5))
    assert coming_phrases(song, 18, 22, 4) == [(18, 2), (20, 4), (24, 4), (28, 4), (32, 4), (36, 4)]


def test_what_is_left_at_the_end_joins_the_last_phrase_only_when_short() -> None:
    assert coming_phrases(None, 0, 9, 4) == [(0, 4), (4, 5)]
    assert coming_phrases(None, 0, 10, 4) == [(0, 4), (4, 4), (8, 2)]


@pytest.mark.parametrize(
    ("likeness", "of_role", "harmony", "kind"),
    [
        (0.9, (NAN, NAN, 0.9, 0.9), 1.0, SAME),
        (0.6, (0.9, 0.9, 0.8, 0.1), 1.0, NEW_LEAD),
        (0.5, (0.5, 0.5, 0.5, 0.5), 0.5, VARIED),
        (0.2, (NAN, NAN, 0.2, NAN), 0.6, HARMONY),
        (0.1, (0.9, 0.0, 0.0, 0.0), 0.1, NEW),
        (0.0, (NAN, NAN, NAN, NAN), 0.9, NEW),
    ],
)
def test_kinds_follow_from_what_is_alike(likeness: float, of_role: tuple, harmony: float, kind: str) -> None:
    assert kind_of(likeness, np.array(of_role), harmony) == kind


def test_an_empty_shelf_is_refused() -> None:
    with pytest.raises(BadInput, match="shelf of forms is empty"):
        planned(verse(8, 0, 60), 8, 60, shelf=Shelf(()))


def test_a_plan_goes_on_as_the_only_form_on_the_shelf() -> None:
    rows = np.concatenate([verse(4, first, base) for first, base in ((0, 60), (4, 50), (8, 66), (12, 40))])
    own = song_form(rows, voices_in(rows), np.full(16, 4.0), np.full(16, 2.0)).form
    form = only_form(own, returns_to=1)
    plan = planned(rows, 16, 12, shelf=Shelf((form,)))
    assert [(p.kind, p.source_bar) for p in plan.phrases] == [(SAME, 4), (SAME, 8), (SAME, 12)]


def only_form(own: Form, returns_to: int) -> Form:
    """A form that opens as `own` and goes on by returning to its phrase `returns_to` and those after it."""
    count, more = len(own), 4
    fields = {name: np.concatenate([getattr(own, name)] * 2)[: count + more] for name in PHRASE_FIELDS}
    fields["source"][count:] = returns_to + np.arange(more)
    fields["shift"][count:], fields["likeness"][count:] = 0, 1.0
    fields["of_role"][count:] = np.where(own.voices > 0, 1.0, NAN)
    assert len(ROLES) == fields["of_role"].shape[1]
    return replace(own, **fields)


@given(
    st.floats(0.02, 0.98),
    st.lists(st.one_of(st.just(NAN), st.floats(0, 1)), min_size=4, max_size=4),
    st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any),
)
def test_likeness_by_role_comes_to_that_of_all(likeness: float, of_role: list[float], notes: list[int]) -> None:
    counts = np.array(notes, float)
    shared = shared_out(likeness, np.array(of_role), counts)
    assert np.isnan(shared).tolist() == (counts == 0).tolist()
    assert float(np.nansum(shared * counts) / counts.sum()) == pytest.approx(likeness, abs=1e-3)
