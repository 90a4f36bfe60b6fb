"""What `midiex info` tells of a song, and its notes in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import mido
import numpy as np
import pytest
from songs import EXAMPLES, SMPTE_25, changing_song, meter, note, riff, riff_song, tempo, type_0_song, write_midi

from midiex import score
from midiex.describe import describe, seconds_view

KEYS = {
    "ending",
    "file", "type", "division", "length_s", "bars", "notes", "tempo_bpm", "meter", "instruments", "key", "key_fit",
    "chunks", "mood", "form",
}  # fmt: skip
SONGS = {
    "type_0": type_0_song,
    "changing": changing_song,
    "smpte": lambda path: riff_song(path, 8, SMPTE_25),
}


def told(path: Path) -> dict:
    return describe(score.read(path))


def scale_song(path: Path, steps: tuple[int, ...], root: int) -> Path:
    """The scale up and down, the tonic held at the end."""
    pitches = [root + s for s in (*steps, 12, *steps[::-1])]
    events = [event for i, pitch in enumerate(pitches) for event in note(240 * i, 240, pitch)]
    chord = [event for s in (0, steps[2], 7) for event in note(240 * len(pitches), 1920, root + s)]
    return write_midi(path, [[*events, *chord]])


# ---- the song's notes in seconds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SONGS)
def test_seconds_view_agrees_with_the_song(name: str, tmp_path: Path) -> None:
    song = score.read(SONGS[name](tmp_path / "song.mid"))
    view = seconds_view(song)
    assert len(view.instruments) == len(song.voices)
    assert sum(len(instrument.notes) for instrument in view.instruments) == song.n_notes
    assert view.get_end_time() == pytest.approx(song.length_s)
    for instrument, voice in zip(view.instruments, song.voices, strict=True):
        assert (instrument.program, instrument.is_drum) == (voice.program, voice.is_drum)


def test_seconds_follow_the_tempo_map(tmp_path: Path) -> None:
    beat = 480
    events = [tempo(0, 120), tempo(4 * beat, 60), *note(0, beat, 60, 33), *note(3 * beat, 2 * beat, 62, 99)]
    (instrument,) = seconds_view(score.read(write_midi(tmp_path / "song.mid", [events]))).instruments
    found = [(n.start, n.end, n.pitch, n.velocity) for n in instrument.notes]
    assert found == [pytest.approx((0.0, 0.5, 60, 33)), pytest.approx((1.5, 3.0, 62, 99))]


# ---- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.mid")), ids=lambda path: path.stem)
def test_the_examples_are_told_in_full(path: Path) -> None:
    song = score.read(path)
    found = describe(song)
    assert set(found) == KEYS
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["file"] == str(path) and found["length_s"] == pytest.approx(song.length_s, abs=1e-3)
    assert found["notes"] == sum(i["notes"] for i in found["instruments"]) == song.n_notes
    assert sum(c["bars"] for c in found["chunks"]) == found["bars"] == len(song.grid)
    assert 0.95 * found["notes"] <= sum(c["notes"] for c in found["chunks"]) <= found["notes"]
    starts = [c["start_s"] for c in found["chunks"]]
    assert starts[0] == 0 and starts == sorted(set(starts))
    assert set(found["mood"]) == {"arousal", "valence", "note"}
    parts = [part["bars"] for part in found["form"]]
    assert parts[0][0] == 1 and parts[-1][1] == found["bars"]
    assert all(last + 1 == first for (_, last), (first, _) in zip(parts, parts[1:], strict=False))


def test_sections_that_differ_have_letters_of_their_own(tmp_path: Path) -> None:
    beat = 480
    verse = [e for bar in range(16) for e in note(4 * beat * bar, 2 * beat, 48 + (bar % 4) * 2)]
    chorus = [
        e for i in range(16 * 16) for e in note(16 * 4 * beat + i * beat // 4, beat // 4, 72 + (i % 16) % 7, channel=1)
    ]
    found = told(write_midi(tmp_path / "song.mid", [[tempo(0, 120), *verse, *chorus]]))["form"]
    assert [part["section"] for part in found] == ["A", "B"] and found[0]["bars"] == [1, 16]


def test_tempo_and_meter_maps(tmp_path: Path) -> None:
    beat = 480
    head = [tempo(0, 120), meter(0, 3, 4), tempo(6 * beat, 90), meter(6 * beat, 7, 8)]
    found = told(write_midi(tmp_path / "song.mid", [head, riff(4)]))
    assert found["tempo_bpm"] == [
        {"at_s": 0, "bpm": 120},
        {"at_s": 3, "bpm": pytest.approx(90, abs=1e-3)},
    ]
    assert found["meter"] == [{"at_s": 0, "meter": "3/4"}, {"at_s": 3, "meter": "7/8"}]
    assert (found["type"], found["division"]) == (1, 480)


def test_an_ending_is_told_by_its_bar(tmp_path: Path) -> None:
    found = told(write_midi(tmp_path / "song.mid", [riff(12)]))  # the last bar is one long note
    assert found["ending"] == {"bar": 12, "kinds": ["held"]}


def test_what_a_file_does_not_say_is_120_bpm_in_4_4(tmp_path: Path) -> None:
    found = told(write_midi(tmp_path / "song.mid", [riff(4)]))
    assert found["tempo_bpm"] == [{"at_s": 0, "bpm": 120}] and found["meter"] == [{"at_s": 0, "meter": "4/4"}]
    assert found["bars"] == 4 and found["length_s"] == 8


def test_instruments(tmp_path: Path) -> None:
    events = [
        (0, mido.MetaMessage("track_name", name="lead")),
        (0, mido.Message("program_change", channel=3, program=73)),
        *note(0, 480, 61, channel=3),
        *note(480, 480, 84, channel=3),
    ]
    drums = note(0, 240, 36, channel=9) + note(480, 240, 42, channel=9)
    found = told(write_midi(tmp_path / "song.mid", [events, drums]))["instruments"]
    assert found[0] == {
        "track": 0, "track_name": "lead", "channel": 4, "program": 73, "instrument": "Flute", "notes": 2,
        "lowest": "C#4", "highest": "C6",
    }  # fmt: skip
    assert (found[1]["instrument"], found[1]["channel"], found[1]["notes"]) == ("Drums", 10, 2)


@pytest.mark.parametrize(
    ("steps", "root", "key"),
    [
        ((0, 2, 4, 5, 7, 9, 11), 60, "C major"),
        ((0, 2, 4, 5, 7, 9, 11), 63, "Eb major"),
        ((0, 2, 3, 5, 7, 8, 11), 66, "F# minor"),
    ],
)
def test_key(steps: tuple[int, ...], root: int, key: str, tmp_path: Path) -> None:
    found = told(scale_song(tmp_path / "song.mid", steps, root))
    assert found["key"] == key
    assert 0.7 < found["key_fit"] <= 1


def test_drums_have_no_key(tmp_path: Path) -> None:
    events = [event for i in range(16) for event in note(480 * i, 240, (36, 38)[i % 2], channel=9)]
    found = told(write_midi(tmp_path / "song.mid", [events]))
    assert found["key"] is None and found["key_fit"] == 0
    assert [i["instrument"] for i in found["instruments"]] == ["Drums"]
    json.dumps(found, allow_nan=False)


def test_mood_follows_the_music(tmp_path: Path) -> None:
    def song(name: str, length: int, velocity: int, steps: tuple[int, ...]) -> dict:
        events = [e for i in range(32) for e in note(length * i, length, 60 + steps[i % 7], velocity)]
        return told(write_midi(tmp_path / name, [events]))["mood"]

    major, minor = (0, 4, 7, 4, 5, 2, 0), (0, 3, 7, 3, 5, 8, 0)
    calm, excited = song("calm.mid", 960, 40, major), song("excited.mid", 120, 120, major)
    dark = song("dark.mid", 960, 40, minor)
    assert excited["arousal"] > calm["arousal"] + 1
    assert calm["valence"] > dark["valence"]
    assert np.isfinite([calm["arousal"], dark["valence"]]).all()
