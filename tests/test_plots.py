"""The piano roll: right size, right colours on either side of the seam, drums apart, nothing half-written."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import mido
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from midiex import plots
from midiex.errors import BadInput
from midiex.plots import piano_roll


def write_song(path: Path, names: Sequence[str] = ("Lead", "Bass"), drums: bool = True, beats: int = 32) -> Path:
    """One note a beat and track at 120 beats a minute, drums on channel 10."""
    midi = mido.MidiFile(ticks_per_beat=480)
    rows = [(name, voice % 9, 72 - 7 * voice % 60) for voice, name in enumerate(names)] + [("Kit", 9, 38)] * drums
    for name, channel, pitch in rows:
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
        for _ in range(beats):
            track.append(mido.Message("note_on", note=pitch, velocity=110, channel=channel))
            track.append(mido.Message("note_off", note=pitch, channel=channel, time=480))
        midi.tracks.append(track)
    midi.save(path)
    return path


def has_colour(picture: np.ndarray, colour: str, columns: slice) -> bool:
    """Whether a (H, W, 4) picture shows a note of the colour: the legend, in the top of the picture, does not count."""
    part = picture[60:, columns, :3]
    return bool((np.abs(part - np.array(to_rgb(colour))) < 0.02).all(axis=2).any())


def test_the_seam_parts_the_colours(tmp_path: Path) -> None:
    song, target = write_song(tmp_path / "a.mid"), tmp_path / "a.png"
    before = song.read_bytes()
    piano_roll(song, target, seam_s=8.0, chunk_borders_s=[12.0], title="A song", bar_times_s=np.arange(0, 16, 2.0))
    picture = imread(target)
    assert picture.shape[:2] == (660, 1760)
    middle = round(1760 * (0.045 + 0.94 / 2))  # 8 of 16 s
    assert has_colour(picture, plots.ORIGINAL, slice(0, middle - 3))
    assert not has_colour(picture, plots.NEW, slice(0, middle - 3))
    assert has_colour(picture, plots.NEW, slice(middle + 3, None))
    assert not has_colour(picture, plots.ORIGINAL, slice(middle + 3, None))
    assert song.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mid", "a.png"]


def test_without_a_seam_every_instrument_has_its_colour(tmp_path: Path) -> None:
    piano_roll(write_song(tmp_path / "a.mid"), tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")
    for colour in plots.INSTRUMENTS[:3]:
        assert has_colour(picture, colour, slice(None))
    assert not has_colour(picture, plots.INSTRUMENTS[3], slice(None))


def test_drums_are_drawn_in_a_lane_beneath(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a.mid", names=(), drums=True)
    piano_roll(song, tmp_path / "a.png", seam_s=99.0)
    picture = imread(tmp_path / "a.png")
    assert has_colour(picture[500:], plots.ORIGINAL, slice(None))
    assert not has_colour(picture[:500], plots.ORIGINAL, slice(None))


def test_same_song_same_picture(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a.mid")
    for name in ("1.png", "2.png"):
        piano_roll(song, tmp_path / name, title="twice")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_louder_notes_are_stronger(tmp_path: Path) -> None:
    notes = plots._read(write_song(tmp_path / "a.mid"))
    soft = plots._Notes(**{**vars(notes), "velocity": notes.velocity // 4})
    for seam_s in (None, 4.0):
        assert (plots._colours(soft, seam_s)[0][:, 3] < plots._colours(notes, seam_s)[0][:, 3]).all()


def test_odd_names_and_many_instruments_are_drawn(tmp_path: Path) -> None:
    names = ("$5 and $x^{", "_hidden", "", "n\u00f6t\u00e9", "x" * 200, *(f"Voice {n}" for n in range(30)))
    song = write_song(tmp_path / "a.mid", names=[name.encode().decode("latin1") for name in names], beats=2)
    piano_roll(song, tmp_path / "a.png", title="100 $ for \u66f2 $")
    assert imread(tmp_path / "a.png").shape[:2] == (660, 1760)


def test_five_minutes_make_a_small_picture(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a.mid", names=tuple("abcdef"), beats=600)
    borders_s = list(np.arange(10, 300, 10.0))
    piano_roll(song, tmp_path / "a.png", 60.0, borders_s, "Long", list(np.arange(0, 300, 2.0)))
    assert (tmp_path / "a.png").stat().st_size < 400_000


def test_pyplot_is_left_alone(tmp_path: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    piano_roll(write_song(tmp_path / "a.mid"), tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_errors_are_one_sentence_and_leave_nothing(tmp_path: Path) -> None:
    song = write_song(tmp_path / "a.mid")
    (tmp_path / "bad.mid").write_bytes(b"hello")
    for midi, png, says in (
        (song, tmp_path / "a.pdf", r"end it in \.png"),
        (tmp_path / "bad.mid", tmp_path / "a.png", "bad.mid"),
        (tmp_path / "none.mid", tmp_path / "a.png", "none.mid"),
        (song, tmp_path / "no folder" / "a.png", "cannot be written"),
    ):
        with pytest.raises(BadInput, match=says) as caught:
            piano_roll(midi, png)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mid", "bad.mid"]


@pytest.mark.parametrize(("seconds", "says"), [(0, "0:00"), (59.9, "0:59"), (125.2, "2:05"), (3600, "60:00")])
def test_clock(seconds: float, says: str) -> None:
    assert plots._clock(seconds) == says
