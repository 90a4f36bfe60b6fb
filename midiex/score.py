"""Songs out of MIDI files: read one, keep every event, see its notes as arrays, append new notes.

A song is held twice: as the file's own events (`Song.midi`, never modified) and as note arrays built from them
(`Song.score`). Writing starts from the events, so that nothing the arrays cannot hold is lost. Knows events and
notes; knows no bytes of files (that is smf.py), no chunks, no tokens, no model and no audio.
"""

from __future__ import annotations

import os
from bisect import bisect_right
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


@dataclass(frozen=True)
class NewNotes:
    """Notes to append: five integer arrays of one length, in any order. `voice` indexes Song.voices."""

    voice: np.ndarray
    start_ticks: np.ndarray
    duration_ticks: np.ndarray
    pitch: np.ndarray  # 0..127
    velocity: np.ndarray  # clipped to 1..127

    def __len__(self) -> int:
        return len(self.voice)


# ---- reading: file -> song -------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Song:
    """Read a Standard MIDI File of any type and division, bare or in a RIFF wrapper.

    Raises BadInput where smf.load does, when the file holds no notes, or is beyond the limits at the head of this
    module.
    """
    path = Path(path)
    midi = smf.load(path)
    events = _walk(midi)
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
    voices = tuple(
        Voice(track, channel, program, channel == DRUM_CHANNEL, midi.tracks[track].name)
        for track, channel, program in sorted(notes, key=lambda key: key[0])  # stable: then by first appearance
    )
    score = symusic.Score(int(tempo.tpq))
    score.tempos = symusic.Tempo.from_numpy(tempo.ticks.astype(np.int32), np.rint(tempo.us_per_beat).astype(np.int32))
    score.time_signatures.extend([symusic.TimeSignature(*meter) for meter in meters])
    pedals = _pedals(events, midi, end_tick)
    for voice in voices:
        rows = notes[voice.track, voice.channel, voice.program]
        spans = pedals.get(_lane(midi, voice.track, voice.channel), np.zeros((0, 2), np.int32))
        track = symusic.Track(voice.name, voice.program, voice.is_drum)
        times, durations = rows[:, 0].astype(np.int32), (rows[:, 1] - rows[:, 0]).astype(np.int32)
        track.notes = symusic.Note.from_numpy(times, durations, rows[:, 2].astype(np.int8), rows[:, 3].astype(np.int8))
        track.pedals = symusic.Pedal.from_numpy(np.ascontiguousarray(spans[:, 0]), np.ascontiguousarray(spans[:, 1]))
        score.tracks.append(track)
    # meters after the last note have no bar to rule
    grid = bar_grid([meter for meter in meters if meter[0] < end_tick], tempo, end_tick)
    return Song(path, midi, score, voices, tempo, grid)


# ---- events -> notes, pedals, tempo, meter --------------------------------------------------------------------------


def _walk(midi: mido.MidiFile) -> list[Event]:
    """All events by time. At one tick program changes come first (they may stand in a later track than the notes they
    are meant for), then the rest by track and place."""
    events = []
    for index, track in enumerate(midi.tracks):
        tick = 0
        for message in track:
            tick += message.time
            events.append((tick, index, message))
    events.sort(key=lambda event: (event[0], event[2].type != "program_change"))
    return events


def _lane(midi: mido.MidiFile, track: int, channel: int) -> Lane:
    return (track if midi.type == 2 else 0, channel)


def _is_on(message: Any) -> bool:
    return message.type == "note_on" and message.velocity > 0


def _notes(events: list[Event], midi: mido.MidiFile) -> dict[tuple[int, int, int], np.ndarray]:
    """Rows (start, end, pitch, velocity) of each (track, channel, program), by start; int64, shape (n, 4).

    A release ends the oldest open note of its pitch; where a pitch has fewer releases than notes it ends all of them,
    lest one lost release lengthen every later note. Notes never released end with the song's last note event.
    """
    keyed = [(t, i, m) for t, i, m in events if m.type in ("note_on", "note_off", "program_change")]
    unreleased: Counter[tuple[int, int, int]] = Counter()
    for _, track, message in keyed:
        if message.type != "program_change":
            unreleased[track, message.channel, message.note] += 1 if _is_on(message) else -1
    programs: dict[Lane, int] = {}
    voices: dict[tuple[int, int, int], list[list[int]]] = {}
    sounding: defaultdict[tuple[int, int, int], deque[list[int]]] = defaultdict(deque)
    last_tick = 0
    for tick, track, message in keyed:
        channel = message.channel
        if message.type == "program_change":
            programs[_lane(midi, track, channel)] = message.program
            continue
        last_tick = tick
        key = (track, channel, message.note)
        if _is_on(message):
            note = [tick, -1, message.note, message.velocity]
            voices.setdefault((track, channel, programs.get(_lane(midi, track, channel), 0)), []).append(note)
            sounding[key].append(note)
        elif sounding[key]:
            for _ in range(len(sounding[key]) if unreleased[key] > 0 else 1):
                sounding[key].popleft()[1] = tick
    for notes in sounding.values():
        for note in notes:
            note[1] = last_tick
    arrays = {voice: np.array(rows, np.int64) for voice, rows in voices.items()}
    for rows in arrays.values():
        rows[:, 1] = np.maximum(rows[:, 1], rows[:, 0] + 1)
    return arrays


def _pedals(events: list[Event], midi: mido.MidiFile, end_tick: int) -> dict[Lane, np.ndarray]:
    """Rows (start, duration) of each lane's sustain pedal; int32, shape (n, 2). One still down is held to the end."""
    down: dict[Lane, int] = {}
    spans: defaultdict[Lane, list[tuple[int, int]]] = defaultdict(list)
    for tick, track, message in events:
        if message.type == "control_change" and message.control == SUSTAIN:
            lane = _lane(midi, track, message.channel)
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


def grid_until(song: Song, end_tick: int) -> BarGrid:
    """The song's own bars, continued past its end with the last meter and tempo until they cover `end_tick`."""
    last = int(song.grid.ticks[-1])
    if end_tick <= last:
        return song.grid
    meter = [m for m in song.score.time_signatures if m.time <= last][-1]
    tail = bar_grid([(0, meter.numerator, meter.denominator)], song.tempo, end_tick - last)
    ticks = np.concatenate([song.grid.ticks, tail.ticks[1:] + last])
    return BarGrid(song.grid.tpq, ticks, song.tempo.to_seconds(ticks))


# ---- appending ------------------------------------------------------------------------------------------------------

_RELEASE, _ORIGINAL, _NEW = range(3)  # the order of events at one tick
_Addition = tuple[int, int, Any]  # tick, one of the three above, message


def append(
    song: Song, notes: NewNotes, seam_tick: int, end_tick: int, tempo_us_per_beat: int | None = None
) -> mido.MidiFile:
    """The song with new notes after the seam, as a new MidiFile; `song` stays as it is.

    Every original event stays, at its tick and in its order, before the seam and after it. At the seam notes the
    original never releases are released, held pedals go up, bends go back to the middle, and a channel's program is
    restored where a voice with new notes needs another. `tempo_us_per_beat` becomes a set_tempo at the seam unless it
    is in force there; tempo events of the original after the seam still follow it. Files with an SMPTE division ignore
    tempo, so none is written.

    A new note starts at the seam at the earliest and is cut where its channel strikes its pitch anew. It may start
    while an original note of its pitch still sounds past the seam: that note's release stays, and may end it early.
    Tracks with new notes end at `end_tick` or with their last event.

    Raises ValueError for a pitch outside 0..127, a tempo outside 1..2^24-1, arrays of unequal length.
    """
    midi = song.midi
    additions: list[list[_Addition]] = [[] for _ in midi.tracks]
    events = _walk(midi)
    in_force = song.tempo.us_per_beat_at(seam_tick)
    if tempo_us_per_beat is not None and tempo_us_per_beat != in_force and midi.ticks_per_beat > 0:
        tempo_tracks = [track for _, track, message in events if message.type == "set_tempo"]
        track = tempo_tracks[-1] if midi.type == 2 and tempo_tracks else 0
        additions[track].append((seam_tick, _NEW, mido.MetaMessage("set_tempo", tempo=tempo_us_per_beat)))
    _settle(events, midi, seam_tick, additions)
    _add_notes(song, events, notes, seam_tick, additions)
    with_notes = {song.voices[i].track for i in np.unique(notes.voice)}
    tracks = [_merge(track, additions[i], end_tick if i in with_notes else 0) for i, track in enumerate(midi.tracks)]
    return mido.MidiFile(type=midi.type, ticks_per_beat=midi.ticks_per_beat, charset=midi.charset, tracks=tracks)


def _settle(events: list[Event], midi: mido.MidiFile, seam_tick: int, additions: list[list[_Addition]]) -> None:
    """Release at the seam what the original leaves hanging there: notes, pedals, bends."""
    hanging: dict[tuple[Lane, int], int] = {}  # (lane, pitch) -> track
    pedal: dict[Lane, tuple[int, int]] = {}  # lane -> (track, value)
    bend: dict[Lane, tuple[int, int]] = {}
    for tick, track, message in events:
        kind = message.type
        if kind in ("note_on", "note_off"):
            key = (_lane(midi, track, message.channel), message.note)
            if not _is_on(message):
                hanging.pop(key, None)
            elif tick < seam_tick:
                hanging[key] = track
        elif tick > seam_tick:
            continue
        elif kind == "control_change" and message.control == SUSTAIN:
            pedal[_lane(midi, track, message.channel)] = (track, message.value)
        elif kind == "pitchwheel":
            bend[_lane(midi, track, message.channel)] = (track, message.pitch)
    for ((_, channel), pitch), track in hanging.items():
        additions[track].append((seam_tick, _RELEASE, mido.Message("note_off", channel=channel, note=pitch)))
    for (_, channel), (track, value) in pedal.items():
        if value >= 64:
            message = mido.Message("control_change", channel=channel, control=SUSTAIN, value=0)
            additions[track].append((seam_tick, _NEW, message))
    for (_, channel), (track, value) in bend.items():
        if value != 0:
            additions[track].append((seam_tick, _NEW, mido.Message("pitchwheel", channel=channel, pitch=0)))


def _add_notes(
    song: Song, events: list[Event], notes: NewNotes, seam_tick: int, additions: list[list[_Addition]]
) -> None:
    """Put the new notes, and the program changes they need, among the additions of their tracks."""
    midi = song.midi
    programs: defaultdict[Lane, list[tuple[int, int]]] = defaultdict(list)  # (tick, program), by tick
    strikes: defaultdict[tuple[Lane, int], list[int]] = defaultdict(list)  # original note-ons from the seam on
    for tick, track, message in events:
        if message.type == "program_change":
            programs[_lane(midi, track, message.channel)].append((tick, message.program))
        elif _is_on(message) and tick >= seam_tick:
            strikes[_lane(midi, track, message.channel), message.note].append(tick)
    restored: dict[Lane, tuple[int, int]] = {}  # our latest program change: (tick, program)
    begun: set[Lane] = set()

    def ensure_program(voice: Voice, lane: Lane, tick: int) -> None:
        n_before = bisect_right(programs[lane], (tick, 127))
        theirs = programs[lane][n_before - 1] if n_before else (0, 0)
        ours = restored.get(lane, (-1, 0))  # after theirs where both are at one tick
        if voice.program == (ours if ours[0] >= theirs[0] else theirs)[1]:
            return
        if voice.is_drum and voice.program == 0 and (0 not in (program for _, program in programs[lane])):
            return  # kit 0 was only ever the default, and some devices have none
        message = mido.Message("program_change", channel=voice.channel, program=voice.program)
        additions[voice.track].append((tick, _NEW, message))
        restored[lane] = (tick, voice.program)

    for index, start, end, pitch, velocity in _without_overlaps(song, notes, seam_tick, strikes):
        voice = song.voices[index]
        lane = _lane(midi, voice.track, voice.channel)
        if lane not in begun:  # a device has the time up to the first note to load the sound
            ensure_program(voice, lane, seam_tick)
            begun.add(lane)
        ensure_program(voice, lane, start)
        on = mido.Message("note_on", channel=voice.channel, note=pitch, velocity=velocity)
        off = mido.Message("note_off", channel=voice.channel, note=pitch)
        additions[voice.track] += [(start, _NEW, on), (end, _RELEASE, off)]


def _without_overlaps(
    song: Song, notes: NewNotes, seam_tick: int, strikes: dict[tuple[Lane, int], list[int]]
) -> list[list[int]]:
    """The new notes as rows (voice, start, end, pitch, velocity) by start, none sounding into the next of its pitch."""
    starts = np.maximum(notes.start_ticks, seam_tick)
    ends = np.maximum(np.asarray(notes.start_ticks) + notes.duration_ticks, starts + 1)
    velocity = np.clip(notes.velocity, 1, 127)
    table = np.stack([notes.voice, starts, ends, notes.pitch, velocity], axis=1).astype(np.int64)
    kept: list[list[int]] = []
    latest: dict[tuple[Lane, int], list[int]] = {}
    for row in table[np.lexsort((table[:, 3], table[:, 0], table[:, 1]))].tolist():
        index, start, end, pitch, _ = row
        key = (_lane(song.midi, song.voices[index].track, song.voices[index].channel), pitch)
        before = latest.get(key)
        if before is not None and before[1] == start:  # struck twice at once: one note, as long as the longer
            before[2] = max(before[2], end)
            continue
        if before is not None:
            before[2] = min(before[2], start)
        latest[key] = row
        kept.append(row)
    for row in kept:
        index, start, _, pitch, _ = row
        struck = strikes.get((_lane(song.midi, song.voices[index].track, song.voices[index].channel), pitch), [])
        row[2] = min([row[2], *struck[bisect_right(struck, start) :][:1]])
    return kept


def _merge(track: mido.MidiTrack, additions: list[_Addition], end_tick: int) -> mido.MidiTrack:
    """A track with additions sorted in, closed by one end_of_track at `end_tick`, its old end or its last event."""
    merged: list[_Addition] = []
    tick = 0
    for message in track:
        tick += message.time
        if message.type != "end_of_track":
            merged.append((tick, _ORIGINAL, message))
    merged += additions
    merged.sort(key=lambda addition: addition[:2])
    end_tick = max(end_tick, tick, merged[-1][0] if merged else 0)
    merged.append((end_tick, _NEW, mido.MetaMessage("end_of_track")))
    out = mido.MidiTrack()
    tick = 0
    for at, _, message in merged:
        out.append(message.copy(skip_checks=True, time=at - tick))
        tick = at
    return out
