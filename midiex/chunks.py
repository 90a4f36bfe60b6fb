"""Cuts a song's bars into chunks of about ten seconds, thins overfull ones, tells which are alike.

Knows bars and rows; knows no files and no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import metrics
from .tokens import (
    BAR,
    DURATION,
    MAX_CHUNK_BARS,
    MICRO_PER_BEAT,
    MICROS_PER_POSITION,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
)

TARGET_S = 10.0
EVEN_RANGE_S = (7.5, 12.5)  # phrases are even: 8, 4 or 2 bars win when they land in here
EVEN_BARS = (8, 4, 2)
MAX_CHUNK_NOTES = 512  # the 99th percentile of bands and orchestras lies near 600, of everything else below 450


@dataclass(frozen=True)
class Chunk:
    """Bars [first_bar, first_bar + bars) of a song; `rows` (n, 8) count bars from the chunk's first."""

    first_bar: int
    bars: int
    rows: np.ndarray


def chunk_bars(bar_s: np.ndarray) -> int:
    """How many of the coming bars (their lengths in seconds, shape (n,), n >= 1) make the next chunk."""
    ends = np.cumsum(bar_s[:MAX_CHUNK_BARS])
    even = [n for n in EVEN_BARS if n <= len(ends) and EVEN_RANGE_S[0] <= ends[n - 1] <= EVEN_RANGE_S[1]]
    if even:
        return min(even, key=lambda n: abs(ends[n - 1] - TARGET_S))
    return int(np.abs(ends - TARGET_S).argmin()) + 1


def chunk_starts(bar_s: np.ndarray, first_bar: int = 0) -> np.ndarray:
    """Borders of consecutive chunks from `first_bar` to the end, shape (chunks + 1,). A last chunk of less than half
    a chunk's bars joins the one before when both fit together."""
    borders = [first_bar]
    while borders[-1] < len(bar_s):
        borders.append(borders[-1] + chunk_bars(bar_s[borders[-1] :]))
    if len(borders) > 2:
        size, tail = borders[-2] - borders[-3], borders[-1] - borders[-2]
        if tail < size / 2 and size + tail <= MAX_CHUNK_BARS:
            del borders[-2]
    return np.array(borders, np.int64)


def cut(rows: np.ndarray, borders: np.ndarray) -> list[Chunk]:
    """Chunks of song rows (n, 8), sorted by bar, between consecutive borders."""
    edges = np.searchsorted(rows[:, BAR], borders)
    chunks = []
    for i in range(len(borders) - 1):
        part = rows[edges[i] : edges[i + 1]].copy()
        part[:, BAR] -= borders[i]
        chunks.append(Chunk(int(borders[i]), int(borders[i + 1] - borders[i]), thin(part)))
    return chunks


def thin(rows: np.ndarray, most: int = MAX_CHUNK_NOTES) -> np.ndarray:
    """At most `most` rows: inner doublings, short and soft notes go first, evenly over the chunk; outer voices stay."""
    if len(rows) <= most:
        return rows
    onset = rows[:, BAR].astype(np.int64) * 128 + rows[:, POSITION]
    starts = np.append(True, onset[1:] != onset[:-1])
    group = np.cumsum(starts) - 1
    worth = rows[:, VELOCITY] / 32 + rows[:, DURATION] / 48 + 0.5 * (rows[:, POSITION] % 12 == 0)
    order = np.lexsort((rows[:, PITCH], group))
    outer = np.zeros(len(rows), bool)
    first = np.append(True, group[order][1:] != group[order][:-1])
    outer[order[first]] = True  # lowest of each onset
    outer[order[np.append(first[1:], True)]] = True  # highest
    worth = worth + 3.0 * outer  # more than all the rest together
    # rank inside each bar, so that every bar gives up the same share
    rank = np.zeros(len(rows))
    for bar in np.unique(rows[:, BAR]):
        members = np.flatnonzero(rows[:, BAR] == bar)
        rank[members[np.argsort(-worth[members], kind="stable")]] = np.arange(len(members)) / len(members)
    keep = np.sort(np.argsort(rank, kind="stable")[:most])
    return rows[keep]


def row_times(rows: np.ndarray, beat_starts: np.ndarray) -> np.ndarray:
    """(beats, bars) since the song's beginning of rows whose bar counts from there, shape (n, 2) float32."""
    bar = rows[:, BAR]
    beat = rows[:, POSITION] * (MICROS_PER_POSITION / MICRO_PER_BEAT)
    bar_beats = np.diff(beat_starts)[bar]
    return np.stack([beat_starts[bar] + beat, bar + beat / np.maximum(bar_beats, 1e-6)], 1).astype(np.float32)


def likeness_set(rows: np.ndarray) -> np.ndarray:
    """Onset in the chunk, program and pitch of each row as one integer, (n,): what `metrics.likeness` compares."""
    r = rows.astype(np.int64)
    return ((r[:, BAR] * 128 + r[:, POSITION]) * 256 + r[:, PROGRAM]) * 256 + r[:, PITCH]


def recall(likeness_sets: list[np.ndarray], allowed: list[int]) -> int | None:
    """Which of the `allowed` earlier chunks to look at again: the one that followed where the music was most like
    the latest chunk, or the opening when nothing was. `likeness_sets` holds all chunks so far; None: none allowed."""
    if not allowed:
        return None
    latest = likeness_sets[-1]
    return max(allowed, key=lambda i: metrics.likeness(likeness_sets[i - 1], latest) if i else 1e-9)
