"""What a note's next field may be: the network's opinion mixed with the song's habits and with what an aligned source
says, for candidates side by side.

The step-by-step twin of what ChunkTransformer.forward does with a whole song's evidence; in numpy, since a field is
decided by a few small matrices and torch takes longer to begin each sum than numpy to end it. Knows heads and habits;
knows no grammar and draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .aligned import NO_VALUE, NOTHING_SAID, Says
from .habits import HABITS, LEVELS, STAYS, Habits, Told
from .layers import HEAD_SIZES, TRUST_SCALE, Heads, opinions_of
from .occurrences import BUCKETS
from .prepared import once_a_version
from .recalled import Recalled
from .stepper import numbers
from .tokens import BAR, HEAD_ORDER, INSTANCE, PITCH, PROGRAM

TINY = np.float32(1e-30)  # as likely as what is impossible


class Choices:
    """What each candidate's next fields may be: the network's opinion mixed with the song's habits and with an aligned
    source's (Heads.trust).

    Head states (K, heads * width) hold what each head decides from; what is chosen is added to those of the heads after
    it (`after`), so that a field costs one matrix.
    """

    def __init__(self, heads: Heads, recalled: Recalled, more: float = 0.0, more_aligned: float = 0.0):
        """`more`: how much more habits weigh than they were trained to, in nats; `more_aligned`: a source."""
        self.recalled, self.width = recalled, heads.width
        self.tables = _tables(heads)
        self.known: list[np.ndarray] = []  # (C * BUCKETS) what is added to the gates of contexts; -inf: never seen
        self.of_source: list[np.ndarray] = []  # (BUCKETS) the same of a source; -inf: it says nothing
        for table, name in zip(self.tables, HEAD_ORDER, strict=True):
            known = table.known[np.arange(len(HABITS[name])), recalled.levels[name]] + np.float32(more)  # (C, BUCKETS)
            known[:, 0] = -np.inf
            self.known.append(known.ravel())
            of_source = table.known[len(HABITS[name]), 0] + np.float32(more_aligned)
            of_source[0] = -np.inf
            self.of_source.append(of_source)

    def p(
        self,
        head: int,
        states: np.ndarray,
        told: Sequence[Told],
        bars: np.ndarray | None = None,
        said: Sequence[Says] | None = None,
    ) -> np.ndarray:
        """Probabilities (K, n) of the head-th field of HEAD_ORDER. `told` (K): the columns that its habits depend on,
        empty: none; `bars` (K,): for the choice of the next note's bar, those of the notes before it; `said` (K): what
        an aligned source says, None: there is none."""
        table, name, n = self.tables[head], HEAD_ORDER[head], HEAD_SIZES[head]
        z = states[:, head * self.width : (head + 1) * self.width]
        found = (z / (1 + np.exp(-z))) @ table.out  # (K, n + 1 + C), the source's the last of C
        found += table.bias
        own, trust = found[:, :n], found[:, n:]
        share, bucket = self.recalled.find(name, told)
        trust[:, 1:-1] += self.known[head].take(bucket)
        if said is None:
            trust[:, -1] = -np.inf
        else:
            value, of_source = np.array([s or NOTHING_SAID for s in said]).T
            trust[:, -1] += self.of_source[head].take(of_source)
        leaves = _elsewhere(own, bars) if name == BAR and bars is not None else None
        own -= np.maximum.reduce(own, 1, keepdims=True)
        trust -= np.maximum.reduce(trust, 1, keepdims=True)
        np.exp(found, found)  # of both at once
        trust /= np.add.reduce(trust, 1, keepdims=True)
        own *= trust[:, :1] / np.add.reduce(own, 1, keepdims=True)
        by_habit = np.matmul(trust[:, None, 1:-1], share)[:, 0]  # (K, n), of BAR (K, 2)
        if said is not None:
            which = np.flatnonzero(value != NO_VALUE)
            by_habit[which, value[which]] += trust[which, -1]
        if name != BAR:
            own += by_habit
        elif leaves is not None:
            own += by_habit[:, 1 - STAYS, None] * leaves
            own[np.arange(len(own)), bars] += by_habit[:, STAYS]
        return np.maximum(own, TINY)

    def after(self, head: int, values: np.ndarray, states: np.ndarray) -> np.ndarray:
        """The states (K, heads * width) once the head-th field's values (K,) are chosen."""
        added = self.tables[head].added
        return states if added is None else states + added.take(values, 0)


@dataclass(frozen=True)
class _Table:
    """One head's weights as its field is decided with them."""

    out: np.ndarray  # (width, n + 1 + C) to logits, and to the gates of the network, of contexts and of a source
    bias: np.ndarray  # (n + 1 + C,)
    known: np.ndarray  # (C, LEVELS, BUCKETS) what a context's gate gains by how right and how often it was
    added: np.ndarray | None  # (n, heads * width) what a value adds to the states; None: nothing is decided after it


@once_a_version
def _tables(heads: Heads) -> list[_Table]:
    tables = []
    for head, name in enumerate(HEAD_ORDER):
        out, gate, contexts = heads.out[head], heads.gate[head], opinions_of(name)
        weight, bias = (
            np.concatenate([numbers(a), numbers(b)]) for a, b in ((out.weight, gate.weight), (out.bias, gate.bias))
        )
        bucket = numbers(heads.bucket[head].weight).reshape(contexts, 1, BUCKETS)
        level = numbers(heads.level[head].weight).reshape(contexts, LEVELS, 1)
        added = None
        if head < len(heads.chosen):
            value = numbers(heads.chosen[head].weight)  # (n, width)
            later = [value @ numbers(layer.weight).T for layer in list(heads.mix)[head:]]
            added = np.concatenate([np.zeros((len(value), (1 + head) * heads.width), np.float32), *later], 1)
        tables.append(_Table(np.ascontiguousarray(weight.T), bias, TRUST_SCALE * (bucket + level), added))
    return tables


def _elsewhere(logits: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """Where the next note lies by these logits (K, n) if it is not in the bar of the one before."""
    logits = logits.copy()
    logits[np.arange(len(bars)), bars] = -np.inf
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def told_more(habits: list[Habits], told: list[Told], name: int, note: np.ndarray) -> list[Told]:
    """What habits depend on once this field of the notes (K, 8) is chosen too; what was told before may be used up."""
    if name == INSTANCE:
        voices = note[:, [PROGRAM, INSTANCE]].tolist()
        return [
            t and h.of_voice(program, instance, t)
            for h, t, (program, instance) in zip(habits, told, voices, strict=True)
        ]
    if name in (PROGRAM, PITCH):
        column = "program" if name == PROGRAM else "pitch"
        for t, value in zip(told, note[:, name].tolist(), strict=True):
            if t:
                t[column] = value
    return told
