"""Writes one chunk: several candidates at once, note by note, with cached keys and values and under the grammar.

Knows rows, masks and the network; knows no files and no song beyond what the task says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .chunks import MAX_CHUNK_NOTES
from .config import GenerateConfig
from .constraints import END, Grammar, State
from .layers import HEAD_ORDER
from .model import ChunkTransformer
from .tokens import BAR, FIELD_SIZES, INSTANCE, MICRO_PER_BEAT, MICROS_PER_POSITION, PITCH, POSITION, PROGRAM

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


@dataclass(frozen=True)
class Candidate:
    rows: np.ndarray  # (n, 8)
    nll: float  # nats a note under the model, at temperature 1 and without masks
    finished: bool  # False: it ran into the note limit


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
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)
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
    """`config.candidates` versions of the chunk, sampled side by side."""
    count = config.candidates
    state = State(task.grammar, task.bar_positions, count)
    decoder = Decoder(model, memory, task, count, most_notes)
    heads = model.heads
    rows = np.zeros((count, most_notes, len(FIELD_SIZES)), np.int64)
    lengths = np.zeros(count, np.int64)
    done = np.zeros(count, bool)
    nll = np.zeros(count)
    previous: np.ndarray | None = None
    onset: np.ndarray | None = None
    bar_head, position_head = HEAD_ORDER.index(BAR), HEAD_ORDER.index(POSITION)
    for step in range(most_notes + 1):
        states = decoder.step(previous, onset)
        chosen: Tensor | None = None
        if onset is not None:
            note = np.zeros((count, len(FIELD_SIZES)), np.int64)
            note[:, [BAR, POSITION]] = onset
            for head, field in enumerate(HEAD_ORDER[:bar_head]):
                mask = None
                if field == PROGRAM:
                    mask = state.programs()
                elif field == INSTANCE:
                    mask = state.instances(note[:, PROGRAM])
                elif field == PITCH:
                    mask = state.pitches(note[:, PROGRAM], note[:, INSTANCE])
                logits = heads.logits(head, states, chosen).numpy()
                note[:, field] = pick(logits, _never_empty(mask, done), config, rng)
                nll += np.where(done, 0, negative_log_likelihood(logits, note[:, field]))
                chosen = heads.choose(head, torch.from_numpy(note[:, field]), chosen)
            state.write(note[:, PROGRAM], note[:, INSTANCE], note[:, PITCH])
            rows[~done, lengths[~done]] = note[~done]
            lengths += ~done
            previous = note
        logits = heads.logits(bar_head, states, chosen).numpy()
        bar = pick(logits, _never_empty(state.bars(), done), config, rng)
        nll += np.where(done, 0, negative_log_likelihood(logits, bar))
        done |= bar == END
        if done.all() or step == most_notes:
            break
        bar = np.where(done, 0, bar)
        chosen = heads.choose(bar_head, torch.from_numpy(bar), chosen)
        logits = heads.logits(position_head, states, chosen).numpy()
        position = pick(logits, _never_empty(state.positions(bar), done), config, rng)
        nll += np.where(done, 0, negative_log_likelihood(logits, position))
        state.move(bar, position)
        onset = np.stack([bar, position], 1)
    return [
        Candidate(rows[k, : lengths[k]].astype(np.int32), float(nll[k] / max(1, lengths[k])), bool(done[k]))
        for k in range(count)
    ]


def _never_empty(mask: np.ndarray | None, done: np.ndarray) -> np.ndarray | None:
    """Finished candidates run on unseen beside the others; whatever they pick must only exist."""
    if mask is None:
        return None
    mask[done, 0] = True
    return mask
