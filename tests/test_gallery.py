"""The gallery: whose songs they are, what it tells and shows of each, how large the audio is, same bytes again."""

from __future__ import annotations

import csv
import importlib
import re
import zlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from helpers import write_song
from matplotlib.image import imread
from songs import talkative_model
from test_render import needs_fluidsynth

from midiex import plots
from midiex.checkpoint import save_model
from midiex.config import load_config
from midiex.evaluation import form

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NAMES = {"first": ("a.mid", "b.mid", "b_again.mid", "trained_on.mid", "short.mid"), "second": ("c.mid",)}
GROUPS = {"b_again.mid": "b"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("gallery")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two sources of songs of 140 s, two of them one piece, one short and one of training music; and a model."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = ["source,file,group,split"]
    for seed, (source, name) in enumerate((source, name) for source, names in NAMES.items() for name in names):
        write_song(folder / source / name, bars=8 if name == "short.mid" else 35, programs=(0, 32), seed=seed, bpm=60)
        group = GROUPS.get(name, name.removesuffix(".mid"))
        rows.append(f"{source},{name},{group},{'train' if name == 'trained_on.mid' else 'test'}")
    (folder / "splits.csv").write_text("\n".join(rows) + "\n")
    config = load_config("tiny")
    config = replace(config, generate=replace(config.generate, candidates=1, max_attempts=1))
    save_model(folder / "model", talkative_model(config).state_dict(), config)
    sources = [str(folder / source) for source in reversed(NAMES)]
    return [*sources, "--splits", str(folder / "splits.csv"), "--model", str(folder / "model"), "--seed", "3"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def first_of(*names: str) -> str:
    return min(names, key=lambda name: zlib.crc32(name.encode()))


def test_sources_take_turns_and_all_that_the_page_names_is_there(
    script: ModuleType, given: list[str], tmp_path: Path
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    script.main([*given, "--out", str(out), "--audio", "0"])
    page = (out / "README.md").read_text(encoding="utf-8")
    one_of_b = first_of("b.mid", "b_again.mid")
    a, b = sorted(("a.mid", one_of_b), key=lambda name: zlib.crc32(name.encode()))
    assert re.findall(r"^## \d+\. (\w+), `(.+)`$", page, re.M) == [("first", a), ("second", "c.mid"), ("first", b)]
    pictures = re.findall(r"\]\((.+?)\)", page)
    entries = ("01_first", "02_second", "03_first")
    assert pictures == [f"{name}{which}.png" for name in entries for which in ("", "_own")]
    assert {path.name for path in out.iterdir()} == {*pictures, "README.md"}
    weights = script.load(given[given.index("--model") + 1]).fingerprint
    assert f"weights {weights}" in page and "with seed 3 and" in page
    assert str(tmp_path.parent) not in page  # no place of this machine
    script.main([*given, "--out", str(again), "--audio", "0", "--songs", "1"])
    assert len(same := contents(again)) == 3 and page.split("## ")[1] in same.pop("README.md").decode() + "\n"
    assert same.items() <= contents(out).items()


def test_a_song_is_told_and_shown_beside_itself(script: ModuleType, given: list[str], tmp_path: Path) -> None:
    script.main([*given, "--out", str(tmp_path), "--audio", "0", "--songs", "1", "--seconds", "132"])
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    # Bars of four seconds: the line nearest 62 s is 60 or 64 s; the song's 33 bars up to 132 s, and one more at most.
    (told,) = re.findall(r"^.+ given, .+$", page, re.M)
    given_bars, first, last = map(int, re.findall(r"bars 1 to (\d+) given, (\d+) to (\d+) new", told)[0])
    assert given_bars in (15, 16) and first == given_bars + 1 and last in (33, 34)
    assert f"({given_bars // 15}:0{4 * (given_bars - 15)} to 2:{4 * last - 120})" in told
    assert re.search(r"form of the song `[A-Z ]+`, of the new music `[A-Z ]+` after `[A-Z ]+`", told)
    figures = re.findall(r"(density CV|contrast|returns by half) (\d\.\d\d) / (\d\.\d\d)", told)
    assert [name for name, *_ in figures] == ["density CV", "contrast", "returns by half"]
    one = script.cut("first", Path(given[1]) / re.findall("`(.+)`$", page, re.M)[0], 62.0, 132.0)
    own = form.figures(one.music, one.seam_bar, 33)
    assert [own_figure for *_, own_figure in figures] == [f"{own[key]:.2f}" for key in script.FIGURES]
    continued, itself = (imread(tmp_path / f"01_first{which}.png")[..., :3] for which in ("", "_own"))
    assert continued.shape == itself.shape
    left, right = (round(edge * plots.SIZE_PX[0]) for edge in (plots.LEFT, plots.RIGHT))
    seam = left + round((right - left) * given_bars / last)
    for picture in (continued, itself):  # the same moment of both has the dark line
        assert (np.abs(picture[200:560, seam - 3 : seam + 4].mean(axis=(0, 2)) - 0.2) < 0.15).any()
    tinted = [
        (np.abs(p[200:560, seam + 3 :] - np.array([0xF4, 0xEC, 0xDA]) / 255) < 0.02).all(2).mean()
        for p in (continued, itself)
    ]
    assert tinted[0] > 0.5 and tinted[1] == 0
    before = slice(200, 560), slice(left + 5, seam - 3)  # the prompt is the same in both, but for the paler ink
    assert ((continued[before] < 0.99).any(2) == (itself[before] < 0.99).any(2)).mean() > 0.9


def test_the_model_is_given_nothing_of_what_the_song_does_after_the_seam(script: ModuleType, given: list[str]) -> None:
    (one,) = script.chosen([Path(given[1])], None, 1, 62.0, 180.0)
    entries, refused = script.started([one], 0, script.load(given[given.index("--model") + 1]))
    heard = entries[0].passage.song
    assert not refused and heard.end_tick <= one.song.grid.ticks[one.seam_bar]
    assert heard.n_notes == sum((track.notes.numpy()["time"] < heard.end_tick).sum() for track in one.song.score.tracks)


def test_without_groups_or_a_table_every_file_is_a_piece_of_its_own(
    script: ModuleType, given: list[str], tmp_path: Path
) -> None:
    splits = tmp_path / "splits.csv"
    with open(given[given.index("--splits") + 1], newline="") as file:
        rows = [(row["source"], row["file"], row["split"]) for row in csv.DictReader(file)]
    with splits.open("w", newline="") as file:
        csv.writer(file).writerows([("source", "file", "split"), *rows])
    folders = [Path(folder) for folder in given[:2]]
    ungrouped = script.chosen(folders, splits, 10, 62.0, 180.0)
    assert sorted(one.song.path.name for one in ungrouped) == ["a.mid", "b.mid", "b_again.mid", "c.mid"]
    everything = script.chosen(folders, None, 10, 62.0, 180.0)
    assert {one.song.path.name for one in everything} == {name for names in NAMES.values() for name in names} - {
        "short.mid"
    }


@needs_fluidsynth
def test_audio_ends_early_where_it_would_be_too_large(
    script: ModuleType, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, again, limit = tmp_path / "out", tmp_path / "again", 100_000
    out.mkdir()
    for old in ("02_second.ogg", "07_gone.png"):
        (out / old).touch()
    (out / "README.md").write_text(script.TITLE)
    (out / "mine.png").touch()
    monkeypatch.setattr(script, "LIMIT_BYTES", limit)
    monkeypatch.setattr(script, "BEFORE_S", 4.0)
    for folder in (out, again):
        script.main([*given, "--out", str(folder), "--songs", "1"])
    assert {path.name for path in out.iterdir()} - {"mine.png"} == {path.name for path in again.iterdir()}
    entry = {"01_first.ogg", "01_first.png", "01_first_own.png"}
    assert {path.name for path in again.iterdir()} == {*entry, "README.md"}
    assert (again / "01_first.ogg").read_bytes() == (out / "01_first.ogg").read_bytes()
    page = (out / "README.md").read_text(encoding="utf-8")
    assert "(01_first.ogg)" in page and "ended early to keep the file below 0.1 MB" in page
    sound = soundfile.info(out / "01_first.ogg")
    times = re.findall(r"ogg\): (\d):(\d\d) to (\d):(\d\d)", page)[0]
    from_min, from_s, to_min, to_s = map(int, times)
    assert abs(sound.duration - (60 * (to_min - from_min) + to_s - from_s)) < 1 and sound.duration < 40
    assert limit / 2 < (out / "01_first.ogg").stat().st_size <= limit
    assert "the new music begins 4.0 s into" in page


def test_a_page_of_something_else_stays(script: ModuleType, given: list[str], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine")
    with pytest.raises(SystemExit):
        script.main([*given, "--out", str(tmp_path), "--audio", "0"])
    assert contents(tmp_path) == {"README.md": b"# Mine"}


def test_without_a_song_that_fits_nothing_is_written(script: ModuleType, given: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):  # up to 100 s there are ten bars of new music, of which no form can be told
        script.main([*given, "--out", str(tmp_path / "out"), "--seconds", "100"])
    assert list(tmp_path.iterdir()) == []
