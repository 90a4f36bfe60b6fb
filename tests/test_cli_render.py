"""`midiex render` with stems and with folders: what is written, reported and left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner, Result
from helpers import needs_fluidsynth
from songs import note, riff, write_midi

from midiex.cli import EXIT_BAD_INPUT, EXIT_FAILED, main
from midiex.errors import BadInput
from midiex.render import RenderConfig, RenderInfo, render
from midiex.render_folder import Job, jobs_in, render_jobs

QUICK = RenderConfig(sample_rate=22050)


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


def test_each_file_of_a_folder_has_its_place(tmp_path: Path) -> None:
    folder, out = crate(tmp_path / "in"), tmp_path / "out"
    song(folder / "sub" / "a.midi")
    jobs = {str(job.midi.relative_to(folder)): str(job.audio.relative_to(out)) for job in jobs_in(folder, out, ".wav")}
    assert jobs == {
        "a.mid": "a.wav",
        "broken.mid": "broken.wav",
        "sub/a.mid": "sub/a.mid.wav",  # two songs of one name
        "sub/a.midi": "sub/a.midi.wav",
        "sub/b.KAR": "sub/b.wav",
    }
    assert [job.audio.parent for job in jobs_in(folder / "sub")] == [folder / "sub"] * 3


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("none", None, ".ogg"), "is not a folder"),
        (("empty", None, ".ogg"), "holds no MIDI file"),
        (("in", "in/a.mid", ".ogg"), "is a file"),
        (("in", "out", ".xyz"), r"no audio format \.xyz"),
    ],
)
def test_folders_that_cannot_be_rendered(tmp_path: Path, args: tuple[str, str | None, str], says: str) -> None:
    crate(tmp_path / "in")
    (tmp_path / "empty").mkdir()
    folder, out, suffix = args
    with pytest.raises(BadInput, match=says):
        jobs_in(tmp_path / folder, out and tmp_path / out, suffix)


@needs_fluidsynth
def test_a_folder_is_rendered_past_a_broken_file(tmp_path: Path) -> None:
    folder, out = crate(tmp_path / "in"), tmp_path / "out"
    before = files_under(folder)
    result = run(folder, "-o", out, "--format", "flac", "--jobs", 2, "--json")
    assert result.exit_code == EXIT_FAILED
    report = json.loads(result.stdout)
    assert (report["rendered"], report["failed"]) == (3, 1)
    failed = [file for file in report["files"] if "error" in file]
    assert [file["midi"] for file in failed] == [str(folder / "broken.mid")]
    assert "cannot be played" in failed[0]["error"]
    assert f"midiex: {failed[0]['error']}" in result.stderr
    assert files_under(out) == ["a.flac", "sub/a.flac", "sub/b.flac"]
    assert files_under(folder) == before
    render(folder / "a.mid", tmp_path / "a.flac")  # what it would be by itself
    assert (out / "a.flac").read_bytes() == (tmp_path / "a.flac").read_bytes()


@needs_fluidsynth
def test_a_folder_may_have_stems(tmp_path: Path) -> None:
    song(tmp_path / "in" / "a.mid")
    result = run(tmp_path / "in", tmp_path / "out", "--stems", "--jobs", 1)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'out'}: 1 of 1 files rendered\n")
    assert files_under(tmp_path / "out") == [
        "a.ogg",
        "a_stems/01_Acoustic Grand Piano.ogg",
        "a_stems/02_Drums.ogg",
    ]


class Bomb(Job):
    """Takes down the process that receives it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (3,)


@needs_fluidsynth
def test_a_crash_costs_one_file(tmp_path: Path) -> None:
    jobs: list[Job] = [Bomb(tmp_path / "bomb.mid", tmp_path / "bomb.wav")]
    jobs += [Job(song(tmp_path / "good.mid"), tmp_path / "good.wav")]
    results = {job.midi.stem: result for job, result in render_jobs(jobs, config=QUICK, processes=1)}
    assert results["bomb"] == f"{tmp_path / 'bomb.mid'} made the renderer crash; write it anew with a MIDI editor."
    assert isinstance(results["good"], RenderInfo)


@needs_fluidsynth
def test_stopping_leaves_whole_files(tmp_path: Path) -> None:
    song(tmp_path / "0.mid")
    for i in range(1, 5):
        write_midi(tmp_path / f"{i}.mid", [riff(300)])  # ten minutes each
    results = render_jobs(jobs_in(tmp_path, suffix=".wav"), config=QUICK, processes=2)
    first, info = next(results)
    results.close()
    assert first.midi.name == "0.mid" and isinstance(info, RenderInfo)
    assert files_under(tmp_path) == sorted(["0.wav", *(f"{i}.mid" for i in range(5))])


@needs_fluidsynth
def test_no_soundfont_no_work(tmp_path: Path) -> None:
    song(tmp_path / "in" / "a.mid")
    result = run(tmp_path / "in", "-o", tmp_path / "out", "--soundfont", tmp_path / "none.sf2")
    assert result.exit_code == EXIT_BAD_INPUT and "none.sf2" in result.stderr
    assert not (tmp_path / "out").exists()
