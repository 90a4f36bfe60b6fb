"""Songs cut and gone on with for minutes: what the writers know, and how they are held beside the song's own."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest
import symusic
from helpers import song_in_bars, write_song
from songs import note, save_talkative, tempo, write_midi

from midiex import extend, score
from midiex.evaluation import form, form_study
from midiex.evaluation.excerpts import whole
from midiex.evaluation.form_study import Cut, Judged
from midiex.evaluation.prompts import save_prompt
from midiex.extend import Model
from midiex.score import events_before
from midiex.tokens import BAR

BAND, BPM = (0, 32, -1), 60  # four seconds a bar


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    loaded = extend.load(save_talkative(tmp_path_factory.mktemp("model")))
    few = replace(loaded.config.generate, candidates=1, max_attempts=1)
    return replace(loaded, config=replace(loaded.config, generate=few))


def cut(folder: Path, bars: int = 45, prompt_s: float = 62.0, programs: tuple[int, ...] = BAND) -> Cut | None:
    path = write_song(folder / "song.mid", bars=bars, programs=programs, bpm=BPM)
    return form_study.cut("here", score.read(path), prompt_s)


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_a_prompt_is_the_song_up_to_the_bar_and_nothing_else(tmp_path: Path) -> None:
    song = score.read(song_in_bars(tmp_path / "song.mid", [(4, 4)] * 3 + [(3, 4)] * 5, ((0, 500_000), (9000, 400_000))))
    prompt = score.read(save_prompt(song, 5, tmp_path / "prompt.mid"))
    end = int(song.grid.ticks[5])
    assert events_before(prompt.midi, end) == events_before(song.midi, end)
    assert prompt.end_tick == end
    assert whole(prompt).rows.tolist() == whole(song).part(0, 5).rows.tolist()
    assert prompt.grid.bar_s.tolist() == song.grid.bar_s[:5].tolist()


def test_what_sounds_at_the_end_of_a_prompt_is_released_there(tmp_path: Path) -> None:
    path = write_midi(
        tmp_path / "a.mid", [[tempo(0, 120)], [*note(0, 5000, 60), *note(960, 5000, 64), *note(8000, 9, 65)]]
    )
    prompt = score.read(save_prompt(score.read(path), 1, tmp_path / "prompt.mid"))
    notes = prompt.score.tracks[0].notes.numpy()
    assert (notes["time"] + notes["duration"]).tolist() == [1920, 1920] and prompt.n_notes == 2
    assert isinstance(mido.MidiFile(tmp_path / "prompt.mid").tracks[1][-1], mido.MetaMessage)


# ---- cutting --------------------------------------------------------------------------------------------------------


def test_songs_are_cut_at_the_nearest_bar_and_end_at_four_minutes(tmp_path: Path) -> None:
    one = cut(tmp_path, bars=70, prompt_s=63.0)
    assert one is not None and one.is_band and one.end_s == 240
    assert (one.seam_bar, one.last_bar) == (16, 60)  # 64 s is nearer than 60
    assert (one.before.bars, one.truth.bars) == (16, 44)
    shorter = cut(tmp_path, bars=45, prompt_s=29.0, programs=(0,))
    assert shorter is not None and not shorter.is_band
    assert (shorter.seam_bar, shorter.last_bar, shorter.end_s) == (7, 45, 180)


def test_short_songs_are_left_out(tmp_path: Path) -> None:
    assert cut(tmp_path, bars=32) is None  # 128 s
    assert cut(tmp_path, bars=33) is not None
    long_bars = song_in_bars(tmp_path / "slow.mid", [(4, 4)] * 14, ((0, 2_500_000),))  # ten seconds each, eight after
    assert form_study.cut("here", score.read(long_bars), 62.0) is None


# ---- writing and comparing ------------------------------------------------------------------------------------------


def test_our_model_cannot_look_ahead(tmp_path: Path, model: Model) -> None:
    """What the song does after the seam makes no difference."""
    one = cut(tmp_path, bars=33)
    assert one is not None
    changed = symusic.Score(one.song.path)
    for track in changed.tracks:
        for struck in track.notes:
            struck.pitch += 5 * (struck.time >= one.song.grid.ticks[15])
    (tmp_path / "other").mkdir()
    changed.dump_midi(tmp_path / "other" / "song.mid")
    other = score.read(tmp_path / "other" / "song.mid")
    assert whole(other).part(0, 15).rows.tolist() == one.music.part(0, 15).rows.tolist()
    assert whole(other).rows.tolist() != one.music.rows.tolist()
    here, there = (replace(one, song=song, seam_bar=15, end_s=90.0) for song in (one.song, other))
    first, second = (form_study.ours(each, model, 3) for each in (here, there))
    assert [c.rows.tolist() for c in first.written] == [c.rows.tolist() for c in second.written] != []


def test_all_writers_have_the_same_seconds_behind_the_same_beginning(tmp_path: Path, model: Model) -> None:
    one = cut(tmp_path)
    assert one is not None
    passage = form_study.ours(one, model, 1)
    music = form_study.songs(one, passage, {"silence": replace(one.truth, rows=one.truth.rows[:0])})
    assert list(music) == ["real", "ours", "loop", "repeat", "silence"]
    for song in music.values():
        assert form_study.stretch(one, song) == (one.seam_bar, one.last_bar)
        assert song.part(0, one.seam_bar).rows.tolist() == one.before.rows.tolist()
    assert music["real"].rows.tolist() == one.music.part(0, one.last_bar).rows.tolist()
    assert (music["ours"].rows[:, BAR] >= one.seam_bar).any()
    found = form_study.figures(one, music)
    assert found["real"] == form.figures(one.music, one.seam_bar, one.last_bar)
    assert found["loop"]["returns_8"] == found["repeat"]["returns_8"] == 1 and found["silence"]["returns_5"] == 0


def judged(source: str, band: bool, **values: float) -> Judged:
    return Judged(source, band, {writer: dict.fromkeys(form.FIGURES, value) for writer, value in values.items()})


def test_sources_weigh_the_same_and_songs_without_a_figure_nothing() -> None:
    songs = [judged("a", True, real=1.0, ours=0.5)] * 3 + [judged("b", False, real=3.0, ours=math.nan)]
    means = form_study.pooled_figures(songs)
    assert means["real"]["contrast"] == 2 and means["ours"]["contrast"] == 0.5
    by_source = form_study.figures_by_source(songs)
    assert by_source["a"]["ours"]["sets"] == 0.5 and by_source["b"]["real"]["sets"] == 3
    assert math.isnan(by_source["b"]["ours"]["sets"])


def test_nearer_counts_the_figures_that_are_judged() -> None:
    means = form_study.pooled_figures([judged("a", True, real=1.0, ours=0.8, loop=0.1, repeat=1.1)])
    assert form.nearer(means) == {"loop": 7, "repeat": 0} and form.nearer(means, "repeat") == {"loop": 7, "repeat": 0}
    assert form.distances(means)["ours"]["sets"] == pytest.approx(-0.2) and "real" not in form.distances(means)
    means["ours"]["contrast"] = 1.0
    means["repeat"]["adj_mean"] = 9.0  # not judged
    assert form.nearer(means) == {"loop": 7, "repeat": 1}
    del means["loop"]
    assert form.nearer(means) == {"repeat": 1} and form.nearer(means, "nobody") == {}
    means["ours"]["sets"] = math.nan
    assert form.nearer(means)["repeat"] == 1
    assert np.isnan(form.distances({"real": {"sets": 0.0}, "ours": {"sets": 1.0}})["ours"]["sets"])
