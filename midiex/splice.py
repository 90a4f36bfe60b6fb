"""Joins new notes to a song's own events: after the song, in a hole of it, or between it and its ending.

Nothing of the song outside the new music changes. Where new music begins, instruments sound as they usually do in the
song (programs, banks, volume, bends); where the song goes on after it, they are as the song had left them. Knows events
and the time line; knows no tokens and no model.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mido
import numpy as np

from .grid import DEFAULT_US_PER_BEAT
from .lanes import (
    EXPRESSIVE,
    Bank,
    Dial,
    LaneState,
    at_rest,
    choose_sound,
    dial_of,
    lane_states,
    turn,
    usual_dials,
)
from .score import SUSTAIN, Event, Lane, Song, Voice, is_on, lane_of, setting_up, walk
from .timeline import Timeline

USUAL_BARS = 16  # over which a dial's usual value is measured
RING_BEATS = 8  # a pedal held across the seam goes up where the song lets it go, when that is no later than this

Pedals = dict[Lane, list[tuple[int, int]]]  # (down, up) in ticks


@dataclass(frozen=True)
class NewNotes:
    """Notes to add: five integer arrays of one length, in any order. `voice` indexes Song.voices."""

    voice: np.ndarray
    start_ticks: np.ndarray
    duration_ticks: np.ndarray
    pitch: np.ndarray  # 0..127
    velocity: np.ndarray  # clipped to 1..127

    def __len__(self) -> int:
        return len(self.voice)


@dataclass(frozen=True)
class Joint:
    """What of a song stays around and inside the new music of a time line."""

    line: Timeline
    resume_tick: int | None = None  # the song's events from here on follow the new music; None: they are left out
    clip: bool = False  # what follows are closing events, not music: none comes later than the new music's end
    loops: bool = False  # after the new music's end the song begins anew
    rewritten: frozenset[int] = frozenset()  # voices whose notes between start and resume are replaced

    @property
    def shift_ticks(self) -> int:
        """How much later the song goes on."""
        return 0 if self.resume_tick is None else self.line.end_tick - self.resume_tick


_RELEASE, _RESTORE, _ORIGINAL, _NEW = range(4)  # the order of events at one tick
_Placed = tuple[int, int, Any]  # tick in the result, one of the four above, message


def splice(
    song: Song,
    joint: Joint,
    notes: NewNotes,
    pedals: Pedals | None = None,
    texts: Iterable[tuple[int, mido.MetaMessage]] = (),
) -> mido.MidiFile:
    """The song with new notes, as a new MidiFile; `song` stays as it is.

    Events of the song before the new music stay where they are. Those from `joint.resume_tick` on follow it, as far
    apart as they were; but a release stays with its note, so that none is cut and none hangs. In a hole all stay but
    the notes of the rewritten voices and what shaped them: bends, expression, pedal.

    New notes lie inside the new music, each cut where its channel strikes its pitch anew. They may start while a note
    of the song with their pitch still sounds: its release stays, and may end them early. `pedals` are the sustain
    pedal's spans in the new music, `texts` (tick, meta event) more events for the first track.

    Raises ValueError for a pitch outside 0..127 or arrays of unequal length.
    """
    midi, line = song.midi, joint.line
    events = walk(midi)
    placed = _placed(song, joint, events)
    additions: list[list[_Placed]] = [[] for _ in midi.tracks]
    for tick, message in [*_map_events(line), *texts]:
        additions[_map_track(midi, events)].append((tick, _NEW if tick < line.end_tick else _RESTORE, message))
    _let_go(song, joint, events, placed, additions)
    with_notes = [song.voices[i] for i in np.unique(notes.voice)]
    lanes = {lane_of(midi, voice.track, voice.channel): voice.track for voice in reversed(with_notes)}
    _tune(song, joint, events, lanes, additions)
    _add_notes(song, joint, events, placed, notes, additions)
    for lane, spans in (pedals or {}).items():
        for down, up in spans:
            additions[lanes[lane]].append((down, _NEW, turn(SUSTAIN, lane[1], 127)))
            additions[lanes[lane]].append((up, _RELEASE, turn(SUSTAIN, lane[1], 0)))
    if joint.loops or (joint.resume_tick is not None and not joint.clip):
        _hand_back(song, joint, events, placed, lanes, additions)
    closing = {voice.track for voice in with_notes} if joint.resume_tick is None or joint.clip else set()
    tracks = [_merged(placed[i], additions[i], line.end_tick if i in closing else 0) for i in range(len(midi.tracks))]
    return mido.MidiFile(type=midi.type, ticks_per_beat=midi.ticks_per_beat, charset=midi.charset, tracks=tracks)


# ---- the song's own events -------------------------------------------------------------------------------------------


def _placed(song: Song, joint: Joint, events: list[Event]) -> list[list[_Placed]]:
    """For each track the events that stay, at their ticks in the result, end_of_track among them."""
    midi, start, resume = song.midi, joint.line.start_tick, joint.resume_tick
    struck = _strikes(events, midi)
    rewritten = {(v.track, v.channel, v.program) for i, v in enumerate(song.voices) if i in joint.rewritten}
    others = {
        lane_of(midi, track, events[number][2].channel)
        for number, (tick, track, program) in struck.items()
        if start <= tick < (resume or 0) and (track, events[number][2].channel, program) not in rewritten
    }  # lanes on which notes inside the hole stay
    owned = {lane_of(midi, track, channel) for track, channel, _ in rewritten} - others

    def place(number: int, tick: int, track: int, message: Any) -> int | None:
        if tick < start:
            return tick
        if number in struck:
            strike_tick, _, program = struck[number]
            if strike_tick < start:  # the release of a note that rings into the new music
                return tick
            if resume is not None and strike_tick < resume and (track, message.channel, program) in rewritten:
                return None
        if resume is None:
            return 0 if message.type == "end_of_track" else None
        if tick >= resume:
            return min(tick + joint.shift_ticks, joint.line.end_tick) if joint.clip else tick + joint.shift_ticks
        if message.type == "polytouch" or dial_of(message) in EXPRESSIVE:
            return None if lane_of(midi, track, message.channel) in owned else tick
        return tick

    ticks = {id(message): place(number, tick, track, message) for number, (tick, track, message) in enumerate(events)}
    return [  # in the file's own order, which `events` are not in
        [(at, _ORIGINAL, message) for message in track if (at := ticks[id(message)]) is not None]
        for track in midi.tracks
    ]


def _strikes(events: list[Event], midi: mido.MidiFile) -> dict[int, tuple[int, int, int]]:
    """For the number of each note event: when its note was struck, on which track, by which program. A release that no
    strike answers to stands for itself. Notes and releases are paired as in score.read."""
    unreleased: Counter[tuple[int, int, int]] = Counter()
    for _, track, message in events:
        if message.type in ("note_on", "note_off"):
            unreleased[track, message.channel, message.note] += 1 if is_on(message) else -1
    programs: dict[Lane, int] = {}
    sounding: defaultdict[tuple[int, int, int], deque[tuple[int, int, int]]] = defaultdict(deque)
    strikes: dict[int, tuple[int, int, int]] = {}
    for number, (tick, track, message) in enumerate(events):
        if message.type == "program_change":
            programs[lane_of(midi, track, message.channel)] = message.program
        elif message.type in ("note_on", "note_off"):
            key = (track, message.channel, message.note)
            own = (tick, track, programs.get(lane_of(midi, track, message.channel), 0))
            if is_on(message):
                sounding[key].append(own)
                strikes[number] = own
            elif sounding[key]:
                strikes[number] = sounding[key].popleft()
                if unreleased[key] > 0:
                    sounding[key].clear()
            else:
                strikes[number] = own
    return strikes


def _until(placed: list[list[_Placed]], additions: list[list[_Placed]], tick: int) -> list[Event]:
    """All events of the result before a tick, and those at it that come before the song's own, in order."""
    events = [
        (at, order, track, message)
        for parts in (placed, additions)
        for track, part in enumerate(parts)
        for at, order, message in part
        if at < tick or (at == tick and order < _ORIGINAL)
    ]
    events.sort(key=lambda event: (*event[:2], setting_up(event[3])))
    return [(at, track, message) for at, _, track, message in events]


# ---- what holds around the seams -------------------------------------------------------------------------------------


def _map_events(line: Timeline) -> list[tuple[int, mido.MetaMessage]]:
    """The time line's tempo and meter changes."""
    tempi = [(tick, mido.MetaMessage("set_tempo", tempo=us)) for tick, us in line.tempi]
    meters = [
        (tick, mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator))
        for tick, numerator, denominator in line.meters
    ]
    return meters + tempi


def _map_track(midi: mido.MidiFile, events: list[Event]) -> int:
    """The track for tempo, meter and texts: the first, or in a type 2 file the last that sets a tempo."""
    tempo_tracks = [track for _, track, message in events if message.type == "set_tempo"]
    return tempo_tracks[-1] if midi.type == 2 and tempo_tracks else 0


def _let_go(
    song: Song, joint: Joint, events: list[Event], placed: list[list[_Placed]], additions: list[list[_Placed]]
) -> None:
    """Release what would hang into the new music: notes the song never releases, pedals held across the seam."""
    midi, start, end = song.midi, joint.line.start_tick, joint.line.end_tick
    hanging: dict[tuple[Lane, int], int] = {}  # (lane, pitch) -> track
    for tick, track, message in events:
        if message.type in ("note_on", "note_off"):
            key = (lane_of(midi, track, message.channel), message.note)
            if not is_on(message):
                hanging.pop(key, None)
            elif tick < start:
                hanging[key] = track
    if not joint.rewritten:
        for ((_, channel), pitch), track in hanging.items():
            additions[track].append((start, _RELEASE, mido.Message("note_off", channel=channel, note=pitch)))
    kept = {id(message) for part in placed for at, _, message in part if start <= at <= end}
    up_at: dict[Lane, tuple[int, Any]] = {}
    for tick, track, message in events:
        if tick >= start and dial_of(message) == SUSTAIN and message.value < 64:
            up_at.setdefault(lane_of(midi, track, message.channel), (tick, message))
    before = lane_states(((t, i, m) for t, i, m in events if t < start), midi)
    for lane, state in before.items():
        if state.dials.get(SUSTAIN, 0) >= 64 and state.track is not None:
            tick, message = up_at.get(lane, (start, None))
            if message is not None and id(message) in kept and joint.shift_ticks == 0 and joint.resume_tick is not None:
                continue
            natural = tick <= min(end, start + RING_BEATS * song.tempo.tpq)
            up = turn(SUSTAIN, lane[1], 0)
            additions[state.track].append((tick if natural else start, _RELEASE, up))


def _tune(
    song: Song, joint: Joint, events: list[Event], lanes: dict[Lane, int], additions: list[list[_Placed]]
) -> None:
    """Where new music begins, turn the dials of its lanes (lane -> track) to where they usually stand."""
    line = joint.line
    since = int(line.grid.ticks[max(0, line.before - USUAL_BARS)])
    steady = int(line.grid.ticks[max(0, line.before - 1)])
    usual = usual_dials(events, song.midi, since, steady, line.start_tick)
    now = lane_states((event for event in events if event[0] < line.start_tick), song.midi)
    for lane, track in lanes.items():
        additions[track] += _turned(now[lane], usual[lane], lane[1], line.start_tick, _NEW)


def _hand_back(
    song: Song,
    joint: Joint,
    events: list[Event],
    placed: list[list[_Placed]],
    lanes: dict[Lane, int],
    additions: list[list[_Placed]],
) -> None:
    """Where the song goes on or begins anew, leave every lane as the song had it there."""
    end = joint.line.end_tick
    resume = next(tick for tick, _, message in events if is_on(message)) + 1 if joint.loops else joint.resume_tick or 0
    wanted = lane_states((event for event in events if event[0] < resume), song.midi)
    if joint.loops and not any(tick == 0 and message.type == "set_tempo" for tick, _, message in events):
        default = mido.MetaMessage("set_tempo", tempo=DEFAULT_US_PER_BEAT)
        additions[_map_track(song.midi, events)].append((end, _RESTORE, default))
    now = lane_states(_until(placed, additions, end), song.midi)
    for lane in sorted(now):
        track = lanes.get(lane, now[lane].track or 0)
        if (now[lane].program, now[lane].bank) != (wanted[lane].program, wanted[lane].bank):
            sound = choose_sound(lane[1], wanted[lane].program, wanted[lane].bank)
            additions[track] += [(end, _RESTORE, message) for message in sound]
        dials = {dial: wanted[lane].dials.get(dial, at_rest(dial)) for dial in now[lane].dials}
        additions[track] += _turned(now[lane], dials, lane[1], end, _RESTORE)


def _turned(now: LaneState, wanted: dict[Dial, int], channel: int, tick: int, order: int) -> list[_Placed]:
    return [
        (tick, order, turn(dial, channel, value))
        for dial, value in wanted.items()
        if value != now.dials.get(dial, at_rest(dial))
    ]


# ---- new notes -------------------------------------------------------------------------------------------------------


def _add_notes(
    song: Song,
    joint: Joint,
    events: list[Event],
    placed: list[list[_Placed]],
    notes: NewNotes,
    additions: list[list[_Placed]],
) -> None:
    """Put the new notes, and the program changes they need, among the additions of their tracks."""
    midi, start, end = song.midi, joint.line.start_tick, joint.line.end_tick
    strikes: defaultdict[tuple[Lane, int], list[int]] = defaultdict(list)  # of the song's notes inside the new music
    chosen: defaultdict[Lane, list[tuple[int, int, Bank]]] = defaultdict(list)  # (tick, program, bank), by tick
    states: defaultdict[Lane, LaneState] = defaultdict(LaneState)
    sounds: dict[tuple[int, int, int], Bank] = {}  # the bank each voice plays from
    for tick, track, message in _until(placed, [], end):
        if message.type in ("program_change", "control_change"):
            lane = lane_of(midi, track, message.channel)
            states[lane].take(track, message)
            if message.type == "program_change":
                chosen[lane].append((tick, message.program, states[lane].bank))
        elif is_on(message):
            lane = lane_of(midi, track, message.channel)
            if tick >= start:
                strikes[lane, message.note].append(tick)
            sounds[track, message.channel, states[lane].program] = states[lane].bank
    restored: dict[Lane, tuple[int, int, Bank]] = {}  # our latest program change: (tick, program, bank)
    begun: set[Lane] = set()

    def ensure_sound(voice: Voice, lane: Lane, tick: int) -> None:
        bank = sounds.get((voice.track, voice.channel, voice.program), (None, None))
        n_before = bisect_right(chosen[lane], tick, key=lambda choice: choice[0])
        theirs = chosen[lane][n_before - 1] if n_before else (0, 0, (None, None))
        ours = restored.get(lane, (-1, 0, (None, None)))  # after theirs where both are at one tick
        if (ours if ours[0] >= theirs[0] else theirs)[1:] == (voice.program, bank):
            return
        if voice.is_drum and voice.program == 0 and 0 not in (program for _, program, _ in chosen[lane]):
            return  # kit 0 was only ever the default, and some devices have none
        sound = choose_sound(voice.channel, voice.program, bank)
        additions[voice.track] += [(tick, _NEW, message) for message in sound]
        restored[lane] = (tick, voice.program, bank)

    for index, on_tick, off_tick, pitch, velocity in _without_overlaps(song, joint, notes, strikes):
        voice = song.voices[index]
        lane = lane_of(midi, voice.track, voice.channel)
        if lane not in begun:  # a device has the time up to the first note to load the sound
            ensure_sound(voice, lane, start)
            begun.add(lane)
        ensure_sound(voice, lane, on_tick)
        on = mido.Message("note_on", channel=voice.channel, note=pitch, velocity=velocity)
        off = mido.Message("note_off", channel=voice.channel, note=pitch)
        additions[voice.track] += [(on_tick, _NEW, on), (off_tick, _RELEASE, off)]


def _without_overlaps(
    song: Song, joint: Joint, notes: NewNotes, strikes: dict[tuple[Lane, int], list[int]]
) -> list[list[int]]:
    """The new notes as rows (voice, start, end, pitch, velocity) by start, inside the new music and none sounding into
    the next of its pitch."""
    first, last = joint.line.start_tick, joint.line.end_tick
    starts = np.clip(notes.start_ticks, first, last - 1)
    ends = np.clip(np.asarray(notes.start_ticks) + notes.duration_ticks, starts + 1, last)
    velocity = np.clip(notes.velocity, 1, 127)
    table = np.stack([notes.voice, starts, ends, notes.pitch, velocity], axis=1).astype(np.int64)
    kept: list[list[int]] = []
    latest: dict[tuple[Lane, int], list[int]] = {}
    for row in table[np.lexsort((table[:, 3], table[:, 0], table[:, 1]))].tolist():
        index, start, end, pitch, _ = row
        key = (lane_of(song.midi, song.voices[index].track, song.voices[index].channel), pitch)
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
        struck = strikes.get((lane_of(song.midi, song.voices[index].track, song.voices[index].channel), pitch), [])
        row[2] = min([row[2], *struck[bisect_right(struck, start) :][:1]])
    return kept


def _merged(placed: list[_Placed], additions: list[_Placed], end_tick: int) -> mido.MidiTrack:
    """One track of its own events and new ones, closed by one end_of_track at `end_tick`, its old end or its last
    event."""
    merged = [event for event in placed if event[2].type != "end_of_track"] + additions
    merged.sort(key=lambda event: event[:2])
    ends = [tick for tick, _, message in placed if message.type == "end_of_track"]
    end_tick = max([end_tick, *ends, *(tick for tick, _, _ in merged[-1:])])
    merged.append((end_tick, _NEW, mido.MetaMessage("end_of_track")))
    out = mido.MidiTrack()
    tick = 0
    for at, _, message in merged:
        out.append(message.copy(skip_checks=True, time=at - tick))
        tick = at
    return out
