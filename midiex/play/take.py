"""Keeps what was heard as a Standard MIDI File in the making, in about five bytes an event, waits left out.

Knows batches and bytes; knows no clock and no sound.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import BinaryIO

import mido
from mido.midifiles.meta import encode_variable_int

from .. import score
from ..provenance import Provenance
from .stream import Batch, Timed, told_until

_NO_TEXT = mido.MetaMessage("text", text="").bytes()


class Take:
    """What was heard of a song and of what went on from it; the song's own events are there as they were."""

    def __init__(self, midi: mido.MidiFile) -> None:
        """`midi` is the song: its type, division and number of tracks are those of the take."""
        self.type, self.division = midi.type, midi.ticks_per_beat
        self._tracks = [bytearray() for _ in midi.tracks]
        self._ticks = [0] * len(midi.tracks)  # of each track's last event
        self._tick = 0  # where the next batch begins
        self._notes: list[tuple[int, Provenance]] = []  # and where in the first track's bytes they belong

    def add(self, batch: Batch, events: Sequence[Timed], stop_tick: int | None = None) -> None:
        """What was played of a batch; `stop_tick` (of the lap) is where it was stopped, if it was."""
        base = self._tick - batch.bar_ticks[0]
        if batch.told:
            if batch.told.tick == batch.bar_ticks[0]:  # here new music begins
                self._append(0, self._tick, _NO_TEXT)  # keeps the place
                self._notes.append((len(self._tracks[0]) - len(_NO_TEXT), batch.told))
            told = batch.told if stop_tick is None else told_until(batch.told, stop_tick)
            self._notes[-1] = (self._notes[-1][0], told)
        for event in sorted(events, key=lambda event: (event.tick, event.place)):
            data = event.message.bytes()
            if event.message.type == "sysex":  # files tell how long it is
                data = [data[0], *encode_variable_int(len(data) - 1), *data[1:]]
            self._append(event.track, base + event.tick, data)
        self._tick = base + (batch.bar_ticks[-1] if stop_tick is None else stop_tick)

    def end(self, releases: Iterable[tuple[int, mido.Message]]) -> None:
        """Nothing more comes; `releases` (track, message) end what still sounds."""
        for track, message in releases:
            self._append(track, self._tick, message.bytes())

    def _append(self, track: int, tick: int, data: list[int]) -> None:
        self._tracks[track] += bytes([*encode_variable_int(tick - self._ticks[track]), *data])
        self._ticks[track] = tick

    def save(self, file: BinaryIO) -> None:
        """Write the file."""
        tracks = list(self._tracks)
        first = bytearray()
        at = 0
        for place, note in self._notes:
            first += tracks[0][at:place] + bytes(mido.MetaMessage("text", text=note.text).bytes())
            at = place + len(_NO_TEXT)
        tracks[0] = first + tracks[0][at:]
        file.write(struct.pack(">4sIHHh", b"MThd", 6, self.type, len(tracks), self.division))
        for data, tick in zip(tracks, self._ticks, strict=True):
            end = bytes([*encode_variable_int(max(0, self._tick - tick)), *mido.MetaMessage("end_of_track").bytes()])
            file.write(struct.pack(">4sI", b"MTrk", len(data) + len(end)) + data + end)

    def save_as(self, path: str | PathLike[str]) -> None:
        """Write it to a path, whole or not at all. Raises BadInput when that cannot be done."""
        score.save(self, path)
