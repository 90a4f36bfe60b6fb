"""The gallery: whose songs they are, that its page names what is there, how large the audio is, same bytes again."""

from __future__ import annotations

import importlib
import re
import zlib
from pathlib import Path
from types import ModuleType

import pytest
import soundfile
from helpers import write_song
from songs import save_talkative
from test_render import needs_fluidsynth

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NAMES = {"first": ("a.mid", "b.mid", "trained_on.mid"), "second": ("c.mid",)}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("gallery")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two sources of songs of 16 s, one of them of training music, and a model."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = ["source,file,split"]
    for seed, (source, name) in enumerate((source, name) for source, names in NAMES.items() for name in names):
        write_song(folder / source / name, bars=8, seed=seed)
        rows.append(f"{source},{name},{'train' if name == 'trained_on.mid' else 'test'}")
    (folder / "splits.csv").write_text("\n".join(rows) + "\n")
    sources = [str(folder / source) for source in reversed(NAMES)]
    model = ["--model", str(save_talkative(folder / "model"))]
    return [*sources, "--splits", str(folder / "splits.csv"), *model, "--seconds", "30", "--seed", "3"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_sources_take_turns_and_all_that_the_page_names_is_there(
    script: ModuleType, given: list[str], tmp_path: Path
) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    script.main([*given, "--out", str(out), "--audio", "0"])
    page = (out / "README.md").read_text(encoding="utf-8")
    a, b = sorted(("a.mid", "b.mid"), key=lambda name: zlib.crc32(name.encode()))
    assert re.findall(r"^## \d+\. (\w+), `(.+)`$", page, re.M) == [("first", a), ("second", "c.mid"), ("first", b)]
    pictures = re.findall(r"\]\((.+?)\)", page)
    assert pictures == ["01_first.png", "02_second.png", "03_first.png"]
    assert {path.name for path in out.iterdir()} == {*pictures, "README.md"}
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    weights = script.load(given[given.index("--model") + 1]).fingerprint
    assert f"weights {weights}" in page and page.count("seed 3.") == 3
    assert str(tmp_path.parent) not in page  # no place of this machine
    script.main([*given, "--out", str(again), "--audio", "0"])
    assert contents(again) == contents(out)


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
    assert {path.name for path in again.iterdir()} == {"01_first.ogg", "01_first.png", "README.md"}
    assert (again / "01_first.ogg").read_bytes() == (out / "01_first.ogg").read_bytes()
    page = (out / "README.md").read_text(encoding="utf-8")
    assert "(01_first.ogg)" in page and "ended early to keep the file below 0.1 MB" in page
    sound = soundfile.info(out / "01_first.ogg")
    first_s, last_s = (int(s) for s in re.findall(r"ogg\): 0:(\d\d) to 0:(\d\d)", page)[0])
    assert abs(sound.duration - (last_s - first_s)) < 1 and sound.duration < 18
    assert limit / 2 < (out / "01_first.ogg").stat().st_size <= limit
    assert "the new music begins 4.0 s into" in page


def test_a_page_of_something_else_stays(script: ModuleType, given: list[str], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine")
    with pytest.raises(SystemExit):
        script.main([*given, "--out", str(tmp_path), "--audio", "0"])
    assert contents(tmp_path) == {"README.md": b"# Mine"}


def test_without_a_song_that_fits_nothing_is_written(script: ModuleType, given: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        script.main([*given, "--out", str(tmp_path / "out"), "--seconds", "23"])  # songs of up to 15.3 s
    assert list(tmp_path.iterdir()) == []
