"""A song's beginning as a file of its own, so that whoever goes on from it cannot have looked ahead.

Knows events; knows no notes as arrays and no models.
"""

from __future__ import annotations

from pathlib import Path

import mido

from .. import smf
from ..score import Song


def save_prompt(song: Song, end_bar: int, path: str | Path) -> Path:
    """Write the song's events before bar `end_bar`; what sounds there is released there. Returns the path.

    Raises BadInput when the file cannot be written.
    """
    end_tick = int(song.grid.ticks[end_bar])
    smf.save(smf.like(song.midi, [_cut(track, end_tick) for track in song.midi.tracks]), path)
    return Path(path)


def _cut(track: mido.MidiTrack, end_tick: int) -> mido.MidiTrack:
    """The track's messages before a tick, and a release of each note that still sounds there."""
    kept, tick, sounding = mido.MidiTrack(), 0, list[tuple[int, int]]()
    for message in track:
        if tick + message.time >= end_tick or message.type == "end_of_track":
            break
        tick += message.time
        kept.append(message)
        if message.type in ("note_on", "note_off"):
            key = (message.channel, message.note)
            if message.type == "note_on" and message.velocity > 0:
                sounding.append(key)
            elif key in sounding:
                sounding.remove(key)
    for channel, note in sounding:
        kept.append(mido.Message("note_off", channel=channel, note=note, time=end_tick - tick))
        tick = end_tick
    kept.append(mido.MetaMessage("end_of_track", time=max(0, end_tick - tick)))
    return kept
