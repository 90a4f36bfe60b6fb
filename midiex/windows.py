"""Windows of a song: consecutive chunks, what each goes back to, which of its voices stand already, what came before.

Knows rows and bars; knows no network, and batches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from . import aligned, conditions
from .chunks import chunk_bars, likeness_set, row_times, thin
from .roles import Roles, voice_roles
from .sources import Source, Spans
from .tokens import BAR, INSTANCE, MAX_INSTANCES, MICRO_PER_BEAT, PROGRAM

MOST_BEFORE = 4000  # notes of the song before a window that are counted; the latest


@dataclass(frozen=True)
class Song:
    rows: np.ndarray  # (n, 8), bar counted from the song's beginning
    bar_s: np.ndarray  # (bars,)
    bar_units: np.ndarray  # (bars,) in 1/96 beat
    bars_after: int = 0  # bars that follow but were cut off


@dataclass(frozen=True)
class WindowChunk:
    """One chunk of a window, ready for the model."""

    rows: np.ndarray  # (n, 8), bar counted from the chunk's beginning
    first_bar: int
    bars: int
    times: np.ndarray  # (n, 2) float32 beats and bars since the song's beginning
    start: np.ndarray  # (2,) float32
    seconds: float
    beats: float
    conditions: np.ndarray  # (conditions,)
    likeness_set: np.ndarray  # what `metrics.likeness` compares
    goes_back: Source | None = None  # to these bars
    standing: np.ndarray | None = None  # (n,) which of its rows stand already


@dataclass(frozen=True)
class Window:
    """`chunks[:extras]` come from earlier in the song and are only remembered; the others follow one another."""

    chunks: list[WindowChunk]
    extras: int
    source: int
    notes: int  # of the targets
    before: np.ndarray | None = None  # (m, 8) of the song before the first target, bars counted from its beginning
    roles: Roles = field(default_factory=dict)  # of the song's voices


def make_chunk(song: Song, first_bar: int, bars: int, beat_starts: np.ndarray, left: int) -> WindowChunk:
    """Chunk of the song's bars [first_bar, first_bar + bars). `beat_starts` (bars + 1,): beats before each bar."""
    low, high = np.searchsorted(song.rows[:, BAR], (first_bar, first_bar + bars))
    rows = song.rows[low:high].copy()
    times = row_times(rows, beat_starts)
    rows[:, BAR] -= first_bar
    if len(rows):
        kept = thin(np.concatenate([rows, np.arange(len(rows))[:, None]], 1))
        rows, times = kept[:, :8], times[kept[:, 8]]
    seconds = float(song.bar_s[first_bar : first_bar + bars].sum())
    beats = float(beat_starts[first_bar + bars] - beat_starts[first_bar])
    units = float(np.median(song.bar_units[first_bar : first_bar + bars]))
    told = conditions.frame_conditions(bars, units, beats, seconds, left)
    if len(rows):
        told = told + conditions.note_conditions(conditions.features(rows, beats, seconds))
    start = np.array([beat_starts[first_bar], first_bar], np.float32)
    return WindowChunk(rows, first_bar, bars, times, start, seconds, beats, told, likeness_set(rows))


def make_window(
    song: Song, size: int, most_notes: int, source: int, rng: np.random.Generator, with_source: float = 0.0
) -> Window:
    """`size` consecutive chunks from a random bar of the song, with up to two earlier ones to remember; `with_source`
    is the share of chunks that go back to a source, of which `sources.Spans.draw` has all kinds."""
    beat_starts = np.concatenate([[0.0], np.cumsum(song.bar_units / MICRO_PER_BEAT)])
    bars = len(song.bar_s)
    usual = chunk_bars(song.bar_s)
    if rng.random() < 0.35:
        first = 0
    else:
        first = int(rng.integers(0, max(1, bars - 3 * usual)))
        if rng.random() < 0.6:
            first -= first % usual  # phrases begin on the song's own chunk borders more often than not
    borders = [first]
    while borders[-1] < bars and len(borders) <= size:
        borders.append(min(bars, borders[-1] + chunk_bars(song.bar_s[borders[-1] :])))
    left_after = int(np.ceil((bars - borders[-1] + song.bars_after) / max(1, usual)))
    chunks = []
    for i in range(len(borders) - 1):
        left = len(borders) - 1 - i + left_after
        chunks.append(make_chunk(song, borders[i], borders[i + 1] - borders[i], beat_starts, left))
        if sum(len(c.rows) for c in chunks) > most_notes:
            break
    extras: list[WindowChunk] = []
    if first >= usual and rng.random() < 0.6:
        starts = {0} | {int(rng.integers(0, first - usual + 1))}
        for start in sorted(starts)[: int(rng.integers(1, 3))]:
            if extras and start < extras[-1].first_bar + extras[-1].bars:
                continue  # bars would be heard twice
            length = min(chunk_bars(song.bar_s[start:]), first - start)
            extras.append(make_chunk(song, start, length, beat_starts, 0))
    before = song.rows[: np.searchsorted(song.rows[:, BAR], first)][-MOST_BEFORE:]
    roles = voice_roles(song.rows)
    if with_source:
        chunks = _going_back(chunks, song, beat_starts, roles, with_source, rng)
    return Window(extras + chunks, len(extras), source, sum(len(c.rows) + 1 for c in chunks), before, roles)


def _going_back(
    chunks: list[WindowChunk], song: Song, beat_starts: np.ndarray, roles: Roles, share: float, rng: np.random.Generator
) -> list[WindowChunk]:
    """The chunks, a `share` of them with a source."""
    spans, found = Spans(song.rows, song.bar_units), []
    for chunk in chunks:
        bar = spans.draw(chunk.first_bar, chunk.bars, rng) if rng.random() < share and len(chunk.rows) else None
        if bar is not None:
            chunk = replace(chunk, goes_back=source_of(chunk, song, bar, beat_starts, roles))
        found.append(chunk)
    return found


def source_of(chunk: WindowChunk, song: Song, bar: int, beat_starts: np.ndarray, roles: Roles) -> Source:
    """The source of a chunk that goes back to the bars from `bar` on."""
    there = make_chunk(song, bar, chunk.bars, beat_starts, 0)
    return Source(bar, there.rows, there.times, there.start, aligned.likenesses(chunk.rows, there.rows, roles))


def with_standing(window: Window, share: float, rng: np.random.Generator) -> Window:
    """The window, in a `share` of whose chunks some voices stand already: any, but never all."""
    if not share:
        return window
    chunks = []
    for i, chunk in enumerate(window.chunks):
        if i >= window.extras and rng.random() < share:
            voice = chunk.rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + chunk.rows[:, INSTANCE]
            voices = np.unique(voice)
            if len(voices) > 1:
                free = rng.permutation(voices)[: int(rng.integers(1, len(voices)))]
                chunk = replace(chunk, standing=~np.isin(voice, free))
        chunks.append(chunk)
    return replace(window, chunks=chunks)


def with_likest(window: Window, song: Song) -> Window:
    """The window, each of whose targets goes back to the likest bars before it."""
    beat_starts = np.concatenate([[0.0], np.cumsum(song.bar_units / MICRO_PER_BEAT)])
    spans, chunks = Spans(song.rows, song.bar_units), window.chunks[: window.extras]
    for chunk in window.chunks[window.extras :]:
        bar = spans.likest(chunk.first_bar, chunk.bars) if len(chunk.rows) else None
        source = None if bar is None else source_of(chunk, song, bar, beat_starts, window.roles)
        chunks.append(replace(chunk, goes_back=source))
    return replace(window, chunks=chunks)
