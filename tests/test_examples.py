"""The songs in examples/: their length and instruments, and that they are exactly what the script makes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import mido
import pytest
import symusic

EXAMPLES = Path(__file__).parent.parent / "examples"
DRUMS = -1
PROGRAMS = {  # of every track with notes, in order
    "piano_nocturne.mid": [0, 0],
    "band_groove.mid": [DRUMS, 33, 4, 66],
    "small_orchestra.mid": [73, 68, 60, 47, 46, 48, 48, 48, 42],
    "chiptune_loop.mid": [80, 80, 38, DRUMS],
}
SHIPPED = pytest.mark.parametrize("name", PROGRAMS)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_examples", EXAMPLES / "make_examples.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@SHIPPED
def test_length_and_instruments(name: str) -> None:
    score = symusic.Score(EXAMPLES / name, ttype="second")
    assert 20 <= score.end() <= 40
    played = [track for track in score.tracks if len(track.notes)]
    assert [DRUMS if track.is_drum else track.program for track in played] == PROGRAMS[name]
    assert len({track.name for track in played}) == len(played)


@SHIPPED
def test_one_tempo_one_meter_one_key(name: str) -> None:
    score = symusic.Score(EXAMPLES / name)
    assert [len(kept) for kept in (score.tempos, score.time_signatures, score.key_signatures)] == [1, 1, 1]


@SHIPPED
def test_every_track_ends_with_the_last_bar(name: str) -> None:
    midi = mido.MidiFile(EXAMPLES / name)
    meter = next(message for message in midi.tracks[0] if message.type == "time_signature")
    bar_ticks = midi.ticks_per_beat * 4 * meter.numerator // meter.denominator
    ends = {sum(message.time for message in track) for track in midi.tracks}
    assert len(ends) == 1
    assert ends.pop() % (4 * bar_ticks) == 0  # whole four-bar phrases


@SHIPPED
def test_no_pitch_begins_while_it_sounds(name: str) -> None:
    for track in symusic.Score(EXAMPLES / name).tracks:
        ends: dict[int, int] = {}
        for note in sorted(track.notes, key=lambda note: note.start):
            assert note.duration > 0
            assert note.start >= ends.get(note.pitch, 0), f"{track.name}: pitch {note.pitch} at tick {note.start}"
            ends[note.pitch] = note.end


def test_both_hands_of_the_nocturne_use_the_pedal_and_let_it_go() -> None:
    for track in symusic.Score(EXAMPLES / "piano_nocturne.mid").tracks:
        pedal = [control.value for control in track.controls if control.number == 64]
        assert pedal.count(127) == 16
        assert pedal[-1] == 0


def test_the_band_is_four_instruments_at_eight_to_twelve_notes_a_second() -> None:
    score = symusic.Score(EXAMPLES / "band_groove.mid", ttype="second")
    notes = [len(track.notes) for track in score.tracks if len(track.notes)]
    assert len(notes) == 4
    assert 8 <= sum(notes) / score.end() <= 12


def test_script_makes_the_shipped_bytes(script: ModuleType, tmp_path: Path) -> None:
    made = script.make(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PROGRAMS)
    assert sorted(path.name for path in made) == sorted(path.name for path in EXAMPLES.glob("*.mid"))
    for path in made:
        assert path.read_bytes() == (EXAMPLES / path.name).read_bytes(), path.name


def test_notation(script: ModuleType) -> None:
    notes = script.read("f C4:1 E4,G4:.5' r:2.5 | Bb3:4! |", gate=1.0)
    assert [(note.start_beats, note.length_beats, note.pitch) for note in notes] == [
        (0.0, 1.0, 60),
        (1.0, 0.25, 64),
        (1.0, 0.25, 67),
        (4.0, 4.0, 58),
    ]
    assert notes[2].velocity > notes[1].velocity  # the top of a chord sings
    held = script.read("C4:3 D4:1 | -:4 |", gate=1.0)
    assert [note.length_beats for note in held] == [3.0, 5.0]
    growing = script.read("p< C4:1 C4 C4 C4 | f C4:4 |")
    assert growing[1].velocity < growing[3].velocity < growing[4].velocity


@pytest.mark.parametrize(
    ("text", "complaint"), [("C4:3 |", "Bar 1"), ("C4:4 | C4:8 |", "Bar 2"), ("H2:4 |", "not in the notation")]
)
def test_notation_refuses_slips(script: ModuleType, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        script.read(text)
