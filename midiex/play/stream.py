"""A passage that is still being written as whole bars of events, each batch as soon as nothing in it can change.

All events are those of `Passage.midi()`, so that what is played is what would be saved. Knows passages and events;
knows no clock, no thread and no sound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import mido
import numpy as np

from .. import provenance, score
from ..lanes import dial_of

if TYPE_CHECKING:
    from ..extend import Passage

# What is written later may still change the last beats before it: notes are struck a little before their beat, and
# under a pedal keys are held up to its next change (pedal.LONGEST_BEATS).
UNSETTLED_BEATS, UNSETTLED_PEDAL_BEATS = 1, 16
OPEN = "open"  # what music leads to that goes no further (as in extend.py, which is slow to import)


@dataclass(frozen=True)
class Timed:
    """An event to be played."""

    at_s: float  # after its batch begins
    tick: int  # of the lap
    track: int
    place: int  # among the events of its track
    message: Any


@dataclass(frozen=True)
class Batch:
    """Whole bars. `bar_s` and `bar_ticks` are their lines, (bars + 1,): seconds from 0 on, and ticks of the lap."""

    first_bar: int
    bar_s: tuple[float, ...]
    bar_ticks: tuple[int, ...]
    events: tuple[Timed, ...]  # in the order in which they are played
    told: provenance.Provenance | None = None  # what midiex says of the new music it wrote so far

    @property
    def seconds(self) -> float:
        return self.bar_s[-1]


def batches(passage: Passage, again: bool = False) -> Iterator[Batch]:
    """The song up to the new music at once, then bars of new music as they are written, then what follows them.

    `again`: the song has been played before, so that SysEx, which would cut what still rings, is left out.
    Raises what composing raises.
    """
    line, song = passage.line, passage.song
    cutter = _Cutter(passage, again)
    yield cutter.cut(_original(passage), line.before)
    has_pedal = any(len(track.pedals) for track in song.score.tracks)
    margin = (UNSETTLED_PEDAL_BEATS if has_pedal else UNSETTLED_BEATS) * line.grid.tpq
    for chunk in passage.chunks():
        if chunk.index + 1 < chunk.of:
            until = int(line.grid.ticks[chunk.first_bar + chunk.bars] - margin)
            bar = int(np.searchsorted(line.grid.ticks, until, side="right")) - 1
            if bar > cutter.bar:
                yield cutter.cut(passage.midi(), bar)
    yield cutter.cut(passage.midi(), None)


def playable(message: Any) -> mido.Message | None:
    """The message for an instrument, None for what is only for files."""
    return None if message.is_meta else message


def is_release(message: Any) -> bool:
    return message.type == "note_off" or (message.type == "note_on" and message.velocity == 0)


def told_until(note: provenance.Provenance, tick: int) -> provenance.Provenance:
    """The note on new music that was stopped at a tick: without the chunks that were not reached."""
    chunks = tuple(chunk for chunk in note.chunks if note.tick + chunk[0] < tick)
    return replace(note, chunks=chunks, form=note.form[: len(chunks)], leads_to=OPEN)


def _original(passage: Passage) -> mido.MidiFile:
    """The song's events before the new music, midiex's notes in them as they are to read in the result."""
    song, joint = passage.song, passage.joint
    told = provenance.carried(song, joint.line.start_tick, joint.resume_tick, joint.shift_ticks)
    if not told:
        return song.midi
    tracks = [
        mido.MidiTrack(
            message.copy(text=told[message.text]) if message.type == "text" and message.text in told else message
            for message in track
        )
        for track in song.midi.tracks
    ]
    return mido.MidiFile(type=song.midi.type, ticks_per_beat=song.midi.ticks_per_beat, tracks=tracks)


class _Cutter:
    """Takes batch after batch out of ever longer versions of one result."""

    def __init__(self, passage: Passage, again: bool):
        self.line, self.again = passage.line, again
        self.bar = 0  # with which the next batch begins
        self.released: Counter[tuple[int, ...]] = Counter()  # on the line before it, by the batch before
        self.set_up: set[tuple[int, tuple[int, ...]]] = set()  # programs and dials that were sent in the new music

    def cut(self, midi: mido.MidiFile, bar: int | None) -> Batch:
        """The batch up to a bar, or all that is left."""
        line, ticks = self.line, self.line.grid.ticks
        end = None if bar is None else int(ticks[bar])
        picked, told = self._pick(midi, int(ticks[self.bar]), end)
        picked.sort(key=lambda event: (event[0], score.setting_up(event[3])))
        lines = ticks[self.bar : None if bar is None else bar + 1].tolist()
        if bar is None:  # up to what can be heard last
            last = max([line.end_tick, *(tick for tick, *_, message in picked if playable(message))])
            lines = [at for at in lines if at < last] + [last]
        seconds = line.tempo.to_seconds(np.array(lines))
        at_s = line.tempo.to_seconds(np.array([tick for tick, *_ in picked]).clip(max=lines[-1])) - seconds[0]
        events = tuple(Timed(float(at), *event) for at, event in zip(at_s, picked, strict=True))
        if told and end is not None:
            told = told_until(told, end)
        first, self.bar = self.bar, len(ticks) - 1 if bar is None else bar
        return Batch(first, tuple((seconds - seconds[0]).tolist()), tuple(lines), events, told)

    def _pick(
        self, midi: mido.MidiFile, begin: int, end: int | None
    ) -> tuple[list[tuple[int, int, int, Any]], provenance.Provenance | None]:
        """The events (tick, track, place, message) from one line to another, releases on the later one among them, and
        the note on the new music so far."""
        start = self.line.start_tick
        picked: list[tuple[int, int, int, Any]] = []
        told = None
        released, self.released = self.released, Counter()
        for track, messages in enumerate(midi.tracks):
            tick = 0
            for place, message in enumerate(messages):
                tick += message.time
                release = is_release(message)
                if end is not None and (tick > end or (tick == end and not release)):
                    continue
                if message.type == "end_of_track" or (message.type == "sysex" and self.again):
                    continue
                if message.type == "marker" and message.text == "loopEnd" and tick == self.line.end_tick:
                    continue
                if message.type == "text" and tick == start and (note := provenance.read(message.text, tick)):
                    told = note  # the last one is of this passage
                elif tick < begin:
                    # a voice that was silent so far is set up where new music begins, which has been played already
                    if tick >= start and self._is_new(tick, message):
                        picked.append((begin, track, -1, message))
                elif release and tick == begin and released[data := tuple(message.bytes())]:
                    released[data] -= 1
                else:
                    if release and tick == end:
                        self.released[tuple(message.bytes())] += 1
                    elif tick >= start:
                        self._is_new(tick, message)
                    picked.append((tick, track, place, message))
        return picked, told

    def _is_new(self, tick: int, message: Any) -> bool:
        """Is it a program or dial that was not sent yet?"""
        if message.type != "program_change" and dial_of(message) is None:
            return False
        key = (tick, tuple(message.bytes()))
        if key in self.set_up:
            return False
        self.set_up.add(key)
        return True
