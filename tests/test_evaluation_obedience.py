"""What is asked of phrases, and how it is told whether it came out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given
from hypothesis import strategies as st
from songs import rows_of

from midiex.evaluation import obedience
from midiex.evaluation.excerpts import Excerpt
from midiex.evaluation.obedience import Answer, amounts, answer, ask, likenesses, voices_obeyed
from midiex.form_plan import NEW, VARIED, FormPlan, PlannedPhrase, SongPhrase
from midiex.roles import BASS, CHORDS, DRUMS, LEAD, of_voices
from midiex.roles import ROLES as NAMES
from midiex.tokens import BAR, DRUM_PROGRAM, VELOCITY, moved

VOICES = np.array([[0, 0], [32, 0], [DRUM_PROGRAM, 0], [90, 0]])  # the last is in no song
ROLES = {(0, 0): LEAD, (32, 0): BASS, (DRUM_PROGRAM, 0): DRUMS, (90, 0): CHORDS}
SONG_BARS = 24


def song(seed: int = 0) -> Excerpt:
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 12 * SONG_BARS, SONG_BARS)
    rows[rows[:, 3] == 40, 3] = 32
    rows[:, 4] = 0
    rows = rows[(rows[:, 3] != DRUM_PROGRAM) | (rows[:, BAR] >= 8)]  # drums come in later
    rows[:, VELOCITY] = 10 + rows[:, BAR] // 2
    return Excerpt(rows, np.full(SONG_BARS, 4.0), np.full(SONG_BARS, 2.0))


def plan(phrases: int = 8) -> FormPlan:
    own = tuple(SongPhrase(first, 4, "A") for first in range(0, SONG_BARS, 4))
    coming = tuple(
        PlannedPhrase(SONG_BARS + 4 * k, 4, "A", NEW, None, (0,), 1.0, 60.0, 60.0, transition="fill")
        for k in range(phrases)
    )
    return FormPlan(own, coming, 3)


def asked(seed: int, phrases: int = 8) -> FormPlan:
    return ask(plan(phrases), song(), VOICES, ROLES, np.random.default_rng(seed))


def phrase(**changes: object) -> PlannedPhrase:
    return replace(plan(1).phrases[0], **changes)  # type: ignore[arg-type]


def told(pairs: list[tuple[float, float]], name: str = "density") -> list[Answer]:
    return [Answer({name: a}, {name: b}, (1, 1)) for a, b in pairs]


# ---- asking ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_a_plan_that_asks_is_still_a_plan_of_the_same_bars(seed: int) -> None:
    made = asked(seed)
    assert [(p.first_bar, p.bars, p.section) for p in made.phrases] == [
        (p.first_bar, p.bars, p.section) for p in plan().phrases
    ]
    assert made.song == plan().song and made.seed == 3
    again = FormPlan.from_dict(made.to_dict())
    assert [p.kind for p in again.phrases] == [p.kind for p in made.phrases]
    for p in made.phrases:
        assert p.voices and set(p.voices) <= {0, 1, 2}
        assert p.kind == (NEW if p.source_bar is None else VARIED)
        assert (p.likeness is None) == (p.source_bar is None) == (not p.likeness_of)
        assert p.source_bar is None or p.source_bar in range(0, SONG_BARS, 4)
        playing = {NAMES[ROLES[tuple(VOICES[v])]] for v in p.voices}
        assert playing <= set(p.likeness_of) or p.likeness is None or p.source_bar < 8


@given(st.integers(0, 2**32 - 1))
def test_no_amount_lies_beyond_what_the_song_does(seed: int) -> None:
    music = song()
    for p in asked(seed).phrases:
        who = [tuple(VOICES[v].tolist()) for v in p.voices]
        own = [amounts(of_voices(music.part(first, first + 4).rows, who), 8.0) for first in range(0, SONG_BARS, 4)]
        own = [figures for figures in own if figures["density"]]
        for name in obedience.AMOUNTS:
            values = [figures[name] for figures in own if math.isfinite(figures[name])]
            if values:
                assert min(values) <= getattr(p, name) <= max(values)
            else:
                assert getattr(p, name) == 0


def test_askings_differ_from_phrase_to_phrase_and_from_seed_to_seed() -> None:
    made = asked(0, 40)
    assert len({p.density for p in made.phrases}) == 40
    assert len({p.voices for p in made.phrases}) > 2
    assert 8 < sum(p.kind == VARIED for p in made.phrases) < 32
    assert {p.source_bar for p in made.phrases} >= {None, 0, 4, 8}
    assert asked(0, 40) == made != asked(1, 40)


def test_a_song_without_phrases_named_is_cut_evenly() -> None:
    bare = replace(plan(20), song=())
    made = ask(bare, song(), VOICES, ROLES, np.random.default_rng(0))
    assert {p.source_bar for p in made.phrases} <= {None, *range(0, SONG_BARS, 4)}
    assert any(p.source_bar for p in made.phrases)


# ---- measuring ------------------------------------------------------------------------------------------------------


def test_amounts_are_of_all_notes_but_register_of_no_drum() -> None:
    rows = rows_of((0, 0, 0, 60, 20, 10), (0, 12, 0, 64, 20, 12), (1, 0, DRUM_PROGRAM, 36, 20, 20))
    assert amounts(rows, 6.0) == {"density": 0.5, "loudness": 58.0, "register": 62.0}
    assert math.isnan(amounts(rows[-1:], 1.0)["register"])
    assert math.isnan(amounts(rows[:0], 1.0)["loudness"]) and amounts(rows[:0], 1.0)["density"] == 0


def test_likeness_is_the_share_of_notes_in_common_whatever_their_length_and_loudness() -> None:
    a = rows_of((0, 0, 0, 60), (0, 12, 0, 64), (0, 0, 32, 40), (1, 0, 32, 43))
    b = rows_of((0, 0, 0, 60, 3, 9), (0, 11, 0, 64), (0, 0, 32, 40), (1, 0, 32, 43))
    found = likenesses(a, b, ROLES)
    assert found["likeness"] == pytest.approx(3 / 5)
    assert found["likeness of lead"] == pytest.approx(1 / 3) and found["likeness of bass"] == 1
    assert math.isnan(found["likeness of drums"])
    assert likenesses(a, moved(b, 1), ROLES)["likeness"] == 0


def test_an_obedient_chunk_answers_what_was_asked() -> None:
    music = song()
    source = of_voices(music.part(8, 12).rows, [(0, 0), (DRUM_PROGRAM, 0)])
    wanted = phrase(kind=VARIED, source_bar=8, voices=(0, 2), likeness=1.0, likeness_of={"lead": 1.0, "drums": 1.0})
    found = answer(wanted, source, 8.0, music, VOICES, ROLES)
    assert found.voices == (3, 3) and not found.is_new
    assert {name: found.found[name] for name in found.asked if "like" in name} == {
        "likeness": 1.0, "likeness of lead": 1.0, "likeness of drums": 1.0,
    }  # fmt: skip
    assert found.found["density"] == len(source) / 8


def test_voices_that_play_unasked_and_voices_that_do_not_play_are_both_counted() -> None:
    rows = rows_of((0, 0, 32, 40), (0, 12, DRUM_PROGRAM, 36))
    found = answer(phrase(voices=(0, 2)), rows, 8.0, song(), VOICES, ROLES)
    assert found.voices == (1, 3) and found.is_new
    assert voices_obeyed([[found], [replace(found, voices=(3, 3))]]) == pytest.approx((1 / 3 + 1) / 2)
    assert math.isnan(voices_obeyed([[]]))


def test_nobody_is_asked_how_high_drums_are() -> None:
    found = answer(phrase(voices=(2,), register=0.0), rows_of((0, 0, 0, 60)), 8.0, song(), VOICES, ROLES)
    assert set(found.asked) == {"density", "loudness"}


# ---- over songs -----------------------------------------------------------------------------------------------------


def test_only_ranks_within_a_song_count() -> None:
    """A song that is denser as a whole says nothing about obedience."""
    high, low = [(10.0 + k, 30.0 + 3 * k) for k in range(5)], [(1.0 + k, 2.0 + 0.1 * k) for k in range(5)]
    found = obedience.obedience([told(high), told(low)], "density")
    assert found.correlation == pytest.approx(1) and (found.chunks, found.songs) == (10, 2)
    assert found.error == pytest.approx((24 + 1.24) / 2)
    against = obedience.obedience([told(high), told([(a, -b) for a, b in low])], "density")
    assert against.correlation == pytest.approx(0)


def test_a_song_that_does_the_same_whatever_is_asked_counts_against() -> None:
    rising, deaf = [(k, k) for k in range(6)], [(k, 4.0) for k in range(6)]
    assert obedience.obedience([told(deaf)] * 2, "density").correlation != 1
    assert math.isnan(obedience.obedience([told(deaf)], "density").correlation)
    both = obedience.obedience([told(rising), told(deaf)], "density").correlation
    assert both == pytest.approx(math.sqrt(0.5))


def test_songs_of_few_chunks_and_figures_that_are_missing_are_left_out() -> None:
    songs = [told([(k, k) for k in range(3)]), told([(0, 1), (1, math.nan), (2, 2), (3, 3), (4, 4)])]
    found = obedience.obedience(songs, "density")
    assert (found.chunks, found.songs) == (4, 1) and found.correlation == pytest.approx(1)
    nothing = obedience.obedience(songs, "loudness")
    assert nothing.chunks == 0 and math.isnan(nothing.correlation) and math.isnan(nothing.error)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=4, max_size=30))
def test_the_correlation_of_one_song_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(column, float) for column in zip(*pairs, strict=True))
    found = obedience.obedience([told([*zip(a, b, strict=True)])], "density").correlation
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(found)
        return
    ranks = [[np.mean([i for i, y in enumerate(sorted(values), 1) if y == x]) for x in values] for values in (a, b)]
    assert found == pytest.approx(np.corrcoef(*ranks)[0, 1])
