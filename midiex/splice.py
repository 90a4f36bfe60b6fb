"""Joins new notes to a song's own events: after the song, in a hole of it, or between it and its ending.

Nothing of the song outside the new music changes. Where new music begins, instruments sound as they usually do in the
song (programs, banks, volume, bends); where the song goes on after it, they are as the song had left them. Knows events
and the time line; knows no tokens and no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import mido
import numpy as np

from .grid import DEFAULT_US_PER_BEAT
from .lanes import (
    EXPRESSIVE,
    MOVING,
    Dial,
    LaneState,
    at_rest,
    choose_bank,
    choose_sound,
    dial_of,
    lane_states,
    same_sound,
    turn,
    usual_dials,
)
from .newnotes import LAST, NEW, ORIGINAL, RELEASE, RESTORE, NewNotes, Placed, note_events
from .score import SUSTAIN, Event, Lane, Song, Struck, is_on, lane_of, pair_notes, setting_up, walk
from .timeline import Timeline

USUAL_BARS = 16  # over which a dial's usual value is measured
RING_BEATS = 16  # a pedal held across the seam goes up where the song lets it go, when that is no later than this

Pedals = dict[Lane, list[tuple[int, int]]]  # (down, up) in ticks


@dataclass(frozen=True)
class Joint:
    """What of a song stays around and inside the new music of a time line."""

    line: Timeline
    resume_tick: int | None = None  # the song's events from here on follow the new music; None: they are left out
    clip: bool = False  # what follows are closing events, not music: all stand at the new music's end
    loops: bool = False  # after the new music's end the song begins anew
    rewritten: frozenset[int] = frozenset()  # voices whose notes between start and resume are replaced

    @property
    def shift_ticks(self) -> int:
        """How much later the song goes on."""
        return 0 if self.resume_tick is None else self.line.end_tick - self.resume_tick


def splice(
    song: Song,
    joint: Joint,
    notes: NewNotes,
    pedals: Pedals | None = None,
    texts: Iterable[tuple[int, mido.MetaMessage]] = (),
) -> list[Iterator[Any]]:
    """The song with new notes: for each track its messages, `song`'s own copied. To be taken once: an hour of new music
    need not lie in memory, of which it would take a good part.

    Events of the song before the new music stay where they are. Those from `joint.resume_tick` on follow it, as far
    apart as they were; but a release stays with its note, so that none is cut and none hangs. In a hole all stay but
    the notes of the rewritten voices and what shaped them: bends, expression, pedal.

    New notes lie inside the new music, each cut where its channel strikes its pitch anew. One that would start while
    a note of the song still sounds on its channel and pitch starts where that ends, or is left out. `pedals` are the
    sustain pedal's spans in the new music, `texts` (tick, meta event) more events for the first track.

    Raises ValueError for a pitch outside 0..127 or arrays of unequal length.
    """
    midi, line = song.midi, joint.line
    events = walk(midi)
    strikes = _strikes(events, midi)
    shared = _shared(song, joint, events, strikes)
    placed = _placed(song, joint, events, strikes, shared)
    additions: list[list[Placed]] = [[] for _ in midi.tracks]
    map_events = [*_map_events(line), *texts]
    additions[_map_track(midi, events)] += [
        (tick, NEW if tick < line.end_tick else RESTORE, message) for tick, message in map_events
    ]
    up_at = _let_go(song, joint, events, strikes, shared, additions)
    with_notes = [song.voices[i] for i in np.unique(notes.voice)]
    lanes = {lane_of(midi, voice.track, voice.channel): voice.track for voice in reversed(with_notes)}
    homes = _homes(events, midi)
    _tune(song, joint, events, {lane: homes[lane] for lane in lanes if lane not in shared}, additions)
    staying = _until(placed, [], line.end_tick)
    for track, added in enumerate(note_events(song, notes, line.start_tick, line.end_tick, events, staying)):
        additions[track] += added
    goes_on = joint.loops or (joint.resume_tick is not None and not joint.clip)
    for lane, spans in (pedals or {}).items():
        # what an earlier track hands back at the end must not be undone by a later one at the same tick
        latest = line.end_tick - (goes_on and homes[lane] < lanes[lane])
        free = up_at[lane] + max(1, int(song.tempo.tpq / 24)) if lane in up_at else 0  # the song's pedal is up
        for down, up in ((max(down, free), min(up, latest)) for down, up in spans if min(up, latest) > max(down, free)):
            additions[lanes[lane]].append((down, NEW, turn(SUSTAIN, lane[1], 127)))
            additions[lanes[lane]].append((up, RELEASE, turn(SUSTAIN, lane[1], 0)))
    if goes_on:
        _hand_back(song, joint, events, placed, homes, additions)
    closing = {voice.track for voice in with_notes} if joint.resume_tick is None or joint.clip else set()
    return [_merged(placed[i], additions[i], line.end_tick if i in closing else 0) for i in range(len(midi.tracks))]


# ---- the song's own events -------------------------------------------------------------------------------------------


def _placed(
    song: Song, joint: Joint, events: list[Event], strikes: dict[int, list[Struck]], shared: set[Lane]
) -> list[list[Placed]]:
    """For each track the events that stay, at their ticks in the result, end_of_track among them."""
    midi, start, resume = song.midi, joint.line.start_tick, joint.resume_tick
    owned = _rewritten_lanes(song, joint) - shared

    def place(number: int, tick: int, track: int, message: Any) -> int | None:
        if tick < start:
            return tick
        if number in strikes:
            staying = [s for s in strikes[number] if not _is_rewritten(song, joint, s, message.channel)]
            if not staying:
                return None
            if max(staying)[0] < start:  # the release of a note that rings into the new music
                return tick
        if resume is None:
            return 0 if message.type == "end_of_track" else None
        if tick >= resume:
            return joint.line.end_tick if joint.clip else tick + joint.shift_ticks
        if message.type == "polytouch" or dial_of(message) in EXPRESSIVE:
            return None if lane_of(midi, track, message.channel) in owned else tick
        return tick

    ticks = {id(message): place(number, tick, track, message) for number, (tick, track, message) in enumerate(events)}
    return [  # in the file's own order, which `events` are not in
        [(at, ORIGINAL, message) for message in track if (at := ticks[id(message)]) is not None]
        for track in midi.tracks
    ]


def _rewritten_lanes(song: Song, joint: Joint) -> set[Lane]:
    voices = [song.voices[i] for i in joint.rewritten]
    return {lane_of(song.midi, voice.track, voice.channel) for voice in voices}


def _is_rewritten(song: Song, joint: Joint, strike: Struck, channel: int) -> bool:
    """Is a note of the song struck inside the hole, by a voice that is rewritten?"""
    tick, track, program = strike
    if joint.resume_tick is None or not joint.line.start_tick <= tick < joint.resume_tick:
        return False
    mine = (song.voices[i] for i in joint.rewritten)
    return any((voice.track, voice.channel, voice.program) == (track, channel, program) for voice in mine)


def _shared(song: Song, joint: Joint, events: list[Event], strikes: dict[int, list[Struck]]) -> set[Lane]:
    """Lanes on which notes of other than the rewritten voices sound inside the hole."""
    others = {(v.track, v.channel, v.program) for i, v in enumerate(song.voices) if i not in joint.rewritten}
    return {
        lane_of(song.midi, track, events[number][2].channel)
        for number, ended in strikes.items()
        for tick, track, program in ended
        if joint.rewritten
        and tick < (joint.resume_tick or 0)
        and events[number][0] >= joint.line.start_tick
        and (track, events[number][2].channel, program) in others
    }


def _strikes(events: list[Event], midi: mido.MidiFile) -> dict[int, list[Struck]]:
    """For the number of each note event the strikes it belongs to; a release that ends none stands for itself."""
    struck, ended = pair_notes(events, midi)
    return {number: [struck[n] for n in ended.get(number, [])] or [own] for number, own in struck.items()}


def _until(placed: list[list[Placed]], additions: list[list[Placed]], tick: int) -> list[Event]:
    """All events of the result before a tick, and those at it that come before the song's own, in order."""
    events = [
        (at, order, track, message)
        for parts in (placed, additions)
        for track, part in enumerate(parts)
        for at, order, message in part
        if at < tick or (at == tick and order < ORIGINAL)
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


def _homes(events: list[Event], midi: mido.MidiFile) -> dict[Lane, int]:
    """The first track of each lane: what is set there at a tick holds for all notes that its tracks strike then."""
    homes: dict[Lane, int] = {}
    for _, track, message in events:
        if hasattr(message, "channel") and not message.is_meta:
            lane = lane_of(midi, track, message.channel)
            homes[lane] = min(homes.get(lane, track), track)
    return homes


def _let_go(
    song: Song,
    joint: Joint,
    events: list[Event],
    strikes: dict[int, list[Struck]],
    shared: set[Lane],
    additions: list[list[Placed]],
) -> dict[Lane, int]:
    """Release what would hang into the new music: notes whose release the song lost or does not leave in place, pedals
    held across the seam. Around a hole all is left as it is but the pedals of what is rewritten. Returns when the
    pedals of the song go up."""
    midi, start, end = song.midi, joint.line.start_tick, joint.line.end_tick
    hanging: set[tuple[int, int, int]] = set()  # track, channel, pitch
    up_at: dict[Lane, int] = {}
    for number, (tick, track, message) in enumerate(events):
        if number in strikes and max(strikes[number])[0] < start:
            key = (track, message.channel, message.note)
            if is_on(message):
                hanging.add(key)
            else:
                hanging.discard(key)
        elif tick >= start and dial_of(message) == SUSTAIN and message.value < 64:
            up_at.setdefault(lane_of(midi, track, message.channel), tick)
    if not joint.rewritten:
        for track, channel, pitch in sorted(hanging):
            additions[track].append((start, RELEASE, mido.Message("note_off", channel=channel, note=pitch)))
    released: dict[Lane, int] = {}
    before = lane_states((event for event in events if event[0] < start), midi)
    owned = _rewritten_lanes(song, joint) - shared
    for lane, state in before.items():
        if joint.rewritten and lane not in owned:
            continue
        if state.dials.get(SUSTAIN, 0) >= 64 and state.track is not None:
            tick = up_at.get(lane, start)
            released[lane] = tick if tick <= min(end - 1, start + RING_BEATS * song.tempo.tpq) else start
            additions[state.track].append((released[lane], RELEASE, turn(SUSTAIN, lane[1], 0)))
    return released


def _tune(song: Song, joint: Joint, events: list[Event], lanes: dict[Lane, int], additions: list[list[Placed]]) -> None:
    """Where new music begins, turn the dials of its lanes (lane -> track) to where they usually stand."""
    line = joint.line
    since = int(line.grid.ticks[max(0, line.before - USUAL_BARS)])
    steady = int(line.grid.ticks[max(0, line.before - 1)])
    usual = usual_dials(events, song.midi, since, steady, line.start_tick)
    now = lane_states((event for event in events if event[0] < line.start_tick), song.midi)
    for lane, track in lanes.items():  # what stays inside a hole has the last word
        additions[track] += _turned(now[lane], usual[lane], lane[1], line.start_tick, RESTORE)


def _hand_back(
    song: Song,
    joint: Joint,
    events: list[Event],
    placed: list[list[Placed]],
    homes: dict[Lane, int],
    additions: list[list[Placed]],
) -> None:
    """Where the song goes on or begins anew, leave every lane as the song had it there, before anything the song does
    at that very tick."""
    midi, end = song.midi, joint.line.end_tick
    if joint.loops:  # after all else, closing events of the song among it
        resume, seen, order = next(tick for tick, _, message in events if is_on(message)) + 1, end + 1, LAST
    else:
        resume, seen, order = joint.resume_tick or 0, end, RESTORE
    wanted = lane_states((event for event in events if event[0] < resume), midi)
    if joint.loops and not any(tick == 0 and message.type == "set_tempo" for tick, _, message in events):
        default = mido.MetaMessage("set_tempo", tempo=DEFAULT_US_PER_BEAT)
        additions[_map_track(midi, events)].append((end, order, default))
    now = lane_states(_until(placed, additions, seen), midi)
    for lane in sorted({*now, *wanted}):
        track = homes[lane]
        sound = (wanted[lane].program, wanted[lane].bank)
        if not same_sound((now[lane].program, now[lane].bank), sound):
            choice = choose_sound(lane[1], *sound, now[lane].bank_set)
            additions[track] += [(end, order, message) for message in choice]
            now[lane].bank_set = wanted[lane].bank
        bank = choose_bank(lane[1], wanted[lane].bank_set, now[lane].bank_set)  # for the song's next program
        additions[track] += [(end, order, message) for message in bank]
        dials = {
            dial: wanted[lane].dials.get(dial, at_rest(dial))
            for dial in {**now[lane].dials, **wanted[lane].dials}
            if dial in MOVING or dial == SUSTAIN
        }
        additions[track] += _turned(now[lane], dials, lane[1], end, order)


def _turned(now: LaneState, wanted: dict[Dial, int], channel: int, tick: int, order: int) -> list[Placed]:
    return [
        (tick, order, turn(dial, channel, value))
        for dial, value in wanted.items()
        if value != now.dials.get(dial, at_rest(dial))
    ]


def _merged(placed: list[Placed], additions: list[Placed], end_tick: int) -> Iterator[Any]:
    """One track of its own events and new ones, closed by one end_of_track at `end_tick`, its old end or its last
    event."""
    merged = [event for event in placed if event[2].type != "end_of_track"] + additions
    merged.sort(key=lambda event: event[:2])
    ends = [tick for tick, _, message in placed if message.type == "end_of_track"]
    end_tick = max([end_tick, *ends, *(tick for tick, _, _ in merged[-1:])])
    merged.append((end_tick, NEW, mido.MetaMessage("end_of_track")))
    tick = 0
    for at, _, message in merged:
        yield message.copy(skip_checks=True, time=at - tick)
        tick = at
