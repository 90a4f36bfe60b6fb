"""Stems: which there are, names that are safe whatever tracks are called, audio that adds up to the mix."""

from __future__ import annotations

from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from helpers import needs_fluidsynth
from songs import note, write_midi

from midiex import smf
from midiex.errors import BadInput
from midiex.render import RenderConfig, Renderer, render, stems_folder
from midiex.stems import GHOST, MAX_NAME, file_name, only, stems_of

RATE = 22050
QUICK = RenderConfig(sample_rate=RATE)


def named(name: str) -> tuple[int, mido.MetaMessage]:
    return 0, mido.MetaMessage("track_name", name=name)


def program(channel: int, number: int) -> tuple[int, mido.Message]:
    return 0, mido.Message("program_change", channel=channel, program=number)


OPEN_HAT, CLOSED_HAT = 46, 42


def band(path: Path) -> Path:
    """Two hands on one channel, a bass, and two drum tracks on channel 9, of which one stops what the other began."""
    right = [n for i in range(4) for n in note(480 * i, 400, 72 + i, 90, 0)]
    left = [n for i in range(4) for n in note(480 * i, 470, 48 + 2 * i, 70, 0)]
    bass = [n for i in range(8) for n in note(240 * i, 200, 36 + i, 100, 1)]
    kit = [n for i in range(4) for n in note(480 * i, 100, 36, 110, 9)] + note(0, 100, OPEN_HAT, 120, 9)
    tracks = [
        [named("Song"), (0, mido.MetaMessage("set_tempo", tempo=500_000)), (0, mido.Message("pitchwheel", pitch=100))],
        [named("right hand"), program(0, 4), *right],
        [named("left hand"), *left],
        [named("Bass"), program(1, 33), (0, mido.Message("control_change", channel=1, control=91, value=120)), *bass],
        [named("Kit"), *kit],
        [named("Hats"), *note(120, 100, CLOSED_HAT, 60, 9)],
    ]
    return write_midi(path, tracks)


# ---- which and what they are called ----------------------------------------------------------------------------------


def test_each_track_is_a_stem(tmp_path: Path) -> None:
    stems = stems_of(band(tmp_path / "band.mid").read_bytes())
    assert [s.name for s in stems] == ["01_right hand", "02_left hand", "03_Bass", "04_Kit", "05_Hats"]
    assert [(s.track, s.channel) for s in stems] == [(1, 0), (2, 0), (3, 1), (4, 9), (5, 9)]


def test_each_channel_of_a_single_track_is_a_stem(tmp_path: Path) -> None:
    events = [named("all"), program(2, 40), *note(0, 100, 60, 80, 0), *note(0, 100, 60, 80, 2), *note(0, 9, 36, 80, 9)]
    stems = stems_of(write_midi(tmp_path / "a.mid", [events], midi_type=0).read_bytes())
    assert [s.name for s in stems] == ["01_Acoustic Grand Piano", "02_Violin", "03_Drums"]


@pytest.mark.parametrize(
    ("title", "safe"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\Windows\\x", "C-Windows-x"),
        ("a/b\0c\nd", "a-b-c-d"),
        ("...", ""),
        (" - ", ""),
        ("Flöte & Harfe (2)", "Flöte & Harfe (2)"),
        ("笛", "笛"),
        ("x" * 500, "x" * MAX_NAME),
        ("lead.ogg", "lead-ogg"),
    ],
)
def test_names_are_safe(title: str, safe: str) -> None:
    assert file_name(title) == safe


def test_names_come_from_untrusted_bytes(tmp_path: Path) -> None:
    """The same name twice, one that is no text, and one with nothing in it."""
    tracks = [[named("?" * 8), *note(0, 100, 60 + i, 80, i)] for i in range(4)]
    data = write_midi(tmp_path / "a.mid", tracks).read_bytes()
    for title in (b"../../up", b"../../up", b"\xff\xfeFl\xf6te!", b"/\\:*\0\n.."):
        data = data.replace(b"????????", title[:8].ljust(8), 1)
    names = [s.name for s in stems_of(data)]
    assert names[:2] == ["01_up", "02_up"]
    assert names[3] == "04_Acoustic Grand Piano"
    assert all("/" not in name and "\\" not in name and name.isprintable() for name in names)


def test_only_leaves_everything_else_as_it_was(tmp_path: Path) -> None:
    data = band(tmp_path / "band.mid").read_bytes()
    stems = stems_of(data)
    right = stems[0]
    path = tmp_path / "right.mid"
    path.write_bytes(only(data, right, stems))
    before, after = smf.load(tmp_path / "band.mid"), smf.load(path)
    for number, (old, new) in enumerate(zip(before.tracks, after.tracks, strict=True)):
        for was, now in zip(old, new, strict=True):
            if was.type == "note_on" and was.velocity and number != right.track:
                assert now == was.copy(velocity=GHOST if was.channel == right.channel else 0)
            else:
                assert now == was


def test_running_status_and_odd_events_are_understood() -> None:
    events = bytes.fromhex("00 903c40 10 3e41 00 f803 00 f0 03 903c40 00 3c00 00 ff7f02 9040 00 9940 50 00 ff2f00")
    events = events.replace(b"\x00\xf8\x03", b"\x00\xf8")
    data = b"MThd\0\0\0\6\0\1\0\1\1\xe0" + b"junk\0\0\0\2\x90\x3c" + b"MTrk" + len(events).to_bytes(4, "big") + events
    stems = stems_of(data)
    assert [(s.channel, [data[at] for at in s.velocities]) for s in stems] == [(0, [0x40, 0x41]), (9, [0x50])]


def test_damage_ends_a_track() -> None:
    head = b"MThd\0\0\0\6\0\1\0\2\1\xe0"
    cut = b"MTrk\0\0\0\x08\0\x90\x3c\x40\0\x3c"  # its length promises more
    assert [len(s.velocities) for s in stems_of(head + cut)] == [1]
    wild = b"MTrk\0\0\0\4\0\x3c\x40\x40"  # data without a status
    assert stems_of(head + wild) == stems_of(head) == stems_of(b"MThd") == []


# ---- audio -----------------------------------------------------------------------------------------------------------


def heard(path: Path) -> np.ndarray:
    return soundfile.read(path, always_2d=True)[0]


def level_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(audio**2) + 1e-20))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The band as band.wav with its stems, and plain.wav without."""
    folder = tmp_path_factory.mktemp("stems")
    with Renderer(config=QUICK) as renderer:
        renderer.render(band(folder / "band.mid"), folder / "band.wav", stems=True)
        renderer.render(folder / "band.mid", folder / "plain.wav")
    return folder


@needs_fluidsynth
def test_stems_add_up_to_the_mix(rendered: Path) -> None:
    mix, files = heard(rendered / "band.wav"), sorted((rendered / "band_stems").iterdir())
    stems = [heard(path) for path in files]
    assert len(stems) == 5 and {len(stem) for stem in stems} == {len(mix)}
    assert np.abs(sum(stems) - mix).max() <= (0.5 * len(stems) + 0.6) / 32768
    assert all(level_db(stem) > -60 for stem in stems[:4])


@needs_fluidsynth
def test_the_mix_with_stems_is_the_mix_without(rendered: Path) -> None:
    mix, plain = heard(rendered / "band.wav"), heard(rendered / "plain.wav")
    assert len(mix) == len(plain)
    mix = mix * np.sqrt(np.mean(plain**2) / np.mean(mix**2))
    assert level_db(mix - plain) - level_db(plain) < -35


@needs_fluidsynth
def test_tracks_on_one_channel_are_told_apart(rendered: Path) -> None:
    """The left hand's lowest note is in no other stem, nor is the kick among the hats."""

    def share_db(name: str, low_hz: float, high_hz: float) -> float:
        spectrum = np.abs(np.fft.rfft(heard(rendered / "band_stems" / name)[: RATE // 2].sum(axis=1))) ** 2
        hz = np.fft.rfftfreq(RATE // 2, 1 / RATE)
        return float(10 * np.log10(spectrum[(hz > low_hz) & (hz < high_hz)].sum() + 1e-20))

    c3 = (120, 140)
    assert share_db("02_left hand.wav", *c3) > share_db("01_right hand.wav", *c3) + 40
    assert share_db("04_Kit.wav", 30, 100) > share_db("05_Hats.wav", 30, 100) + 40


@needs_fluidsynth
def test_a_hat_is_stopped_by_another_tracks(rendered: Path, tmp_path: Path) -> None:
    midi = mido.MidiFile(rendered / "band.mid")
    midi.tracks[5] = mido.MidiTrack([m for m in midi.tracks[5] if m.type != "note_on"])
    midi.save(tmp_path / "a.mid")
    render(tmp_path / "a.mid", tmp_path / "a.wav", config=QUICK, stems=True)

    def ring(path: Path) -> float:
        """The open hat 0.3 s after the closed one: high and not of the kick."""
        part = heard(path)[int(0.4 * RATE) : int(0.48 * RATE)].sum(axis=1)
        return level_db(np.diff(part, n=4)) - level_db(np.diff(heard(path)[: int(0.1 * RATE)].sum(axis=1), n=4))

    assert ring(rendered / "band_stems" / "04_Kit.wav") < ring(tmp_path / "a_stems" / "04_Kit.wav") - 10


@needs_fluidsynth
def test_how_many_at_a_time_does_not_matter(rendered: Path, tmp_path: Path) -> None:
    told: list[float] = []
    info = render(rendered / "band.mid", tmp_path / "band.wav", None, QUICK, told.append, True, 3)
    assert told == sorted(told) and told[-1] >= 6 * info.seconds
    for path in (tmp_path / "band.wav", *info.stems):
        assert path.read_bytes() == (rendered / path.relative_to(tmp_path)).read_bytes()
    assert list(info.stems) == sorted((tmp_path / "band_stems").iterdir())


@needs_fluidsynth
def test_a_stem_that_would_be_too_loud_lowers_all(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Renderer, "_levelling", lambda self, loudness, peak: 2 / peak)
    info = render(rendered / "band.mid", tmp_path / "a.wav", config=QUICK, stems=True)
    mix = heard(info.path)
    assert info.peak == pytest.approx(np.abs(mix).max(), abs=1e-4)
    assert 0.85 < info.peak <= 10 ** (-1 / 20)
    assert np.abs(sum(map(heard, info.stems)) - mix).max() <= 3.1 / 32768


@needs_fluidsynth
@pytest.mark.parametrize("after_s", [0.0, 5.0])
def test_an_interrupt_leaves_no_stem(rendered: Path, tmp_path: Path, after_s: float) -> None:
    def interrupt(seconds: float) -> None:
        if seconds > after_s:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(rendered / "band.mid", tmp_path / "a.ogg", None, QUICK, interrupt, True, 2)
    assert list(tmp_path.iterdir()) == []


@needs_fluidsynth
def test_other_audio_among_the_stems_is_refused(rendered: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.wav"
    folder = stems_folder(target)
    assert folder == tmp_path / "a_stems"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    render(rendered / "band.mid", target, config=QUICK, stems=True)
    before = sorted(folder.iterdir())
    render(rendered / "band.mid", target, config=QUICK, stems=True)  # its own may be there
    assert sorted(folder.iterdir()) == before
    (folder / "06_Organ.wav").write_bytes(b"")
    with pytest.raises(BadInput, match=r"06_Organ\.wav"):
        render(rendered / "band.mid", target, config=QUICK, stems=True)
    other = tmp_path / "b.wav"
    stems_folder(other).write_text("")
    with pytest.raises(BadInput, match="b_stems is a file"):
        render(rendered / "band.mid", other, config=QUICK, stems=True)
