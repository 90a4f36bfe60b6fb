"""Excerpts: time in steps, stretches of bars, and where a song is cut to be continued."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import mido
import numpy as np
import pytest
from helpers import random_rows, score_of, song_in_bars, write_song
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import meter, note, riff_song, rows_of, tempo, write_midi

from midiex import score
from midiex.evaluation.excerpts import STEPS_PER_BEAT, Example, Excerpt, example, whole
from midiex.tokens import BAR, DURATION, DURATIONS, MICRO, MICRO_CENTER, MICRO_PER_BEAT, PITCH, POSITION, PROGRAM

BEAT = 480


@st.composite
def excerpts(draw: st.DrawFn) -> Excerpt:
    """A few bars, each of its own meter and tempo, with notes of several voices on and off the grid."""
    beats = np.array(draw(st.lists(st.sampled_from([1.5, 2.0, 3.0, 3.5, 4.0, 5.25]), min_size=1, max_size=9)))
    second = st.floats(0.2, 6.0)
    bar_s = np.array(draw(st.lists(second, min_size=len(beats), max_size=len(beats))))
    rows = random_rows(np.random.default_rng(draw(st.integers(0, 999))), draw(st.integers(0, 60)), len(beats))
    return Excerpt(rows[rows[:, POSITION] < 12 * beats[rows[:, BAR]]], beats, bar_s)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("songs")


def beats(path: Path, seconds: Iterable[int]) -> Path:
    """Notes of a second each, in bars of four."""
    rows = [(BEAT * second, BEAT, 60 + second % 7, 80) for second in seconds]
    score_of([(0, rows)], bpm=60).dump_midi(path)
    return path


def cut(path: Path, prompt_s: float = 30.0, next_s: float = 60.0) -> Example:
    found = example("here", score.read(path), prompt_s, next_s)
    assert found is not None
    return found


# ---- time -----------------------------------------------------------------------------------------------------------


def test_time_is_counted_in_24_steps_a_beat() -> None:
    rows = rows_of((0, 0, 0, 60), (0, 3, 0, 62, 11), (1, 4, 0, 64, 0), (2, 42, 0, 65, 27))
    music = Excerpt(rows, np.array([4.0, 3.0, 4.0]), np.array([2.0, 1.5, 2.0]))
    assert STEPS_PER_BEAT == 24
    assert music.bar_starts.tolist() == [0, 96, 168, 264]
    assert music.onset.tolist() == [0, 6, 104, 252]
    assert music.length.tolist() == [8, 12, 1, 48]  # a triplet eighth, an eighth, the shortest, a half
    assert (music.bars, music.seconds) == (3, 5.5)


def test_feel_is_heard_to_the_nearest_step() -> None:
    rows = rows_of(*((0, 12, 0, 60 + i) for i in range(8)))
    rows[:, MICRO] = np.arange(8)  # 4/96 beat early to 3/96 late
    music = Excerpt(rows, np.array([4.0]), np.array([2.0]))
    exact = 24 + (np.arange(8) - MICRO_CENTER) / 4
    assert (np.abs(music.onset - exact) <= 0.5).all()
    assert music.onset[[0, 4]].tolist() == [23, 24]


def test_nothing_begins_before_the_beginning() -> None:
    rows = rows_of((0, 0, 0, 60), (1, 0, 0, 60))
    rows[:, MICRO] = 0
    assert Excerpt(rows, np.array([4.0, 4.0]), np.array([2.0, 2.0])).onset.tolist() == [0, 95]


@given(excerpts())
def test_steps_are_the_time_of_the_rows(music: Excerpt) -> None:
    rows, lines = music.rows, np.concatenate([[0.0], np.cumsum(music.bar_beats)])
    beats = lines[rows[:, BAR]] + (rows[:, POSITION] * 8 + rows[:, MICRO] - MICRO_CENTER) / MICRO_PER_BEAT
    assert music.onset.shape == music.length.shape == (len(rows),)
    assert (np.abs(music.onset - np.maximum(beats, 0) * STEPS_PER_BEAT) <= 0.5 + 1e-6).all()
    assert (music.length == DURATIONS[rows[:, DURATION]]).all() and (music.length >= 1).all()
    assert music.bar_starts[-1] == round(music.bar_beats.sum() * STEPS_PER_BEAT)


# ---- stretches ------------------------------------------------------------------------------------------------------


@given(excerpts(), st.data())
def test_parts_are_the_whole_in_pieces(music: Excerpt, data: st.DataObject) -> None:
    inner = data.draw(st.lists(st.integers(0, music.bars), max_size=4))
    borders = sorted([0, *inner, music.bars])
    before = music.rows.copy()
    pieces = [music.part(a, b) for a, b in itertools.pairwise(borders)]
    moved = []
    for first, piece in zip(borders, pieces, strict=False):
        assert (piece.rows[:, BAR] >= 0).all() and (piece.rows[:, BAR] < piece.bars).all()
        rows = piece.rows.copy()
        rows[:, BAR] += first
        moved.append(rows)
        own = music.rows[:, BAR].searchsorted([first, first + piece.bars])
        assert (piece.length == music.length[slice(*own)]).all()  # those that ring on, too
        late = np.maximum(music.onset[slice(*own)] - music.bar_starts[first], 0)
        assert (piece.onset == late).all()
    assert (np.concatenate(moved) == music.rows).all()
    assert np.concatenate([p.bar_beats for p in pieces]).tolist() == music.bar_beats.tolist()
    assert sum(p.seconds for p in pieces) == pytest.approx(music.seconds)
    assert (music.rows == before).all()  # the pieces' bars are their own


def test_notes_that_ring_on_keep_their_length_and_are_not_heard_twice() -> None:
    eight_bars = len(DURATIONS) - 1
    music = Excerpt(rows_of((0, 36, 0, 60, eight_bars), (1, 0, 0, 64)), np.full(4, 4.0), np.full(4, 2.0))
    first, second = music.part(0, 1), music.part(1, 4)
    assert first.length.tolist() == [768] and first.rows[:, PITCH].tolist() == [60]
    assert second.rows[:, [BAR, PITCH]].tolist() == [[0, 64]]


@given(excerpts(), st.floats(-3, 60))
def test_bar_at_is_the_nearest_line(music: Excerpt, second: float) -> None:
    found = music.bar_at(second)
    distances = [abs(music.bar_s[:k].sum() - second) for k in range(music.bars + 1)]
    assert 0 <= found <= music.bars
    assert distances[found] == pytest.approx(min(distances))


@given(excerpts())
def test_bar_at_a_line_is_that_bar(music: Excerpt) -> None:
    assert [music.bar_at(float(music.bar_s[:k].sum())) for k in range(music.bars + 1)] == list(range(music.bars + 1))


# ---- songs ----------------------------------------------------------------------------------------------------------


def test_a_song_gives_its_notes_meters_and_tempi(tmp_path: Path) -> None:
    signatures = [(4, 4), (4, 4), (3, 4), (6, 8), (7, 8), (4, 4)]
    song = score.read(song_in_bars(tmp_path / "a.mid", signatures, [(0, 500_000), (8 * BEAT, 1_000_000)]))
    music = whole(song)
    assert music.bar_beats.tolist() == [4.0, 4.0, 3.0, 3.0, 3.5, 4.0]
    assert music.bar_s.tolist() == [2.0, 2.0, 3.0, 3.0, 3.5, 4.0]
    assert len(music.rows) == song.n_notes == 43
    assert music.onset.tolist() == [12 * i for i in range(43)]  # eighths throughout
    assert set(music.length.tolist()) == {12}


def test_a_song_ends_with_its_last_bar_of_notes(tmp_path: Path) -> None:
    notes = [*note(0, BEAT, 60), *note(5 * BEAT, 20 * BEAT, 62)]  # rings on for five bars
    far = [tempo(0, 120), meter(0, 4, 4), tempo(40 * BEAT, 60)]
    song = score.read(write_midi(tmp_path / "a.mid", [far, notes]))
    music = whole(song)
    assert len(song.grid) > 2 and music.bars == 2
    assert music.length.tolist() == [24, 480]


def test_a_pedal_holds_notes(tmp_path: Path) -> None:
    events = [*note(0, BEAT, 60), *note(4 * BEAT, BEAT, 62), *note(8 * BEAT, BEAT, 64)]
    down, up = (mido.Message("control_change", control=64, value=value) for value in (127, 0))
    dry = whole(score.read(write_midi(tmp_path / "dry.mid", [events])))
    wet = whole(score.read(write_midi(tmp_path / "wet.mid", [[*events, (0, down), (3 * BEAT, up)]])))
    assert dry.length.tolist() == [24, 24, 24]
    assert wet.length.tolist() == [72, 24, 24]
    assert wet.onset.tolist() == dry.onset.tolist() == [0, 96, 192]


# ---- cutting --------------------------------------------------------------------------------------------------------


def test_a_song_is_cut_in_three(tmp_path: Path) -> None:
    song = cut(riff_song(tmp_path / "a.mid", bars=90))  # bars of two seconds
    assert song.beyond is not None
    assert (song.prompt.bars, song.truth.bars, song.beyond.bars) == (15, 30, 30)
    assert (song.prompt.seconds, song.truth.seconds, song.beyond.seconds) == (30.0, 60.0, 60.0)
    assert (song.source, song.name, song.first_bar, song.seam_bar) == ("here", "a", 0, 15)
    music = whole(song.song)
    for part, first in ((song.prompt, 0), (song.truth, 15), (song.beyond, 45)):
        assert (part.rows == music.part(first, first + part.bars).rows).all()


@settings(max_examples=40)
@given(bpm=st.integers(40, 240), bars=st.integers(8, 60), prompt_s=st.integers(8, 20), next_s=st.integers(8, 30))
def test_borders_are_the_bar_lines_nearest(folder: Path, bpm: int, bars: int, prompt_s: int, next_s: int) -> None:
    song = score.read(riff_song(folder / "a.mid", bars, bpm=bpm))
    lines = whole(song).bar_s.cumsum()
    found = example("here", song, prompt_s, next_s)
    if lines[-1] < prompt_s + 0.75 * next_s:
        assert found is None
        return
    assert found is not None
    ends = found.prompt.seconds + np.cumsum([0, found.truth.seconds, found.beyond.seconds if found.beyond else 0])
    for end, wanted in zip(ends[: 2 + (found.beyond is not None)], (0, next_s, 2 * next_s), strict=False):
        assert abs(end - prompt_s - wanted) <= np.abs(lines - prompt_s - wanted).min() + 1e-6
    assert found.seam_bar == found.prompt.bars
    if found.beyond is None:
        last = lines[np.abs(lines - prompt_s - 2 * next_s).argmin()]
        assert last - ends[1] < 0.75 * next_s or lines[-1] - ends[1] < lines[0] + 1e-6  # too short, or one last note
    else:
        assert found.beyond.seconds >= 0.75 * next_s


def test_a_song_that_ends_early_has_nothing_beyond(tmp_path: Path) -> None:
    for bars, has_beyond in ((45, False), (67, False), (68, True)):  # 45 s beyond are enough, at two seconds a bar
        assert (cut(riff_song(tmp_path / "a.mid", bars)).beyond is not None) == has_beyond
    almost = cut(riff_song(tmp_path / "a.mid", 40))
    assert almost.truth.seconds == 50.0  # three quarters of what is wanted are enough


def test_short_and_nearly_empty_songs_are_left_out(tmp_path: Path) -> None:
    assert example("here", score.read(riff_song(tmp_path / "a.mid", 37))) is None  # 74 s of the 75
    assert example("here", score.read(riff_song(tmp_path / "a.mid", 38))) is not None
    assert example("here", score.read(beats(tmp_path / "a.mid", [*range(0, 30, 5), *range(30, 120)]))) is None
    assert example("here", score.read(beats(tmp_path / "a.mid", [*range(30), *range(40, 120, 20)]))) is None


def test_a_silent_beginning_is_no_prompt(tmp_path: Path) -> None:
    song = cut(beats(tmp_path / "a.mid", range(9, 160)), 31.0)  # the first two bars of four seconds are empty
    assert (song.first_bar, song.prompt.bars, song.prompt.seconds) == (2, 8, 32.0)  # 8 s to 39 s, to the nearest bar
    assert song.seam_bar == 10
    assert song.prompt.rows[0, BAR] == 0 and song.prompt.onset[0] == STEPS_PER_BEAT
    assert song.truth.seconds == 60.0 and song.truth.onset[0] == 0


def test_a_silent_beginning_makes_a_song_no_longer(tmp_path: Path) -> None:
    """80 s of which 40 s are silent hold no prompt of 30 s with three quarters of a minute behind it."""
    assert example("here", score.read(beats(tmp_path / "a.mid", range(40, 80)))) is None


def test_changes_of_meter_and_tempo_are_cut_in_seconds(tmp_path: Path) -> None:
    signatures = [(3, 4)] * 12 + [(4, 4)] * 20 + [(6, 8)] * 40
    slower = 12 * 3 * BEAT  # from the first 4/4 on a beat lasts a second
    song = cut(song_in_bars(tmp_path / "a.mid", signatures, [(0, 500_000), (slower, 1_000_000)]))
    assert song.prompt.bar_beats.tolist() == [3.0] * 12 + [4.0] * 3  # 18 s and 12 s
    assert song.prompt.seconds == 30.0
    assert song.truth.bar_beats.tolist() == [4.0] * 15
    assert song.beyond is not None and song.beyond.bar_beats.tolist() == [4.0, 4.0] + [3.0] * 17
    assert song.beyond.seconds == pytest.approx(60.0, abs=1.5)


def test_what_rings_over_the_seam_belongs_to_the_prompt(tmp_path: Path) -> None:
    events = [e for second in range(120) for e in note(BEAT * second, BEAT, 60 + second % 7)]
    held = note(27 * BEAT, 12 * BEAT, 40)  # from the bar before the seam over the one after
    song = cut(write_midi(tmp_path / "a.mid", [[tempo(0, 60), *events, *held]]), 28.0)
    assert song.prompt.seconds == 28.0
    long = song.prompt.rows[:, PITCH] == 40
    assert song.prompt.length[long].tolist() == [12 * STEPS_PER_BEAT]
    assert 40 not in song.truth.rows[:, PITCH]


def test_every_voice_is_cut_alike(tmp_path: Path) -> None:
    song = cut(write_song(tmp_path / "a.mid", bars=60))
    voices = set(whole(song.song).rows[:, PROGRAM].tolist())
    assert len(voices) == 3
    assert set(song.prompt.rows[:, PROGRAM].tolist()) == set(song.truth.rows[:, PROGRAM].tolist()) == voices
