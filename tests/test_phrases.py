"""Phrases and likeness of stretches of a song."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of

from midiex import metrics
from midiex.phrases import BarMatches, Phrase, bar_units, cut_phrases, phrase_bars
from midiex.roles import BASS, DRUMS, LEAD, roles_of, voice_roles
from midiex.tokens import BAR, INSTANCE, PITCH, POSITION, PROGRAM, moved, sort_rows


def matches_of(rows: np.ndarray, beats: np.ndarray) -> BarMatches:
    return BarMatches.of(rows, roles_of(rows, voice_roles(rows)), bar_units(beats))


def cut(rows: np.ndarray, bars: int, bar_s: float = 2.5) -> list[int]:
    """Bars of each phrase of a song in 4/4."""
    return [p.bars for p in cut_phrases(matches_of(rows, np.full(bars, 4.0)), rows, np.full(bars, bar_s))]


def tune(rng: np.random.Generator, bars: int, first_bar: int = 0, program: int = 0) -> np.ndarray:
    """Eighths at random, another tune for each state of `rng`."""
    return sort_rows(
        rows_of(*[(first_bar + b, 6 * i, program, int(rng.integers(55, 80))) for b in range(bars) for i in range(8)])
    )


# ---- likeness -------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(0, 500), st.integers(1, 4))
def test_likeness_of_spans_is_that_of_their_sets_of_notes(seed: int, bars: int) -> None:
    rows = random_rows(np.random.default_rng(seed), 120, bars=12)
    rows[:, POSITION] %= 6
    rows[:, PITCH] = 60 + rows[:, PITCH] % 3 + np.where(rows[:, PROGRAM] == 128, 128, 0)
    rows = sort_rows(rows)
    overall, _, _ = matches_of(rows, np.full(12, 4.0)).earlier(Phrase(12 - bars, bars))

    def notes(first: int) -> np.ndarray:
        part = moved(rows[(rows[:, BAR] >= first) & (rows[:, BAR] < first + bars)], -first).astype(np.int64)
        keys = part[:, [BAR, POSITION, PROGRAM, INSTANCE, PITCH]]
        return np.array([hash(tuple(key)) for key in keys.tolist()])

    expected = [metrics.likeness(notes(first), notes(12 - bars)) for first in range(12 - 2 * bars + 1)]
    assert overall == pytest.approx(np.array(expected), abs=1e-6)


def test_the_best_source_is_where_the_phrase_stood_before() -> None:
    rng = np.random.default_rng(1)
    theme = tune(rng, 4)
    rows = np.concatenate([tune(rng, 3), moved(theme, 3), tune(rng, 5, 7), moved(theme, 12)])
    found = matches_of(rows, np.full(16, 4.0)).best_source(Phrase(12, 4))
    assert found is not None
    assert (found.bar, found.likeness) == (3, 1.0)


def test_a_source_lies_wholly_before_the_phrase_and_in_bars_of_the_same_length() -> None:
    rows = np.concatenate([moved(tune(np.random.default_rng(0), 2), first) for first in (0, 2, 4)])
    assert matches_of(rows, np.full(6, 4.0)).best_source(Phrase(1, 2)) is None
    found = matches_of(rows, np.array([4.0, 4.0, 4.0, 3.0, 4.0, 4.0])).best_source(Phrase(4, 2))
    assert found is not None
    assert found.bar == 0
    assert matches_of(rows, np.array([4.0, 3.0, 4.0, 3.0, 4.0, 4.0])).best_source(Phrase(4, 2)) is None


def test_likeness_by_role_tells_the_new_tune_from_the_old_bass() -> None:
    rng = np.random.default_rng(2)
    bass = [rows_of(*[(first + b, 12 * i, 33, 36 + b + i) for b in range(4) for i in range(4)]) for first in (0, 4)]
    rows = sort_rows(np.concatenate([*bass, tune(rng, 4, 0, 73), tune(rng, 4, 4, 73)]))
    found = matches_of(rows, np.full(8, 4.0)).best_source(Phrase(4, 4))
    assert found is not None
    assert found.of_role[BASS] == 1.0
    assert found.of_role[LEAD] < 0.2
    assert np.isnan(found.of_role[DRUMS])


# ---- the grid -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bar_s", "bars"), [(0.6, 16), (1.2, 8), (2.0, 4), (2.7, 4), (4.5, 2), (9.0, 1)])
def test_a_phrase_has_the_even_number_of_bars_nearest_ten_seconds(bar_s: float, bars: int) -> None:
    assert phrase_bars(np.full(20, bar_s)) == bars


def test_an_introduction_of_odd_length_puts_no_phrase_astray() -> None:
    rng = np.random.default_rng(3)
    theme, other = tune(rng, 4), tune(rng, 4, program=40)
    parts = [
        tune(rng, 3, program=20),
        *[moved(part, first) for part, first in zip([theme, other] * 2, (3, 7, 11, 15), strict=True)],
    ]
    assert cut(np.concatenate(parts), 19) == [3, 4, 4, 4, 4]


def test_a_bar_too_many_between_sections_is_a_matter_of_one_phrase() -> None:
    rng = np.random.default_rng(4)
    theme, other = tune(rng, 4), tune(rng, 4, program=40)
    firsts = (0, 4, 8, 13, 17, 21)  # one bar is left over before the second round
    rows = np.concatenate(
        [*[moved(p, f) for p, f in zip([theme, other, theme] * 2, firsts, strict=True)], tune(rng, 1, 12)]
    )
    borders = np.cumsum(cut(sort_rows(rows), 25)).tolist()
    assert {4, 8, 13, 17, 21, 25} <= set(borders)


@settings(max_examples=40)
@given(st.integers(0, 500), st.integers(0, 40), st.sampled_from([0.3, 1.0, 2.5, 12.0]))
def test_phrases_cover_any_song(seed: int, bars: int, bar_s: float) -> None:
    rows = random_rows(np.random.default_rng(seed), 100, bars=max(1, bars))
    sizes = cut(rows[rows[:, BAR] < bars], bars, bar_s)
    assert sum(sizes) == bars
    assert all(1 <= size <= 16 for size in sizes)
