"""Rendering: every format, level, tails, sameness of bytes, clear errors, nothing half-written."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import mido
import numpy as np
import pytest
import soundfile
from helpers import needs_fluidsynth

from midiex import audiofile, synth
from midiex.errors import BadInput, MissingPart
from midiex.loudness import LoudnessMeter
from midiex.render import RenderConfig, Renderer, find_soundfont, fluidsynth_version, render

RATE = 22050  # half the work; the level and the timing are the same
QUICK = RenderConfig(sample_rate=RATE)


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer(config=QUICK) as one:
        yield one


def write_midi(path: Path, notes: list[tuple[float, float, int, int, int]], program: int | None = None) -> Path:
    """Notes are (start in beats, end or -1 for never, pitch, velocity, channel) at 120 beats a minute."""
    events = [(start, mido.Message("note_on", note=p, velocity=v, channel=c)) for start, _, p, v, c in notes]
    events += [(end, mido.Message("note_off", note=p, channel=c)) for _, end, p, _, c in notes if end >= 0]
    midi = mido.MidiFile(ticks_per_beat=480)
    track = mido.MidiTrack()
    if program is not None:
        track.append(mido.Message("program_change", program=program))
    tick = 0
    for beat, message in sorted(events, key=lambda event: event[0]):
        track.append(message.copy(time=round(beat * 480) - tick))
        tick = round(beat * 480)
    midi.tracks.append(track)
    midi.save(path)
    return path


@pytest.fixture
def song(tmp_path: Path) -> Path:
    chords = [(beat, beat + 1.9, pitch, 80, 0) for beat in (0, 2) for pitch in (60, 64, 67)]
    return write_midi(tmp_path / "song.mid", chords + [(beat, beat + 0.5, 38, 100, 9) for beat in range(4)])


@needs_fluidsynth
@pytest.mark.parametrize("extension", [".wav", ".flac", ".ogg", ".mp3", ".OGG"])
def test_every_format_holds_the_song(renderer: Renderer, song: Path, tmp_path: Path, extension: str) -> None:
    target = tmp_path / f"song{extension}"
    info = renderer.render(song, target)
    audio, rate = soundfile.read(target, always_2d=True)
    assert (rate, audio.shape[1], info.path) == (RATE, 2, target)
    assert len(audio) / rate == pytest.approx(info.seconds, abs=0.1)
    assert 1.95 < info.seconds < 5
    assert np.abs(audio).max() == pytest.approx(info.peak, rel=0.1)
    assert info.loudness_lufs == pytest.approx(-16, abs=0.01) or info.peak == pytest.approx(10 ** (-1 / 20))
    meter = LoudnessMeter(rate)
    meter.add(audio.astype(np.float32))
    assert meter.integrated_lufs() == pytest.approx(info.loudness_lufs, abs=0.2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([song.name, target.name])


@needs_fluidsynth
def test_notes_sound_when_they_are_written(renderer: Renderer, tmp_path: Path) -> None:
    beats = (2, 3.25, 4.7)
    song = write_midi(tmp_path / "clicks.mid", [(beat, beat + 0.1, 37, 127, 9) for beat in beats])
    renderer.render(song, tmp_path / "clicks.wav")
    audio = np.abs(soundfile.read(tmp_path / "clicks.wav")[0]).max(axis=1)
    assert audio[: RATE - 100].max() < 2e-3  # one second of silence comes first
    for beat in beats:
        first = int(beat * RATE / 2)
        onset = np.argmax(audio[first - 400 : first + 1000] > 0.1 * audio.max()) - 400
        assert -50 < onset < 0.012 * RATE


@needs_fluidsynth
def test_the_last_note_rings_on_and_ends_in_silence(renderer: Renderer, tmp_path: Path) -> None:
    song = write_midi(tmp_path / "a.mid", [(0, 1, 60, 100, 0)], program=48)
    info = renderer.render(song, tmp_path / "a.wav")
    audio = np.abs(soundfile.read(tmp_path / "a.wav")[0]).max(axis=1)
    assert audio[int(0.6 * RATE) : int(0.8 * RATE)].max() > 0.05  # released at 0.5 s
    assert info.seconds > 1
    assert audio[-50:].max() == 0


@needs_fluidsynth
def test_a_note_that_never_ends_is_let_go(renderer: Renderer, tmp_path: Path) -> None:
    song = write_midi(tmp_path / "a.mid", [(0, -1, 60, 100, 0), (4, 5, 64, 100, 0)], program=19)
    info = renderer.render(song, tmp_path / "a.wav")
    assert 2.5 < info.seconds < 6
    assert np.abs(soundfile.read(tmp_path / "a.wav")[0])[-50:].max() == 0


@needs_fluidsynth
def test_rests_at_the_end_are_kept(renderer: Renderer, tmp_path: Path) -> None:
    midi = mido.MidiFile(write_midi(tmp_path / "a.mid", [(0, 1, 60, 100, 0)]))
    midi.tracks[0][-1].time = 480 * 16  # end of track, 8 s later
    midi.save(tmp_path / "a.mid")
    assert 8.5 <= renderer.render(tmp_path / "a.mid", tmp_path / "a.flac").seconds < 10.5


@needs_fluidsynth
@pytest.mark.parametrize("extension", [".wav", ".ogg"])
def test_same_song_same_bytes_whatever_came_before(
    renderer: Renderer, song: Path, tmp_path: Path, extension: str
) -> None:
    first, second = tmp_path / f"1{extension}", tmp_path / f"2{extension}"
    renderer.render(song, first)
    renderer.render(write_midi(tmp_path / "other.mid", [(0, 3, 40, 127, 0)], program=30), tmp_path / "other.wav")
    renderer.render(song, second)
    assert first.read_bytes() == second.read_bytes()
    render(song, second, config=QUICK)  # nor does the renderer matter
    assert first.read_bytes() == second.read_bytes()


@needs_fluidsynth
def test_a_song_without_notes_is_silence(renderer: Renderer, tmp_path: Path) -> None:
    info = renderer.render(write_midi(tmp_path / "a.mid", []), tmp_path / "a.wav")
    assert info.loudness_lufs == -math.inf
    assert not soundfile.read(tmp_path / "a.wav")[0].any()


@needs_fluidsynth
def test_the_peak_wins_over_the_loudness(song: Path, tmp_path: Path) -> None:
    config = RenderConfig(sample_rate=RATE, loudness_lufs=-3, peak_dbfs=-2)
    info = render(song, tmp_path / "a.wav", config=config)
    assert info.loudness_lufs < -3
    assert np.abs(soundfile.read(tmp_path / "a.wav")[0]).max() == pytest.approx(10 ** (-2 / 20), abs=1e-4)


@needs_fluidsynth
def test_the_level_can_be_left_alone(song: Path, tmp_path: Path) -> None:
    quiet, loud = (
        render(song, tmp_path / "a.wav", config=RenderConfig(sample_rate=RATE, loudness_lufs=None, gain=gain))
        for gain in (0.1, 0.2)
    )
    assert loud.loudness_lufs - quiet.loudness_lufs == pytest.approx(20 * math.log10(2), abs=0.05)


@needs_fluidsynth
def test_progress_tells_seconds_of_audio(renderer: Renderer, song: Path, tmp_path: Path) -> None:
    told: list[float] = []
    info = renderer.render(song, tmp_path / "a.wav", told.append)
    assert told == sorted(told) and told[0] > 0
    assert told[-1] >= info.seconds


@needs_fluidsynth
def test_an_interrupt_leaves_the_folder_as_it_was(renderer: Renderer, song: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.ogg"
    target.write_bytes(b"from before")

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        renderer.render(song, target, interrupt)
    assert target.read_bytes() == b"from before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ogg", "song.mid"]
    assert renderer.render(song, target).seconds > 1  # and the renderer still works


@needs_fluidsynth
def test_a_failing_encoder_leaves_nothing(
    renderer: Renderer, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audiofile, "_fix_ogg_serial", fail)
    with pytest.raises(BadInput, match="No space left"):
        renderer.render(song, tmp_path / "a.ogg")
    assert [path.name for path in tmp_path.iterdir()] == ["song.mid"]


@needs_fluidsynth
def test_a_riff_wrapper_is_opened(renderer: Renderer, song: Path, tmp_path: Path) -> None:
    data = song.read_bytes()
    sizes = [size.to_bytes(4, "little") for size in (len(data) + 12, len(data))]
    (tmp_path / "a.rmi").write_bytes(b"RIFF" + sizes[0] + b"RMIDdata" + sizes[1] + data)
    assert renderer.render(tmp_path / "a.rmi", tmp_path / "a.wav").peak > 0.1


@needs_fluidsynth
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a MIDI file"),
        (b"hello", "not a MIDI file"),
        (b"RIFFxxxxWAVE", "not a MIDI file"),
        (b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\xff\0\x90", "cannot be played"),
        (b"MThd\0\0\0\6\0\0\0\1\xe7\x28MTrk\0\0\0\4\0\xff\x2f\0", "cannot be played"),
    ],
)
def test_a_broken_midi_file_gets_one_sentence(renderer: Renderer, tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "bad.mid").write_bytes(data)
    with pytest.raises(BadInput, match=says) as caught:
        renderer.render(tmp_path / "bad.mid", tmp_path / "a.wav")
    assert "bad.mid" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "a.wav").exists()


@needs_fluidsynth
def test_what_cannot_be_read_or_written_is_named(renderer: Renderer, song: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\.wav, \.flac, \.ogg, \.mp3"):
        renderer.render(song, tmp_path / "a.aiff")
    with pytest.raises(BadInput, match=r"none\.mid cannot be read"):
        renderer.render(tmp_path / "none.mid", tmp_path / "a.wav")
    with pytest.raises(BadInput, match="cannot be written"):
        renderer.render(song, tmp_path / "no folder" / "a.wav")
    with pytest.raises(BadInput, match="is the MIDI file itself"):
        same = song.rename(tmp_path / "song.wav")
        renderer.render(same, same)
    with pytest.raises(BadInput, match="sample rate 1000"):
        Renderer(config=RenderConfig(sample_rate=1000))


@needs_fluidsynth
def test_a_song_of_days_is_refused(song: Path, tmp_path: Path) -> None:
    midi = mido.MidiFile(song)
    midi.tracks[0][-1].time = 480 * 3600 * 48
    midi.save(song)
    with pytest.raises(BadInput, match="more than 20 s"):
        render(song, tmp_path / "a.wav", config=RenderConfig(sample_rate=RATE, max_s=20))
    assert [path.name for path in tmp_path.iterdir()] == ["song.mid"]


# ---- soundfonts and FluidSynth -------------------------------------------------------------------------------------


def fake_font(path: Path) -> Path:
    path.write_bytes(b"RIFF\x10\0\0\0sfbkLIST" + bytes(100))
    return path


def test_the_order_of_soundfonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, system = tmp_path / "own", tmp_path / "system"
    for folder in (own, system):
        folder.mkdir()
    fonts = [
        fake_font(path) for path in (tmp_path / "chosen.sf2", tmp_path / "env.sf3", own / "a.sf3", system / "b.sf2")
    ]
    monkeypatch.setattr(synth, "asset_dir", lambda kind: own)
    monkeypatch.setattr(synth, "SYSTEM_SOUNDFONTS", (str(tmp_path / "none"), str(system)))
    monkeypatch.setenv("MIDIEX_SOUNDFONT", str(fonts[1]))
    assert find_soundfont(fonts[0]) == fonts[0]
    assert find_soundfont() == fonts[1]
    monkeypatch.delenv("MIDIEX_SOUNDFONT")
    assert find_soundfont() == fonts[2]
    fonts[2].write_text("version https://git-lfs.example")  # a stand-in, not the font
    assert find_soundfont() == fonts[3]
    fonts[3].unlink()
    with pytest.raises(MissingPart, match="No soundfont was found in .*own.*none.*system"):
        find_soundfont()


def test_a_chosen_soundfont_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingPart, match="cannot be read"):
        find_soundfont(tmp_path / "none.sf2")
    (tmp_path / "text.sf2").write_text("not a font")
    with pytest.raises(MissingPart, match="is not a soundfont"):
        find_soundfont(tmp_path / "text.sf2")
    monkeypatch.setenv("MIDIEX_SOUNDFONT", str(tmp_path / "none.sf2"))
    with pytest.raises(MissingPart, match="from MIDIEX_SOUNDFONT"):
        find_soundfont()


@needs_fluidsynth
def test_a_damaged_soundfont_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingPart, match=r"bad\.sf2 is damaged"):
        Renderer(fake_font(tmp_path / "bad.sf2"))
    assert "fluidsynth" not in "".join(capfd.readouterr())  # its own words do not leak


@needs_fluidsynth
def test_damaged_samples_are_told(song: Path, tmp_path: Path) -> None:
    """They are decoded only when they are needed: here a song's own instrument, not those that every channel has."""
    font = bytearray(find_soundfont().read_bytes())
    last = len(font) // 2
    font[last // 4 : last] = bytes(last - last // 4)
    (tmp_path / "bad.sf3").write_bytes(font)
    everything = write_midi(tmp_path / "all.mid", [(i, i + 0.1, 60, 90, i) for i in range(9)])
    midi = mido.MidiFile(everything)
    midi.tracks[0][:0] = [mido.Message("program_change", channel=i, program=12 * i) for i in range(9)]
    midi.save(everything)
    with pytest.raises(MissingPart, match=r"bad\.sf3 is damaged"):
        render(everything, tmp_path / "a.wav", tmp_path / "bad.sf3", QUICK)
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (ModuleNotFoundError("No module named 'fluidsynth'"), "pip install pyfluidsynth"),
        (ImportError("Couldn't find the FluidSynth library."), "library was not found; install it with"),
        (OSError("wrong ELF class"), "library was not found; install it with"),
        (ModuleType("fluidsynth"), "pip uninstall fluidsynth"),
    ],
)
def test_a_missing_fluidsynth_is_told(
    monkeypatch: pytest.MonkeyPatch, found: Exception | ModuleType, says: str
) -> None:
    def quietly(_name: str) -> ModuleType:
        if isinstance(found, Exception):
            raise found
        return found

    synth.fluidsynth.cache_clear()
    monkeypatch.setattr(synth, "quietly", quietly)
    with pytest.raises(MissingPart, match=says):
        fluidsynth_version()


# ---- loudness ------------------------------------------------------------------------------------------------------


def loudness(audio: np.ndarray, rate: int, block_frames: int = 16384) -> float:
    meter = LoudnessMeter(rate)
    for first in range(0, len(audio), block_frames):
        meter.add(audio[first : first + block_frames].astype(np.float32))
    return meter.integrated_lufs()


@pytest.mark.parametrize("rate", [44100, 48000])
def test_the_meter_is_calibrated(rate: int) -> None:
    sine = np.sin(2 * np.pi * 997 * np.arange(5 * rate) / rate)
    left = np.column_stack([sine, np.zeros_like(sine)])
    assert loudness(left, rate) == pytest.approx(-3.01, abs=0.02)  # the reference signal of BS.1770
    assert loudness(0.1 * left, rate) == pytest.approx(-23.01, abs=0.02)


def test_the_meter_agrees_with_pyloudnorm() -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    rate, rng = 44100, np.random.default_rng(0)
    seconds = np.arange(12 * rate) / rate
    audio = 0.1 * rng.standard_normal((len(seconds), 2))
    audio[:, 0] += 0.4 * np.sin(2 * np.pi * 45 * seconds)  # bass, where the high-pass bites
    audio *= np.where((seconds % 4) < 1.5, 1, np.where(seconds % 4 < 2.5, 0.01, 0))[:, None]  # both gates
    assert loudness(audio, rate) == pytest.approx(pyloudnorm.Meter(rate).integrated_loudness(audio), abs=0.1)


def test_the_meter_does_not_care_how_the_audio_is_cut() -> None:
    audio = np.random.default_rng(1).standard_normal((60000, 2)) * np.linspace(0, 0.2, 60000)[:, None]
    assert loudness(audio, 44100, 1000) == pytest.approx(loudness(audio, 44100, 60000), abs=1e-4)


def test_silence_and_snippets_have_no_loudness() -> None:
    assert LoudnessMeter(44100).integrated_lufs() == -math.inf
    assert loudness(np.zeros((44100, 2)), 44100) == -math.inf
    assert loudness(np.ones((1000, 2)), 44100) == -math.inf


@needs_fluidsynth
@pytest.mark.parametrize("first", ["midiex.libraries.quietly('pretty_midi')", "import soundfile", "pass"])
def test_what_was_imported_before_does_not_change_the_bytes(first: str, song: Path, tmp_path: Path) -> None:
    """pretty_midi loads FluidSynth's library, and that a libsndfile, earlier than rendering does."""
    expected = render(song, tmp_path / "here.flac", config=QUICK).path.read_bytes()
    code = f"""
import midiex.libraries
{first}
from midiex.render import RenderConfig, render
render({str(song)!r}, {str(tmp_path / "there.flac")!r}, config=RenderConfig(sample_rate={RATE}))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "there.flac").read_bytes() == expected
