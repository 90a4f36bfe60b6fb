"""Decides what the next chunk should be: its bars, what it is told about the song, and which chunks it may look at.

Keeps the memory of everything written so far at a fixed size: summary rows of all chunks, full rows of the last few and
of the song's own. Knows rows and the network's encoder; samples nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from . import conditions
from .chunks import chunk_bars, likeness_set, recall, row_times, thin
from .config import MemoryConfig
from .constraints import Grammar
from .decoding import Memory, Task
from .model import OPENING, RECALLED, RECENT, SUMMARY, ChunkTransformer
from .tokens import BAR, MAX_CHUNK_BARS, MICRO_PER_BEAT, MICROS_PER_POSITION

MAX_FULL_CHUNKS = 24  # of the song's own chunks kept in full for recall; its latest ones are
MAX_KNOWN_CHUNKS = 64  # chunks before the seam that are read at all; the opening always is


@dataclass(frozen=True)
class Bars:
    """Bars of the song and of what is to come, one after another."""

    beats: np.ndarray  # (bars,) length of each in quarter notes
    seconds: np.ndarray  # (bars,)
    beat_starts: np.ndarray = field(init=False)  # (bars + 1,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "beat_starts", np.concatenate([[0.0], np.cumsum(self.beats)]))

    @property
    def positions(self) -> np.ndarray:
        """Positions in each bar, shape (bars,)."""
        units = np.round(self.beats * MICRO_PER_BEAT)
        return np.ceil(units / MICROS_PER_POSITION).astype(np.int64).clip(1, 8 * 12)


@dataclass
class KnownChunk:
    first_bar: int
    bars: int
    rows: np.ndarray  # (n, 8)
    likeness_set: np.ndarray
    summary: Tensor  # (S, D)
    encoded: Tensor | None  # (S + n, D), None once it is too old to be looked at in full
    times: Tensor  # (S + n, 2)


def backward_borders(bar_s: np.ndarray) -> np.ndarray:
    """Chunk borders (chunks + 1,) cut from the end backwards, so that the latest chunks are whole ones."""
    borders = [len(bar_s)]
    while borders[0] > 0:
        borders.insert(0, max(0, borders[0] - chunk_bars(bar_s[: borders[0]][::-1])))
    return np.array(borders)


def coming_chunks(bar_s: np.ndarray, usual: int) -> list[int]:
    """Bars of each chunk still to be written: the song's usual number, the last one what is left (half to one and a
    half of it)."""
    left, sizes = len(bar_s), []
    while left > 0:
        size = left if left <= min(1.5 * usual, MAX_CHUNK_BARS) else usual
        sizes.append(size)
        left -= size
    return sizes


class Planner:
    """The song so far as the model remembers it, and the plan for what follows."""

    def __init__(self, model: ChunkTransformer, memory: MemoryConfig, rows: np.ndarray, bars: Bars, song_bars: int):
        """`rows` (n, 8) are the song's, bars counted from its beginning; `bars` covers the song's `song_bars` and all
        bars to be written."""
        self.model, self.memory, self.bars = model, memory, bars
        borders = backward_borders(bars.seconds[:song_bars])
        spans = list(zip(borders[:-1], borders[1:], strict=True))
        if len(spans) > MAX_KNOWN_CHUNKS:
            spans = spans[:1] + spans[1 - MAX_KNOWN_CHUNKS :]
        self.chunks: list[KnownChunk] = []
        for first, last in spans:
            low, high = np.searchsorted(rows[:, BAR], (first, last))
            part = rows[low:high].copy()
            part[:, BAR] -= first
            self.remember(thin(part), int(first), int(last - first), of_song=True)
        self.song_chunks = len(self.chunks)
        self.usual = chunk_bars(bars.seconds[song_bars - 1 :: -1][:MAX_CHUNK_BARS])
        self.sizes = coming_chunks(bars.seconds[song_bars:], self.usual)
        self.next_bar = song_bars
        self.grammar = Grammar.of(rows, song_bars)
        self.held, self.programs = self._song_conditions()

    @torch.inference_mode()
    def remember(self, rows: np.ndarray, first_bar: int, bars: int, of_song: bool = False) -> None:
        """Encode a finished chunk and keep it; older written chunks shrink to their summary rows."""
        song_rows = rows.copy()
        song_rows[:, BAR] += first_bar
        times = row_times(song_rows, self.bars.beat_starts)
        start = np.array([[self.bars.beat_starts[first_bar], first_bar]], np.float32)
        encoded, row_time, _ = self.model.encode(
            torch.from_numpy(rows.astype(np.int64)),
            torch.tensor([len(rows)]),
            torch.from_numpy(times),
            torch.from_numpy(start),
        )
        summary = encoded[: self.model.size.summary_rows].clone()
        self.chunks.append(KnownChunk(first_bar, bars, rows, likeness_set(rows), summary, encoded, row_time))
        keep = MAX_FULL_CHUNKS if of_song else self.memory.recent_chunks + 1
        written = range(0 if of_song else self.song_chunks, len(self.chunks))
        for i in written[:-keep]:
            self.chunks[i].encoded = None
        if not of_song:
            self.next_bar += bars

    def next_task(self) -> tuple[Task, Memory] | None:
        """What to write next and what may be looked at meanwhile; None when all bars are written."""
        index = len(self.chunks) - self.song_chunks
        if index >= len(self.sizes):
            return None
        size, first = self.sizes[index], self.next_bar
        span = slice(first, first + size)
        beats, seconds = self.bars.beats[span], self.bars.seconds[span]
        units = float(np.median(beats)) * MICRO_PER_BEAT
        told = conditions.frame_conditions(
            size, units, float(beats.sum()), float(seconds.sum()), len(self.sizes) - index
        )
        task = Task(
            bar_positions=self.bars.positions[span],
            beat_starts=self.bars.beat_starts[span],
            bar_beats=beats,
            first_bar=first,
            conditions=np.where(told > 0, told, self.held),
            programs=self.programs,
            grammar=self.grammar,
        )
        return task, self._memory()

    @torch.inference_mode()
    def _memory(self) -> Memory:
        """The fixed-size memory: recent chunks and the recalled one in full, summary rows of others."""
        last = len(self.chunks)
        recent = list(range(last - 1, max(-1, last - 1 - self.memory.recent_chunks), -1))
        full = [(i, RECENT + last - 1 - i) for i in recent]
        # always one of the song's own chunks: what was written may drift, the song does not
        allowed = [i for i in range(self.song_chunks) if i not in recent and self.chunks[i].encoded is not None]
        recalled = recall([c.likeness_set for c in self.chunks], allowed)
        if recalled is not None:
            full.append((recalled, RECALLED))
        shown = {i for i, _ in full}
        older = [i for i in range(last) if i not in shown]
        if len(older) > self.memory.summary_chunks:
            older = older[:1] + older[len(older) - self.memory.summary_chunks + 1 :]
        summaries = self.model.size.summary_rows
        encoded = [e for i, _ in full if (e := self.chunks[i].encoded) is not None]
        encoded += [self.chunks[i].summary for i in older]
        times = [self.chunks[i].times for i, _ in full] + [self.chunks[i].times[:summaries] for i in older]
        kinds = [torch.full((len(self.chunks[i].times),), kind) for i, kind in full]
        kinds += [torch.full((summaries,), OPENING if i == 0 else SUMMARY) for i in older]
        return self.model.remember(torch.cat(encoded), torch.cat(times), torch.cat(kinds))

    def _song_conditions(self) -> tuple[np.ndarray, np.ndarray]:
        """Conditions and programs to hold: the song's own, its latest minute counting most."""
        recent = [c for c in self.chunks[-6:] if len(c.rows)] or [c for c in self.chunks if len(c.rows)]
        figures = []
        for chunk in recent:
            span = slice(chunk.first_bar, chunk.first_bar + chunk.bars)
            figures.append(
                conditions.features(
                    chunk.rows, float(self.bars.beats[span].sum()), float(self.bars.seconds[span].sum())
                )
            )
        mean = {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}
        programs = np.max([conditions.program_vector(c.rows) for c in recent[-3:]], axis=0)
        return conditions.note_conditions(mean), programs
