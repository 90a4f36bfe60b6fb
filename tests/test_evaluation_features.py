"""Figures of excerpts: by hand, against muspy, and what must hold for any music."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import EXAMPLES, rows_of

from midiex import score
from midiex.evaluation.excerpts import STEPS_PER_BEAT, Excerpt, whole
from midiex.evaluation.features import BAR_STEPS, LENGTH_CLASSES, MOST_INTERVAL, by_bar, histograms, scalars
from midiex.tokens import DRUM_PITCH_OFFSET, DRUM_PROGRAM, DURATIONS, INSTANCE, PITCH, PROGRAM

TICK, QUARTER, HALF, WHOLE = (int(np.flatnonzero(length == DURATIONS)[0]) for length in (1, 24, 48, 96))
EMPTY = rows_of()


def excerpt_of(rows: np.ndarray, beats: tuple[float, ...] = (4.0, 4.0)) -> Excerpt:
    return Excerpt(rows, np.array(beats), np.array(beats) / 2)


@pytest.fixture
def small() -> Excerpt:
    """Piano: C and E in quarters, a bar later C and G in halves. A kick on both downbeats. 120 beats a minute."""
    piano = [(0, 0, 0, 60, QUARTER), (0, 12, 0, 64, QUARTER), (1, 0, 0, 60, HALF), (1, 0, 0, 67, HALF)]
    return excerpt_of(rows_of(*piano, *[(bar, 0, DRUM_PROGRAM, 36, TICK) for bar in (0, 1)]))


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_scalars_of_a_small_song(small: Excerpt) -> None:
    assert scalars(small) == pytest.approx(
        {
            "pitch_count": 3,
            "pitch_class_count": 3,
            "pitch_range": 7,
            "mean_interval": 3.5,  # C to E, E to G, the chord's top
            "notes_per_s": 6 / 4,
            "mean_onset_interval_beats": (1 + 3 + 4) / 3,  # piano twice, drums once
            "mean_length_beats": 1.5,
            "pitch_class_entropy": 1.5,  # 1/2, 1/4, 1/4
            "pitch_entropy": 1.5,
            "scale_consistency": 1,
            "polyphony": (24 + 24 + 2 * 48) / (24 + 24 + 48),
            "polyphony_rate": 0,
            "empty_beat_rate": 1 / 7,  # beats 0, 1, 2 (where E ends), 4, 5, and 6, where the chord ends
            "empty_measure_rate": 0,
            "silence": 4 / 8,
            "groove_consistency": 1 - 1 / 96,
            "velocity_mean": 82,
            "velocity_spread": 0,
            "instruments": 2,
            "drum_share": 1 / 3,
        }
    )


def test_histograms_of_a_small_song(small: Excerpt) -> None:
    found = {
        name: {tuple(map(int, at)): h[tuple(at)] for at in np.argwhere(h)} for name, h in histograms(small).items()
    }
    quarter, dotted_half, whole_note, half = (int(np.flatnonzero(n == LENGTH_CLASSES)[0]) for n in (24, 72, 96, 48))
    third = pytest.approx(1 / 3)
    assert found == {
        "pitch_class": {(0,): 0.5, (4,): pytest.approx(1 / 6), (7,): third},
        "pitch_class_transition": {(0, 4): third, (4, 0): third, (0, 7): third},
        "pitch": {(60,): 0.5, (64,): 0.25, (67,): 0.25},
        "interval": {(MOST_INTERVAL + 3,): 0.5, (MOST_INTERVAL + 4,): 0.5},
        "length": {(quarter,): 0.5, (half,): 0.5},
        "length_transition": {(quarter, quarter): third, (quarter, half): third, (half, half): third},
        "onset_interval": {(quarter,): third, (dotted_half,): third, (whole_note,): third},
        "position": {(0,): pytest.approx(5 / 6), (12,): pytest.approx(1 / 6)},
        "velocity": {(20,): 1},
        "instrument": {(0,): pytest.approx(2 / 3), (DRUM_PROGRAM,): third},
    }


def test_series_of_a_small_song(small: Excerpt) -> None:
    assert {name: bars.tolist() for name, bars in by_bar(small).items()} == {
        "notes": [3, 3],
        "onsets": [2, 1],
        "velocity": [82, 82],
        "pitches": [2, 2],
        "range": [4, 7],
        "mean_pitch": [62, 63.5],
        "length_beats": [1, 2],
        "polyphony": [1, 2],
    }


def test_voices_are_kept_apart() -> None:
    """Two instances of one program alternate; neither has an interval but its own."""
    notes = [(0, 12 * i, 0, (60, 72)[i % 2] + i // 2, QUARTER, 20, i % 2) for i in range(4)]
    found = histograms(excerpt_of(rows_of(*notes)))
    assert found["interval"][MOST_INTERVAL + 1] == 1
    assert found["pitch_class_transition"][0, 1] == 1
    assert found["onset_interval"][np.flatnonzero(LENGTH_CLASSES == 48)] == 1


def test_wide_leaps_count_as_two_octaves() -> None:
    rows = rows_of((0, 0, 0, 20), (0, 12, 0, 100), (0, 24, 0, 20))
    interval = histograms(excerpt_of(rows))["interval"]
    assert interval[0] == interval[-1] == 0.5
    assert scalars(excerpt_of(rows))["mean_interval"] == 80


def test_groove_of_bars_of_unequal_length() -> None:
    """4/4 and 3/4 that agree but for the stroke on four."""
    rows = rows_of(*[(bar, 12 * beat, 0, 60, TICK) for bar in (0, 1) for beat in range(4 - bar)])
    assert scalars(excerpt_of(rows, (4.0, 3.0)))["groove_consistency"] == pytest.approx(1 - 1 / 96)


def test_notes_that_ring_beyond_the_last_bar() -> None:
    """Measures behind the end are as long as the last one, and a series ends with the excerpt."""
    long = excerpt_of(rows_of((1, 0, 0, 60, WHOLE), (0, 0, 0, 62, QUARTER)), (3.0, 2.0))
    assert scalars(long)["empty_measure_rate"] == 0  # measures at beats 0, 3, 5 and 7, where the note ends
    assert by_bar(long)["polyphony"].tolist() == [1, 1]
    assert scalars(long)["groove_consistency"] == pytest.approx(1 - (0 + 1 + 0) / (72 + 48 + 48))


def test_silence_behind_the_last_note_is_seen() -> None:
    rows = rows_of((0, 0, 0, 60, WHOLE))
    assert scalars(excerpt_of(rows, (4.0,)))["silence"] == 0
    assert scalars(excerpt_of(rows, (4.0,) * 4))["silence"] == 0.75


def test_drums_alone() -> None:
    found = excerpt_of(rows_of(*[(bar, 12 * i, DRUM_PROGRAM, 36) for bar in (0, 1) for i in range(4)]))
    figures = scalars(found)
    tuned = ("mean_interval", "mean_length_beats", "pitch_entropy", "scale_consistency", "polyphony")
    assert all(np.isnan(figures[name]) for name in tuned)
    assert figures["pitch_range"] == figures["pitch_count"] == figures["polyphony_rate"] == 0
    assert (figures["drum_share"], figures["groove_consistency"]) == (1, 1)
    assert not histograms(found)["pitch"].any() and histograms(found)["onset_interval"].sum() == 1
    assert np.isnan(by_bar(found)["pitches"]).all() and by_bar(found)["onsets"].tolist() == [4, 4]


@pytest.mark.parametrize("beats", [(), (4.0, 4.0)])
def test_no_notes(beats: tuple[float, ...]) -> None:
    figures = scalars(excerpt_of(EMPTY, beats))
    assert figures["pitch_count"] == figures["notes_per_s"] == 0 and figures["silence"] == 1
    assert np.isnan(figures["empty_beat_rate"]) and np.isnan(figures["groove_consistency"])
    assert not any(h.any() for h in histograms(excerpt_of(EMPTY, beats)).values())
    assert all(len(bars) == len(beats) for bars in by_bar(excerpt_of(EMPTY, beats)).values())


# ---- against muspy --------------------------------------------------------------------------------------------------


def as_muspy(muspy: Any, excerpt: Excerpt) -> Any:
    """The same notes as muspy holds them, a track for each voice."""
    tracks = []
    voices = excerpt.rows[:, [PROGRAM, INSTANCE]]
    for program, instance in np.unique(voices, axis=0):
        mine = np.flatnonzero((voices == (program, instance)).all(1))
        notes = [
            muspy.Note(int(excerpt.onset[i]), int(excerpt.rows[i, PITCH] % DRUM_PITCH_OFFSET), int(excerpt.length[i]))
            for i in mine
        ]
        tracks.append(muspy.Track(program=int(program) % 128, is_drum=bool(program == DRUM_PROGRAM), notes=notes))
    return muspy.Music(resolution=STEPS_PER_BEAT, tracks=tracks)


@cache
def music() -> dict[str, Excerpt]:
    """Our example songs, and random ones with drums, without, in 3/4, with one note and with bars of rest."""
    found = {path.stem: whole(score.read(path)) for path in sorted(Path(EXAMPLES).glob("*.mid"))}
    for seed in range(4):
        rows = random_rows(np.random.default_rng(seed), 30 * (seed + 1), bars=2, voices=seed % 3 + 2)
        found[f"random {seed}"] = excerpt_of(rows)
    found["tuned"] = excerpt_of(rows_of(*[(i // 8, 6 * (i % 8), 40, 60 + 5 * i % 13, i) for i in range(16)]))
    found["waltz"] = excerpt_of(rows_of(*[(i // 3, 12 * (i % 3), 0, 60 + i, 7 + i) for i in range(12)]), (3.0,) * 4)
    found["one note"] = excerpt_of(rows_of((1, 6, 0, 61, TICK)))
    found["rests"] = excerpt_of(rows_of((1, 0, 0, 60, HALF), (5, 6, 9, 64, TICK)), (4.0,) * 8)
    return found


@pytest.mark.parametrize("name", music())
def test_scalars_are_muspys(name: str) -> None:
    muspy = pytest.importorskip("muspy")
    excerpt = music()[name]
    theirs, ours = as_muspy(muspy, excerpt), scalars(excerpt)
    metrics = {
        "pitch_count": muspy.n_pitches_used,
        "pitch_class_count": muspy.n_pitch_classes_used,
        "pitch_range": muspy.pitch_range,
        "pitch_entropy": muspy.pitch_entropy,
        "pitch_class_entropy": muspy.pitch_class_entropy,
        "scale_consistency": muspy.scale_consistency,
        "polyphony": muspy.polyphony,
        "polyphony_rate": muspy.polyphony_rate,
        "empty_beat_rate": muspy.empty_beat_rate,
    }
    expected = {key: metric(theirs) for key, metric in metrics.items()}
    if len(set(excerpt.bar_beats)) == 1:  # as muspy wants it
        bar = int(excerpt.bar_starts[1])
        expected["empty_measure_rate"] = muspy.empty_measure_rate(theirs, bar)
        expected["groove_consistency"] = muspy.groove_consistency(theirs, bar)
    assert {key: ours[key] for key in expected} == pytest.approx(expected, nan_ok=True)


# ---- any music ------------------------------------------------------------------------------------------------------


@st.composite
def excerpts(draw: st.DrawFn) -> Excerpt:
    bars = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return excerpt_of(random_rows(rng, draw(st.integers(0, 80)), bars), (4.0,) * bars)


@settings(max_examples=30, deadline=None)
@given(excerpts())
def test_shapes_and_sums(excerpt: Excerpt) -> None:
    empty = histograms(excerpt_of(EMPTY))
    for name, shares in histograms(excerpt).items():
        assert shares.shape == empty[name].shape
        assert (shares >= 0).all() and shares.sum() == pytest.approx(1 if shares.any() else 0)
    series = by_bar(excerpt)
    assert set(series) == set(BAR_STEPS) and all(bars.shape == (excerpt.bars,) for bars in series.values())
    assert series["notes"].sum() == len(excerpt.rows)
    assert set(scalars(excerpt)) == set(scalars(excerpt_of(EMPTY)))


@settings(max_examples=30, deadline=None)
@given(excerpts(), st.integers(1, 11))
def test_transposing_turns_pitch_classes_and_nothing_else(excerpt: Excerpt, semitones: int) -> None:
    low = excerpt.rows.copy()
    tuned = low[:, PITCH] < DRUM_PITCH_OFFSET
    low[tuned, PITCH] = low[tuned, PITCH] % 100
    high = low.copy()
    high[tuned, PITCH] += semitones
    ours, moved = (Excerpt(rows, excerpt.bar_beats, excerpt.bar_s) for rows in (low, high))
    assert scalars(moved) == pytest.approx(scalars(ours), nan_ok=True)
    before, after = histograms(ours), histograms(moved)
    np.testing.assert_allclose(np.roll(before["pitch_class"], semitones), after["pitch_class"])
    for name in set(before) - {"pitch", "pitch_class", "pitch_class_transition"}:
        np.testing.assert_array_equal(before[name], after[name])
