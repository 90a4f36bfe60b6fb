"""What a song's habits tell of a decision, ready to be mixed in: one dense row of chances for each context.

New music is written by the habits of the song alone, which stand still meanwhile; the same contexts come again and
again, in all candidates. So what was counted in one is made a row of shares once, and found again by one look-up.
Knows counts; knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .habits import FIRST_CONTEXT, HABITS, READERS, RELATIVE, SYMBOLS, Habits, Told
from .occurrences import bucket_of
from .tokens import BAR, FIELD_SIZES, HEAD_ORDER

MOST_ROWS = 8192  # of a field: the largest take a kilobyte each


class Recalled:
    """The rows of one song, made when they are first asked for. For all chunks of new music.

    Of BAR a row tells whether the next note stays in its bar (STAYS) or not.
    """

    def __init__(self, habits: Habits):
        self.habits = habits
        self.levels = {name: habits.levels(name) for name in HEAD_ORDER}  # (contexts,)
        self._fields = {name: _Field(2 if name == BAR else FIELD_SIZES[name]) for name in HEAD_ORDER}

    def find(self, name: int, told: Sequence[Told]) -> tuple[np.ndarray, np.ndarray]:
        """For a field and the columns of each candidate's decision (empty: nothing is known): of the times the song was
        in each context the share that each value had, (K, C, values), and the buckets of how often that was, (K, C)."""
        field, first = self._fields[name], FIRST_CONTEXT[name]
        contexts = list(zip(READERS[first : first + len(HABITS[name])], RELATIVE[name], strict=True))
        if len(field.index) > MOST_ROWS - len(told) * len(contexts):
            field.clear()
        rows = []
        for columns in told:
            if not columns:
                rows.append([0] * len(contexts))
                continue
            row = []
            for number, (read, start) in enumerate(contexts):
                context, reference = (first + number, read(columns)), columns[start] if start else 0
                found = field.index.get((context, reference))
                if found is None:
                    counts = self.habits.counted(context)
                    found = field.add(context, reference, counts) if counts else 0
                row.append(found)
            rows.append(row)
        index = np.array(rows)  # (K, C)
        return field.shares[index], field.buckets[index]


class _Field:
    """Rows of one field; the first knows nothing."""

    def __init__(self, values: int):
        self.values = values
        self.clear()

    def clear(self) -> None:
        self.index: dict[object, int] = {}
        self.shares = np.zeros((64, self.values), np.float32)
        self.buckets = np.zeros(64, np.int64)

    def add(self, context: object, reference: int, counts: dict[int, int]) -> int:
        row = self.index[context, reference] = 1 + len(self.index)
        if row == len(self.shares):
            self.shares = np.concatenate([self.shares, np.zeros_like(self.shares)])
            self.buckets = np.concatenate([self.buckets, np.zeros_like(self.buckets)])
        value = (np.fromiter(counts.keys(), np.int64, len(counts)) + reference) % SYMBOLS
        times = np.fromiter(counts.values(), np.float32, len(counts))
        possible = value < self.values
        self.shares[row, value[possible]] = times[possible] / times.sum()
        self.buckets[row] = bucket_of(np.array(times.sum(), np.int64), np.array(len(counts)))
        return row
