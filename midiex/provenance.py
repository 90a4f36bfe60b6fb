"""What midiex notes in a file about the music it wrote: a text event where that music begins.

It travels with the file through any tool that keeps text events. Knows events; knows no model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from . import score

PREFIX = "midiex:"


@dataclass(frozen=True)
class Provenance:
    """One note of one stretch of new music."""

    tick: int  # where it stands: the beginning of that music
    seed: int
    model: str  # fingerprint of its weights
    version: str
    leads_to: str
    tracks: tuple[int, ...]  # that played
    chunks: tuple[tuple[int, int, int], ...]  # (ticks from here, bars, seed)

    @property
    def text(self) -> str:
        """The text of the event."""
        told = {
            "version": self.version,
            "model": self.model,
            "seed": self.seed,
            "leads_to": self.leads_to,
            "tracks": self.tracks,
            "chunks": self.chunks,
        }
        return PREFIX + json.dumps(told, separators=(",", ":"))

    def with_seed(self, chunk: int, seed: int) -> Provenance:
        """The same, with one chunk written by another seed."""
        chunks = [(offset, bars, seed if i == chunk else was) for i, (offset, bars, was) in enumerate(self.chunks)]
        return replace(self, chunks=tuple(chunks))


def read(text: str, tick: int) -> Provenance | None:
    """The note that a text event at `tick` holds, None if it holds none."""
    if not text.startswith(PREFIX):
        return None
    try:
        told = json.loads(text[len(PREFIX) :])
        note = Provenance(
            tick,
            int(told["seed"]),
            str(told["model"]),
            str(told["version"]),
            str(told["leads_to"]),
            tuple(int(track) for track in told["tracks"]),
            tuple((int(offset), int(bars), int(seed)) for offset, bars, seed in told["chunks"]),
        )
    except (ValueError, TypeError, KeyError):
        return None
    return note if all(offset >= 0 and bars >= 1 for offset, bars, _ in note.chunks) else None


def notes_in(song: score.Song) -> list[Provenance]:
    """All notes in a song, in order."""
    texts = [(tick, message.text) for tick, _, message in score.walk(song.midi) if message.type == "text"]
    return [note for tick, text in texts if (note := read(text, tick)) is not None]


def carried(song: score.Song, start_tick: int, resume_tick: int | None, shift_ticks: int) -> dict[str, str]:
    """What the notes in a song are to say once new music stands from `start_tick` on: their texts, old to new.

    What was at `resume_tick` or later is `shift_ticks` later then (None: gone); chunks that are no longer whole are
    forgotten.
    """
    texts = {}
    for note in notes_in(song):
        tick = note.tick + (0 if note.tick < start_tick else shift_ticks)
        chunks = []
        for offset, bars, seed in note.chunks:
            first = note.tick + offset
            last_bar = min(int(song.grid.bar_at(first)) + bars, len(song.grid))
            if int(song.grid.ticks[last_bar]) <= start_tick:
                chunks.append((first - tick, bars, seed))
            elif resume_tick is not None and first >= resume_tick:
                chunks.append((first + shift_ticks - tick, bars, seed))
        texts[note.text] = replace(note, chunks=tuple(chunks)).text
    return texts


def spans_s(song: score.Song) -> list[tuple[float, float]]:
    """(start, end) in seconds of all music in a song that midiex says it wrote."""
    grid, found = song.grid, []
    for note in notes_in(song):
        for offset, bars, _ in note.chunks:
            first = int(grid.bar_at(note.tick + offset))
            found.append((float(grid.seconds[first]), float(grid.seconds[min(first + bars, len(grid))])))
    joined: list[tuple[float, float]] = []
    for start, end in sorted(found):
        if joined and start <= joined[-1][1] + 1e-3:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
