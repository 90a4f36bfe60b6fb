"""Which decisions a music is: of each part its values, and what is known when each is taken.

Knows rows, chunks and surroundings; knows nothing of counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...chunks import chunk_starts, cut
from ...occurrences import NONE, at, changes
from ...tokens import BAR, FIELD_SIZES, POSITION
from .contexts import FIELD_OF, SIZES
from .surroundings import Columns, Surroundings

Chunks = Sequence[tuple[np.ndarray, int]]  # rows (n, 8) and bars of consecutive chunks


def chunks_of(rows: np.ndarray, bar_s: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """A song, rows (n, 8) and bars of these lengths in seconds, cut into chunks."""
    return [(chunk.rows, chunk.bars) for chunk in cut(rows, chunk_starts(bar_s))]


def notes_in(chunks: Chunks) -> int:
    return sum(len(rows) for rows, _ in chunks)


@dataclass(frozen=True)
class Music:
    """Songs cut into chunks, one after another. N notes, C chunks."""

    rows: np.ndarray  # (N, 8) int64, bars counted from the song's first
    chunk: np.ndarray  # (N,)
    left: np.ndarray  # (N,) bars after the note's in its chunk
    chunk_bars: np.ndarray  # (C,)
    chunk_song: np.ndarray  # (C,)

    @classmethod
    def of(cls, songs: Sequence[Chunks]) -> Music:
        rows = [np.zeros((0, len(FIELD_SIZES)), np.int64)]
        left = [np.zeros(0, np.int64)]
        chunk_bars: list[int] = []
        chunk_song: list[int] = []
        for number, chunks in enumerate(songs):
            start = 0
            for part, bars in chunks:
                moved = part.astype(np.int64)
                left.append(bars - 1 - moved[:, BAR])
                moved[:, BAR] += start
                rows.append(moved)
                chunk_bars.append(bars)
                chunk_song.append(number)
                start += bars
        return cls(
            np.concatenate(rows),
            np.repeat(np.arange(len(chunk_bars)), [len(part) for part in rows[1:]]),
            np.concatenate(left),
            np.array(chunk_bars, np.int64),
            np.array(chunk_song, np.int64),
        )

    @property
    def song(self) -> np.ndarray:
        """Each note's song, (N,)."""
        return self.chunk_song[self.chunk]


@dataclass(frozen=True)
class Decisions:
    """Those of one part, D in all, in order."""

    columns: Columns  # (D,) each
    values: np.ndarray  # (D,) int64
    chunk: np.ndarray  # (D,)


def decisions(music: Music) -> dict[str, Decisions]:
    """All decisions of a music, by part."""
    rows, chunk = music.rows, music.chunk
    around = Surroundings(rows, music.song)
    voices, notes, after = around.voices(), around.notes(), around.after()
    known = {"program": voices, "instance": voices} | dict.fromkeys(("pitch", "duration", "velocity", "micro"), notes)
    found = {part: Decisions(columns, rows[:, FIELD_OF[part]] % SIZES[part], chunk) for part, columns in known.items()}
    first = changes(chunk)
    last = np.append(first[1:], True)[: len(rows)]
    stay = ~last & (np.append(rows[1:, BAR], NONE)[: len(rows)] == rows[:, BAR])
    found["stay"] = Decisions(after, stay.astype(np.int64), chunk)
    r1 = around.before[0]
    up = first | (at(rows[:, BAR], r1) != rows[:, BAR])  # in another bar than the note before
    ahead = {name: at(column, r1) for name, column in after.items()}
    ahead |= {"up": up, "from": np.where(up, 0, ahead["pos"])}
    found["position"] = Decisions(ahead, rows[:, POSITION], chunk)
    found["leap"] = _leaps(music, np.flatnonzero(~stay & (music.left > 0)), after["gap"], first, last)
    return found


def _leaps(music: Music, leaving: np.ndarray, gap: np.ndarray, first: np.ndarray, last: np.ndarray) -> Decisions:
    """At the beginning of every chunk, and behind the notes `leaving` their bar with bars left. `first` and `last`
    (N,) tell which notes are their chunk's."""
    chunks = np.arange(len(music.chunk_bars))
    begin = music.chunk_bars.copy()  # an empty chunk leaps over all of its bars
    begin[music.chunk[first]] -= 1 + music.left[first]
    to = np.append(music.rows[1:, BAR], 0)[leaving] - music.rows[leaving, BAR] - 1
    to = np.where(last[leaving], music.left[leaving], to)
    chunk = np.concatenate([chunks, music.chunk[leaving]])
    order = np.argsort(chunk, kind="stable")

    def both(at_begin: np.ndarray, behind: np.ndarray) -> np.ndarray:
        return np.concatenate([at_begin, behind])[order]

    columns = {
        "begin": both(np.ones_like(chunks), np.zeros_like(leaving)),
        "left": both(music.chunk_bars, music.left[leaving]),
        "gap": both(np.zeros_like(chunks), gap[leaving]),
    }
    return Decisions(columns, both(begin, to), chunk[order])
