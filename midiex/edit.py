"""New music inside a song: a passage rewritten, room made in the middle, one chunk of a result written anew.

Each is a Passage like a continuation (extend.py has the way of the data); what differs is where it goes and what stands
around it. Knows songs and places; knows no tokens and no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from . import provenance, score, timeline
from .config import GenerateConfig
from .errors import BadInput
from .extend import MAX_SECONDS, SONG, Model, Passage, check_out, finish, settings
from .outline import as_it_was
from .places import bar_at, players, voices_of
from .splice import Joint

Source = str | PathLike[str]


def start_fill(
    path: Source,
    begin: str | float,
    end: str | float,
    *,
    tracks: Sequence[str] = (),
    model: Model | Source | None = None,
    seed: int = 0,
    temperature: float | None = None,
    candidates: int | None = None,
) -> Passage:
    """Begin to rewrite a song from `begin` to `end` (places as in places.py, moved to the nearest bar lines) for the
    given tracks, or all. Everything else stays, and the other tracks' notes inside are heeded.

    Raises BadInput for a file or value that cannot be used.
    """
    song = score.read(path)
    first, after = bar_at(song, begin), bar_at(song, end)
    if after <= first:
        raise BadInput(
            f"From {begin} to {end} there is not one whole bar of {song.path}; bars there last "
            f"{float(song.grid.bar_s[min(first, len(song.grid) - 1)]):.1f} s."
        )
    if after - first >= len(song.grid):
        raise BadInput(
            f"From {begin} to {end} is all of {song.path}, which leaves nothing to go by; rewrite less of it."
        )
    chosen = voices_of(song, tracks) if tracks else frozenset(range(len(song.voices)))
    generate, loaded = settings(model, seed, temperature, candidates)
    return _rewritten(song, first, after, chosen, generate, loaded, seed)


def start_insert(
    path: Source,
    at: str | float,
    seconds: float,
    *,
    solo: Sequence[str] = (),
    mute: Sequence[str] = (),
    drums: bool | None = None,
    model: Model | Source | None = None,
    seed: int = 0,
    temperature: float | None = None,
    candidates: int | None = None,
) -> Passage:
    """Begin to make room for about `seconds` of new music at a place of a song (moved to the nearest bar line); all
    that comes later moves. `solo`, `mute` and `drums` choose who plays, as in places.players.

    Raises BadInput for a file or value that cannot be used.
    """
    if not 0 < seconds <= MAX_SECONDS:
        raise BadInput(f"{seconds:g} s cannot be inserted; ask for more than 0 and at most {MAX_SECONDS} s.")
    song = score.read(path)
    before = bar_at(song, at)
    if not 0 < before < len(song.grid):
        raise BadInput(
            f"At {at} {song.path} has no bar before or none after; insert between its bars 1 and {len(song.grid)}, "
            f"or use midiex extend."
        )
    generate, loaded = settings(model, seed, temperature, candidates)
    joint = Joint(timeline.insert(song, before, seconds), int(song.grid.ticks[before]))
    return Passage(song, loaded, joint, SONG, players(song, solo, mute, drums), generate, seed)


def start_regenerate(
    path: Source,
    chunk: int,
    *,
    model: Model | Source | None = None,
    seed: int | None = None,
    temperature: float | None = None,
    candidates: int | None = None,
) -> Passage:
    """Begin to write one chunk of a result of midiex anew. Chunks count from 1, in the order in which they sound; the
    `seed` must not be the one the chunk was written with, and is a fresh one by default.

    Raises BadInput for a file midiex did not write, or changed so that the chunk is no longer found.
    """
    song = score.read(path)
    notes = provenance.notes_in(song)
    chunks = sorted(
        (note.tick + offset, bars, seed_then, i, k)
        for i, note in enumerate(notes)
        for k, (offset, bars, seed_then) in enumerate(note.chunks)
    )
    if not chunks:
        raise BadInput(f"{path} does not say which of its chunks midiex wrote; give a file that midiex made.")
    if not 1 <= chunk <= len(chunks):
        raise BadInput(f"{path} has new chunks 1 to {len(chunks)} and chunk {chunk} was asked for.")
    tick, bars, seed_then, i, k = chunks[chunk - 1]
    seed = _unused_seed(notes) if seed is None else seed
    if seed == seed_then:
        raise BadInput(f"Chunk {chunk} of {path} was written with seed {seed}; give another one.")
    first = int(song.grid.bar_at(tick))
    after = min(first + bars, len(song.grid))
    if int(song.grid.ticks[first]) != tick:
        raise BadInput(f"Chunk {chunk} of {path} no longer begins on a bar line; use midiex fill to rewrite a passage.")
    note = notes[i]
    chosen = frozenset(n for n, voice in enumerate(song.voices) if voice.track in note.tracks)
    if not chosen:
        raise BadInput(f"The tracks that midiex wrote are no longer in {path}; use midiex fill to rewrite a passage.")
    generate, loaded = settings(model, seed, temperature, candidates)
    passage = _rewritten(song, first, after, chosen, generate, loaded, seed, (after - first,))
    passage.replaces = (note, note.with_seed(k, seed))
    if note.form:
        passage.form = as_it_was(song, passage.line, chosen, note.form[k], seed)
        passage.replaces = (note, note.with_seed(k, seed, passage.form.phrases[0].kind))
    if after == len(song.grid) and note.leads_to != SONG:
        passage.leads_to = note.leads_to
    return passage


def fresh_seed(path: Source) -> int:
    """A seed with which no chunk of the file was written."""
    return _unused_seed(provenance.notes_in(score.read(path)))


def _unused_seed(notes: list[provenance.Provenance]) -> int:
    return 1 + max((seed for note in notes for _, _, seed in note.chunks), default=0)


def fill(path: Source, begin: str | float, end: str | float, out: Source | None = None, **options: Any) -> Passage:
    """Rewrite a passage and, if `out` is given, write the song there; options as of `start_fill`."""
    check_out(path, out)
    return finish(start_fill(path, begin, end, **options), out)


def insert(path: Source, at: str | float, seconds: float, out: Source | None = None, **options: Any) -> Passage:
    """Insert new music and, if `out` is given, write the song there; options as of `start_insert`."""
    check_out(path, out)
    return finish(start_insert(path, at, seconds, **options), out)


def regenerate(path: Source, chunk: int, out: Source | None = None, **options: Any) -> Passage:
    """Write one chunk anew and, if `out` is given, the song there; options as of `start_regenerate`."""
    check_out(path, out)
    return finish(start_regenerate(path, chunk, **options), out)


def _rewritten(
    song: score.Song,
    first: int,
    after: int,
    chosen: frozenset[int],
    generate: GenerateConfig,
    loaded: Model,
    seed: int,
    sizes: tuple[int, ...] = (),
) -> Passage:
    """The passage between two bar lines, to be rewritten for the chosen voices."""
    line = timeline.rewrite(song, first, after)
    joint = Joint(line, line.end_tick, rewritten=chosen)
    standing = frozenset(range(len(song.voices))) - chosen
    generate = replace(generate, returns=0.0)  # something else is wanted here
    return Passage(song, loaded, joint, SONG, chosen, generate, seed, standing, sizes)
