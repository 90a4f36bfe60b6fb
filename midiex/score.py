"""Songs out of MIDI files: read one, keep every event, see its notes as arrays.

A song is held twice: as the file's own events (`Song.midi`, never modified) and as note arrays built from them
(`Song.score`). Writing starts from the events (splice.py), so that nothing the arrays cannot hold is lost. Knows events
and notes; knows no bytes of files (that is smf.py), no chunks, no tokens, no model and no audio.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mido
import numpy as np
import symusic
from symusic.core import ScoreTick

from . import smf
from .errors import BadInput
from .grid import BarGrid, TempoMap, bar_grid
from .smf import events_before as events_before
from .smf import save as save

MAX_SECONDS = 6 * 3600
MAX_TICK = 2**31 - 1  # the note arrays count in int32
DRUM_CHANNEL = 9
SUSTAIN = 64  # controller number of the pedal; it is down from value 64 on

Event = tuple[int, int, Any]  # absolute tick, track, mido message
Struck = tuple[int, int, int]  # tick, track and program of a note event
Lane = tuple[int, int]  # whose program, pedal and bend: (0, channel), or (track, channel) in type 2 files


@dataclass(frozen=True)
class Voice:
    """One line of the song: a track, channel and program that has notes."""

    track: int  # index into Song.midi.tracks
    channel: int  # 0..15
    program: int  # 0..127, in force at its notes; for drums the kit
    is_drum: bool
    name: str  # of the track, '' if it has none


@dataclass(frozen=True)
class Song:
    """A MIDI file as its own events and as note arrays. `score.tracks[i]` holds the notes of `voices[i]`."""

    path: Path
    midi: mido.MidiFile  # the original; never modify it
    score: ScoreTick  # in the file's ticks; a pedal of a channel is listed in each of its voices
    voices: tuple[Voice, ...]  # by track, then by first appearance
    tempo: TempoMap
    grid: BarGrid  # covers the song up to its last note-off

    @property
    def end_tick(self) -> int:
        """Tick of the last note release."""
        return max(int((n["time"] + n["duration"]).max()) for n in (t.notes.numpy() for t in self.score.tracks))

    @property
    def length_s(self) -> float:
        """Time of the last note release in seconds."""
        return float(self.tempo.to_seconds(self.end_tick))

    @property
    def n_notes(self) -> int:
        return sum(len(track.notes) for track in self.score.tracks)


# ---- reading: file -> song -------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Song:
    """Read a Standard MIDI File of any type and division, bare or in a RIFF wrapper.

    Raises BadInput where smf.load does, when the file holds no notes, or is beyond the limits at the head of this
    module.
    """
    path = Path(path)
    midi = smf.load(path)
    events = walk(midi)
    if events and events[-1][0] > MAX_TICK:
        raise BadInput(f"{path} reaches tick {events[-1][0]}, which no song does; cut away its far-off last events.")
    notes = _notes(events, midi)
    if not notes:
        raise BadInput(f"{path} holds no notes, only {len(events)} other events; give a file with music in it.")
    tempo = _tempo_map(events, midi)
    end_tick = max(int(rows[:, 1].max()) for rows in notes.values())
    if tempo.to_seconds(end_tick) > MAX_SECONDS:
        hours = float(tempo.to_seconds(end_tick)) / 3600
        raise BadInput(f"{path} lasts {hours:.1f} hours and the limit is {MAX_SECONDS // 3600}; cut it shorter first.")
    meters = _meters(events)
    names = [track.name for track in midi.tracks]  # mido looks through the whole track for it
    voices = tuple(
        Voice(track, channel, program, channel == DRUM_CHANNEL, names[track])
        for track, channel, program in sorted(notes, key=lambda key: key[0])  # stable: then by first appearance
    )
    score = symusic.Score(int(tempo.tpq))
    score.tempos = symusic.Tempo.from_numpy(tempo.ticks.astype(np.int32), np.rint(tempo.us_per_beat).astype(np.int32))
    score.time_signatures.extend([symusic.TimeSignature(*meter) for meter in meters])
    pedals = _pedals(events, midi, end_tick)
    for voice in voices:
        rows = notes[voice.track, voice.channel, voice.program]
        spans = pedals.get(lane_of(midi, voice.track, voice.channel), np.zeros((0, 2), np.int32))
        track = symusic.Track(voice.name, voice.program, voice.is_drum)
        times, durations = rows[:, 0].astype(np.int32), (rows[:, 1] - rows[:, 0]).astype(np.int32)
        track.notes = symusic.Note.from_numpy(times, durations, rows[:, 2].astype(np.int8), rows[:, 3].astype(np.int8))
        track.pedals = symusic.Pedal.from_numpy(np.ascontiguousarray(spans[:, 0]), np.ascontiguousarray(spans[:, 1]))
        score.tracks.append(track)
    # meters after the last note have no bar to rule
    grid = bar_grid([meter for meter in meters if meter[0] < end_tick], tempo, end_tick)
    return Song(path, midi, score, voices, tempo, grid)


# ---- events -> notes, pedals, tempo, meter --------------------------------------------------------------------------


def walk(midi: mido.MidiFile) -> list[Event]:
    """All events by time; at one tick as `setting_up` says, then by track and place."""
    events = []
    for index, track in enumerate(midi.tracks):
        tick = 0
        for message in track:
            tick += message.time
            events.append((tick, index, message))
    events.sort(key=lambda event: (event[0], setting_up(event[2])))
    return events


def setting_up(message: Any) -> int:
    """Rank among the events of one tick: banks, then programs (which may stand in a later track than the notes they
    are meant for), then the rest."""
    if message.type == "control_change" and message.control in (0, 32):
        return 0
    return 1 if message.type == "program_change" else 2


def lane_of(midi: mido.MidiFile, track: int, channel: int) -> Lane:
    """The channel, which in type 2 files is each track's own."""
    return (track if midi.type == 2 else 0, channel)


def is_on(message: Any) -> bool:
    """Does the event strike a note? (With velocity 0 it releases one.)"""
    return message.type == "note_on" and message.velocity > 0


def pair_notes(events: list[Event], midi: mido.MidiFile) -> tuple[dict[int, Struck], dict[int, list[int]]]:
    """For the number of every note event its tick, track and program in force; and for the number of every release
    those of the strikes it ends.

    A release ends the oldest open note of its pitch; where a pitch has fewer releases than notes it ends all of them,
    lest one lost release lengthen every later note.
    """
    unreleased: Counter[tuple[int, int, int]] = Counter()
    for _, track, message in events:
        if message.type in ("note_on", "note_off"):
            unreleased[track, message.channel, message.note] += 1 if is_on(message) else -1
    programs: dict[Lane, int] = {}
    sounding: defaultdict[tuple[int, int, int], deque[int]] = defaultdict(deque)
    struck: dict[int, Struck] = {}
    ended: dict[int, list[int]] = {}
    for number, (tick, track, message) in enumerate(events):
        if message.type == "program_change":
            programs[lane_of(midi, track, message.channel)] = message.program
        elif message.type in ("note_on", "note_off"):
            key = (track, message.channel, message.note)
            struck[number] = (tick, track, programs.get(lane_of(midi, track, message.channel), 0))
            if is_on(message):
                sounding[key].append(number)
            else:
                count = len(sounding[key]) if unreleased[key] > 0 else min(1, len(sounding[key]))
                ended[number] = [sounding[key].popleft() for _ in range(count)]
    return struck, ended


def _notes(events: list[Event], midi: mido.MidiFile) -> dict[tuple[int, int, int], np.ndarray]:
    """Rows (start, end, pitch, velocity) of each (track, channel, program), by start; int64, shape (n, 4). Notes never
    released end with the song's last note event."""
    struck, ended = pair_notes(events, midi)
    ends = {strike: events[release][0] for release, strikes in ended.items() for strike in strikes}
    last_tick = max((tick for tick, _, _ in struck.values()), default=0)
    voices: dict[tuple[int, int, int], list[tuple[int, int, int, int]]] = {}
    for number, (tick, track, program) in struck.items():
        message = events[number][2]
        if is_on(message):
            end = max(ends.get(number, last_tick), tick + 1)
            row = (tick, end, message.note, message.velocity)
            voices.setdefault((track, message.channel, program), []).append(row)
    return {voice: np.array(rows, np.int64) for voice, rows in voices.items()}


def _pedals(events: list[Event], midi: mido.MidiFile, end_tick: int) -> dict[Lane, np.ndarray]:
    """Rows (start, duration) of each lane's sustain pedal; int32, shape (n, 2). One still down is held to the end."""
    down: dict[Lane, int] = {}
    spans: defaultdict[Lane, list[tuple[int, int]]] = defaultdict(list)
    for tick, track, message in events:
        if message.type == "control_change" and message.control == SUSTAIN:
            lane = lane_of(midi, track, message.channel)
            if message.value >= 64:
                down.setdefault(lane, tick)
            elif lane in down:
                start = down.pop(lane)
                spans[lane].append((start, tick - start))
    for lane, start in down.items():
        spans[lane].append((start, max(1, end_tick - start)))
    return {lane: np.array(rows, np.int32) for lane, rows in spans.items()}


def _tempo_map(events: list[Event], midi: mido.MidiFile) -> TempoMap:
    """The tempo map; for an SMPTE division, whose ticks last the same whatever the tempo says, a constant 120 bpm."""
    division = midi.ticks_per_beat
    if division < 0:
        frames_per_s = -(division >> 8)
        ticks_per_s = (29.97 if frames_per_s == 29 else frames_per_s) * (division & 0xFF)
        tpq = max(1, round(ticks_per_s / 2))
        return TempoMap.build(tpq, np.zeros(1), np.array([1e6 * tpq / ticks_per_s]))
    tempi = [(tick, message.tempo) for tick, _, message in events if message.type == "set_tempo"]
    ticks, us_per_beat = np.array(tempi, np.int64).reshape(-1, 2).T
    return TempoMap.build(division, ticks, us_per_beat)


def _meters(events: list[Event]) -> list[tuple[int, int, int]]:
    """Usable time signatures (tick, numerator, denominator), the last of several at one tick, 4/4 if none at first."""
    meters = {0: (4, 4)}
    for tick, _, message in events:
        if message.type == "time_signature" and message.denominator <= min(128, 32 * message.numerator):
            meters[tick] = (message.numerator, message.denominator)
    return [(tick, *meter) for tick, meter in sorted(meters.items())]
