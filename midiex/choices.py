"""What a note's next field may be: the network's opinion mixed with the song's habits, for candidates side by side.

The step-by-step twin of what ChunkTransformer.forward does with a whole song's evidence. Knows heads and habits; knows
no grammar and draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .habits import HABITS, STAYS, SYMBOLS, Habits, Told
from .layers import Heads
from .occurrences import bucket_of
from .tokens import BAR, FIELDS, HEAD_ORDER, INSTANCE, PITCH, PROGRAM


@dataclass(frozen=True)
class Choices:
    """What each candidate's next fields may be: the network's opinion mixed with the song's habits (Heads.trust)."""

    heads: Heads
    habits: list[Habits]  # (K) of the song, the chunk's notes so far being the latest
    more: float  # how much more they weigh than they were trained to, in nats

    def log_p(
        self,
        head: int,
        states: tuple[Tensor, ...],
        chosen: Tensor | None,
        told: Sequence[Told],
        bars: np.ndarray | None = None,
    ) -> np.ndarray:
        """Log probabilities (K, n) of the head-th field of HEAD_ORDER. `told` (K): the columns that its habits depend
        on, empty: none; `bars` (K,): for the choice of the next note's bar, those of the notes before it."""
        name = HEAD_ORDER[head]
        features = self.heads.features(head, states, chosen)
        logits = self.heads.out[head](features)  # (K, n)
        seen, kinds, (row, context, value, times) = self._evidence(name, told)
        bucket = torch.from_numpy(bucket_of(seen, kinds))
        level = torch.from_numpy(np.stack([habits.levels(name) for habits in self.habits]))
        trust = self.heads.trust(head, features, bucket, level, self.more).numpy()  # (K, 1 + C)
        share = np.exp(trust[row, 1 + context]) * times / seen[row, context]
        by_habit = np.zeros(logits.shape)
        if name == BAR and bars is not None:
            here = np.arange(logits.shape[1]) == bars[:, None]
            elsewhere = torch.softmax(logits.masked_fill(torch.from_numpy(here), -torch.inf), -1).numpy()
            stays, leaves = (np.bincount(row, share * (value == s), len(here))[:, None] for s in (STAYS, 1 - STAYS))
            by_habit = np.where(here, stays, leaves * elsewhere)
        else:
            possible = value < by_habit.shape[1]
            np.add.at(by_habit, (row[possible], value[possible]), share[possible])
        with np.errstate(divide="ignore"):
            return np.logaddexp(trust[:, :1] + torch.log_softmax(logits, -1).numpy(), np.log(by_habit))

    def _evidence(self, name: int, told: Sequence[Told]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How often each candidate's contexts were seen and with how many values, (K, C) each; and (4, V) of all
        values seen the candidate, the context, the value and how often."""
        seen = np.zeros((len(self.habits), len(HABITS[name])), np.int64)
        kinds = np.zeros_like(seen)
        found: list[tuple[int, int, int, int]] = []
        for k, (habits, columns) in enumerate(zip(self.habits, told, strict=True)):
            for context, (symbols, start) in enumerate(habits.seen(name, columns) if columns else ()):
                if symbols:
                    seen[k, context], kinds[k, context] = sum(symbols.values()), len(symbols)
                    found += [(k, context, (symbol + start) % SYMBOLS, times) for symbol, times in symbols.items()]
        return seen, kinds, np.array(found, np.int64).reshape(-1, 4).T


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
