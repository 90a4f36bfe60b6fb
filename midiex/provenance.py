"""What midiex notes in a file about the music it wrote: a text event where that music begins.

It travels with the file through any tool that keeps text events. Knows events; knows no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import score
from .form_plan import HARMONY, NEW, NEW_LEAD, SAME, VARIED, SongPhrase

PREFIX = "midiex:"
_CODES = {SAME: "s", VARIED: "v", NEW_LEAD: "l", HARMONY: "h", NEW: "n"}
_KINDS = {code: kind for kind, code in _CODES.items()}


@dataclass(frozen=True)
class Formed:
    """What a chunk is in the form of its song."""

    section: str
    kind: str  # one of form_plan.KINDS
    back: int = 0  # bars from its source to it; 0: it has none

    @property
    def text(self) -> str:
        return f"{self.section}{_CODES[self.kind]}{self.back or ''}"

    @classmethod
    def read(cls, text: str) -> Formed:
        found = re.fullmatch(r"(.+)([svlhn])(\d*)", str(text))
        if not found:
            raise ValueError(text)
        return cls(found[1], _KINDS[found[2]], int(found[3] or 0))


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
    form: tuple[Formed, ...] = ()  # of each chunk; empty where nothing was planned
    song: tuple[tuple[str, int], ...] = ()  # sections of what came before, to the last bar: (letter, bars)

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
        if self.form:
            told |= {"form": [formed.text for formed in self.form], "song": self.song}
        return PREFIX + json.dumps(told, separators=(",", ":"))

    def with_seed(self, chunk: int, seed: int, kind: str = "") -> Provenance:
        """The same, with one chunk written by another seed, and as another kind where one is given."""
        chunks = [(offset, bars, seed if i == chunk else was) for i, (offset, bars, was) in enumerate(self.chunks)]
        form = [replace(was, kind=kind) if i == chunk and kind else was for i, was in enumerate(self.form)]
        return replace(self, chunks=tuple(chunks), form=tuple(form))


def runs_of(phrases: Sequence[SongPhrase]) -> tuple[tuple[str, int], ...]:
    """A song's phrases as (section, bars), those of a section in a row as one."""
    runs: list[tuple[str, int]] = []
    for phrase in phrases:
        if runs and runs[-1][0] == phrase.section:
            runs[-1] = (phrase.section, runs[-1][1] + phrase.bars)
        else:
            runs.append((phrase.section, phrase.bars))
    return tuple(runs)


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
            tuple(Formed.read(text) for text in told.get("form", ())),
            tuple((str(section), int(bars)) for section, bars in told.get("song", ())),
        )
    except (ValueError, TypeError, KeyError):
        return None
    if note.form and len(note.form) != len(note.chunks):
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
        chunks, kept = [], []
        for number, (offset, bars, seed) in enumerate(note.chunks):
            first = note.tick + offset
            last_bar = min(int(song.grid.bar_at(first)) + bars, len(song.grid))
            if int(song.grid.ticks[last_bar]) <= start_tick:
                chunks.append((first - tick, bars, seed))
                kept.append(number)
            elif resume_tick is not None and first >= resume_tick:
                chunks.append((first + shift_ticks - tick, bars, seed))
                kept.append(number)
        form = tuple(note.form[number] for number in kept) if note.form else ()
        before = note.song if note.tick <= start_tick else ()  # something new stands in the midst of it
        texts[note.text] = replace(note, chunks=tuple(chunks), form=form, song=before).text
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


def sections_s(song: score.Song) -> list[tuple[float, float, str, str]]:
    """(start, end, section, kind) in seconds of all that is known of a song's form, in order: kinds are those of the
    plan, "" for what was there before."""
    grid, found = song.grid, list[tuple[int, int, str, str]]()
    for note in notes_in(song):
        at = int(grid.bar_at(note.tick))
        first = at - sum(bars for _, bars in note.song)
        for section, bars in note.song:
            found.append((first, first + bars, section, ""))
            first += bars
        for (offset, bars, _), formed in zip(note.chunks, note.form, strict=False):
            first = int(grid.bar_at(note.tick + offset))
            found.append((first, min(first + bars, len(grid)), formed.section, formed.kind))
    return [
        (float(grid.seconds[first]), float(grid.seconds[end]), section, kind)
        for first, end, section, kind in sorted(found)
        if 0 <= first < end <= len(grid)
    ]
