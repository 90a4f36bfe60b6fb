"""What a window's chunks go back to, which of their voices stand already: as slow references find it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import random_rows, random_song, song_of
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of

from midiex import aligned
from midiex.sources import Spans
from midiex.tokens import BAR, INSTANCE, PITCH, POSITION, PROGRAM, moved
from midiex.windows import Song, Window, make_window, with_likest, with_standing

seeds = st.integers(0, 2**32 - 1)


def repetitive_song(seed: int, bars: int, notes_per_bar: float, meters: int = 1) -> Song:
    """Random, with few places and pitches, so that bars share notes; some of them may be of another length."""
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, round(notes_per_bar * bars), bars)
    rows[:, POSITION] = rows[:, POSITION] // 16 * 16
    rows[:, PITCH] = rows[:, PITCH] // 128 * 128 + rows[:, PITCH] % 3
    song = song_of(rows_sorted(rows), bars)
    return replace(song, bar_units=np.array([384, 288])[rng.integers(0, meters, bars)])


def rows_sorted(rows: np.ndarray) -> np.ndarray:
    fields = rows[:, [BAR, POSITION, PROGRAM, INSTANCE, PITCH]]
    _, first = np.unique(fields, axis=0, return_index=True)
    return rows[first]


def notes_of(song: Song, first: int, bars: int) -> set[tuple[int, ...]]:
    """Bar from the first, place, voice and pitch."""
    inside = song.rows[(song.rows[:, BAR] >= first) & (song.rows[:, BAR] < first + bars)]
    return {(r[BAR] - first, r[POSITION], r[PROGRAM], r[INSTANCE], r[PITCH]) for r in inside.tolist()}


def slow_likeness(song: Song, first: int, bars: int) -> list[float]:
    here, found = notes_of(song, first, bars), []
    for start in range(first - bars + 1):
        there = notes_of(song, start, bars)
        same_meter = (song.bar_units[start : start + bars] == song.bar_units[first : first + bars]).all()
        found.append(len(here & there) / max(1, len(here | there)) if same_meter else -1.0)
    return found


# ---- how alike spans are ---------------------------------------------------------------------------------------------


@given(seed=seeds, bars=st.integers(1, 14), notes_per_bar=st.floats(0, 6), meters=st.integers(1, 2), data=st.data())
@settings(deadline=None)
def test_the_likeness_of_spans_is_the_share_of_notes_in_common(
    seed: int, bars: int, notes_per_bar: float, meters: int, data: st.DataObject
) -> None:
    song = repetitive_song(seed, bars, notes_per_bar, meters)
    first = data.draw(st.integers(0, bars - 1))
    size = data.draw(st.integers(1, bars - first))
    found = Spans(song.rows, song.bar_units).likeness(first, size)
    np.testing.assert_allclose(found, slow_likeness(song, first, size), atol=1e-6)


def test_the_likest_span_is_found_and_none_of_another_meter() -> None:
    song = repetitive_song(3, 24, 5)
    again = moved(song.rows[(song.rows[:, BAR] >= 6) & (song.rows[:, BAR] < 10)], 14)
    song = replace(song, rows=np.concatenate([song.rows[song.rows[:, BAR] < 20], again]))
    spans = Spans(song.rows, song.bar_units)
    assert spans.likest(20, 4) == 6 and spans.likeness(20, 4)[6] == 1
    other = song.bar_units.copy()
    other[20:] = 288
    assert Spans(song.rows, other).likest(20, 4) is None
    assert Spans(song.rows, other).draw(20, 4, np.random.default_rng(0)) is None
    assert spans.likest(3, 4) is None  # nothing so long lies before


def test_sources_are_drawn_of_all_kinds_and_most_often_the_likest() -> None:
    song = repetitive_song(1, 40, 4, meters=2)
    spans, rng = Spans(song.rows, song.bar_units), np.random.default_rng(0)
    drawn = [spans.draw(30, 2, rng) for _ in range(400)]
    likeness = spans.likeness(30, 2)
    assert set(drawn) == set(np.flatnonzero(likeness >= 0).tolist()) and len(set(drawn)) > 4
    assert 0.5 < drawn.count(spans.likest(30, 2)) / len(drawn) < 0.9


# ---- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_so_many_chunks_go_back_to_a_source_before_them(share: float) -> None:
    song, chunks = random_song(np.random.default_rng(0), 80, 4), []
    for seed in range(60):
        window = make_window(song, 4, 4096, 0, np.random.default_rng(seed), share)
        assert all(chunk.goes_back is None for chunk in window.chunks[: window.extras])
        chunks += window.chunks[window.extras :]
    for chunk in chunks:
        source = chunk.goes_back
        if source is not None:
            assert source.first_bar >= 0 and source.first_bar + chunk.bars <= chunk.first_bar
            inside = (song.rows[:, BAR] >= source.first_bar) & (song.rows[:, BAR] < source.first_bar + chunk.bars)
            np.testing.assert_array_equal(moved(source.rows, source.first_bar), song.rows[inside])
            assert source.start.tolist() == [4 * source.first_bar, source.first_bar]
    possible = [chunk for chunk in chunks if chunk.first_bar >= chunk.bars]
    found = sum(chunk.goes_back is not None for chunk in possible) / len(possible)
    assert found == share if share in (0, 1) else abs(found - share) < 0.15


def test_a_chunk_is_told_how_like_its_source_it_is() -> None:
    song = random_song(np.random.default_rng(0), 40, 4)
    window = with_likest(make_window(song, 4, 4096, 0, np.random.default_rng(5)), song)
    chunks = [chunk for chunk in window.chunks if chunk.goes_back is not None]
    assert chunks
    for chunk in chunks:
        source = chunk.goes_back
        assert source is not None
        assert source.first_bar == Spans(song.rows, song.bar_units).likest(chunk.first_bar, chunk.bars)
        expected = aligned.likenesses(chunk.rows, source.rows, window.roles)
        np.testing.assert_array_equal(source.likeness, expected)


@given(seed=seeds, share=st.sampled_from((0.0, 1.0)))
@settings(deadline=None, max_examples=30)
def test_whole_voices_stand_never_all_and_never_none(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    window = make_window(random_song(rng, 30, 3), 4, 4096, 0, rng)
    stood = with_standing(window, share, rng)
    assert (stood.extras, stood.notes) == (window.extras, window.notes)
    for number, (before, chunk) in enumerate(zip(window.chunks, stood.chunks, strict=True)):
        voices = set(map(tuple, chunk.rows[:, [PROGRAM, INSTANCE]].tolist()))
        if share == 0 or number < window.extras or len(voices) < 2:
            assert chunk is before
            continue
        assert chunk.standing is not None
        standing, free = (
            set(map(tuple, chunk.rows[mask][:, [PROGRAM, INSTANCE]].tolist()))
            for mask in (chunk.standing, ~chunk.standing)
        )
        assert standing and free and not standing & free
        assert replace(chunk, standing=None) is not before and chunk.rows is before.rows


def test_a_voice_alone_never_stands() -> None:
    song = song_of(rows_of(*((bar, 0, 0, 60) for bar in range(20))), 20)
    window: Window = make_window(song, 3, 4096, 0, np.random.default_rng(0))
    assert all(c.standing is None for c in with_standing(window, 1.0, np.random.default_rng(0)).chunks)


def test_what_came_before_a_window_is_all_of_the_song_up_to_it_or_its_latest_notes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    song = random_song(np.random.default_rng(0), 60, 4)
    for most in (4000, 50):
        monkeypatch.setattr("midiex.windows.MOST_BEFORE", most)
        for seed in range(20):
            window = make_window(song, 3, 4096, 0, np.random.default_rng(seed))
            earlier = song.rows[song.rows[:, BAR] < window.chunks[window.extras].first_bar]
            assert window.before is not None
            np.testing.assert_array_equal(window.before, earlier[-most:])
