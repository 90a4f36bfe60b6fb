"""Writes one chunk: several candidates at once, note by note, with cached keys and values and under the grammar.

Rows that stand already (other tracks', when only some are rewritten) are woven in at their places: the network is fed
every row in canonical order, whoever wrote it. Knows rows, masks and the network; knows no files and no song beyond
what the task says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .chunks import MAX_CHUNK_NOTES
from .config import GenerateConfig
from .constraints import END, Grammar, State
from .layers import HEAD_ORDER
from .model import ChunkTransformer
from .tokens import (
    BAR,
    DURATION,
    FIELD_SIZES,
    INSTANCE,
    MICRO,
    MICRO_PER_BEAT,
    MICROS_PER_POSITION,
    PITCH,
    POSITION,
    PROGRAM,
)

WHICH = (PROGRAM, INSTANCE, PITCH)  # what sorts the notes of one onset, the first of HEAD_ORDER
Memory = list[tuple[Tensor, Tensor]]  # keys and values of each decoder layer, (1, H, M, E)


@dataclass(frozen=True)
class Task:
    """The chunk to be written."""

    bar_positions: np.ndarray  # (bars,) positions in each bar
    beat_starts: np.ndarray  # (bars,) beats since the song's beginning at which each bar starts
    bar_beats: np.ndarray  # (bars,)
    first_bar: int  # bars since the song's beginning
    conditions: np.ndarray  # (11,)
    programs: np.ndarray  # (129,) float32
    grammar: Grammar
    # (m, 8) rows that stand already, in canonical order, bars counted from the chunk's first; of voices that the
    # grammar does not hold
    fixed: np.ndarray = field(default_factory=lambda: np.zeros((0, len(FIELD_SIZES)), np.int32))
    final: np.ndarray | None = None  # (12,) bool, pitch classes of the chord on which the music ends in this chunk


@dataclass(frozen=True)
class Candidate:
    rows: np.ndarray  # (n, 8), the fixed ones included
    nll: float  # nats a free note under the model, at temperature 1 and without masks
    finished: bool  # False: it ran into the note limit


class _Fixed:
    """The fixed rows, and how many of them each candidate has written."""

    def __init__(self, rows: np.ndarray, candidates: int):
        beyond = np.full((1, len(FIELD_SIZES)), END + 1)  # so that there always is a next one; none lies after it
        self.rows = np.concatenate([rows, beyond]).astype(np.int64)  # (m + 1, 8)
        self.written = np.zeros(candidates, np.int64)
        self.voices = np.zeros((len(self.rows), FIELD_SIZES[PROGRAM], FIELD_SIZES[INSTANCE]), bool)
        for i in range(len(rows) - 1, -1, -1):  # of each row and of those after it at its onset
            if (self.rows[i, :2] == self.rows[i + 1, :2]).all():
                self.voices[i] = self.voices[i + 1]
            self.voices[i, self.rows[i, PROGRAM], self.rows[i, INSTANCE]] = True

    def next(self) -> np.ndarray:
        """(K, 8)"""
        return self.rows[self.written]

    def allow(self, mask: np.ndarray, name: int, level: np.ndarray) -> None:
        """Where level (K,), allow in mask (K, n) of a field the next fixed row, and the fixed voices after it there."""
        if name == PROGRAM:
            mask |= level[:, None] & self.voices[self.written].any(2)
        elif name == INSTANCE:
            mask |= level[:, None] & self.voices[self.written, self.next()[:, PROGRAM]]
        else:
            mask[level, self.next()[level, name]] = True


def pick(logits: np.ndarray, mask: np.ndarray | None, config: GenerateConfig, rng: np.random.Generator) -> np.ndarray:
    """One sample a row of logits (K, n), mask True where allowed: temperature, then min-p, then top-p.

    min-p (Nguyen et al., arXiv 2407.01082) drops what is unlikely beside the likeliest choice; top-p (Holtzman et al.,
    arXiv 1904.09751) the tail beyond a total probability.
    """
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    logits = logits / config.temperature
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    if config.min_p > 0:
        p = np.where(p >= config.min_p * p.max(1, keepdims=True), p, 0)
    if config.top_p < 1:
        order = np.argsort(-p, axis=1, kind="stable")
        ranked = np.take_along_axis(p, order, 1)
        before = np.cumsum(ranked, 1) - ranked
        np.put_along_axis(p, order, np.where(before < config.top_p * p.sum(1, keepdims=True), ranked, 0), 1)
    cumulative = np.cumsum(p, 1)
    draw = rng.random(len(p))[:, None] * cumulative[:, -1:]
    choice = (cumulative <= draw).sum(1)
    return np.minimum(choice, p.shape[1] - 1 - (p[:, ::-1] > 0).argmax(1))  # never a dropped choice by rounding


def negative_log_likelihood(logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(K,) nats of the chosen classes under logits (K, n)."""
    top = logits.max(1)
    return top + np.log(np.exp(logits - top[:, None]).sum(1)) - logits[np.arange(len(chosen)), chosen]


class Decoder:
    """The step-by-step twin of ChunkTransformer.forward for K candidates of one chunk."""

    def __init__(self, model: ChunkTransformer, memory: Memory, task: Task, candidates: int, most_notes: int):
        size = model.size
        self.model, self.memory, self.task = model, memory, task
        shape = (size.decoder_layers, candidates, size.n_heads, most_notes + 2, size.head_dim)
        self.keys, self.values = torch.empty(shape), torch.empty(shape)  # read only where a step has written
        condition = model.condition_vector(
            torch.from_numpy(task.conditions)[None], torch.from_numpy(task.programs)[None]
        )
        self.condition = condition.expand(candidates, -1)
        self.at = 0
        start = [float(task.beat_starts[0]), float(task.first_bar)]
        self.key_times = torch.tensor([start] * candidates)  # time of the note a step carries
        self.query_times = self.key_times

    def step(self, previous: np.ndarray | None, onset: np.ndarray | None) -> tuple[Tensor, ...]:
        """Head states after one more step. `previous` (K, 8): the note before the one to be written, None at steps 0
        and 1; `onset` (K, 2): bar and position of the note to be written, None at step 0."""
        model, step = self.model, self.at
        x = self.condition
        x = x + (model.begin.weight[step] if previous is None else model.note_vector(torch.from_numpy(previous)))
        if onset is not None:
            x = x + model.onset_vector(torch.from_numpy(onset))
            if step >= 2:
                self.key_times = self.query_times
            self.query_times = self._times(onset)
        index = torch.full((len(x),), step)
        q_cos, q_sin = model.rotary(self.query_times, index)
        k_cos, k_sin = model.rotary(self.key_times, index)
        self_cos, self_sin = torch.stack([q_cos, k_cos], 1)[:, :, None], torch.stack([q_sin, k_sin], 1)[:, :, None]
        cross_cos, cross_sin = (t[:, None] for t in model.rotary(self.query_times))
        for i, layer in enumerate(model.decoder_layers):
            x = layer.attention.step(x, self.keys[i], self.values[i], step, self_cos, self_sin)
            x = layer.cross.step(x, *self.memory[i], cross_cos, cross_sin)
            x = layer.feed_forward(x)
        self.at += 1
        return model.heads.states(x)

    def _times(self, onset: np.ndarray) -> Tensor:
        bar, beat = onset[:, 0], onset[:, 1] * (MICROS_PER_POSITION / MICRO_PER_BEAT)
        beats = self.task.beat_starts[bar] + beat
        bars = self.task.first_bar + bar + beat / self.task.bar_beats[bar]
        return torch.from_numpy(np.stack([beats, bars], 1).astype(np.float32))


@torch.inference_mode()
def write_chunk(
    model: ChunkTransformer,
    memory: Memory,
    task: Task,
    config: GenerateConfig,
    rng: np.random.Generator,
    most_notes: int = MAX_CHUNK_NOTES,
) -> list[Candidate]:
    """`config.candidates` versions of the chunk, sampled side by side, of at most `most_notes` free notes each.

    The next fixed row is one of the choices, whatever the grammar says of its place and voice, so that free voices need
    not play where the model expects another. It is written when it is chosen and when what is chosen lies beyond it.
    """
    count, longest = config.candidates, most_notes + len(task.fixed)
    state = State(task.grammar, task.bar_positions, count, task.final)
    fixed = _Fixed(task.fixed, count)
    decoder = Decoder(model, memory, task, count, longest)
    heads = model.heads
    rows = np.zeros((count, longest, len(FIELD_SIZES)), np.int64)
    lengths = np.zeros(count, np.int64)
    done, cut_short, is_fixed = (np.zeros(count, bool) for _ in range(3))  # is_fixed: whose next row is a fixed one
    nll = np.zeros(count)
    settled = nll  # without the choices that a fixed row may yet make void
    previous: np.ndarray | None = None
    onset: np.ndarray | None = None
    coming = fixed.next()
    bar_head, position_head = HEAD_ORDER.index(BAR), HEAD_ORDER.index(POSITION)
    for step in range(longest + 1):
        states = decoder.step(previous, onset)
        chosen: Tensor | None = None
        if onset is not None:
            note = np.zeros((count, len(FIELD_SIZES)), np.int64)
            note[:, [BAR, POSITION]] = onset
            level = ~is_fixed & (onset == coming[:, [BAR, POSITION]]).all(1)  # so far the note is the fixed row itself
            for head, name in enumerate(HEAD_ORDER[:bar_head]):
                mask = _mask(state, note, name)
                if mask is not None and level.any():
                    fixed.allow(mask, name, level)
                logits = heads.logits(head, states, chosen).numpy()
                picked = pick(logits, _never_empty(mask, done | is_fixed), config, rng)
                if name in WHICH:
                    is_fixed |= level & (picked > coming[:, name])
                    level &= picked == coming[:, name]
                    if name == WHICH[-1]:
                        is_fixed |= level
                        level[:] = False
                note[:, name] = np.where(is_fixed, coming[:, name], picked)
                nll += np.where(done, 0, negative_log_likelihood(logits, note[:, name]))
                chosen = heads.choose(head, torch.from_numpy(note[:, name]), chosen)
            nll = np.where(is_fixed, settled, nll)
            state.write(note[:, PROGRAM], note[:, INSTANCE], note[:, PITCH])
            rows[~done, lengths[~done]] = note[~done]
            lengths += ~done
            fixed.written += is_fixed
            previous = note
        coming = fixed.next()
        settled = nll.copy()
        logits = heads.logits(bar_head, states, chosen).numpy()
        bar = pick(logits, _never_empty(state.bars(), done), config, rng)  # a later bar leads to the fixed row as well
        nll += np.where(done, 0, negative_log_likelihood(logits, bar))
        done |= (bar == END) & (fixed.written == len(task.fixed))
        if done.all() or step == longest:
            break
        full = ~done & (lengths - fixed.written == most_notes)  # only fixed rows are still to come
        cut_short |= full
        is_fixed = ~done & (full | (bar > coming[:, BAR]))
        bar = np.where(done, 0, np.where(is_fixed, coming[:, BAR], bar))
        chosen = heads.choose(bar_head, torch.from_numpy(bar), chosen)
        logits = heads.logits(position_head, states, chosen).numpy()
        mask = state.positions(bar)
        fixed.allow(mask, POSITION, coming[:, BAR] == bar)
        position = pick(logits, _never_empty(mask, done | is_fixed), config, rng)
        nll += np.where(done, 0, negative_log_likelihood(logits, position))
        is_fixed |= ~done & (bar == coming[:, BAR]) & (position > coming[:, POSITION])
        position = np.where(is_fixed, coming[:, POSITION], position)
        state.move(bar, position)
        onset = np.stack([bar, position], 1)
    nll /= np.maximum(1, lengths - fixed.written)
    return [
        Candidate(rows[k, : lengths[k]].astype(np.int32), float(nll[k]), bool(done[k] and not cut_short[k]))
        for k in range(count)
    ]


def _mask(state: State, note: np.ndarray, name: int) -> np.ndarray | None:
    """What the grammar allows for a field of the notes (K, 8) as far as they are chosen; None: everything."""
    if name == PROGRAM:
        return state.programs()
    if name == INSTANCE:
        return state.instances(note[:, PROGRAM])
    if name == PITCH:
        return state.pitches(note[:, PROGRAM], note[:, INSTANCE])
    if name == DURATION:
        return state.durations(note[:, PROGRAM])
    return state.micros(note[:, PROGRAM]) if name == MICRO else None


def _never_empty(mask: np.ndarray | None, ignored: np.ndarray) -> np.ndarray | None:
    """Some run on unseen beside the others, those that are finished or whose row is fixed; whatever they pick must
    only exist."""
    if mask is None:
        return None
    mask[ignored, 0] = True
    return mask
