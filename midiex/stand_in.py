"""What stands where nothing usable was written: music of the song itself.

Knows rows and tasks; writes no notes of its own and knows no network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import tokens
from .chunks import thin
from .decoding import Task
from .phrase_task import Ready
from .roles import of_voices
from .tokens import BAR, POSITION, moved


def own_chunk(
    chunks: Sequence[tuple[np.ndarray, int]],
    task: Task,
    asked: Ready | None,
    new: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Rows (n, 8) for a task's bars: the source of what a plan asks, if it has one; else the last of the song's own
    `chunks` (rows, bars) that has notes of those who are to play, from its first note's bar on, cut or repeated to fit.
    `new` leaves out the rows of voices that stand."""
    size = len(task.bar_positions)
    own = [(rows if asked is None else of_voices(rows, asked.voices), bars) for rows, bars in chunks]
    own = [(rows, bars) for rows, bars in own if len(rows)] or [(rows, bars) for rows, bars in chunks if len(rows)]
    part, bars = own[-1]
    first = int(part[0, BAR])
    if asked is not None and len(asked.source):
        part, bars, first = asked.source, size, 0
    copies = [task.fixed, *(moved(new(part), at - first) for at in range(0, size, bars - first))]
    rows = np.concatenate(copies)
    rows = rows[(rows[:, BAR] >= 0) & (rows[:, BAR] < size)]
    rows = rows[rows[:, POSITION] < task.bar_positions[rows[:, BAR]]]  # the song's bars may have been longer
    return thin(tokens.sort_rows(rows))
