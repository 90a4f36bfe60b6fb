"""Endings are found where the music closes, each kind by itself, and not in music that only stops or changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mido
import numpy as np
import pytest
from songs import EXAMPLES, Timed, changing_song, note, tempo, write_midi

from midiex import score, tokens
from midiex.endings import MOST_BARS, Ending, find_ending

BEAT, BAR = 480, 4 * 480
BARS = 16


def ending(path: Path, *tracks: Sequence[Timed]) -> Ending | None:
    """What is found in a file of these tracks."""
    return ending_of(write_midi(path / "song.mid", tracks))


def ending_of(path: Path) -> Ending | None:
    song = score.read(path)
    rows = tokens.encode(tokens.notes_of(song.score), tokens.voice_ids(song.score), song.grid)
    return find_ending(song, rows)


def eighths(
    bars: Sequence[int], velocity: int = 80, channel: int = 0, every: int = BEAT // 2, root: int = 60
) -> list[Timed]:
    """A bar of even notes in each of `bars`, an eighth apart where nothing else is said."""
    events = []
    for bar in bars:
        for step, at in enumerate(range(0, BAR, every)):
            events += note(bar * BAR + at, min(every, BEAT // 2), root + (3 * step + bar) % 7, velocity, channel)
    return events


def chord(bar: int, length: int, at: int = 0) -> list[Timed]:
    return [event for pitch in (48, 55, 60, 64) for event in note(bar * BAR + at, length, pitch)]


def control(tick: int, number: int, value: int, channel: int = 0) -> Timed:
    return tick, mido.Message("control_change", channel=channel, control=number, value=value)


FLOW = eighths(range(BARS))
BEFORE = eighths(range(BARS - 1))  # all bars but the last


# ---- each kind -------------------------------------------------------------------------------------------------------


def test_a_chord_longer_than_usual_is_held(tmp_path: Path) -> None:
    assert ending(tmp_path, BEFORE + chord(BARS - 1, BAR)) == Ending(BARS - 1, ("held",))


def test_the_pedal_holds_as_well(tmp_path: Path) -> None:
    last = (BARS - 1) * BAR
    pedal = [control(last + 10, 64, 127), control(last + BAR, 64, 0)]
    assert ending(tmp_path, BEFORE + chord(BARS - 1, BEAT // 2) + pedal) == Ending(BARS - 1, ("held",))


def test_a_strummed_chord_is_one_stroke(tmp_path: Path) -> None:
    strummed = [e for i in range(8) for e in note((BARS - 1) * BAR + 11 * i, BAR // 2, 50 + 4 * i)]
    assert ending(tmp_path, BEFORE + strummed) == Ending(BARS - 1, ("held",))


def test_a_chord_that_comes_late_in_a_bar_is_held_too(tmp_path: Path) -> None:
    half = FLOW[: 2 * (8 * BARS - 4)]  # of the last bar flows on
    assert ending(tmp_path, half + chord(BARS - 1, BAR // 2, at=BAR // 2)) == Ending(BARS - 1, ("held",))


def test_a_stroke_and_then_nothing_is_a_rest(tmp_path: Path) -> None:
    assert ending(tmp_path, BEFORE + chord(BARS - 1, BEAT // 2)) == Ending(BARS - 1, ("rest",))


def test_tempo_steps_down_are_a_ritardando(tmp_path: Path) -> None:
    steps = [tempo(0, 120), *(tempo((BARS - 3) * BAR + i * BAR // 2, 106 - 8 * i) for i in range(6))]
    assert ending(tmp_path, steps, FLOW) == Ending(BARS - 3, ("ritardando",))


def test_a_ritardando_may_take_its_time(tmp_path: Path) -> None:
    steps = [tempo(0, 120), *(tempo((BARS - 6 + i) * BAR, 104 - 8 * i) for i in range(6))]
    assert ending(tmp_path, steps, FLOW) == Ending(BARS - 6, ("ritardando",))


def test_a_single_step_just_before_the_end_is_a_ritardando(tmp_path: Path) -> None:
    assert ending(tmp_path, [tempo(0, 120), tempo((BARS - 2) * BAR, 90)], FLOW) == Ending(BARS - 2, ("ritardando",))


def test_falling_velocities_are_a_fade(tmp_path: Path) -> None:
    faded = [event for i in range(4) for event in eighths([BARS - 4 + i], velocity=70 - 18 * i)]
    assert ending(tmp_path, eighths(range(BARS - 4)) + faded) == Ending(BARS - 4, ("fade",))


def test_a_fade_begins_after_the_last_rise(tmp_path: Path) -> None:
    faded = [event for i in range(4) for event in eighths([BARS - 4 + i], velocity=(70, 30, 60, 40)[i])]
    assert ending(tmp_path, eighths(range(BARS - 4)) + faded) == Ending(BARS - 2, ("fade",))


@pytest.mark.parametrize("number", [7, 11])
def test_falling_controllers_are_a_fade(tmp_path: Path, number: int) -> None:
    falls = [control((BARS - 4) * BAR + i * BAR // 4, number, 100 - 6 * i) for i in range(16)]
    found = ending(tmp_path, [control(0, number, 100), *falls, *FLOW])
    assert found == Ending(BARS - 4, ("fade",))


def test_voices_that_leave_one_by_one_are_thinning(tmp_path: Path) -> None:
    band = [eighths(range(BARS - 3), channel=c, root=40 + 10 * c) for c in (1, 2, 3, 4, 5)]
    left = eighths(range(BARS - 2)) + eighths([BARS - 2, BARS - 1], every=BEAT)
    assert ending(tmp_path, left, *band) == Ending(BARS - 3, ("thinning",))


def test_a_gesture_begins_with_the_first_of_its_kinds(tmp_path: Path) -> None:
    steps = [tempo(0, 120), *(tempo((BARS - 4 + i) * BAR, 100 - 12 * i) for i in range(4))]
    found = ending(tmp_path, steps, BEFORE + chord(BARS - 1, BAR))
    assert found == Ending(BARS - 4, ("held", "ritardando"))


def test_what_comes_after_the_last_note_does_not_count(tmp_path: Path) -> None:
    assert ending_of(changing_song(tmp_path / "song.mid")) == Ending(7, ("held", "ritardando"))
    assert ending(tmp_path, [tempo(0, 120), tempo(BARS * BAR, 20), tempo(2 * BARS * BAR, 10)], FLOW) is None


# ---- no ending -------------------------------------------------------------------------------------------------------


def test_a_loop_that_stops_has_no_ending(tmp_path: Path) -> None:
    drums = [e for i in range(4 * BARS) for e in note(i * BEAT, BEAT // 4, (36, 42)[i % 2], 100, channel=9)]
    assert ending(tmp_path, FLOW) is None
    assert ending(tmp_path, FLOW, drums) is None
    assert ending(tmp_path, drums) is None


def test_a_loop_cut_off_inside_a_bar_has_no_ending(tmp_path: Path) -> None:
    assert ending(tmp_path, FLOW[: -2 * 3]) is None


def test_holds_that_come_back_are_the_song_and_not_its_end(tmp_path: Path) -> None:
    riff = [e for bar in range(BARS) for e in (chord(bar, BAR) if bar % 2 else eighths([bar]))]
    assert ending(tmp_path, riff) is None


def test_a_last_note_a_little_longer_is_no_ending(tmp_path: Path) -> None:
    quarters = [event for i in range(4 * BARS - 1) for event in note(i * BEAT, BEAT, 60 + i % 5)]
    longer = quarters[:-2] + note((4 * BARS - 2) * BEAT, 3 * BEAT // 2, 60)
    assert ending(tmp_path, longer) is None


def test_breaks_that_come_back_are_no_thinning(tmp_path: Path) -> None:
    song: list[Timed] = []
    for bar in range(24):
        if bar % 8 == 6:
            song += eighths([bar], every=BAR // 3)
        elif bar % 8 == 7:
            song += note(bar * BAR, BEAT // 2, 60) + note(bar * BAR + 3 * BEAT, BEAT // 2, 60)
        else:
            song += eighths([bar])
    assert ending(tmp_path, song) is None


def test_a_quieter_section_is_no_thinning(tmp_path: Path) -> None:
    band = [eighths(range(BARS - 4), channel=c, root=40 + 10 * c) for c in (1, 2, 3, 4, 5)]
    assert ending(tmp_path, FLOW, *band) is None


def test_whole_notes_end_only_with_a_longer_one(tmp_path: Path) -> None:
    chords = [event for bar in range(BARS) for event in chord(bar, BAR)]
    assert ending(tmp_path, chords) is None
    assert ending(tmp_path, chords[: -2 * 4] + chord(BARS - 1, 2 * BAR)) == Ending(BARS - 1, ("held",))


@pytest.mark.parametrize("bar", [4, 8, BARS - 6])
@pytest.mark.parametrize("bpm", [80, 160])
def test_a_new_tempo_is_no_ritardando(tmp_path: Path, bar: int, bpm: float) -> None:
    assert ending(tmp_path, [tempo(0, 120), tempo(bar * BAR, bpm)], FLOW) is None


def test_a_tempo_that_breathes_throughout_is_no_ritardando(tmp_path: Path) -> None:
    breath = [tempo(bar * BAR, (120, 110, 96)[bar % 3]) for bar in range(3 * (BARS // 3))]
    assert ending(tmp_path, breath, eighths(range(3 * (BARS // 3)))) is None


def test_a_loud_voice_that_falls_silent_is_no_fade(tmp_path: Path) -> None:
    loud = eighths(range(BARS - 2), velocity=120, channel=1, root=72)
    assert ending(tmp_path, eighths(range(BARS), velocity=40), loud) is None


def test_a_diminuendo_that_does_not_go_far_is_no_fade(tmp_path: Path) -> None:
    softer = [event for i in range(4) for event in eighths([BARS - 4 + i], velocity=74 - 5 * i)]
    assert ending(tmp_path, eighths(range(BARS - 4)) + softer) is None


def test_swells_and_other_channels_are_no_fade(tmp_path: Path) -> None:
    swell = [e for bar in range(BARS) for e in eighths([bar], velocity=(90, 70, 50, 35)[bar % 4])]
    assert ending(tmp_path, swell) is None
    elsewhere = [control((BARS - 4) * BAR + i * BAR // 4, 7, 100 - 6 * i, channel=5) for i in range(16)]
    assert ending(tmp_path, [*elsewhere, *FLOW]) is None


@pytest.mark.parametrize("bars", [1, 2, 3])
def test_a_very_short_song_has_no_ending(tmp_path: Path, bars: int) -> None:
    assert ending(tmp_path, eighths(range(bars - 1)) + chord(bars - 1, BAR)) is None


def test_no_notes_no_ending(tmp_path: Path) -> None:
    song = score.read(write_midi(tmp_path / "song.mid", [FLOW]))
    assert find_ending(song, np.zeros((0, len(tokens.FIELDS)), np.int32)) is None


@pytest.mark.parametrize("name", ["band_groove", "chiptune_loop", "piano_nocturne", "small_orchestra"])
def test_the_examples_are_left_open(name: str) -> None:
    """Two loops, and two whose last bar flows on: a half cadence over a walking left hand, harp to the last eighth."""
    assert ending_of(EXAMPLES / f"{name}.mid") is None


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_a_gesture_is_no_longer_than_its_limit(tmp_path: Path) -> None:
    faded = [event for i in range(12) for event in eighths([28 + i], velocity=88 - 7 * i)]
    found = ending(tmp_path, eighths(range(28), velocity=96) + faded)
    assert found == Ending(40 - MOST_BARS, ("fade",))


@pytest.mark.parametrize("bars", [4, 5, 6, 9, 12])
def test_a_gesture_begins_in_the_second_half(tmp_path: Path, bars: int) -> None:
    faded = [event for i in range(bars) for event in eighths([i], velocity=120 - 100 * i // bars)]
    slower = [tempo(i * BAR, 120 - 70 * i / bars) for i in range(bars)]
    found = ending(tmp_path, slower, faded[: -2 * 8] + chord(bars - 1, BAR))
    assert found is not None and "held" in found.kinds
    assert bars / 2 <= found.first_bar < bars


def test_four_bars_are_enough(tmp_path: Path) -> None:
    assert ending(tmp_path, eighths(range(3)) + chord(3, BAR)) == Ending(3, ("held",))
