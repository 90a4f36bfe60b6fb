"""Form of hand-made music whose figures are known, and of random music counted note by note."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of

from midiex.evaluation import form
from midiex.evaluation.excerpts import Excerpt
from midiex.tokens import (
    BAR,
    DRUM_PROGRAM,
    INSTANCE,
    MICRO,
    MICRO_CENTER,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
    moved,
    sort_rows,
)

VERSE = [(bar, 12 * beat, 0, 60 + bar + beat) for bar in range(4) for beat in range(4)]
CHORUS = [(bar, 6 * eighth, program, 70 - eighth) for bar in range(4) for eighth in range(8) for program in (32, 40)]


def song_of(*sections: Sequence[tuple[int, int, int, int]]) -> Excerpt:
    """Sections of four bars, one after another."""
    rows = [moved(rows_of(*notes), 4 * k) for k, notes in enumerate(sections)]
    bars = 4 * len(sections)
    return Excerpt(np.concatenate(rows), np.full(bars, 4.0), np.full(bars, 2.0))


def random_music(seed: int, bars: int) -> Excerpt:
    """Random bars of which a third are earlier ones again."""
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 5 * bars, bars)
    for bar in range(4, bars):
        if rng.random() < 0.33:
            like = int(rng.integers(0, bar))
            rows = np.concatenate([rows[rows[:, BAR] != bar], moved(rows[rows[:, BAR] == like], bar - like)])
    return Excerpt(sort_rows(rows), np.full(bars, 4.0), rng.uniform(1.5, 2.5, bars))


def counted(song: Excerpt, first: int, last: int) -> dict[str, float]:
    """The figures, note by note."""
    notes: list[set[Hashable]] = [set() for _ in range(song.bars)]
    held = [defaultdict[Hashable, float](float) for _ in range((last - first) // 4)]
    played = [defaultdict[Hashable, int](int) for _ in held]
    for row in song.rows.tolist():
        part = max(0.0, (row[POSITION] * 8 + row[MICRO] - MICRO_CENTER) / 384)
        voice, drum = (row[PROGRAM], row[INSTANCE]), row[PROGRAM] == DRUM_PROGRAM
        notes[row[BAR]].add((*voice, row[PITCH], round(part * 48)))
        block, bar = divmod(row[BAR] - first, 4)
        if 0 <= block < len(held):
            held[block]["sound", drum, row[PITCH] if drum else row[PITCH] % 12] += 1
            held[block]["onset", voice, int((bar + part) * 4)] += 1
            played[block][voice] += 1
    lasts = [float(song.bar_s[first + 4 * k : first + 4 * k + 4].sum()) for k in range(len(held))]
    size = [math.sqrt(sum(v * v for v in one.values())) or 1.0 for one in held]
    alike = [
        [sum(v * b.get(k, 0.0) for k, v in a.items()) / sa / sb for b, sb in zip(held, size, strict=True)]
        for a, sa in zip(held, size, strict=True)
    ]
    pairs = [alike[i][j] for i in range(len(held)) for j in range(i + 1, len(held))]
    neighbours = [alike[i][i + 1] for i in range(len(held) - 1)]
    density = np.array([sum(p.values()) / s for p, s in zip(played, lasts, strict=True)])
    voices = {v for p in played for v in p}
    rates = [np.array([p.get(v, 0) / s for p, s in zip(played, lasts, strict=True)]) for v in voices]
    rates = [r for r in rates if r.mean() > 0.05]

    def jaccard(a: int, b: int) -> float:
        return len(notes[a] & notes[b]) / max(1, len(notes[a] | notes[b]))

    best = np.array([
        max([sum(jaccard(start + i, at + i) for i in range(4)) / 4 for at in range(start - 3)] or [0.0])
        for start in range(first, first + 4 * len(held), 4)
    ])  # fmt: skip
    return {
        "dens_cv": float(density.std() / density.mean()), "contrast": 1 - float(np.percentile(pairs, 5)),
        "adj_mean": float(np.mean(neighbours)), "adj_sd": float(np.std(neighbours)),
        "track_cv": float(np.mean([r.std() / r.mean() for r in rates])),
        "sets": len({frozenset(p) for p in played}), "phrase_best": float(best.mean()),
        "returns_5": float((best >= 0.5).mean()), "returns_8": float((best >= 0.8).mean()),
    }  # fmt: skip


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(16, 27))
def test_figures_are_those_counted_note_by_note(seed: int, first: int, bars: int) -> None:
    song = random_music(seed, first + bars)
    found, own = form.figures(song, first, first + bars), counted(song, first, first + bars)
    assert list(found) == list(form.FIGURES)
    assert found == {name: pytest.approx(value, abs=1e-6) for name, value in own.items()}


def test_a_loop_is_all_alike_and_all_comes_back() -> None:
    found = form.figures(song_of(*[VERSE] * 6), 4, 24)
    assert found == pytest.approx({
        "dens_cv": 0, "contrast": 0, "adj_mean": 1, "adj_sd": 0, "track_cv": 0, "sets": 1, "phrase_best": 1,
        "returns_5": 1, "returns_8": 1,
    })  # fmt: skip


def test_sections_that_differ_are_contrast() -> None:
    song = song_of(VERSE, CHORUS, VERSE, CHORUS, VERSE, VERSE)
    found = form.figures(song, 8, 24)
    assert found["sets"] == 2
    assert found["dens_cv"] > 0.5 and found["contrast"] > 0.4 and found["adj_sd"] > 0.2
    assert found["returns_8"] == 1


def test_what_stood_before_the_stretch_counts_for_returns_alone() -> None:
    """The prompt's music comes back, not that which overlaps the phrase itself."""
    others = [[(bar, at, program, p + k) for bar, at, program, p in VERSE] for k in (12, 24, 36)]
    song = song_of(VERSE, CHORUS, CHORUS, *others, VERSE)
    assert form.best_returns(song, np.arange(0, 28, 4)).tolist() == pytest.approx([0, 0, 1, 0, 0, 0, 1])
    alone = song.part(12, 28)
    assert form.figures(song, 12, 28)["returns_5"] == 0.25
    assert form.figures(alone, 0, 16)["returns_5"] == 0
    for name in ("dens_cv", "contrast", "adj_sd", "track_cv", "sets"):
        assert form.figures(song, 12, 28)[name] == pytest.approx(form.figures(alone, 0, 16)[name])


def test_a_phrase_may_come_back_from_any_bar() -> None:
    song = song_of(CHORUS, VERSE, CHORUS)
    late = Excerpt(moved(song.rows, 3), np.full(15, 4.0), np.full(15, 2.0))
    assert form.best_returns(late, np.array([11])).tolist() == [1.0]


def test_louder_music_is_the_same_music() -> None:
    song = random_music(3, 24)
    louder = song.rows.copy()
    louder[:, VELOCITY] = 31
    assert form.figures(Excerpt(louder, song.bar_beats, song.bar_s), 4, 24) == form.figures(song, 4, 24)


def test_short_music_has_no_form() -> None:
    found = form.figures(song_of(*[VERSE] * 5), 8, 20)
    assert list(found) == list(form.FIGURES) and all(math.isnan(value) for value in found.values())


def test_silence_is_measured_too() -> None:
    found = form.figures(song_of(VERSE, [], [], [], []), 4, 20)
    assert found["returns_5"] == found["contrast"] == found["dens_cv"] == found["track_cv"] == 0
    assert found["sets"] == 1


def test_bars_within_a_stretch_may_be_off_by_a_little() -> None:
    song = song_of(VERSE, VERSE)  # bar lines at 0, 2, ... 16
    assert form.bars_within(song, 4.05, 11.6) == (2, 6)
    assert form.bars_within(song, 4.2, 11.4) == (3, 5)
    assert form.bars_within(song, 0, 99) == (0, 8)
    assert form.bars_within(song, 15, 15) == (8, 8)


def test_a_band_has_drums_and_two_voices_more() -> None:
    drums = [(0, 0, DRUM_PROGRAM, 36)]
    assert form.is_band(song_of(CHORUS + drums))
    assert not form.is_band(song_of(CHORUS))
    assert not form.is_band(song_of(VERSE + drums))
