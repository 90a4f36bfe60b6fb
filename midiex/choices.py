"""What a note's next field may be: the network's opinion mixed with the song's habits, for candidates side by side.

The step-by-step twin of what ChunkTransformer.forward does with a whole song's evidence; in numpy, since a field is
decided by a few small matrices and torch takes longer to begin each sum than numpy to end it. Knows heads and habits;
knows no grammar and draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .habits import HABITS, LEVELS, STAYS, Habits, Told
from .layers import HEAD_SIZES, TRUST_SCALE, Heads
from .occurrences import BUCKETS
from .recalled import Recalled
from .stepper import numbers
from .tokens import BAR, FIELDS, HEAD_ORDER, INSTANCE, PITCH, PROGRAM

TINY = np.float32(1e-30)  # as likely as what is impossible


class Choices:
    """What each candidate's next fields may be: the network's opinion mixed with the song's habits (Heads.trust)."""

    def __init__(self, heads: Heads, recalled: Recalled, more: float = 0.0):
        """`more`: how much more habits weigh than they were trained to, in nats."""
        self.recalled, self.width = recalled, heads.width
        self.chosen = [numbers(table.weight) for table in heads.chosen]
        self.mix = [numbers(layer.weight).T for layer in heads.mix]
        self.out: list[tuple[np.ndarray, np.ndarray]] = []  # to logits and gates (width, n + 1 + C), and their biases
        self.known: list[np.ndarray] = []  # (C, BUCKETS) what is added to the gates of contexts; -inf: never seen
        for head, name in enumerate(HEAD_ORDER):
            out, gate, contexts = heads.out[head], heads.gate[head], np.arange(len(HABITS[name]))
            weight, bias = (
                np.concatenate([numbers(a), numbers(b)]) for a, b in ((out.weight, gate.weight), (out.bias, gate.bias))
            )
            self.out.append((np.ascontiguousarray(weight.T), bias))
            bucket = numbers(heads.bucket[head].weight).reshape(-1, BUCKETS)
            level = numbers(heads.level[head].weight).reshape(-1, LEVELS)[contexts, recalled.levels[name]]
            known = TRUST_SCALE * (bucket + level[:, None]) + np.float32(more)
            known[:, 0] = -np.inf
            self.known.append(known)

    def log_p(
        self,
        head: int,
        states: np.ndarray,
        chosen: np.ndarray | None,
        told: Sequence[Told],
        bars: np.ndarray | None = None,
    ) -> np.ndarray:
        """Log probabilities (K, n) of the head-th field of HEAD_ORDER; `states` (K, heads * width), `chosen` (K, width)
        sums what is chosen so far. `told` (K): the columns that its habits depend on, empty: none; `bars` (K,): for the
        choice of the next note's bar, those of the notes before it."""
        name, n = HEAD_ORDER[head], HEAD_SIZES[head]
        z = states[:, head * self.width : (head + 1) * self.width]
        if head and chosen is not None:
            z = z + chosen @ self.mix[head - 1]
        weight, bias = self.out[head]
        found = (z / (1 + np.exp(-z))) @ weight + bias  # (K, n + 1 + C)
        own, gate = found[:, :n], found[:, n:]
        share, bucket = self.recalled.find(name, told)
        gate[:, 1:] += self.known[head][np.arange(bucket.shape[1]), bucket]
        trust = _softmax(gate)  # (K, 1 + C)
        by_habit = (trust[:, None, 1:] @ share)[:, 0]  # (K, n), of BAR (K, 2)
        if name == BAR and bars is not None:
            each = np.arange(len(bars))
            elsewhere = own.copy()
            elsewhere[each, bars] = -np.inf
            leaves = by_habit[:, 1 - STAYS, None] * _softmax(elsewhere)
            leaves[each, bars] = by_habit[:, STAYS]
            by_habit = leaves
        p = trust[:, :1] * _softmax(own)
        if by_habit.shape == p.shape:
            p += by_habit
        return np.log(np.maximum(p, TINY))

    def choose(self, head: int, values: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
        """`chosen` with one more field's values (K,) in it."""
        added = self.chosen[head][values]
        return added if chosen is None else chosen + added


def _softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return p


def told_more(habits: list[Habits], told: list[Told], name: int, note: np.ndarray) -> list[Told]:
    """What habits depend on once this field of the notes (K, 8) is chosen too."""
    if name == INSTANCE:
        voices = note[:, [PROGRAM, INSTANCE]].tolist()
        return [
            t and h.of_voice(program, instance, t)
            for h, t, (program, instance) in zip(habits, told, voices, strict=True)
        ]
    if name in (PROGRAM, PITCH):
        return [t and t | {FIELDS[name]: value} for t, value in zip(told, note[:, name].tolist(), strict=True)]
    return told
