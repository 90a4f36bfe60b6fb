"""New notes as events on a song's channels: none doubled or stuck, each with its own program and bank.

Knows the song's events that stay around and among the new notes; must not know where those come from.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import mido
import numpy as np

from .lanes import NO_BANK, Bank, LaneState, choose_sound, same_sound
from .score import Event, Lane, Song, is_on, lane_of

RELEASE, RESTORE, ORIGINAL, NEW, LAST = range(5)  # the order of events at one tick
Placed = tuple[int, int, Any]  # tick, one of the five above, message
_Choice = tuple[int, int, int, Bank]  # of a sound: tick, track, program, bank
_Key = tuple[Lane, int]  # whose pitch


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

    def only(self, which: np.ndarray) -> NewNotes:
        """Those that a mask (n,) is True for."""
        columns = (self.voice, self.start_ticks, self.duration_ticks, self.pitch, self.velocity)
        return NewNotes(*np.stack(columns)[:, which])


def note_events(
    song: Song, notes: NewNotes, start_tick: int, end_tick: int, events: list[Event], staying: list[Event]
) -> list[list[Placed]]:
    """For each track the events of new notes between two ticks, and the program changes that they and the song's notes
    among them need. `events` are all of the song's, `staying` those of the result before `end_tick`, at their ticks
    there.

    Each note is cut where its channel strikes its pitch anew. One that would start while a note of the song still
    sounds on its channel and pitch starts where that ends, or is left out.

    Raises ValueError for a pitch outside 0..127 or arrays of unequal length.
    """
    midi = song.midi
    additions: list[list[Placed]] = [[] for _ in midi.tracks]
    struck: defaultdict[_Key, list[int]] = defaultdict(list)  # when the song does, inside the new music
    sounding: defaultdict[_Key, list[tuple[int, int]]] = defaultdict(list)  # its notes there, (start, end)
    theirs: defaultdict[Lane, dict[int, _Choice]] = defaultdict(dict)  # the sounds of those it strikes, by tick
    chosen: defaultdict[Lane, list[_Choice]] = defaultdict(list)  # by the song, in order
    states: defaultdict[Lane, LaneState] = defaultdict(LaneState)
    begun_at: defaultdict[_Key, deque[int]] = defaultdict(deque)
    for tick, track, message in staying:
        if message.type in ("program_change", "control_change"):
            lane = lane_of(midi, track, message.channel)
            states[lane].take(track, message)
            if message.type == "program_change":
                chosen[lane].append((tick, track, message.program, states[lane].bank))
        elif message.type in ("note_on", "note_off"):
            lane = lane_of(midi, track, message.channel)
            key = (lane, message.note)
            if not is_on(message):
                since = begun_at[key].popleft() if begun_at[key] else tick
                if tick > start_tick:
                    sounding[key].append((since, tick))
                continue
            begun_at[key].append(tick)
            if tick >= start_tick:
                struck[key].append(tick)
                theirs[lane][tick] = (tick, track, states[lane].program, states[lane].bank)
    banks, ever = _banks(events, midi, start_tick)
    ours: dict[Lane, _Choice] = {}  # our latest

    def in_force(lane: Lane, tick: int) -> _Choice:
        n_before = bisect_right(chosen[lane], tick, key=lambda choice: choice[0])
        song_has = chosen[lane][n_before - 1] if n_before else (0, -1, 0, NO_BANK)
        mine = ours.get(lane, (-1, -1, 0, NO_BANK))
        return mine if mine[:2] >= song_has[:2] else song_has  # at one tick the later track has the last word

    def ensure(lane: Lane, sound: _Choice, order: int) -> None:
        tick, track, program, bank = sound
        if not same_sound(in_force(lane, tick)[2:], (program, bank)):
            additions[track] += [(tick, order, m) for m in choose_sound(lane[1], program, bank, ever[lane].bank_set)]
            ours[lane] = sound

    def is_free(lane: Lane, sound: _Choice) -> bool:
        """Whether the song wants no other sound at that tick, or sets one after us."""
        tick, track, program, bank = sound
        wanted_there = [choice for choice in chosen[lane] if choice[0] == tick and choice[1] > track]
        wanted_there += [theirs[lane][tick]] if tick in theirs[lane] else []
        return all(same_sound(choice[2:], (program, bank)) for choice in wanted_there)

    def add(lane: Lane, rows: list[list[int]]) -> None:
        wanted: list[tuple[int, bool, _Choice, list[int]]] = []  # sounds by tick; at one the song's come first
        for row in rows:
            voice = song.voices[row[0]]
            bank = banks.get((voice.track, voice.channel, voice.program), NO_BANK)
            for tick in (row[1], row[1] + 1):  # a channel plays one program at a time
                sound = (tick, voice.track, voice.program, bank)
                if tick < row[2] and is_free(lane, sound):
                    wanted.append((tick, True, sound, row))
                    break
        if wanted:
            wanted += [(tick, False, sound, []) for tick, sound in theirs[lane].items()]
        begun = False
        for tick, is_new, sound, row in sorted(wanted, key=lambda one: one[:2]):
            if not is_new:
                ensure(lane, sound, RESTORE)
                begun = True
                continue
            voice = song.voices[row[0]]
            if not (voice.is_drum and voice.program == 0 and 0 not in (choice[2] for choice in chosen[lane])):
                # kit 0 that was only ever the default is left alone: some devices have none
                if not begun:
                    ensure(lane, (start_tick, *sound[1:]), NEW)  # a device has the time up to the first note to load it
                ensure(lane, sound, NEW)
            begun = True
            _, _, end, pitch, velocity = row
            events = (tick, NEW, on(voice.channel, pitch, velocity)), (end, RELEASE, off(voice.channel, pitch))
            additions[voice.track] += events

    on, off = functools.cache(_on), functools.cache(_off)  # an hour has forty thousand notes, most of them like others
    lanes = [lane_of(midi, voice.track, voice.channel) for voice in song.voices]
    for lane in dict.fromkeys(lanes):
        mine = np.isin(notes.voice, [index for index, its in enumerate(lanes) if its == lane])
        if mine.any():
            add(lane, _without_overlaps(notes.only(mine), start_tick, end_tick, struck, sounding, lane))
    return additions


def _banks(
    events: list[Event], midi: mido.MidiFile, start_tick: int
) -> tuple[dict[tuple[int, int, int], Bank], defaultdict[Lane, LaneState]]:
    """The bank that each (track, channel, program) last plays from before `start_tick`, or first after; and what every
    lane is like after the song."""
    states: defaultdict[Lane, LaneState] = defaultdict(LaneState)
    banks: dict[tuple[int, int, int], Bank] = {}
    for tick, track, message in events:
        if message.type in ("program_change", "control_change"):
            states[lane_of(midi, track, message.channel)].take(track, message)
        elif is_on(message):
            state = states[lane_of(midi, track, message.channel)]
            voice = (track, message.channel, state.program)
            if tick < start_tick or voice not in banks:
                banks[voice] = state.bank
    return banks, states


def _on(channel: int, pitch: int, velocity: int) -> mido.Message:
    return mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)


def _off(channel: int, pitch: int) -> mido.Message:
    return mido.Message("note_off", channel=channel, note=pitch)


def _without_overlaps(
    notes: NewNotes,
    first: int,
    last: int,
    strikes: dict[_Key, list[int]],
    sounding: dict[_Key, list[tuple[int, int]]],
    lane: Lane,
) -> list[list[int]]:
    """A lane's new notes as rows (voice, start, end, pitch, velocity) by start, between the ticks `first` and `last`,
    none sounding into the next of its pitch or beginning within one of the song's."""
    starts = np.clip(notes.start_ticks, first, last - 1)
    ends = np.clip(np.asarray(notes.start_ticks) + notes.duration_ticks, starts + 1, last)
    velocity = np.clip(notes.velocity, 1, 127)
    table = np.stack([notes.voice, starts, ends, notes.pitch, velocity], axis=1).astype(np.int64)
    for row in table:
        for begun, ended in sounding.get((lane, int(row[3])), []):
            if begun <= row[1] < ended:
                row[1] = ended
    kept: list[list[int]] = []
    latest: dict[int, list[int]] = {}
    table = table[table[:, 1] < table[:, 2]]
    for row in table[np.lexsort((table[:, 3], table[:, 0], table[:, 1]))].tolist():
        _, start, end, pitch, _ = row
        before = latest.get(pitch)
        if before is not None and before[1] == start:  # struck twice at once: one note, as long as the longer
            before[2] = max(before[2], end)
            continue
        if before is not None:
            before[2] = min(before[2], start)
        latest[pitch] = row
        kept.append(row)
    for row in kept:
        _, start, _, pitch, _ = row
        struck = strikes.get((lane, pitch), [])
        row[2] = min([row[2], *struck[bisect_right(struck, start) :][:1]])
    return kept
