"""Folders of MIDI to shards: in parallel, past bad files, by the split table, and the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import symusic
from helpers import BAND, DRUMS, score_of, write_song
from safetensors import safe_open
from safetensors.numpy import load_file

from midiex import prepare as module
from midiex import tokens
from midiex.errors import BadInput
from midiex.prepare import PreparedSong, prepare, prepare_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source of four songs, one of them in a folder below, beside files that are no MIDI."""
    for i, name in enumerate(["a.mid", "b.MIDI", "below/c.midi", "d.mid"]):
        write_song(tmp_path / "songs" / name, seed=i, programs=BAND if i else (0,))
    (tmp_path / "songs" / "notes.txt").write_text("no music")
    return tmp_path / "songs"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def splits(folder: Path, **files: str) -> Path:
    path = folder / f"splits_{'_'.join(files)}.csv"
    path.write_text("source,file,split\n" + "\n".join(f"songs,{name}.mid,{split}" for name, split in files.items()))
    return path


def names(shard: Path) -> list[str]:
    with safe_open(shard, "np") as file:
        found: list[str] = json.loads(file.metadata()["names"])
        return found


def test_a_song_becomes_its_rows(tmp_path: Path) -> None:
    path = write_song(tmp_path / "a.mid", bars=8, bpm=90, tpq=96)
    song = prepare_file(str(path))
    assert isinstance(song, PreparedSong)
    score = symusic.Score(path)
    rows = tokens.encode(tokens.notes_of(score), tokens.voice_ids(score), tokens.score_grid(score))
    np.testing.assert_array_equal(song.bar, rows[:, 0])
    np.testing.assert_array_equal(song.notes, rows[:, 1:])
    assert (song.name, song.notes.dtype, song.bar.dtype) == ("a.mid", np.uint8, np.uint16)
    np.testing.assert_allclose(song.bar_s, np.full(8, 4 * 60 / 90), rtol=1e-5)
    assert song.bar_units.tolist() == [384] * 8


@pytest.mark.parametrize("ending", [e for e in module.MIDI_SUFFIXES if e not in (".mid", ".midi")])
def test_every_ending_looked_for_is_read(tmp_path: Path, ending: str) -> None:
    data = write_song(tmp_path / "a.mid").read_bytes()
    if ending == ".rmi":
        data = b"RIFF" + (len(data) + 12).to_bytes(4, "little") + b"RMIDdata" + len(data).to_bytes(4, "little") + data
    (tmp_path / f"a{ending}").write_bytes(data)
    assert isinstance(prepare_file(str(tmp_path / f"a{ending}")), PreparedSong)


def test_a_folder_becomes_a_shard(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    table = splits(tmp_path, a="train", d="train")
    with table.open("a") as file:
        file.write("\nsongs,c.midi,train\nsongs,b.MIDI,train")
    before = files(folder)
    report = prepare([folder], tmp_path / "out", table, jobs=2, progress=lambda *at: seen.append(at))
    assert files(folder) == before
    assert (report.songs, report.skipped, seen) == (4, (), [(4, 4)])
    assert list(files(tmp_path / "out")) == ["train/songs.safetensors"]
    shard = load_file(tmp_path / "out" / "train" / "songs.safetensors")
    assert names(tmp_path / "out" / "train" / "songs.safetensors") == ["a.mid", "b.MIDI", "c.midi", "d.mid"]
    assert report.notes == len(shard["notes"]) == len(shard["bar"]) == shard["song_notes"][-1]
    assert shard["song_bars"].tolist() == [0, 16, 32, 48, 64] and len(shard["bar_s"]) == len(shard["bar_units"]) == 64
    second = prepare_file(str(folder / "b.MIDI"))
    assert isinstance(second, PreparedSong)
    part = slice(shard["song_notes"][1], shard["song_notes"][2])
    np.testing.assert_array_equal(shard["notes"][part], second.notes)
    np.testing.assert_array_equal(shard["bar"][part], second.bar)


def test_the_same_files_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for out, jobs in (("one", 1), ("two", 2), ("two", 2)):
        prepare([folder], tmp_path / out, splits(tmp_path, a="train", d="valid"), jobs=jobs)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert set(files(tmp_path / "one")) == {"train/songs.safetensors", "valid/songs.safetensors"}


def test_the_split_table_decides(folder: Path, tmp_path: Path) -> None:
    other = write_song(tmp_path / "others" / "a.mid").parent
    table = splits(tmp_path, a="train", b="train", c="somewhere", d="test")  # b is b.MIDI, so not in the table
    with table.open("a") as file:
        file.write("\nothers,a.mid,valid")
    report = prepare([folder, other], tmp_path / "out", table, jobs=1)
    assert report.songs == 3
    assert {p: names(tmp_path / "out" / p) for p in files(tmp_path / "out")} == {
        "train/songs.safetensors": ["a.mid"],
        "test/songs.safetensors": ["d.mid"],
        "valid/others.safetensors": ["a.mid"],
    }


def test_without_a_table_a_few_files_validate_always_the_same(tmp_path: Path) -> None:
    chosen = [module._split_of(None, "any", Path(f"{i}.mid")) for i in range(2000)]
    assert set(chosen) == {"train", "valid"} and 15 <= chosen.count("valid") <= 70
    assert chosen == [module._split_of(None, "other", Path("elsewhere", f"{i}.mid")) for i in range(2000)]


def test_bad_files_are_skipped_and_reported(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (folder / "d.mid").read_bytes()
    (folder / "empty.mid").write_bytes(b"")
    (folder / "corrupt.mid").write_bytes(b"MThd" + bytes(range(200)))
    (folder / "text.mid").write_text("Dear diary")
    score_of([(0, [(i * 480, 480, 60, 80) for i in range(module.MIN_NOTES - 1)])]).dump_midi(folder / "few.mid")
    score_of([(0, [(i * 480, 480, 60, 80) for i in range(module.MIN_NOTES)])]).dump_midi(folder / "enough.mid")
    score_of([(0, [(i * 10**6, 9, 60, 80) for i in range(200)])], tpq=24).dump_midi(folder / "endless.mid")
    score_of([(DRUMS, [(i * 10, 9, 36, 80) for i in range(3000)])]).dump_midi(folder / "many.mid")
    (folder / "large.mid").write_bytes(whole + bytes(60_000))
    monkeypatch.setattr(module, "MAX_NOTES", 2000)
    monkeypatch.setenv("MIDIEX_MAX_FILE_BYTES", "50000")
    reasons = {path.name: prepare_file(str(path)) for path in sorted(folder.glob("*.mid"))}
    assert all(isinstance(reasons.pop(name), PreparedSong) for name in ("a.mid", "d.mid", "enough.mid"))
    assert reasons["few.mid"] == "only 15 notes" and "larger than" in str(reasons["large.mid"])
    assert "3000 notes" in str(reasons["many.mid"]) and "bars" in str(reasons["endless.mid"])
    assert all("unreadable" in str(reasons[f"{name}.mid"]) for name in ("empty", "corrupt", "text"))
    report = prepare([folder], tmp_path / "out", splits(tmp_path, d="train", corrupt="train", few="train"), jobs=2)
    assert report.songs == 1
    assert sorted((Path(path).name, reason.split()[0]) for path, reason in report.skipped) == [
        ("corrupt.mid", "unreadable"),
        ("few.mid", "only"),
    ]


def test_a_folder_of_nothing_but_bad_files_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "a.mid").write_bytes(b"MThd")
    report = prepare([tmp_path / "songs"], tmp_path / "out", jobs=1)
    assert (report.songs, report.notes, len(report.skipped)) == (0, 0, 1)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_prepared_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "wrong.csv").write_text("a,b\n1,2")
    (tmp_path / "file").write_text("")
    for folders, out, table, text in (
        ([tmp_path / "missing"], "out", None, "not a folder"),
        ([folder, tmp_path / "none"], "out", None, "no MIDI file"),
        ([folder], "out", tmp_path / "missing.csv", "cannot be used"),
        ([folder], "out", tmp_path / "wrong.csv", "needs columns"),
        ([folder], "out", splits(tmp_path, x="train"), "None of the files"),
        ([folder], "file", splits(tmp_path, a="train"), "cannot be written"),
    ):
        with pytest.raises(BadInput, match=text) as caught:
            prepare(folders, tmp_path / out, table, jobs=1)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
