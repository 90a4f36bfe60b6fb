"""Real forms: what is told of a song, how it is kept, and which forms open alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of

from midiex import form_shelf
from midiex.assets import asset_dir
from midiex.errors import BadInput
from midiex.form_facts import PHRASE_FIELDS, Form, song_form
from midiex.form_plan import TRANSITIONS
from midiex.form_shelf import MOST_PHRASES, Shelf
from midiex.roles import CHORDS, DRUMS, LEAD
from midiex.tokens import BAR, INSTANCE, PROGRAM, moved, sort_rows


def form_of(rows: np.ndarray, bars: int, bar_s: float = 2.5) -> Form:
    voices = np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0)
    return song_form(rows, voices, np.full(bars, 4.0), np.full(bars, bar_s)).form


def random_form(seed: int, bars: int = 40) -> Form:
    rng = np.random.default_rng(seed)
    return form_of(random_rows(rng, int(rng.integers(20, 400)), bars, int(rng.integers(1, 5))), bars)


def theme(seed: int, program: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rows_of(*[(b, 6 * i, program, int(rng.integers(55, 75))) for b in range(4) for i in range(8)])


def laid(*parts: np.ndarray) -> np.ndarray:
    """Themes of four bars one after another."""
    return sort_rows(np.concatenate([moved(part, 4 * i) for i, part in enumerate(parts)]))


def test_a_form_tells_what_comes_back_from_where() -> None:
    a, b = theme(0), theme(1)
    form = form_of(laid(a, b, a, b), 16)
    assert form.source.tolist() == [-1, 0, 0, 1]
    assert form.likeness[2:].tolist() == [1.0, 1.0]
    assert form.likeness[1] < 0.2


def test_a_form_tells_which_share_of_each_role_plays_and_how_dense_it_is() -> None:
    a = theme(0, program=73)
    chords = rows_of(*[(b, 0, 0, pitch) for b in range(4) for pitch in (48, 52, 55)])
    form = form_of(laid(a, np.concatenate([a, chords]), chords), 12)
    assert form.voices[[LEAD, CHORDS]].tolist() == [1, 1]
    assert form.shares[:, LEAD].tolist() == [1, 1, 0]
    assert form.shares[:, CHORDS].tolist() == [0, 1, 1]
    assert form.density[1] == pytest.approx(form.density[0] + np.log2(44 / 32))


@pytest.mark.parametrize(
    ("last_bar", "first_hit", "name"),
    [
        ([6 * i for i in range(8)], 36, ""),
        ([6 * i for i in range(4)] + [24 + 3 * i for i in range(8)], 36, "fill"),
        ([6 * i for i in range(4)], 36, "break"),
        ([6 * i for i in range(8)], 49, "crash"),
    ],
)
def test_fills_breaks_and_crashes_are_seen(last_bar: list[int], first_hit: int, name: str) -> None:
    beat = [(bar, 6 * i, 128, 42) for bar in range(3) for i in range(8)]
    rows = rows_of((0, 0, 128, first_hit), *beat, *[(3, position, 128, 42) for position in last_bar])
    assert TRANSITIONS[form_of(sort_rows(rows), 4).transition[0]] == name


@settings(max_examples=25)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=3))
def test_forms_come_back_from_their_file_as_they_were(seeds: list[int]) -> None:
    import tempfile

    forms = [random_form(seed) for seed in seeds]
    with tempfile.TemporaryDirectory() as folder:
        form_shelf.save(Path(folder, "forms"), forms)
        read = form_shelf.load(Path(folder, "forms")).forms
    assert len(read) == len(forms)
    for was, now in zip(forms, read, strict=True):
        assert (now.phrase_bars, now.beats, now.phrase_s) == pytest.approx((was.phrase_bars, was.beats, was.phrase_s))
        assert now.voices.tolist() == was.voices.tolist()
        for name, within in (
            ("likeness", 0.006),
            ("of_role", 0.006),
            ("density", 0.04),
            ("register", 0.3),
            ("source", 0),
        ):
            most = 63.5 if name == "register" else 127  # kept in half semitones
            np.testing.assert_allclose(getattr(now, name), getattr(was, name).clip(-63, most), atol=within)


def test_a_long_form_is_kept_in_part(tmp_path: Path) -> None:
    form_shelf.save(tmp_path / "forms", [random_form(0, 4 * MOST_PHRASES + 40)])
    assert len(form_shelf.load(tmp_path / "forms").forms[0]) == MOST_PHRASES


def test_a_file_that_is_no_shelf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "forms").write_bytes(b"no shelf")
    with pytest.raises(BadInput, match="not a shelf of forms"):
        form_shelf.load(tmp_path / "forms")
    with pytest.raises(BadInput, match="not a shelf of forms"):
        form_shelf.load(tmp_path / "none")


def test_a_form_is_nearest_to_itself_by_its_opening() -> None:
    forms = [random_form(seed) for seed in range(6)]
    for number, form in enumerate(forms):
        found = Shelf(tuple(forms)).alike(opening_of(form, 6), 3)
        assert found[0][0] == number
        assert found[0][1] == 6
        assert [distance for *_, distance in found] == sorted(distance for *_, distance in found)


def opening_of(form: Form, phrases: int) -> Form:
    fields = {name: getattr(form, name)[:phrases] for name in PHRASE_FIELDS}
    return Form(**fields, voices=form.voices, phrase_bars=form.phrase_bars, phrase_s=form.phrase_s, beats=form.beats)


def test_a_song_that_repeats_is_matched_with_forms_that_do() -> None:
    strophic = form_of(laid(*[theme(0)] * 12), 48)
    wandering = form_of(laid(*[theme(seed) for seed in range(12)]), 48)
    shelf = Shelf((wandering, strophic))
    assert shelf.alike(form_of(laid(*[theme(50)] * 5), 20), 1)[0][0] == 1
    assert shelf.alike(form_of(laid(*[theme(seed) for seed in range(60, 65)]), 20), 1)[0][0] == 0


def test_the_shipped_shelf_is_small_and_holds_forms_of_many_kinds() -> None:
    shelf = form_shelf.shipped()
    path = asset_dir("weights") / form_shelf.FILE_NAME
    assert path.stat().st_size < 1_000_000
    assert len(shelf) >= 300
    drums = [form.voices[DRUMS] > 0 for form in shelf.forms]
    assert 0.2 < np.mean(drums) < 0.8
    for form in shelf.forms:
        assert 2 <= len(form) <= MOST_PHRASES
        assert (form.source < np.arange(len(form))).all()
        assert ((form.likeness >= 0) & (form.likeness <= 1)).all()


def test_bars_of_notes_that_no_voice_names_do_no_harm() -> None:
    rows = laid(theme(0), theme(0, 40))
    form = song_form(rows, np.array([[0, 0], [99, 0]]), np.full(8, 4.0), np.full(8, 2.5))
    assert form.plays.tolist() == [[True, False], [False, False]]
    assert rows[:, BAR].max() == 7
