"""What a song's habits tell of a decision, ready to be mixed in: one dense row of chances for each context.

New music is written by the habits of the song alone, which stand still meanwhile; the same contexts come again and
again, in all candidates. So what was counted in one is made a row of shares once, and found again by one look-up.
Knows counts; knows no network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from .habits import FIRST_CONTEXT, HABITS, READERS, RELATIVE, SYMBOLS, Habits, Told, columns_of
from .occurrences import BUCKETS, bucket_of
from .tokens import BAR, FIELD_SIZES, HEAD_ORDER

MOST_ROWS = 2048  # of a field: the largest take a kilobyte each


class Recalled:
    """The rows of one song, made when they are first asked for. For all chunks of new music.

    Of BAR a row tells whether the next note stays in its bar (STAYS) or not.
    """

    def __init__(self, habits: Habits):
        self.habits = habits
        self.levels = {name: habits.levels(name) for name in HEAD_ORDER}  # (contexts,)
        self._fields = {name: _Field(name) for name in HEAD_ORDER}

    def find(self, name: int, told: Sequence[Told]) -> tuple[np.ndarray, np.ndarray]:
        """For a field and the columns of each candidate's decision (empty: nothing is known): of the times the song was
        in each context the share that each value had, (K, C, values), and the buckets of how often that was, (K, C),
        those of the second context after those of the first and so on."""
        of_field = self._fields[name]
        if of_field.size > MOST_ROWS - len(told) * len(of_field.contexts):
            of_field.clear()
        rows: list[int] = []
        for columns in told:
            if not columns:
                rows += of_field.unknown
                continue
            found = list[int]()
            for nth, context in enumerate(of_field.contexts):
                if context.wider is not None and found[context.wider] == context.wider:
                    found.append(nth)  # it knows nothing, like the wider one
                    continue
                key = context.read(columns)
                row = context.rows.get(key)
                found.append(of_field.add(nth, key, columns, self.habits) if row is None else row)
            rows += found
        index = np.array(rows).reshape(len(told), -1)  # (K, C)
        return of_field.shares.take(index, 0), of_field.buckets.take(index)


@dataclass
class _Context:
    number: int  # among all contexts
    wider: int | None  # an earlier context of the field that is met wherever this one is
    key: Callable[[Told], object]  # what of the columns it was counted by
    start: str  # the column that its values are counted from, if any
    read: Callable[[Told], object]  # both
    rows: dict[object, int] = field(default_factory=dict)  # of each thing read


class _Field:
    """Rows of one field; the first ones know nothing, one for each context."""

    def __init__(self, name: int):
        self.values = 2 if name == BAR else FIELD_SIZES[name]
        self.contexts: list[_Context] = []
        for number, (spec, start) in enumerate(zip(HABITS[name], RELATIVE[name], strict=True), FIRST_CONTEXT[name]):
            columns = columns_of(spec)
            read = READERS[number] if not start else itemgetter(*columns, start)
            wider = [
                k for k, other in enumerate(HABITS[name][: len(self.contexts)]) if {*columns_of(other)} <= {*columns}
            ]
            self.contexts.append(_Context(number, wider[-1] if wider else None, READERS[number], start, read))
        self.unknown = list(range(len(self.contexts)))
        self.clear()

    def clear(self) -> None:
        for context in self.contexts:
            context.rows.clear()
        self.size = len(self.contexts)
        self.shares = np.zeros((64, self.values), np.float32)
        self.buckets = np.zeros(64, np.int64)
        self.buckets[: self.size] = BUCKETS * np.arange(self.size)

    def add(self, nth: int, key: object, columns: Told, habits: Habits) -> int:
        """Makes the row of what habits counted in the nth context; one that they never met gets none of its own."""
        context = self.contexts[nth]
        counts = habits.counted((context.number, context.key(columns)))
        if not counts:
            return self.unknown[nth]
        row = context.rows[key] = self.size
        if row == len(self.shares):
            self.shares = np.concatenate([self.shares, np.zeros_like(self.shares)])
            self.buckets = np.concatenate([self.buckets, np.zeros_like(self.buckets)])
        self.size += 1
        reference = columns[context.start] if context.start else 0
        value = (np.fromiter(counts.keys(), np.int64, len(counts)) + reference) % SYMBOLS
        times = np.fromiter(counts.values(), np.float32, len(counts))
        possible = value < self.values
        self.shares[row, value[possible]] = times[possible] / times.sum()
        self.buckets[row] = BUCKETS * nth + bucket_of(np.array(times.sum(), np.int64), np.array(len(counts)))
        return row
