"""Builders for the tests of extending: MIDI files event by event, songs as rows, and a model that has much to say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mido
import numpy as np
import torch
from helpers import lively_model, tiny_config

from midiex import tokens
from midiex.checkpoint import save_model
from midiex.config import Config, load_config
from midiex.habits import Habits, Told
from midiex.model import ChunkTransformer
from midiex.planner import Bars
from midiex.score import Song
from midiex.smf import like
from midiex.splice import Joint, splice
from midiex.tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    FIELD_SIZES,
    HEAD_ORDER,
    INSTANCE,
    MICRO_CENTER,
    PITCH,
    POSITION,
    PROGRAM,
)

EXAMPLES = Path(__file__).parent.parent / "examples"
SMPTE_25 = -25 << 8 | 40  # 25 frames of 40 ticks: a tick is a millisecond
BASS_RIFF = (0, 7, 10, 12, 10, 7, 5, 3)
DRUM_RIFF = (36, 42, 38, 42)

Timed = tuple[int, Any]  # absolute tick, mido message


# ---- files ----------------------------------------------------------------------------------------------------------


def write_midi(path: Path, tracks: Sequence[Sequence[Timed]], midi_type: int = 1, division: int = 480) -> Path:
    """A MIDI file of tracks whose events are given with their absolute ticks; events at one tick keep their order."""
    midi = mido.MidiFile(type=midi_type, ticks_per_beat=division)
    for events in tracks:
        track, at = mido.MidiTrack(), 0
        for tick, message in sorted(events, key=lambda event: event[0]):
            track.append(message.copy(time=tick - at))
            at = tick
        track.append(mido.MetaMessage("end_of_track"))
        midi.tracks.append(track)
    path.parent.mkdir(parents=True, exist_ok=True)
    midi.save(path)
    return path


def note(start: int, length: int, pitch: int, velocity: int = 80, channel: int = 0) -> list[Timed]:
    """A note's two events, in ticks."""
    on = mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)
    return [(start, on), (start + length, mido.Message("note_off", channel=channel, note=pitch, velocity=0))]


def tempo(tick: int, bpm: float) -> Timed:
    return tick, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm))


def meter(tick: int, numerator: int, denominator: int) -> Timed:
    return tick, mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)


def riff(bars: int, beat: int = 480, first_tick: int = 0, root: int = 60) -> list[Timed]:
    """Bars of 4/4 in eighths on channel 0, each bar a step higher than the one before, and the last note a bar long."""
    events = []
    for i in range(8 * bars - 8):
        pitch = root + BASS_RIFF[i % 8] + (i // 8) % 4
        events += note(first_tick + i * beat // 2, beat // 2, pitch, 60 + 4 * (i % 8))
    return events + note(first_tick + 4 * beat * (bars - 1), 4 * beat, root)


def type_0_song(path: Path, bars: int = 8) -> Path:
    """Everything in one track: two instruments and drums, a change of program, controllers, bends, lyrics and SysEx.
    120 beats a minute."""
    beat, end = 480, 4 * 480 * bars
    events: list[Timed] = [
        (0, mido.MetaMessage("track_name", name="all in one")),
        tempo(0, 120),
        meter(0, 4, 4),
        (0, mido.Message("sysex", data=(0x7E, 0x7F, 9, 1))),
        *[(0, mido.Message("program_change", channel=c, program=p)) for c, p in ((0, 4), (1, 33))],
        (0, mido.Message("control_change", channel=0, control=7, value=90)),
        (beat, mido.Message("control_change", channel=0, control=64, value=127)),
        (3 * beat, mido.Message("control_change", channel=0, control=64, value=0)),
        (5 * beat, mido.Message("pitchwheel", channel=1, pitch=-1234)),
        (6 * beat, mido.Message("pitchwheel", channel=1, pitch=0)),
        (2 * beat, mido.MetaMessage("lyrics", text="la")),
        (end // 2, mido.Message("program_change", channel=0, program=5)),
        *riff(bars),
    ]
    for i in range(4 * bars):
        events += note(i * beat, beat - 10, 33 + BASS_RIFF[i % 8], 90, channel=1)
        events += note(i * beat, beat // 4, DRUM_RIFF[i % 4], 100, channel=9)
    return write_midi(path, [events], midi_type=0)


def changing_song(path: Path) -> Path:
    """Eight bars of 4/4 at 120, of which the fourth is at 60 and the last, slowing down, at 80; then the tempo is set
    once more, to 30, a bar after the last note."""
    bar = 4 * 480
    head = [tempo(0, 120), tempo(3 * bar, 60), tempo(4 * bar, 120), tempo(7 * bar, 80), tempo(9 * bar, 30)]
    return write_midi(path, [head, riff(8)])


def riff_song(path: Path, bars: int = 8, division: int = 480, bpm: float = 120) -> Path:
    """One voice in 4/4. With an SMPTE division ticks are milliseconds and a beat is half a second."""
    beat = division if division > 0 else 500
    return write_midi(path, [[tempo(0, bpm), *riff(bars, beat)]], 1, division)


# ---- rows -----------------------------------------------------------------------------------------------------------


def rows_of(*notes: tuple[int, ...]) -> np.ndarray:
    """Rows (n, 8) on the grid of (bar, position, program, pitch[, duration index[, velocity bin[, instance]]])."""
    rows = []
    for one in notes:
        bar, position, program, pitch = one[:4]
        duration, velocity, instance = (*one[4:], *(7, 20, 0)[len(one) - 4 :])
        pitch += DRUM_PITCH_OFFSET if program == DRUM_PROGRAM else 0
        rows.append((bar, position, MICRO_CENTER, program, instance, pitch, duration, velocity))
    return tokens.sort_rows(np.array(rows, np.int32).reshape(-1, len(FIELD_SIZES)))


def told_of(heard: Habits, name: int, row: Sequence[int]) -> Told:
    """The columns on which the next note's choice of a field depends: all that is chosen before it."""
    if name in (BAR, POSITION):
        return heard.behind(None if name == BAR else row[BAR])
    chosen = HEAD_ORDER[: HEAD_ORDER.index(name)]
    told = heard.coming(row[BAR], row[POSITION])
    if PROGRAM in chosen:
        told = told | {"program": row[PROGRAM]}
    if INSTANCE in chosen:
        told = heard.of_voice(row[PROGRAM], row[INSTANCE], told)
    return told | {"pitch": row[PITCH]} if PITCH in chosen else told


def bars_of_4_4(count: int, bar_s: float = 2.0) -> Bars:
    return Bars(np.full(count, 4.0), np.full(count, bar_s))


# ---- models ---------------------------------------------------------------------------------------------------------


def talkative_model(config: Config | None = None, seed: int = 0) -> ChunkTransformer:
    """Random, and inclined to write some eight notes a bar where a plain random model would write two."""
    model = lively_model(config or tiny_config(), seed)
    with torch.no_grad():
        for head in model.heads.out:
            head.weight.mul_(0.3)
        bar, position = (model.heads.out[HEAD_ORDER.index(f)].bias for f in (BAR, POSITION))
        bar[:-1] = -2.0 * torch.arange(FIELD_SIZES[BAR])  # rather this bar than the next
        bar[-1] = -5.0
        position[:] = -0.2 * torch.arange(FIELD_SIZES[POSITION])
        position[0] = 3.0  # on the downbeat, so that chunks begin without a hole
    return model


def network_alone(model: ChunkTransformer) -> ChunkTransformer:
    """The same model, from now on without any trust in what the song did so far."""
    with torch.no_grad():
        for gate in model.heads.gate:
            gate.bias[0] = 1000.0  # all other log weights are so far below that they are nothing
    return model


def save_talkative(folder: Path, seed: int = 0) -> Path:
    """A model folder of the size `tiny`, as `--model` takes it."""
    config = load_config("tiny")
    save_model(folder, talkative_model(config, seed).state_dict(), config)
    return folder


def programs_in(rows: np.ndarray) -> set[int]:
    return set(np.unique(rows[:, PROGRAM]).tolist())


def spliced(song: Song, joint: Joint, *what: Any) -> mido.MidiFile:
    """What `splice` gives, as a file."""
    return like(song.midi, [mido.MidiTrack(track) for track in splice(song, joint, *what)])
