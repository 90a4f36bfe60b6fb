"""Letters for a song's sections."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from songs import rows_of

from midiex.sections import letter, letter_number, song_sections
from midiex.tokens import moved, sort_rows


def part(seed: int, bars: int = 8, program: int = 0, notes_a_bar: int = 8, low: int = 55) -> np.ndarray:
    """Bars of a tune of their own."""
    rng = np.random.default_rng(seed)
    step = 48 // notes_a_bar
    return rows_of(
        *[(b, step * i, program, int(rng.integers(low, low + 20))) for b in range(bars) for i in range(notes_a_bar)]
    )


def form_of(*parts: np.ndarray, bar_s: float = 2.5) -> str:
    """Letters of parts laid one after another, those in a row named once."""
    rows, bars = [], 0
    for one in parts:
        rows.append(moved(one, bars))
        bars += int(one[:, 0].max()) + 1
    found = song_sections(sort_rows(np.concatenate(rows)), np.full(bars, 4.0), np.full(bars, bar_s)).letters
    return "".join(name for i, name in enumerate(found) if i == 0 or name != found[i - 1])


def test_a_verse_and_a_chorus_in_turn_are_two_letters() -> None:
    verse, chorus = part(0, 16), np.concatenate([part(1, 8, 40, 12, 65), part(2, 8, 30, 4, 40)])
    assert form_of(verse, sort_rows(chorus), verse, sort_rows(chorus)) == "ABAB"


def test_a_middle_section_is_a_third_letter() -> None:
    verse, chorus, middle = part(0, 16), part(1, 8, 40, 12, 65), part(2, 8, 60, 2, 40)
    assert form_of(verse, chorus, verse, middle, verse) == "ABACA"


def test_one_figure_all_along_is_one_section() -> None:
    assert form_of(*[part(0, 4)] * 8) == "A"


def test_what_never_returns_gets_few_letters() -> None:
    assert len(set(form_of(*[part(seed, 4) for seed in range(16)]))) <= 3


def test_a_song_without_notes_or_bars_has_sections_all_the_same() -> None:
    empty = np.zeros((0, 8), np.int32)
    assert song_sections(empty, np.full(8, 4.0), np.full(8, 2.5)).letters == ["A", "A"]
    assert song_sections(empty, np.zeros(0), np.zeros(0)).letters == []


def test_letters_appear_in_the_order_of_the_alphabet() -> None:
    found = form_of(part(0, 16), part(1, 8, 40, 12, 65), part(2, 8, 60, 2, 40), part(0, 16))
    assert sorted(set(found)) == list("ABCDEFGH"[: len(set(found))])
    assert found[0] == "A"


@given(st.integers(0, 700))
def test_a_sections_name_leads_back_to_its_number(number: int) -> None:
    assert letter_number(letter(number)) == number


@pytest.mark.parametrize("name", ["", "a", "AB", "A1", "A0", "1", "Ä", "A²"])
def test_other_names_are_no_sections(name: str) -> None:
    with pytest.raises(KeyError):
        letter_number(name)
