"""The evaluation as a whole: means over songs, who goes on from a prompt, and every figure for each of them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import song_in_bars, write_song
from hypothesis import given
from hypothesis import strategies as st
from songs import note, programs_in, rows_of, save_talkative, tempo, write_midi

from midiex import extend, score
from midiex.config import load_config
from midiex.errors import BadInput, MissingPart
from midiex.evaluation import discriminator, form, likelihood, run, work, writers
from midiex.evaluation.bootstrap import Estimate, by_source, pooled
from midiex.evaluation.excerpts import Example, Excerpt, example, whole
from midiex.evaluation.run import Scope, evaluate, songs_of
from midiex.evaluation.work import Job, JudgedLong
from midiex.extend import Model, Passage
from midiex.prepare import prepare
from midiex.tokens import BAR, FIELDS, HEAD_ORDER, PITCH, POSITION, sort_rows

BARS, BPM = 36, 60  # four seconds a bar: a song of 144 s is long enough for all that is measured
BAND, PIANO = (0, 32, -1), (0,)
FEW = {"candidates": 1, "max_attempts": 1}
ALL, SHORT = Scope(2, 3, 1, 120.0, 1), Scope(2, 3, 0, 120.0)
WRITERS = {"ours", "ngram", "loop", "repeat", "real"}
OF_EACH_WRITER = {
    "overlap", "overlap_share", "compression", "longest_repeat_bars",
    *(f"similarity{kind}_{lag}" for kind in ("", "_error") for lag in (1, 2, 4, 8, 16, 32)),
    *(f"seam_{name}" for name in ("gap_s", "density_jump", "level_jump", "register_jump", "rough")),
    *(f"mood_{mood}_{name}" for mood in ("arousal", "valence") for name in ("distance", "slope")),
}  # fmt: skip
OF_OURS = {
    "choice", "resampled", "fallback",
    *(f"staying_{name}" for name in ("silence_s", "held_notes", "strikes", "stuck", "repeats", "looped_bars", "silent",
                                     "resampled", "fallback")),
}  # fmt: skip
OF_OURS_AND_REAL = {f"staying_mood_{mood}_{name}" for mood in ("arousal", "valence") for name in ("distance", "slope")}


class Here:
    """A process pool without processes, which take seconds to start."""

    def __init__(self, jobs: int, context: object, begin: Callable[..., None], args: tuple[Any, ...]):
        begin(*args)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def map(self, work: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        return map(work, tasks)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(work, "_tools", [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two sources; the one has a broken file besides, the other one that is too short."""
    folder = tmp_path_factory.mktemp("evaluation")
    save_talkative(folder / "model")
    for k in range(2):
        write_song(folder / "band" / f"{k}.mid", bars=BARS, programs=BAND, seed=k, bpm=BPM)
        write_song(folder / "piano" / f"{k}.mid", bars=BARS, programs=PIANO, seed=10 + k, bpm=BPM)
    (folder / "band" / "broken.mid").write_bytes(b"MThd and no more")
    write_song(folder / "piano" / "short.mid", bars=8, programs=PIANO, seed=20, bpm=BPM)
    prepare([folder / "band", folder / "piano"], folder / "shards", jobs=1)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    loaded = extend.load(folder / "model")
    return replace(loaded, config=replace(loaded.config, generate=replace(loaded.config.generate, **FEW)))


@pytest.fixture(scope="module")
def told() -> list[tuple[str, int, int]]:
    """What `result` has told of its progress."""
    return []


@pytest.fixture(scope="module")
def result(folder: Path, told: list[tuple[str, int, int]]) -> dict[str, Any]:
    """Everything there is to measure, in a process of its own. The discriminator makes do with four songs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discriminator, "SEEDS", 1)
        patch.setattr(discriminator, "FOLDS", 2)
        return evaluate(
            [folder / "band", folder / "piano"], model=folder / "model", shards=folder / "shards", scope=ALL,
            generate=FEW, progress=lambda *step: told.append(step),
        )  # fmt: skip


def quick(folders: Iterable[Path], model: Path, **changes: Any) -> dict[str, Any]:
    """One song a source, and nothing long."""
    return evaluate([*folders], **{"model": model, "scope": Scope(1, 2, 0, 60.0), "generate": FEW} | changes)


def cut(path: Path) -> Example:
    found = example("here", score.read(path))
    assert found is not None
    return found


def in_bar(music: Excerpt, bar: int) -> list[list[int]]:
    rows = music.rows[music.rows[:, BAR] == bar, 1:]
    return rows.tolist()


# ---- means ----------------------------------------------------------------------------------------------------------


def test_every_source_weighs_the_same() -> None:
    values = {"many": [1.0] * 30, "few": [4.0], "two": [5.0, 9.0]}
    assert by_source(values) == {"many": 1.0, "few": 4.0, "two": 7.0}
    found = pooled(values)
    assert found.mean == 4.0 and found.songs == 33
    assert (found.low, found.high) == (pytest.approx(10 / 3), pytest.approx(14 / 3))  # of two, both may be drawn twice


def test_songs_weigh_what_they_are_told_to() -> None:
    values = {"a": [(1.0, 30.0), (4.0, 10.0)], "b": [(3.0, 0.1)]}
    assert by_source(values) == {"a": pytest.approx(1.75), "b": pytest.approx(3.0)}
    assert pooled(values).mean == pytest.approx(2.375)
    even = {"a": [(1.0, 7.0), (4.0, 7.0)]}
    assert pooled(even) == pooled({"a": [1.0, 4.0]})


def test_what_is_not_known_is_left_out() -> None:
    nan = math.nan
    assert pooled({"a": [1.0, nan, 3.0], "b": [nan, nan]}) == pooled({"a": [1.0, 3.0]})
    assert pooled({"a": [(1.0, 1.0), (nan, 5.0)]}).songs == 1
    found = by_source({"a": [1.0, nan], "b": [nan]})
    assert found["a"] == 1.0 and math.isnan(found["b"])
    for nothing in ({}, {"a": [nan]}):
        found = pooled(nothing)
        assert found.songs == 0 and all(map(math.isnan, (found.mean, found.low, found.high)))


def test_a_source_without_songs_is_left_out() -> None:
    assert pooled({"a": [1.0, 3.0], "b": []}) == pooled({"a": [1.0, 3.0]})
    assert math.isnan(by_source({"b": []})["b"])


numbers = st.floats(-1e3, 1e3)


@given(st.dictionaries(st.sampled_from("abcde"), st.lists(numbers, min_size=1, max_size=12), min_size=1))
def test_the_interval_holds_the_mean(values: dict[str, list[float]]) -> None:
    found = pooled(values)
    assert found.mean == pytest.approx(np.mean([np.mean(v) for v in values.values()]), abs=1e-9)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    assert min(map(min, values.values())) - 1e-9 <= found.low
    assert found.high <= max(map(max, values.values())) + 1e-9


@given(st.dictionaries(st.sampled_from("abc"), numbers, min_size=1))
def test_one_song_a_source_leaves_no_doubt_that_could_be_drawn(values: dict[str, float]) -> None:
    found = pooled({source: [value] for source, value in values.items()})
    assert found.low == found.high == pytest.approx(found.mean, abs=1e-9)


def test_the_interval_is_drawn_alike_and_narrows_with_songs() -> None:
    rng = np.random.default_rng(0)
    songs = rng.normal(5, 2, 400).tolist()
    assert pooled({"a": songs}) == pooled({"a": songs}) != pooled({"a": songs}, seed=1)
    few, many = pooled({"a": songs[:25]}), pooled({"a": songs})
    assert few.high - few.low == pytest.approx(2 * 1.96 * np.std(songs[:25]) / 5, rel=0.15)  # the normal one
    assert many.high - many.low == pytest.approx(2 * 1.96 * np.std(songs) / 20, rel=0.15)


# ---- the loop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bars", [3, 8, 11])
def test_the_loop_repeats_the_last_bars_exactly(folder: Path, bars: int) -> None:
    song = cut(folder / "band" / "0.mid")
    song = replace(song, prompt=whole(song.song).part(0, bars))
    looped, size = writers.loop(song.prompt, song.truth), min(bars, writers.LOOP_BARS)
    assert writers.LOOP_BARS == 8
    assert looped.bar_beats.tolist() == song.truth.bar_beats.tolist() and looped.seconds == song.truth.seconds
    assert looped.bars == 15 and (looped.rows == sort_rows(looped.rows)).all()
    for bar in range(looped.bars):
        assert in_bar(looped, bar) == in_bar(song.prompt, bars - size + bar % size) != []
    assert (song.prompt.rows == whole(song.song).part(0, bars).rows).all()


def test_a_loop_is_cut_to_bars_of_another_meter(folder: Path) -> None:
    song = cut(folder / "band" / "0.mid")
    beats = np.array([4.0, 3.0, 1.5, 4.0])
    looped, size = writers.loop(song.prompt, Excerpt(rows_of(), beats, beats)), min(8, song.prompt.bars)
    assert looped.bars == 4
    for bar in range(4):
        fits = [row for row in in_bar(song.prompt, song.prompt.bars - size + bar) if row[0] < 12 * beats[bar]]
        assert in_bar(looped, bar) == fits != []


def test_to_repeat_is_to_begin_again_with_the_first_bar(folder: Path) -> None:
    song = cut(folder / "band" / "0.mid")
    again = writers.repeat(song.prompt, song.truth)
    assert song.prompt.bars < again.bars == song.truth.bars
    for bar in range(again.bars):
        assert in_bar(again, bar) == in_bar(song.prompt, bar % song.prompt.bars) != []


# ---- our model ------------------------------------------------------------------------------------------------------


@pytest.fixture
def passages(monkeypatch: pytest.MonkeyPatch) -> list[Passage]:
    """The passages that have been begun."""
    begun: list[Passage] = []

    def spy(*args: Any, **options: Any) -> Passage:
        begun.append(extend.start(*args, **options))
        return begun[-1]

    monkeypatch.setattr(writers, "start", spy)
    return begun


def late_song(path: Path) -> Path:
    """Nothing in the first two bars, then a note a second."""
    return write_midi(path, [[tempo(0, 60), *(e for k in range(9, 120) for e in note(480 * k, 480, 60 + k % 7))]])


def waltz(path: Path) -> Path:
    return song_in_bars(path, [(3, 4)] * 60, [(0, 640_000)])  # 1.92 s a bar


@pytest.mark.parametrize("make", [late_song, waltz])
def test_new_music_begins_at_the_seam(
    model: Model, passages: list[Passage], tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    song = cut(make(tmp_path / "a.mid"))
    written = writers.ours(song, 20.0, model, 3)
    (passage,) = passages
    line, grid = passage.line, song.song.grid
    assert line.before == song.seam_bar and line.start_tick == grid.ticks[song.seam_bar]
    assert line.start_s == pytest.approx(grid.seconds[song.seam_bar])
    assert written.music.bar_beats.tolist() == song.truth.bar_beats[: written.music.bars].tolist()
    notes = passage.new_notes()
    played = {
        (int(tick) - line.start_tick, int(pitch)) for tick, pitch in zip(notes.start_ticks, notes.pitch, strict=True)
    }
    music = written.music
    heard = {(20 * int(step), int(pitch)) for step, pitch in zip(music.onset, music.rows[:, PITCH], strict=True)}
    last_line = 20 * music.bar_starts[-2]
    assert len(heard) > 8
    for some, others in ((heard, played), ({p for p in played if p[0] < last_line}, heard)):
        for tick, pitch in some:  # to a step of 20 ticks
            assert any(pitch == other and abs(tick - at) <= 20 for at, other in others)


@pytest.mark.parametrize("seconds", [7.0, 20.0, 61.0])
def test_new_music_is_as_long_as_asked_to_a_bar(model: Model, tmp_path: Path, seconds: float) -> None:
    for make in (late_song, waltz):
        song = cut(make(tmp_path / "a.mid"))
        music = writers.ours(song, seconds, model, 0).music
        assert abs(music.seconds - seconds) <= song.prompt.bar_s.max() / 2 + 1e-6
        assert len(music.bar_s) == music.bars == len(music.bar_beats)
        assert (music.rows == sort_rows(music.rows)).all()
        assert music.rows[:, BAR].min() >= 0 and music.rows[:, BAR].max() < music.bars
        assert (music.rows[:, POSITION] < 12 * music.bar_beats[music.rows[:, BAR]]).all()


def test_what_truly_follows_is_not_looked_at(model: Model, tmp_path: Path) -> None:
    """Two songs that go on otherwise, one with more instruments, are continued alike."""
    start = [e for k in range(60) for e in note(240 * 2 * k, 400, 60 + k * k % 7)]
    rest = [e for k in range(60, 200) for e in note(480 * k, 400, 60 + k * k % 7)]
    other = [e for k in range(60, 200) for e in note(480 * k, 100, 30 + k * k % 5, 110)]
    songs = [
        cut(write_midi(tmp_path / f"{k}.mid", [[tempo(0, 120), *start, *mine], *more]))
        for k, (mine, more) in enumerate([(rest, []), (other, [[e for e in rest if e[0] > 480 * 70]])])
    ]
    assert (songs[0].prompt.rows == songs[1].prompt.rows).all()
    assert songs[0].truth.rows.shape != songs[1].truth.rows.shape
    a, b = (writers.ours(song, 30.0, model, 0).music.rows for song in songs)
    assert len(a) > 20 and (a == b).all()


def test_new_music_is_played_by_the_songs_instruments_and_depends_on_the_seed(folder: Path, model: Model) -> None:
    song = cut(folder / "band" / "0.mid")
    first, again, other = (writers.ours(song, 40.0, model, seed).music.rows for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    assert programs_in(first) <= programs_in(song.prompt.rows)


def test_settings_can_be_others(folder: Path, model: Model, passages: list[Passage]) -> None:
    song = cut(folder / "piano" / "0.mid")
    usual = model.config.generate
    other = replace(usual, candidates=2, temperature=0.5)
    a, b = writers.ours(song, 10.0, model, 0), writers.ours(song, 10.0, model, 0, other)
    assert [p.generate for p in passages] == [usual, other] and model.config.generate is usual
    assert a.music.rows.tolist() != b.music.rows.tolist()


def test_how_it_came_about_is_told(folder: Path, model: Model, passages: list[Passage]) -> None:
    song = cut(folder / "piano" / "0.mid")
    written = writers.ours(song, 30.0, model, 0)
    assert written.chunks == len(passages[0].written) >= 4
    assert (written.resampled, written.fallback) == (0, 0)


def test_a_model_that_falls_silent_is_found_out(
    folder: Path, model: Model, passages: list[Passage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extend, "write_chunk", lambda *_: [])
    patient = replace(model.config.generate, max_attempts=2)
    written = writers.ours(cut(folder / "piano" / "0.mid"), 30.0, model, 0, patient)
    assert written.chunks >= written.fallback >= 1
    assert written.resampled == written.fallback == sum(c.fallback for c in passages[0].written)
    assert len(written.music.rows) > 0  # the song's own chunk


# ---- one song -------------------------------------------------------------------------------------------------------


@pytest.fixture
def heard(here: None, folder: Path) -> work.Heard:
    work.begin(str(folder / "model"), None, FEW)
    found = work.continue_song(Job("band", folder / "band" / "0.mid", 5, None))
    assert found is not None
    return found


def test_a_song_is_continued_beside_its_rivals(heard: work.Heard, folder: Path, model: Model) -> None:
    song = cut(folder / "band" / "0.mid")
    assert heard.prompt.rows.tolist() == song.prompt.rows.tolist()
    assert heard.truth.rows.tolist() == song.truth.rows.tolist()
    assert heard.ours.music.rows.tolist() == writers.ours(song, 60.0, model, 5).music.rows.tolist()  # FEW is in force
    assert heard.loop.rows.tolist() == writers.loop(song.prompt, song.truth).rows.tolist()
    assert heard.ngram is None and heard.music("ngram") is None
    assert song.beyond is not None and heard.beyond is not None
    real = heard.music("real")
    assert real is heard.beyond and real.rows.tolist() == song.beyond.rows.tolist()
    assert heard.music("ours") is heard.ours.music and heard.music("loop") is heard.loop


def test_songs_that_cannot_be_read_or_are_too_short_are_left_out(here: None, folder: Path) -> None:
    work.begin(str(folder / "model"), None, FEW)
    for path in (folder / "band" / "broken.mid", folder / "piano" / "short.mid", folder / "nowhere.mid"):
        assert work.continue_song(Job("x", path, 0, None)) is None


def test_a_long_continuation_is_as_long_as_asked_and_alone(here: None, folder: Path) -> None:
    work.begin(str(folder / "model"), None, FEW)
    found = work.continue_song(Job("piano", folder / "piano" / "0.mid", 0, 110.0))
    assert found is not None and found.ngram is None
    assert found.ours.music.seconds == pytest.approx(110.0, abs=2.0)
    judged = work.judge_long(found)
    assert {len(values) for values in judged.by_minute.values()} == {2}
    assert set(judged.by_minute) >= {"overlap", "notes_per_s", "compression", "silence_s"}
    assert all(math.isfinite(v) for values in judged.by_minute.values() for v in values)
    notes = judged.by_minute["notes_per_s"]
    assert sum(notes) / 2 == pytest.approx(len(found.ours.music.rows) / found.ours.music.seconds, rel=0.1)


def test_who_writes_the_truth_is_perfect(heard: work.Heard) -> None:
    judged = work.judge(replace(heard, loop=heard.truth, ours=replace(heard.ours, music=heard.beyond)))
    assert judged.source == "band"
    assert judged.figures["overlap", "loop"] == pytest.approx(1.0)
    assert set(judged.overlaps["loop"]) and min(judged.overlaps["loop"].values()) == pytest.approx(1.0)
    for lag in (1, 2, 4, 8):
        assert judged.figures[f"similarity_error_{lag}", "loop"] == 0
        assert judged.figures[f"similarity_{lag}", "loop"] == judged.figures[f"similarity_{lag}", "truth"]
    assert judged.figures["overlap_share", "ours"] == judged.figures["overlap_share", "real"] == 1.0
    assert judged.figures["overlap_share", "loop"] > 1.0  # the ceiling is how much a song differs from itself
    for name in ("compression", "longest_repeat_bars", "seam_gap_s", "mood_valence_distance"):
        assert judged.figures[name, "loop"] == judged.figures[name, "real"]  # of these, real is the song's next minute


def test_a_song_without_a_second_minute_and_a_silent_writer_go_unjudged(heard: work.Heard) -> None:
    silent = replace(heard.loop, rows=heard.loop.rows[:0])
    figures = work.judge(replace(heard, beyond=None, loop=silent)).figures
    assert ("overlap", "ours") in figures and ("compression", "real") in figures
    assert not {("overlap", "real"), ("overlap_share", "ours"), ("overlap", "loop")} & set(figures)


def test_chunks_that_went_wrong_are_counted(heard: work.Heard) -> None:
    odd = replace(heard, ours=replace(heard.ours, chunks=8, resampled=4, fallback=2))
    for figures in ({name: v for (name, _), v in work.judge(odd).figures.items()}, work.judge_long(odd).figures):
        assert (figures["resampled"], figures["fallback"]) == (0.5, 0.25)


# ---- which songs ----------------------------------------------------------------------------------------------------


def test_songs_are_all_midi_files_of_each_folder(folder: Path) -> None:
    found = songs_of([folder / "band", str(folder / "piano")], None, "test")
    assert list(found) == ["band", "piano"]
    assert {p.name for p in found["band"]} == {"0.mid", "1.mid", "broken.mid"}
    assert found == songs_of([folder / "band", folder / "piano"], None, "valid")


def test_the_split_table_is_respected(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    lines = ["band,0.mid,test", "band,1.mid,train", "piano,1.mid,test", "piano,0.mid,valid", "other,0.mid,test"]
    table.write_text("\n".join(["source,file,split", *lines]))
    both = [folder / "band", folder / "piano"]

    def names(split: str) -> dict[str, list[str]]:
        return {source: [p.name for p in paths] for source, paths in songs_of(both, table, split).items()}

    assert names("test") == {"band": ["0.mid"], "piano": ["1.mid"]}
    assert names("valid") == {"piano": ["0.mid"]}
    with pytest.raises(BadInput, match="split table"):
        names("nothing")


def test_songs_come_in_an_order_of_their_own(tmp_path: Path) -> None:
    """Not by name, in which alike songs are neighbours; the same wherever they lie and whichever others there are."""
    paths = [tmp_path / "a" / f"{k:02}.mid" for k in range(30)]
    paths[0].parent.mkdir()
    for path in paths:
        path.touch()
    found = [p.name for p in songs_of([tmp_path / "a"], None, "test")["a"]]
    assert sorted(found) == [p.name for p in paths] != found
    moved = shutil.copytree(tmp_path / "a", tmp_path / "b" / "a")
    for k in range(10, 20):
        (moved / f"{k:02}.mid").unlink()
    assert [p.name for p in songs_of([moved], None, "test")["a"]] == [name for name in found if name[0] != "1"]


def test_folders_of_one_name_are_one_source(tmp_path: Path) -> None:
    """As they are when shards are made of them; no song is lost."""
    for above, name in (("x", "0.mid"), ("y", "1.mid")):
        (tmp_path / above / "band").mkdir(parents=True)
        (tmp_path / above / "band" / name).touch()
    found = songs_of([tmp_path / "x" / "band", tmp_path / "y" / "band"], None, "test")
    assert {p.name for p in found["band"]} == {"0.mid", "1.mid"}


def test_folders_and_tables_that_cannot_be_used_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere is not a folder"):
        songs_of([folder / "band", tmp_path / "nowhere"], None, "test")
    with pytest.raises(BadInput, match="None of the folders holds a MIDI file"):
        songs_of([tmp_path], None, "test")
    (tmp_path / "odd.csv").write_text("song,part\n1,2\n")
    (tmp_path / "binary.csv").write_bytes(b"source,file,split\n\xff\xfe,a,b\n")
    for table in ("none.csv", "odd.csv", "binary.csv"):
        with pytest.raises(BadInput, match="columns source, file and split"):
            songs_of([folder / "band"], tmp_path / table, "test")


# ---- all of it ------------------------------------------------------------------------------------------------------


def test_every_figure_is_given_for_every_writer(result: dict[str, Any]) -> None:
    figures = result["figures"]
    assert set(figures) >= OF_EACH_WRITER | OF_OURS | {"nll", "set_oa", "set_kld", "shared_grams", "shared_run_notes"}
    for name in OF_EACH_WRITER:
        assert set(figures[name]) - {"truth"} == WRITERS, name
    for name in OF_OURS:
        assert set(figures[name]) == {"ours"}, name
    for name in OF_OURS_AND_REAL:
        assert set(figures[name]) == {"ours", "real"}, name
    for name in ("nll", *(f"nll_{field}" for field in FIELDS)):
        assert set(figures[name]) - {"notes"} == {"ours", "ngram", "ngram with song"}, name
    for name in ("set_oa", "set_kld"):
        assert set(figures[name]) == WRITERS and all(math.isfinite(f["mean"]) for f in figures[name].values())
    for name in ("shared_grams", "shared_run_notes"):
        assert set(figures[name]) == {"ours", "ngram", "real"}
        assert list(figures[name]["real"]["quantiles"]) == ["0.5", "0.95", "1"]
    assert set(result["by_feature"]) == WRITERS
    assert {len(values) for values in result["by_minute"].values()} == {2}
    assert set(result["discriminator"]) == set(discriminator.KINDS)
    assert len(discriminator.KINDS) == 4
    for writer_scores in result["discriminator"].values():
        assert set(writer_scores) == WRITERS and all(0 <= s["auc"] <= 1 for s in writer_scores.values())


def test_every_figure_has_its_mean_and_interval_by_source(result: dict[str, Any]) -> None:
    uncertain = {f"similarity{kind}_{lag}" for kind in ("", "_error") for lag in (16, 32)} | {"seam_rough"}
    for name in OF_EACH_WRITER | OF_OURS | OF_OURS_AND_REAL | {"nll", "shared_grams", "shared_run_notes"}:
        for writer, told in result["figures"][name].items():
            if writer == "notes":
                continue
            found = Estimate(**told["pooled"])
            assert set(told["by_source"]) <= {"band", "piano"}
            if name not in uncertain:  # of fifteen bars nothing is told about lags of sixteen
                assert len(told["by_source"]) == (1 if name.startswith("staying_") else 2), name
                assert found.mean == pytest.approx(np.mean(list(told["by_source"].values()))), name
                assert found.low - 1e-9 <= found.mean <= found.high + 1e-9, name
                assert found.songs >= len(told["by_source"]), name


def test_figures_are_what_they_are_called(result: dict[str, Any]) -> None:
    means = {name: {w: t["pooled"]["mean"] for w, t in told.items() if "pooled" in t} for name, told in
             result["figures"].items() if not name.startswith("set_")}  # fmt: skip
    for writer in ("ours", "ngram", "ngram with song"):
        assert means["nll"][writer] == pytest.approx(sum(means[f"nll_{field}"][writer] for field in FIELDS))
    assert means["nll"]["ngram with song"] < means["nll"]["ngram"] < means["nll"]["ours"]  # it has counted these songs
    assert means["overlap_share"]["real"] == 1.0
    assert means["overlap"]["real"] > means["overlap"]["ours"]  # which is noise
    assert means["shared_grams"]["real"] == 1.0 and means["shared_grams"]["ours"] < 1.0  # the shards hold these songs
    assert means["shared_run_notes"]["real"] > means["shared_run_notes"]["ours"]
    assert means["longest_repeat_bars"]["loop"] >= 7  # eight bars, and then seven of them
    assert 0 <= means["choice"]["ours"] <= 1
    assert means["resampled"]["ours"] == 0  # with one attempt nothing can be


def test_form_is_told_after_long_and_short_prompts_of_all_and_of_bands(result: dict[str, Any]) -> None:
    for prompt_s in (62, 30):
        for name in form.FIGURES:
            of_all, of_bands = (result["figures"][f"{group}_{prompt_s}_{name}"] for group in ("form", "band_form"))
            assert set(of_all) == set(of_bands) == {"real", "ours", "loop", "repeat", "ngram"}
            for writer, told in of_bands.items():
                assert set(told["by_source"]) == {"band"} and set(of_all[writer]["by_source"]) == {"band", "piano"}
                assert told["pooled"]["mean"] == of_all[writer]["by_source"]["band"]
        returns = {w: t["pooled"]["mean"] for w, t in result["figures"][f"form_{prompt_s}_returns_5"].items()}
        assert returns["loop"] == 1 and returns["real"] > returns["ngram"], returns  # the song is a figure
        assert returns["real"] >= returns["ours"] > returns["ngram"], returns  # noise, planned


def test_nats_a_note_are_those_of_the_windows(result: dict[str, Any], folder: Path) -> None:
    """All notes of a source count the same."""
    loaded = extend.load(folder / "model")
    paths = songs_of([folder / "piano"], None, "test")["piano"][:3]
    nats, notes = np.zeros(8), 0
    for k, path in enumerate(paths):
        window = likelihood.window(whole(score.read(path)), loaded.config.train.window_chunks, k)
        nats += likelihood.nll(loaded.network, loaded.config, window)
        notes += likelihood.notes_of(window)
    figures = result["figures"]
    assert figures["nll"]["notes"]["piano"] == notes
    assert figures["nll"]["ours"]["by_source"]["piano"] == pytest.approx(nats.sum() / notes, rel=1e-5)
    for k, field in enumerate(HEAD_ORDER):
        assert figures[f"nll_{FIELDS[field]}"]["ours"]["by_source"]["piano"] == pytest.approx(nats[k] / notes, rel=1e-5)


def test_a_result_says_what_it_is_of(result: dict[str, Any], folder: Path, model: Model) -> None:
    assert result["songs"] == {"band": 2, "piano": 2}  # as many as asked for, of those that can be used
    assert result["model"]["name"] == "model" and result["model"]["fingerprint"] == model.fingerprint
    assert result["model"]["parameters"] == sum(p.numel() for p in model.network.parameters())
    assert result["scope"] == {"songs": 2, "windows": 3, "long_songs": 1, "long_s": 120.0, "form_songs": 1}
    assert (result["split"], result["seed"]) == ("all", 0)
    usual = load_config("tiny").generate
    assert result["generate"] | {"candidates": 6, "max_attempts": 3} == {
        name: getattr(usual, name) for name in result["generate"]
    }
    assert {k: result["generate"][k] for k in FEW} == FEW


def test_progress_is_told(result: dict[str, Any], told: list[tuple[str, int, int]]) -> None:
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert len(stages) >= 4
    for stage in ("foreseeing real music", "continuing songs", "staying power", "judging"):
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps[-1][0] == steps[-1][1] and all(0 <= done <= total for done, total in steps), stage


def test_the_same_seed_gives_the_same_in_whichever_process(here: None, result: dict[str, Any], folder: Path) -> None:
    """All but what takes long is done again, here."""
    again = quick([folder / "band", folder / "piano"], folder / "model", shards=folder / "shards", scope=SHORT)
    assert set(result["figures"]) - set(again["figures"]) == {
        name for name in result["figures"] if name.startswith(("staying_", "form_", "band_form_"))
    }
    for name, told in again["figures"].items():
        assert json.dumps(told) == json.dumps(result["figures"][name]), name  # NaN is to equal NaN
    assert again["by_feature"] == result["by_feature"]


def test_without_shards_there_is_no_ngram_and_no_originality(here: None, result: dict[str, Any], folder: Path) -> None:
    found = quick([folder / "band", folder / "piano"], folder / "model", seed=1, scope=Scope(2, 2, 0, 60.0))
    figures = found["figures"]
    assert not {"shared_grams", "shared_run_notes"} & set(figures)
    assert set(figures["overlap"]) == {"ours", "loop", "repeat", "real"} and set(figures["nll"]) == {"ours", "notes"}
    assert found["songs"] == {"band": 2, "piano": 2} and found["seed"] == 1
    assert figures["overlap"]["ours"] != result["figures"]["overlap"]["ours"]  # of another seed
    assert figures["overlap"]["loop"] == result["figures"]["overlap"]["loop"]


def test_only_the_songs_of_the_split_are_evaluated(here: None, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    table.write_text("source,file,split\nband,0.mid,test\nband,1.mid,train\npiano,0.mid,test\n")
    found = quick([folder / "band", folder / "piano"], folder / "model", splits=table, scope=Scope(9, 9, 0, 60.0))
    assert found["songs"] == {"band": 1, "piano": 1} and found["split"] == "test"
    assert found["figures"]["overlap"]["ours"]["pooled"]["songs"] == 2


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_source_of_one_song_is_evaluated(here: None, folder: Path, tmp_path: Path) -> None:
    """There is nobody to take foils from, so nothing is asked; all else can be measured."""
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "piano" / "0.mid", alone)
    found = quick([alone], folder / "model")
    assert found["songs"] == {"alone": 1}
    assert math.isnan(found["figures"]["choice"]["ours"]["pooled"]["mean"])
    assert found["figures"]["nll"]["ours"]["pooled"]["mean"] > 0


def test_songs_of_drums_alone_are_evaluated(here: None, folder: Path, tmp_path: Path) -> None:
    """They have no pitches, keys, intervals or grams."""
    for k in range(4):
        write_song(tmp_path / "drums" / f"{k}.mid", bars=BARS, programs=(-1,), seed=k, bpm=BPM)
    found = quick([tmp_path / "drums"], folder / "model", shards=folder / "shards", scope=Scope(1, 4, 0, 60.0))
    assert 0 < found["figures"]["overlap"]["real"]["pooled"]["mean"] <= 1
    assert 0 <= found["figures"]["choice"]["ours"]["pooled"]["mean"] <= 1
    assert math.isnan(found["figures"]["shared_grams"]["real"]["pooled"]["mean"])


def test_minutes_too_short_for_a_figure_have_none() -> None:
    """Such as likeness eight bars apart, in slow music's last minute."""
    songs = [
        JudgedLong("a", {}, {"likeness": [0.5, math.nan]}),
        JudgedLong("b", {}, {"likeness": [0.7, math.nan, 0.2]}),
    ]
    found = run._by_minute(songs)["likeness"]
    assert found[0] == pytest.approx(0.6) and math.isnan(found[1]) and found[2] == 0.2
    assert run._by_minute([]) == {}


def test_no_more_songs_are_continued_than_are_wanted(here: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what takes longest."""
    continued = []

    def counted(job: Job, continue_song: Callable[[Job], work.Heard | None] = work.continue_song) -> work.Heard | None:
        if (found := continue_song(job)) is not None:
            continued.append(job.source)
        return found

    monkeypatch.setattr(work, "continue_song", counted)
    quick([folder / "band", folder / "piano"], folder / "model")
    assert sorted(continued) == ["band", "piano"]


@pytest.mark.parametrize("with_shards", [False, True])
def test_a_source_that_cannot_be_read_is_left_out(here: None, folder: Path, tmp_path: Path, with_shards: bool) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(folder / "band" / "broken.mid", broken)
    shards = {"shards": folder / "shards"} if with_shards else {}
    found = quick([broken, folder / "piano"], folder / "model", **shards)
    assert found["songs"].get("broken", 0) == 0 and found["songs"]["piano"] == 1
    assert found["figures"]["nll"]["ours"]["pooled"]["mean"] == pytest.approx(
        found["figures"]["nll"]["ours"]["by_source"]["piano"]
    )


@pytest.mark.parametrize("name", ["band/broken.mid", "piano/short.mid"])
def test_folders_without_a_usable_song_are_refused(here: None, folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(folder / name, tmp_path)
    with pytest.raises(BadInput):
        quick([tmp_path], folder / "model")


def test_missing_models_and_shards_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises((BadInput, MissingPart), match="nowhere"):
        quick([folder / "band"], tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no training shards"):
        quick([folder / "band"], folder / "model", shards=tmp_path)
    with pytest.raises(BadInput, match="not a folder"):
        quick([tmp_path / "nowhere"], folder / "model")


@pytest.mark.parametrize("wrong", [{"generate": {"wishes": 1}}, {"generate": {"temperature": -1.0}}, {"seed": -1}])
def test_values_that_cannot_be_used_are_refused(folder: Path, wrong: dict[str, Any]) -> None:
    """In so many words, before any process has begun."""
    with pytest.raises(BadInput):
        quick([folder / "piano"], folder / "model", **wrong)
