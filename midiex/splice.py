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
    MOVING,
    NO_BANK,
    Bank,
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
from .score import SUSTAIN, Event, Lane, Song, is_on, lane_of, setting_up, walk
from .timeline import Timeline

USUAL_BARS = 16  # over which a dial's usual value is measured
RING_BEATS = 16  # a pedal held across the seam goes up where the song lets it go, when that is no later than this

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
    clip: bool = False  # what follows are closing events, not music: all stand at the new music's end
    loops: bool = False  # after the new music's end the song begins anew
    rewritten: frozenset[int] = frozenset()  # voices whose notes between start and resume are replaced

    @property
    def shift_ticks(self) -> int:
        """How much later the song goes on."""
        return 0 if self.resume_tick is None else self.line.end_tick - self.resume_tick


_RELEASE, _RESTORE, _ORIGINAL, _NEW, _LAST = range(5)  # the order of events at one tick
_Placed = tuple[int, int, Any]  # tick in the result, one of the five above, message
_Strike = tuple[int, int, int]  # tick, track, program
_Choice = tuple[int, int, int, Bank]  # of a sound: tick, track, program, bank


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
    additions: list[list[_Placed]] = [[] for _ in midi.tracks]
    for tick, message in [*_map_events(line), *texts]:
        additions[_map_track(midi, events)].append((tick, _NEW if tick < line.end_tick else _RESTORE, message))
    up_at = _let_go(song, joint, events, strikes, shared, additions)
    with_notes = [song.voices[i] for i in np.unique(notes.voice)]
    lanes = {lane_of(midi, voice.track, voice.channel): voice.track for voice in reversed(with_notes)}
    homes = _homes(events, midi)
    _tune(song, joint, events, {lane: homes[lane] for lane in lanes if lane not in shared}, additions)
    _add_notes(song, joint, events, placed, notes, additions)
    for lane, spans in (pedals or {}).items():
        free = up_at[lane] + max(1, int(song.tempo.tpq / 24)) if lane in up_at else 0  # the song's pedal is up
        for down, up in ((max(down, free), up) for down, up in spans if up > free):
            additions[lanes[lane]].append((down, _NEW, turn(SUSTAIN, lane[1], 127)))
            additions[lanes[lane]].append((up, _RELEASE, turn(SUSTAIN, lane[1], 0)))
    if joint.loops or (joint.resume_tick is not None and not joint.clip):
        _hand_back(song, joint, events, placed, homes, additions)
    closing = {voice.track for voice in with_notes} if joint.resume_tick is None or joint.clip else set()
    tracks = [_merged(placed[i], additions[i], line.end_tick if i in closing else 0) for i in range(len(midi.tracks))]
    return mido.MidiFile(type=midi.type, ticks_per_beat=midi.ticks_per_beat, charset=midi.charset, tracks=tracks)


# ---- the song's own events -------------------------------------------------------------------------------------------


def _placed(
    song: Song, joint: Joint, events: list[Event], strikes: dict[int, list[_Strike]], shared: set[Lane]
) -> list[list[_Placed]]:
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
        [(at, _ORIGINAL, message) for message in track if (at := ticks[id(message)]) is not None]
        for track in midi.tracks
    ]


def _rewritten_lanes(song: Song, joint: Joint) -> set[Lane]:
    voices = [song.voices[i] for i in joint.rewritten]
    return {lane_of(song.midi, voice.track, voice.channel) for voice in voices}


def _is_rewritten(song: Song, joint: Joint, strike: _Strike, channel: int) -> bool:
    """Is a note of the song struck inside the hole, by a voice that is rewritten?"""
    tick, track, program = strike
    if joint.resume_tick is None or not joint.line.start_tick <= tick < joint.resume_tick:
        return False
    mine = (song.voices[i] for i in joint.rewritten)
    return any((voice.track, voice.channel, voice.program) == (track, channel, program) for voice in mine)


def _shared(song: Song, joint: Joint, events: list[Event], strikes: dict[int, list[_Strike]]) -> set[Lane]:
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


def _strikes(events: list[Event], midi: mido.MidiFile) -> dict[int, list[_Strike]]:
    """For the number of each note event: when its notes were struck, on which track, by which program. A strike and a
    release that no strike answers to stand for themselves. Notes and releases are paired as in score.read."""
    unreleased: Counter[tuple[int, int, int]] = Counter()
    for _, track, message in events:
        if message.type in ("note_on", "note_off"):
            unreleased[track, message.channel, message.note] += 1 if is_on(message) else -1
    programs: dict[Lane, int] = {}
    sounding: defaultdict[tuple[int, int, int], deque[_Strike]] = defaultdict(deque)
    strikes: dict[int, list[_Strike]] = {}
    for number, (tick, track, message) in enumerate(events):
        if message.type == "program_change":
            programs[lane_of(midi, track, message.channel)] = message.program
        elif message.type in ("note_on", "note_off"):
            key = (track, message.channel, message.note)
            own = (tick, track, programs.get(lane_of(midi, track, message.channel), 0))
            if is_on(message):
                sounding[key].append(own)
                strikes[number] = [own]
            else:
                ended = range(len(sounding[key]) if unreleased[key] > 0 else min(1, len(sounding[key])))
                strikes[number] = [sounding[key].popleft() for _ in ended] or [own]
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
    strikes: dict[int, list[_Strike]],
    shared: set[Lane],
    additions: list[list[_Placed]],
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
            additions[track].append((start, _RELEASE, mido.Message("note_off", channel=channel, note=pitch)))
    released: dict[Lane, int] = {}
    before = lane_states((event for event in events if event[0] < start), midi)
    for lane, state in before.items():
        if joint.rewritten and (lane in shared or lane not in _rewritten_lanes(song, joint)):
            continue
        if state.dials.get(SUSTAIN, 0) >= 64 and state.track is not None:
            tick = up_at.get(lane, start)
            released[lane] = tick if tick <= min(end - 1, start + RING_BEATS * song.tempo.tpq) else start
            additions[state.track].append((released[lane], _RELEASE, turn(SUSTAIN, lane[1], 0)))
    return released


def _tune(
    song: Song, joint: Joint, events: list[Event], lanes: dict[Lane, int], additions: list[list[_Placed]]
) -> None:
    """Where new music begins, turn the dials of its lanes (lane -> track) to where they usually stand."""
    line = joint.line
    since = int(line.grid.ticks[max(0, line.before - USUAL_BARS)])
    steady = int(line.grid.ticks[max(0, line.before - 1)])
    usual = usual_dials(events, song.midi, since, steady, line.start_tick)
    now = lane_states((event for event in events if event[0] < line.start_tick), song.midi)
    for lane, track in lanes.items():  # what stays inside a hole has the last word
        additions[track] += _turned(now[lane], usual[lane], lane[1], line.start_tick, _RESTORE)


def _hand_back(
    song: Song,
    joint: Joint,
    events: list[Event],
    placed: list[list[_Placed]],
    homes: dict[Lane, int],
    additions: list[list[_Placed]],
) -> None:
    """Where the song goes on or begins anew, leave every lane as the song had it there, before anything the song does
    at that very tick."""
    midi, end = song.midi, joint.line.end_tick
    if joint.loops:  # after all else, closing events of the song among it
        resume, seen, order = next(tick for tick, _, message in events if is_on(message)) + 1, end + 1, _LAST
    else:
        resume, seen, order = joint.resume_tick or 0, end, _RESTORE
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
    """Put the new notes, and the program changes they and the notes that stay need, among the additions."""
    midi, start = song.midi, joint.line.start_tick
    struck: defaultdict[tuple[Lane, int], list[int]] = defaultdict(list)  # when the song does, inside the new music
    staying: defaultdict[Lane, dict[int, _Choice]] = defaultdict(dict)  # its sound there, by tick
    chosen: defaultdict[Lane, list[_Choice]] = defaultdict(list)  # by the song, in order
    states: defaultdict[Lane, LaneState] = defaultdict(LaneState)
    begun_at: defaultdict[tuple[Lane, int], deque[int]] = defaultdict(deque)
    sounding: defaultdict[tuple[Lane, int], list[tuple[int, int]]] = defaultdict(list)  # the song's notes, (start, end)
    for tick, track, message in _until(placed, [], joint.line.end_tick):
        if message.type in ("program_change", "control_change"):
            lane = lane_of(midi, track, message.channel)
            states[lane].take(track, message)
            if message.type == "program_change":
                chosen[lane].append((tick, track, message.program, states[lane].bank))
        elif message.type in ("note_on", "note_off"):
            lane = lane_of(midi, track, message.channel)
            key = (lane, message.note)
            if not is_on(message):
                if begun_at[key]:
                    sounding[key].append((begun_at[key].popleft(), tick))
                continue
            begun_at[key].append(tick)
            if tick >= start:
                struck[key].append(tick)
                staying[lane][tick] = (tick, track, states[lane].program, states[lane].bank)
    banks, ever = _banks(events, midi, start)
    ours: dict[Lane, _Choice] = {}  # our latest

    def in_force(lane: Lane, tick: int) -> _Choice:
        n_before = bisect_right(chosen[lane], tick, key=lambda choice: choice[0])
        theirs = chosen[lane][n_before - 1] if n_before else (0, -1, 0, NO_BANK)
        mine = ours.get(lane, (-1, -1, 0, NO_BANK))
        return mine if mine[:2] >= theirs[:2] else theirs  # at one tick the later track has the last word

    def ensure(lane: Lane, sound: _Choice, order: int) -> None:
        tick, track, program, bank = sound
        if not same_sound(in_force(lane, tick)[2:], (program, bank)):
            additions[track] += [(tick, order, m) for m in choose_sound(lane[1], program, bank, ever[lane].bank_set)]
            ours[lane] = sound

    def is_free(lane: Lane, sound: _Choice) -> bool:
        """Whether the song wants no other sound at that tick, or sets one after us."""
        tick, track, program, bank = sound
        theirs = [choice for choice in chosen[lane] if choice[0] == tick and choice[1] > track]
        theirs += [staying[lane][tick]] if tick in staying[lane] else []
        return all(same_sound(choice[2:], (program, bank)) for choice in theirs)

    wanted: list[tuple[int, bool, Lane, _Choice, list[int]]] = []  # sounds by tick; at one the song's come first
    for row in _without_overlaps(song, joint, notes, struck, sounding):
        voice = song.voices[row[0]]
        lane = lane_of(midi, voice.track, voice.channel)
        bank = banks.get((voice.track, voice.channel, voice.program), NO_BANK)
        for tick in (row[1], row[1] + 1):  # a channel plays one program at a time
            sound = (tick, voice.track, voice.program, bank)
            if tick < row[2] and is_free(lane, sound):
                wanted.append((tick, True, lane, sound, row))
                break
    lanes = {lane for _, _, lane, _, _ in wanted}
    wanted += [(tick, False, lane, sound, []) for lane in lanes for tick, sound in staying[lane].items()]
    begun: set[Lane] = set()
    for tick, is_new, lane, sound, row in sorted(wanted, key=lambda one: one[:2]):
        if not is_new:
            ensure(lane, sound, _RESTORE)
            begun.add(lane)
            continue
        voice = song.voices[row[0]]
        if not (voice.is_drum and voice.program == 0 and 0 not in (choice[2] for choice in chosen[lane])):
            # kit 0 that was only ever the default is left alone: some devices have none
            if lane not in begun:
                ensure(lane, (start, *sound[1:]), _NEW)  # a device has the time up to the first note to load it
            ensure(lane, sound, _NEW)
        begun.add(lane)
        _, _, end, pitch, velocity = row
        on = mido.Message("note_on", channel=voice.channel, note=pitch, velocity=velocity)
        off = mido.Message("note_off", channel=voice.channel, note=pitch)
        additions[voice.track] += [(tick, _NEW, on), (end, _RELEASE, off)]


def _banks(
    events: list[Event], midi: mido.MidiFile, start: int
) -> tuple[dict[tuple[int, int, int], Bank], defaultdict[Lane, LaneState]]:
    """The bank that each (track, channel, program) last plays from before `start`, or first after; and what every lane
    is like after the song."""
    states: defaultdict[Lane, LaneState] = defaultdict(LaneState)
    banks: dict[tuple[int, int, int], Bank] = {}
    for tick, track, message in events:
        if message.type in ("program_change", "control_change"):
            states[lane_of(midi, track, message.channel)].take(track, message)
        elif is_on(message):
            state = states[lane_of(midi, track, message.channel)]
            voice = (track, message.channel, state.program)
            if tick < start or voice not in banks:
                banks[voice] = state.bank
    return banks, states


def _without_overlaps(
    song: Song,
    joint: Joint,
    notes: NewNotes,
    strikes: dict[tuple[Lane, int], list[int]],
    sounding: dict[tuple[Lane, int], list[tuple[int, int]]],
) -> list[list[int]]:
    """The new notes as rows (voice, start, end, pitch, velocity) by start, inside the new music, none sounding into
    the next of its pitch or beginning within one of the song's."""
    lanes = [lane_of(song.midi, voice.track, voice.channel) for voice in song.voices]
    first, last = joint.line.start_tick, joint.line.end_tick
    starts = np.clip(notes.start_ticks, first, last - 1)
    ends = np.clip(np.asarray(notes.start_ticks) + notes.duration_ticks, starts + 1, last)
    velocity = np.clip(notes.velocity, 1, 127)
    table = np.stack([notes.voice, starts, ends, notes.pitch, velocity], axis=1).astype(np.int64)
    for row in table:
        for begun, ended in sounding.get((lanes[row[0]], int(row[3])), []):
            if begun <= row[1] < ended:
                row[1] = ended
    kept: list[list[int]] = []
    latest: dict[tuple[Lane, int], list[int]] = {}
    table = table[table[:, 1] < table[:, 2]]
    for row in table[np.lexsort((table[:, 3], table[:, 0], table[:, 1]))].tolist():
        index, start, end, pitch, _ = row
        key = (lanes[index], pitch)
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
        struck = strikes.get((lanes[index], pitch), [])
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
