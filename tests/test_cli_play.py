"""`midiex play`: what it plays to, what it keeps, how it is stopped, and what it says when something is missing."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mido
import pytest
import soundfile
from click.testing import CliRunner, Result
from helpers import needs_fluidsynth
from songs import riff_song, save_talkative, type_0_song

from midiex import play, provenance, score
from midiex.cli import EXIT_BAD_INPUT, main


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="midiex")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_talkative(tmp_path_factory.mktemp("models") / "talkative")


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Eight bars of two seconds, the last one a held note."""
    return riff_song(tmp_path / "song.mid")


class Fake(play.Silent):
    """A MIDI port in no time, on which something happens at given times."""

    def __init__(self, *times: float, then: Callable[[], None] = lambda: signal.raise_signal(signal.SIGINT)) -> None:
        super().__init__()
        self.times, self.then = list(times), then
        self.sent: list[tuple[float, mido.Message]] = []
        self.closed = self.silenced = 0

    def wait(self, seconds: float) -> None:
        super().wait(seconds)
        while self.times and self.time_s >= self.times[0]:
            self.times.pop(0)
            self.then()

    def send(self, at_s: float, message: mido.Message) -> None:
        self.sent.append((at_s, message))

    def silence(self) -> None:
        self.silenced += 1

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    def plug(*times: float) -> Fake:
        fake = Fake(*times)
        monkeypatch.setattr(play, "open_port", lambda name: fake)
        return fake

    return plug


def events_of(path: Path) -> list[tuple[int, int, tuple[int, ...]]]:
    return [(tick, track, tuple(m.bytes())) for tick, track, m in score.walk(score.read(path).midi)]


def test_a_midi_file_holds_what_extend_would_write(song: Path, model: Path, tmp_path: Path) -> None:
    take, long = tmp_path / "take.mid", tmp_path / "long.mid"
    same = ("-s", 40, "--model", model, "--seed", 3)
    result = run("play", song, "--out", take, *same)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{take}: 0:40 of song.mid and what went on from it, 20 bars\n"
    assert run("extend", song, "-o", long, *same).exit_code == 0
    assert events_of(take) == events_of(long)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.mid", "song.mid", "take.mid"]


@needs_fluidsynth
def test_audio_is_rendered(song: Path, model: Path, tmp_path: Path) -> None:
    out, save = tmp_path / "take.ogg", tmp_path / "take.mid"
    result = run("play", song, "--out", out, "--save", save, "-s", 24, "--model", model, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["out"], report["save"], report["stopped"], report["waits"]) == (str(out), str(save), False, 0)
    assert report["seconds"] == 24 and report["bars"] == 12
    assert soundfile.info(out).duration == pytest.approx(24, abs=3)
    assert score.read(save).length_s <= 24


def test_ctrl_c_ends_on_the_bar_and_keeps_what_was_heard(
    song: Path, model: Path, port: Callable[..., Fake], tmp_path: Path
) -> None:
    fake, save = port(21.3), tmp_path / "heard.mid"
    before = signal.getsignal(signal.SIGINT)
    result = run("play", song, "--port", "any", "--save", save, "--model", model, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["stopped"] and report["seconds"] == pytest.approx(22) and report["bars"] == 11
    assert "ending on the bar" in result.stderr
    assert (fake.closed, fake.silenced) == (1, 0)
    assert signal.getsignal(signal.SIGINT) is before
    on = Counter(m.note for _, m in fake.sent if m.type == "note_on" and m.velocity)
    off = Counter(m.note for _, m in fake.sent if m.type == "note_off" or (m.type == "note_on" and not m.velocity))
    assert not on - off
    kept = Counter(m.note for _, _, m in score.walk(score.read(save).midi) if score.is_on(m))
    assert kept == on
    assert score.read(save).length_s <= 22 + 1e-6
    (told,) = provenance.notes_in(score.read(save))
    assert told.leads_to == "open"


def test_a_second_ctrl_c_ends_at_once(song: Path, model: Path, port: Callable[..., Fake]) -> None:
    fake = port(5.3, 5.4)
    result = run("play", song, "--port", "any", "--model", model, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["seconds"] < 5.5
    assert (fake.closed, fake.silenced) == (1, 1)


def test_forever_brings_the_song_back_again_and_again(
    model: Path, port: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(play, "LAP_S", 20.0)
    song = type_0_song(tmp_path / "song.mid", bars=4)
    save = tmp_path / "heard.mid"
    port(95.0)
    result = run("play", song, "--forever", "--port", "any", "--save", save, "--model", model, "--seed", 4, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["seconds"] == pytest.approx(96, abs=2)
    heard = score.read(save)
    notes = provenance.notes_in(heard)
    assert [note.seed for note in notes] == [4, 5, 6, 7][: len(notes)] and len(notes) >= 3
    assert all(note.leads_to == "loop" for note in notes[:-1]) and notes[-1].leads_to == "open"


def test_waiting_for_what_is_not_composed_is_said(
    song: Path, model: Path, port: Callable[..., Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = port()
    inner = play.Ahead.ready

    def slow(self: play.Ahead, timeout_s: float) -> bool:
        fake.wait(0.5 if 15 < fake.time_s < 20 else 0)
        return not 15 < fake.time_s < 20 and inner(self, timeout_s)

    monkeypatch.setattr(play.Ahead, "ready", slow)
    result = run("play", song, "--port", "any", "-s", 30, "--model", model, "--json", "--from", "end")
    report = json.loads(result.stdout)
    assert report["waits"] == 1 and report["waited_s"] > 3 and report["seconds"] == 30
    assert result.stderr.count("is not composed yet; the music waits for it") == 1


def test_ports_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mido, "get_output_names", lambda: ["Piano", "Organ"])
    result = run("play", "--ports")
    assert (result.exit_code, result.stdout) == (0, "Piano\nOrgan\n")
    monkeypatch.setattr(mido, "get_output_names", lambda: [])
    assert run("play", "--ports").stdout == "no MIDI ports\n"


def _no_rtmidi() -> list[str]:
    raise ModuleNotFoundError("No module named 'rtmidi'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{song}", "--out", "{song}"], "input itself"),
        (["{song}", "--save", "{song}"], "input itself"),
        (["{song}", "--out", "take.xyz"], "does not end in"),
        (["{song}", "--save", "take.ogg"], "does not end in"),
        (["{song}", "--out", "take.mid", "--port", "any"], "one of --out, --port and --driver"),
        (["{song}", "--forever", "--out", "take.mid"], "--seconds instead"),
        (["{song}", "--forever", "-s", "60"], "--seconds instead"),
        (["{song}", "--forever", "--open-end"], "--seconds instead"),
        (["{song}", "--port", "any"], "pip install python-rtmidi"),
        (["--ports"], "pip install python-rtmidi"),
        (["missing.mid"], "There is no file"),
        (["{song}", "-s", "1", "--out", "take.mid"], "ask for at least"),
    ],
)
def test_what_cannot_be_played_gets_one_sentence(
    arguments: list[str], said: str, song: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mido, "get_output_names", _no_rtmidi)
    monkeypatch.chdir(tmp_path)
    given = [argument.format(song=song) for argument in arguments]
    result = run("play", *given, *([] if "--ports" in given else ["--model", model]))
    assert result.exit_code == EXIT_BAD_INPUT, result.output
    assert said in result.stderr and result.stderr.startswith("midiex: ") and result.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["song.mid"]


def test_without_a_song_the_usage_is_shown() -> None:
    result = run("play")
    assert result.exit_code == 2 and "Missing argument 'SONG'" in result.stderr


@needs_fluidsynth
def test_a_missing_sound_device_is_told_before_anything_is_composed(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def composed(*_: Any, **__: Any) -> None:
        raise AssertionError("it began to compose")

    monkeypatch.setattr("midiex.extend.start", composed)
    result = run("play", song, "--driver", "no-such-driver")
    assert result.exit_code == EXIT_BAD_INPUT
    assert "--out" in result.stderr and "--port" in result.stderr and result.stderr.count("\n") == 1
