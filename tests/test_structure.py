"""Which bars are alike and how the mood moves: the figures are right, the pictures show them, long songs are quick."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from helpers import DRUMS, random_rows, score_of, write_song
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from songs import EXAMPLES, riff_song, rows_of

from midiex import metrics, plots, score, structure, tokens
from midiex.chunks import likeness_set
from midiex.describe import describe
from midiex.errors import BadInput
from midiex.metrics import bar_likeness
from midiex.structure import greatest_of, likeness_by_lag, mood_by_chunk, mood_plot, structure_plot
from midiex.tokens import BAR, DRUM_PROGRAM, POSITION


def rows_and_song(path: Path) -> tuple[np.ndarray, score.Song]:
    song = score.read(path)
    return tokens.encode(tokens.notes_of(song.score), tokens.voice_ids(song.score), song.grid), song


def returning_song(path: Path, bars: int = 32, period: int = 4) -> Path:
    """Four different notes a bar at 120 beats a minute; bar i + period is bar i again."""
    rows = [
        (1920 * bar + 480 * beat, 470, 48 + 4 * (bar % period) + beat + 12 * (beat % 2), 80)
        for bar in range(bars)
        for beat in range(4)
    ]
    score_of([(0, rows)]).dump_midi(path)
    return path


# ---- likeness -------------------------------------------------------------------------------------------------------


def test_a_song_that_returns_after_four_bars_shows_it(tmp_path: Path) -> None:
    rows, _ = rows_and_song(returning_song(tmp_path / "a.mid"))
    likeness = bar_likeness(rows, 32)
    same = np.arange(32)[:, None] % 4 == np.arange(32) % 4
    assert likeness.shape == (32, 32) and likeness.dtype == np.float32
    assert (likeness[same] == 1).all() and (likeness[~same] < 0.5).all()
    means = likeness_by_lag(likeness, np.ones(32, bool))
    assert means.shape == (64,)
    fourth = np.arange(1, 29) % 4 == 0
    assert (means[:28][fourth] == 1).all() and (means[:28][~fourth] < 0.5).all()
    assert np.isnan(means[28:]).all()  # fewer than four pairs of bars


def test_likeness_is_that_of_the_sets_of_notes() -> None:
    rows = random_rows(np.random.default_rng(0), 300, bars=12)
    rows[:, POSITION] = rows[:, POSITION] // 3 * 3
    rows[:, tokens.PITCH] //= 16  # so that bars share something
    rows = rows[rows[:, BAR] != 5]  # a bar without notes
    likeness = bar_likeness(rows, 12)
    bars = [rows[rows[:, BAR] == bar] - np.eye(1, 8, BAR, dtype=int) * bar for bar in range(12)]
    sets = [likeness_set(bar) for bar in bars]
    expected = [[metrics.likeness(a, b) for b in sets] for a in sets]
    np.testing.assert_allclose(likeness, expected, atol=1e-6)
    assert 0 < np.triu(likeness, 1).max() < 1 and not likeness[5].any()


def test_a_note_is_the_same_within_a_sixteenth_and_not_on_another_instrument() -> None:
    played = rows_of((0, 0, 0, 60), (1, 1, 0, 60), (2, 3, 0, 60), (3, 0, 40, 60), (4, 0, DRUM_PROGRAM, 60))
    assert bar_likeness(played, 6)[0].tolist() == [1, 1, 0, 0, 0, 0]


def test_bars_can_be_compared_several_at_a_time(tmp_path: Path) -> None:
    rows, _ = rows_and_song(returning_song(tmp_path / "a.mid", bars=30))
    likeness = bar_likeness(rows, 30, 4)
    assert likeness.shape == (8, 8)
    assert (likeness[:7, :7] == 1).all() and likeness[7, 0] == pytest.approx(0.5)  # of the last four, two are there
    assert bar_likeness(rows, 30, 2)[0, :4].tolist() == pytest.approx([1, 0, 1, 0], abs=0.4)


def test_original_and_new_are_each_compared_among_themselves() -> None:
    likeness = np.zeros((16, 16))
    likeness[:8, :8], likeness[8:, 8:] = 0.25, 0.75
    new = np.arange(16) >= 8
    for member, expected in ((~new, 0.25), (new, 0.75)):
        means = likeness_by_lag(likeness, member, 6)
        assert means[:4].tolist() == [expected] * 4 and np.isnan(means[4:]).all()
    assert np.isnan(likeness_by_lag(likeness, np.zeros(16, bool))).all()


def test_pooling_keeps_thin_lines() -> None:
    pooled = greatest_of(np.eye(5) + np.eye(5, k=4), 2)
    assert pooled.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_twenty_minutes_take_no_time() -> None:
    rows = random_rows(np.random.default_rng(0), 40_000, bars=1_500)
    begun = time.perf_counter()
    likeness = bar_likeness(rows, 1_500)
    assert time.perf_counter() - begun < 10  # a second or so, on a machine that does nothing else
    assert likeness.shape == (1_500, 1_500) and np.allclose(likeness, likeness.T)
    assert likeness.min() >= 0 and likeness.max() == 1


# ---- mood -----------------------------------------------------------------------------------------------------------


def test_the_mood_of_one_chunk_is_what_info_tells(tmp_path: Path) -> None:
    rows, song = rows_and_song(write_song(tmp_path / "a.mid", bars=5))
    mood = mood_by_chunk(rows, song.grid, np.zeros(len(song.grid), bool))
    told = describe(song)["mood"]
    assert mood.edges_s.tolist() == [0, 10]
    for name in ("arousal", "valence"):
        assert mood.figures[name].shape == (1,)
        assert round(float(mood.figures[name][0]), 2) == told[name]


def test_no_chunk_is_half_new() -> None:
    rows, song = rows_and_song(EXAMPLES / "band_groove.mid")
    new = np.zeros(len(song.grid), bool)
    new[5:9] = True
    mood = mood_by_chunk(rows, song.grid, new)
    starts = np.searchsorted(song.grid.seconds, mood.edges_s)
    assert {0, 5, 9, len(song.grid)} <= set(starts.tolist())
    assert mood.new.tolist() == [bool(new[start]) for start in starts[:-1]]
    for start, end in zip(starts, starts[1:], strict=False):
        assert len(set(new[start:end].tolist())) == 1


def test_louder_and_denser_is_more_excited_and_silence_tells_nothing(tmp_path: Path) -> None:
    calm = [(1920 * bar, 1900, 60, 50) for bar in range(8)]
    wild = [(1920 * bar + 120 * i, 100, 60 + i, 120) for bar in range(8, 16) for i in range(16)]
    late = [(1920 * bar, 100, 36, 90) for bar in range(24, 32)]  # after a rest, drums alone
    score_of([(0, calm + wild), (DRUMS, late)]).dump_midi(tmp_path / "a.mid")
    rows, song = rows_and_song(tmp_path / "a.mid")
    mood = mood_by_chunk(rows, song.grid, np.arange(len(song.grid)) // 8 % 2 == 1)
    at_s = mood.edges_s[:-1]
    arousal, valence = mood.figures["arousal"], mood.figures["valence"]
    assert arousal[at_s < 16].max() < arousal[(at_s >= 16) & (at_s < 32)].min()
    assert np.isnan(arousal[(at_s >= 32) & (at_s < 48)]).all()
    assert not np.isnan(arousal[at_s >= 48]).any() and np.isnan(valence[at_s >= 48]).all()


def test_the_error_follows_from_the_auc() -> None:
    rng = np.random.default_rng(0)
    for proxy in structure.PROXIES.values():
        low, high = rng.normal(0, 1, 4_000), rng.normal(proxy.separation, 1, 4_000)
        assert (low[:, None] < high[None, :]).mean() == pytest.approx(proxy.auc, abs=0.01)
        assert np.concatenate([low, high]).std() * proxy.error == pytest.approx(proxy.spread, rel=0.03)
    assert structure.PROXIES["arousal"].separation == pytest.approx(1.593, abs=1e-3)
    assert structure.PROXIES["valence"].error == pytest.approx(0.601, abs=1e-3)


# ---- pictures -------------------------------------------------------------------------------------------------------


def count(picture: np.ndarray, colour: str) -> int:
    return int((np.abs(picture[..., :3] - np.array(to_rgb(colour))) < 0.02).all(axis=-1).sum())


@pytest.mark.parametrize("draw", [structure_plot, mood_plot])
def test_pictures_tell_original_from_new(draw: object, tmp_path: Path) -> None:
    song = returning_song(tmp_path / "a.mid")
    for name, spans in (("plain.png", []), ("new.png", [(32.0, 64.0)]), ("fill.png", [(16.0, 24.0)])):
        draw(song, tmp_path / name, spans, "A song for $5")  # type: ignore[operator]
    plain, new, fill = (imread(tmp_path / name) for name in ("plain.png", "new.png", "fill.png"))
    assert plain.shape[:2] == new.shape[:2] == (660, 1760)
    assert count(plain, plots.NEW) == 0 < min(count(fill, plots.NEW), count(new, plots.NEW))
    assert min(count(picture, plots.ORIGINAL) for picture in (plain, new, fill)) > 0
    assert not (new == fill).all() and not (plain == fill).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mid", "fill.png", "new.png", "plain.png"]


def test_the_matrix_shows_what_returns(tmp_path: Path) -> None:
    structure_plot(returning_song(tmp_path / "a.mid"), tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")[..., :3].mean(axis=2)
    left, side = plots.LEFT * 1760, 0.765 * 660
    bottom = (1 - 0.085) * 660
    for lag, dark in ((0, True), (4, True), (8, True), (2, False), (6, False)):
        x, y = left + side * (8 + 0.5) / 32, bottom - side * (8 + lag + 0.5) / 32
        assert (picture[round(y), round(x)] < 0.25) == dark


def test_the_mood_of_new_music_is_drawn_where_it_is(tmp_path: Path) -> None:
    mood_plot(riff_song(tmp_path / "a.mid", bars=16), tmp_path / "a.png", [(16.0, 32.0)])
    picture = imread(tmp_path / "a.png")
    middle = round(1760 * (plots.LEFT + 0.846 / 2))
    assert count(picture[95:, : middle - 4], plots.TINT) == 0 < count(picture[95:, middle + 4 :], plots.TINT)


@pytest.mark.parametrize("draw", [structure_plot, mood_plot])
def test_tiny_and_odd_songs_are_drawn(draw: object, tmp_path: Path) -> None:
    songs = {"one note": [(0, [(0, 480, 60, 80)])], "drums": [(DRUMS, [(480 * i, 100, 36, 80) for i in range(64)])]}
    for name, voices in songs.items():
        score_of(voices).dump_midi(tmp_path / "a.mid")
        for spans in ([], [(0.0, 1.0)]):
            draw(tmp_path / "a.mid", tmp_path / f"{name}.png", spans, name)  # type: ignore[operator]
        assert imread(tmp_path / f"{name}.png").shape[:2] == (660, 1760)


@pytest.mark.parametrize("draw", [structure_plot, mood_plot])
def test_errors_are_one_sentence_and_leave_nothing(draw: object, tmp_path: Path) -> None:
    song = riff_song(tmp_path / "a.mid")
    for midi, png, spans, says in (
        (song, "a.pdf", [], r"end it in \.png"),
        (tmp_path / "none.mid", "a.png", [], "none.mid"),
        (song, "a.png", [(5.0, 4.0)], "span of new music"),
        (song, "no folder/a.png", [], "cannot be written"),
    ):
        with pytest.raises(BadInput, match=says):
            draw(midi, tmp_path / png, spans)  # type: ignore[operator]
    assert [path.name for path in tmp_path.iterdir()] == ["a.mid"]
