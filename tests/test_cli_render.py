"""`midiex render` with stems and with folders: what is written, reported and left alone."""

from __future__ import annotations

import json
from pathlib import Path

import soundfile
from click.testing import CliRunner, Result
from helpers import needs_fluidsynth
from songs import note, write_midi

from midiex.cli import EXIT_BAD_INPUT, EXIT_FAILED, main
from midiex.render import render


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["render", *map(str, args)])


def files_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def song(path: Path, pitch: int = 60) -> Path:
    return write_midi(path, [note(0, 400, pitch), note(0, 400, 36, channel=9)])


def crate(folder: Path) -> Path:
    """A folder with three songs in two places, one file that is none, and one that does not matter."""
    song(folder / "a.mid")
    song(folder / "sub" / "a.mid", 64)
    song(folder / "sub" / "b.KAR", 67)
    (folder / "broken.mid").write_bytes(b"MThd and no more")
    (folder / "readme.txt").write_text("songs")
    return folder


# ---- stems -----------------------------------------------------------------------------------------------------------


@needs_fluidsynth
def test_stems_are_reported(tmp_path: Path) -> None:
    result = run(song(tmp_path / "song.mid"), "--stems", "--format", "wav", "--json", "--jobs", 2)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    names = ["01_Acoustic Grand Piano.wav", "02_Drums.wav"]
    assert report["stems"] == [str(tmp_path / "song_stems" / name) for name in names]
    frames = {soundfile.info(path).frames for path in [report["audio"], *report["stems"]]}
    assert len(frames) == 1
    assert files_under(tmp_path) == ["song.mid", "song.wav", *(f"song_stems/{name}" for name in names)]
    shown = run(tmp_path / "song.mid", "-o", tmp_path / "other.wav", "--stems").stdout
    assert shown.splitlines()[1:] == [f"  {tmp_path / 'other_stems' / name}" for name in names]


def test_two_places_for_one_file_are_refused(tmp_path: Path) -> None:
    result = run(song(tmp_path / "a.mid"), tmp_path / "a.ogg", "-o", tmp_path / "b.ogg")
    assert result.exit_code == EXIT_BAD_INPUT and "give one of them" in result.stderr
    assert run(tmp_path / "a.mid", "--format", "xyz").exit_code == EXIT_BAD_INPUT
    assert files_under(tmp_path) == ["a.mid"]


# ---- folders ---------------------------------------------------------------------------------------------------------


@needs_fluidsynth
def test_a_folder_is_rendered_past_a_broken_file(tmp_path: Path) -> None:
    folder, out = crate(tmp_path / "in"), tmp_path / "out"
    before = files_under(folder)
    result = run(folder, "-o", out, "--format", "flac", "--jobs", 2, "--json")
    assert result.exit_code == EXIT_FAILED
    report = json.loads(result.stdout)
    assert (report["done"], report["refused"], report["failed"]) == (3, 1, 0)
    assert list(report["not_done"]) == ["broken.mid"] and "cannot be played" in report["not_done"]["broken.mid"]
    assert files_under(out) == ["a.flac", "midiex-manifest.jsonl", "sub/a.flac", "sub/b.flac"]
    assert files_under(folder) == before
    render(folder / "a.mid", tmp_path / "a.flac")  # what it would be by itself
    assert (out / "a.flac").read_bytes() == (tmp_path / "a.flac").read_bytes()


@needs_fluidsynth
def test_a_folder_may_have_stems(tmp_path: Path) -> None:
    song(tmp_path / "in" / "a.mid")
    result = run(tmp_path / "in", tmp_path / "out", "--stems", "--jobs", 1)
    assert result.exit_code == 0 and result.stdout.startswith("done"), result.output
    stems = ["a_stems/01_Acoustic Grand Piano.ogg", "a_stems/02_Drums.ogg"]
    assert files_under(tmp_path / "out") == ["a.ogg", *stems, "midiex-manifest.jsonl"]
    (tmp_path / "out" / stems[1]).unlink()
    assert run(tmp_path / "in", tmp_path / "out", "--stems", "--jobs", 1).exit_code == 0
    assert (tmp_path / "out" / stems[1]).exists()  # what is missing is made again
    song(tmp_path / "out" / "a_stems" / "03_Other.ogg")
    (tmp_path / "out" / stems[1]).unlink()
    result = run(tmp_path / "in", tmp_path / "out", "--stems", "--jobs", 1)
    assert result.exit_code == EXIT_FAILED and "no stems of this song (03_Other.ogg)" in result.stdout


@needs_fluidsynth
def test_a_folder_is_rendered_beside_its_songs_where_nothing_else_is_said(tmp_path: Path) -> None:
    song(tmp_path / "sub" / "a.mid")
    assert run(tmp_path, "--jobs", 1).exit_code == 0
    assert files_under(tmp_path) == ["midiex-manifest.jsonl", "sub/a.mid", "sub/a.ogg"]


@needs_fluidsynth
def test_folders_that_cannot_be_rendered(tmp_path: Path) -> None:
    song(tmp_path / "in" / "a.mid")
    (tmp_path / "empty").mkdir()
    for args, says in (
        ((tmp_path / "empty",), "holds no MIDI file"),
        ((tmp_path / "in", "--format", "xyz"), "kind of file to write"),
        ((tmp_path / "in", "-o", tmp_path / "in" / "a.mid"), "choose a folder"),
        ((tmp_path / "in", "-o", tmp_path / "out", "--soundfont", tmp_path / "none.sf2"), "none.sf2"),
    ):
        result = run(*args)
        assert result.exit_code == EXIT_BAD_INPUT and says in result.stderr, result.output
    assert files_under(tmp_path) == ["in/a.mid"]
