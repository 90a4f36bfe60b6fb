"""What each rival keeps of all music before a chunk, and its steps while it writes one, K candidates side by side.

The twins of networks.py, as midiex/stepper.py is of ChunkTransformer: numpy does what is small, torch multiplies
matrices, all in float32. A past reads every finished chunk, by the network's own layers and as training reads a target
of a window; it is what `write_chunk` takes for a memory. Letters of shapes as in midiex/model.py, and L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midiex.dataset import WINDOW_NOTES
from midiex.decoding import Task, stepper_for
from midiex.layers import rotate
from midiex.model import Batch, ChunkTransformer, NoteModel, Steps
from midiex.prepared import once_a_version
from midiex.stepper import Angles, Stepper, _normed, _rotate, _times, numbers, room

from .networks import LAYERS, DecoderOnly, Gru, Lstm, LstmAttention
from .recurrence import _weights as _of_layer
from .recurrence import run_gru, run_lstm


@torch.inference_mode()
def past_of(model: NoteModel) -> LstmPast | RunningPast:
    """What a rival keeps when it has not heard anything yet."""
    pasts = {Lstm: LstmPast, LstmAttention: AttentionPast, Gru: GruPast, DecoderOnly: DecoderPast}
    return pasts[type(model)](model)


def any_stepper(engine: str, model: NoteModel, memory: Any, task: Task, candidates: int, longest: int) -> Stepper:
    """`write_chunk`'s `steppers` for all networks: a rival's `memory` is its past, and only ours has an `engine`."""
    if isinstance(model, ChunkTransformer):
        return stepper_for(engine, model, memory, task, candidates, longest)
    return memory.stepper(task, candidates, longest)


# ---- an encoder and a decoder ----------------------------------------------------------------------------------------


class LstmPast:
    """The encoder's state after all notes."""

    def __init__(self, model: Lstm):
        self.model, self.state = model, model.start[:, :, None]  # (2, L, 1, hidden)

    def read(self, batch: Batch) -> None:
        """One more chunk, finished, which is a `batch` by itself."""
        if len(batch.rows):
            self._outputs(batch.rows)

    def _outputs(self, rows: Tensor) -> Tensor:
        """The encoder's (n, hidden) of the next rows (n, 8)."""
        notes = self.model.encoder_norm(sum(table(rows[:, f]) for f, table in enumerate(self.model.fields)))
        outputs, self.state = run_lstm(self.model.encoder, notes[None], torch.tensor([len(rows)]), self.state)
        return outputs[0]

    def stepper(self, task: Task, candidates: int, longest: int) -> Stepper:
        return LstmStepper(self, task, candidates)


class AttentionPast(LstmPast):
    """And its outputs of as many notes as a window of training has; older ones are forgotten."""

    def __init__(self, model: LstmAttention):
        super().__init__(model)
        self.memory = model.memory_norm(model.start[0, -1:])  # (1 + M, hidden), the start before the notes

    def read(self, batch: Batch) -> None:
        if len(batch.rows):
            heard = torch.cat([self.memory[1:], self.model.memory_norm(self._outputs(batch.rows))])
            self.memory = torch.cat([self.memory[:1], heard[-WINDOW_NOTES:]])

    def stepper(self, task: Task, candidates: int, longest: int) -> Stepper:
        return AttentionStepper(self, task, candidates)


class LstmStepper(Stepper):
    """The decoder LSTM. States before and after the latest step lie side by side, so that it can be taken again."""

    def __init__(self, past: LstmPast, task: Task, candidates: int):
        super().__init__(past.model, task, candidates)
        self.past, self.weights = past, _lstm(past.model)
        start = numbers(past.state)  # (2, L, 1, hidden)
        self.states = np.repeat(np.stack([start, start]), candidates, 3)

    def _layers(self, x: np.ndarray, heard: np.ndarray, angles: Angles) -> np.ndarray:
        weights = self.weights
        before, after = self.states[self.at % 2], self.states[1 - self.at % 2]
        x = x + _times(heard, weights.heard)
        y = _normed(x)
        for layer, (matrix, bias) in enumerate(weights.layers):
            told = _sums(np.concatenate([y, before[0, layer]], 1), matrix, bias)
            enter, stay, new, leave = np.split(np.tanh(told, told), 4, 1)
            cell = (0.5 + 0.5 * stay) * before[1, layer] + (0.5 + 0.5 * enter) * new
            y = (0.5 + 0.5 * leave) * np.tanh(cell)
            after[0, layer], after[1, layer] = y, cell
        return _times(_normed(x + self._project(_normed(y))), weights.state)

    def _project(self, written: np.ndarray) -> np.ndarray:
        """`Lstm.project`, (K, hidden) -> (K, D); gains of norms are in the matrices."""
        return _times(written, self.weights.out)


class AttentionStepper(LstmStepper):
    def _project(self, written: np.ndarray) -> np.ndarray:
        query, memory = torch.from_numpy(written) @ self.weights.score, self.past.memory
        found = (torch.softmax(query @ memory.T, 1) @ memory).numpy()
        return np.tanh(_times(np.concatenate([found, written], 1), self.weights.out))


# ---- the running song ------------------------------------------------------------------------------------------------


class RunningPast:
    """The last note, if the latest chunk has any, which the next chunk's first step carries; and the trunk's own."""

    def __init__(self, model: NoteModel):
        self.model = model
        self.carried, self.carried_at = torch.zeros(model.size.d_model), torch.zeros(0, 2)  # (D,), (0 or 1, 2) its time

    def read(self, batch: Batch) -> None:
        """One more chunk, finished, which is a `batch` by itself."""
        steps = Steps.build(batch)
        x = self.model._embed_steps(steps, batch)
        x[0] += self.carried
        steps.key_times[: len(self.carried_at)] = self.carried_at
        self._advance(x, steps)
        self.carried, self.carried_at = self.model.note_vector(batch.rows[-1:]).sum(0), batch.times[-1:]

    def _advance(self, x: Tensor, steps: Steps) -> None:
        """Reads the chunk's steps x (n, D)."""
        raise NotImplementedError

    def stepper(self, task: Task, candidates: int, longest: int) -> Stepper:
        raise NotImplementedError


class GruPast(RunningPast):
    """The state after all steps."""

    def __init__(self, model: Gru):
        super().__init__(model)
        self.state = model.start[:, None]  # (L, 1, hidden)

    def _advance(self, x: Tensor, steps: Steps) -> None:
        _, self.state = run_gru(self.model.gru, self.model.norm(x)[:, None], self.state)

    def stepper(self, task: Task, candidates: int, longest: int) -> Stepper:
        return GruStepper(self, task, candidates)


class DecoderPast(RunningPast):
    """Keys and values of as many steps as a window of training has notes; older ones are forgotten. Keys are turned as
    if the next step were a sequence's first: only differences count."""

    def __init__(self, model: DecoderOnly):
        super().__init__(model)
        size = model.size
        self.keys = self.values = torch.zeros(size.decoder_layers, size.n_heads, 0, size.head_dim)  # (L, H, M, E)

    def _advance(self, x: Tensor, steps: Steps) -> None:
        rotary, place = self.model.rotary, steps.packing.row
        both = (rotary(times, place) for times in (steps.query_times, steps.key_times))
        cos, sin = (torch.stack(parts, 1)[:, :, None] for parts in zip(*both, strict=True))  # (n, 2, 1, P)
        known = self.keys.shape[2]
        mask = torch.ones(len(x), known + len(x), dtype=torch.bool).tril(known)
        kept = []
        for layer, *old in zip(self.model.decoder, self.keys, self.values, strict=True):
            query, *new = layer.attention.project(x, cos, sin).permute(1, 2, 0, 3)  # each (H, n, E)
            keys, values = (torch.cat(parts, 1) for parts in zip(old, new, strict=True))
            kept.append((keys[:, -WINDOW_NOTES:], values[:, -WINDOW_NOTES:]))
            y = F.scaled_dot_product_attention(query, keys, values, mask).transpose(0, 1).flatten(1)
            x = layer.feed_forward(x + layer.attention.out_norm(layer.attention.out(y)))
        back = rotary(torch.zeros(1, 2), torch.tensor([-len(x)]))
        keys, values = (torch.stack(parts) for parts in zip(*kept, strict=True))
        self.keys, self.values = rotate(keys, *back), values

    def stepper(self, task: Task, candidates: int, longest: int) -> Stepper:
        return DecoderStepper(self, task, candidates, longest)


class RunningStepper(Stepper):
    """Steps of a network of the running song."""

    def __init__(self, past: RunningPast, task: Task, candidates: int):
        super().__init__(past.model, task, candidates)
        self.begin = self.begin + np.stack([numbers(past.carried), np.zeros_like(self.begin[0])])
        self.start_times = self.key_times
        if len(past.carried_at):
            self.key_times = np.repeat(numbers(past.carried_at), candidates, 0)

    def step(
        self, previous: np.ndarray | None, onset: np.ndarray | None, echoes: np.ndarray, again: bool = False
    ) -> np.ndarray:
        if previous is None and onset is not None:  # the second step, which carries no note
            self.key_times = self.start_times
        return super().step(previous, onset, echoes, again)


class GruStepper(RunningStepper):
    """States before and after the latest step lie side by side, so that it can be taken again."""

    def __init__(self, past: GruPast, task: Task, candidates: int):
        super().__init__(past, task, candidates)
        self.weights = _gru(past.model)
        start = numbers(past.state)  # (L, 1, hidden)
        self.states = np.repeat(np.stack([start, start]), candidates, 2)

    def _layers(self, x: np.ndarray, heard: np.ndarray, angles: Angles) -> np.ndarray:
        before, after = self.states[self.at % 2], self.states[1 - self.at % 2]
        x = x + _times(heard, self.weights.heard)
        y, turns = _normed(x), 2 * before.shape[2]
        for layer, (outer, outer_bias, inner, bias) in enumerate(self.weights.layers):
            told, own = _sums(y, outer, outer_bias), _sums(before[layer], inner, bias)
            reset, update = np.split(0.5 + 0.5 * np.tanh(told[:, :turns] + own[:, :turns]), 2, 1)
            new = np.tanh(told[:, turns:] + reset * own[:, turns:])
            y = after[layer] = new + update * (before[layer] - new)
        return _times(_normed(x + _times(_normed(y), self.weights.out)), self.weights.state)


class DecoderStepper(RunningStepper):
    """Keys and values of the chunk's own steps lie in arrays of its greatest length, beside those that are kept."""

    def __init__(self, past: DecoderPast, task: Task, candidates: int, longest: int):
        super().__init__(past, task, candidates)
        size = past.model.size
        self.weights = _decoder(past.model)
        self.heads = candidates, size.n_heads, size.head_dim
        self.known = past.keys.shape[2]
        self.kept = list(zip(past.keys.transpose(2, 3).contiguous(), past.values, strict=True))
        shape = (size.decoder_layers, candidates, size.n_heads, longest + 2, size.head_dim)
        self.keys, self.values = room(shape), room(shape)  # read only where a step has written

    def _layers(self, x: np.ndarray, heard: np.ndarray, angles: Angles) -> np.ndarray:
        cos, sin = (np.stack(both, 1)[:, :, None] for both in zip(angles.query, angles.key, strict=True))
        until, weights = self.at + 1, self.weights
        x = x + _times(heard, weights.heard)
        for i, layer in enumerate(weights.layers):
            qkv = _times(_normed(x), layer.qkv).reshape(len(x), 3, *self.heads[1:])
            _rotate(qkv[:, :2], cos, sin)
            self.keys[i, :, :, self.at], self.values[i, :, :, self.at] = qkv[:, 1], qkv[:, 2]
            query = torch.from_numpy(qkv[:, 0]).transpose(0, 1)  # (H, K, E): what is kept is the same for all
            keys, values = self.kept[i]
            of_kept = torch.bmm(query, keys).transpose(0, 1).numpy()  # (K, H, M)
            of_own = np.matmul(qkv[:, 0, :, None], self.keys[i, :, :, :until].swapaxes(2, 3))[:, :, 0]  # (K, H, T)
            odds = np.concatenate([of_kept, of_own], 2)
            odds -= np.maximum.reduce(odds, 2, keepdims=True)
            np.exp(odds, odds)
            odds /= np.add.reduce(odds, 2, keepdims=True)
            on_kept = torch.from_numpy(odds[:, :, : self.known]).transpose(0, 1)
            y = torch.bmm(on_kept, values).transpose(0, 1).numpy()
            y = y + np.matmul(odds[:, :, None, self.known :], self.values[i, :, :, :until])[:, :, 0]
            x = x + _normed(_times(y.reshape(x.shape), layer.out)) * layer.out_gain
            gate, value = np.split(_times(_normed(x), layer.inner), 2, 1)
            x = x + _normed(_times(gate / (1 + np.exp(-gate)) * value, layer.forward_out)) * layer.forward_gain
        return _times(_normed(x), weights.state)


# ---- weights ---------------------------------------------------------------------------------------------------------
# Matrices are (inputs, outputs), with the gains of norms and the scale of attention multiplied in. What a gate's
# sigmoid is of is halved, which makes it 0.5 + 0.5 tanh.


@dataclass(frozen=True)
class _Weights:
    heard: Tensor
    layers: list[Any]
    state: Tensor
    out: Tensor | None = None
    score: Tensor | None = None


@dataclass(frozen=True)
class _DecoderLayer:
    qkv: Tensor
    out: Tensor
    out_gain: np.ndarray
    inner: Tensor
    forward_out: Tensor
    forward_gain: np.ndarray


def _sums(x: np.ndarray, matrix: Tensor, bias: Tensor) -> np.ndarray:
    return torch.addmm(bias, torch.from_numpy(x), matrix).numpy()


def _plain(matrix: nn.Linear) -> Tensor:
    return matrix.weight.detach().float().T.contiguous()


def _after(norm: nn.RMSNorm, matrix: nn.Linear) -> Tensor:
    return (matrix.weight.detach().float() * norm.weight.detach()).T.contiguous()


def _ends(model: NoteModel) -> dict[str, Tensor]:
    return {"heard": _plain(model.echoes.out), "state": _after(model.heads.norm, model.heads.state)}


@once_a_version
def _lstm(model: Lstm) -> _Weights:
    halved = torch.tensor([0.5, 0.5, 1.0, 0.5]).repeat_interleave(model.decoder.hidden_size)
    layers = []
    for layer in range(LAYERS):
        inner, outer, *biases = (weight.detach() for weight in _of_layer(model.decoder, layer))
        outer = outer * model.decoder_norm.weight.detach() if layer == 0 else outer
        layers.append(((torch.cat([outer, inner], 1).T * halved).contiguous(), sum(biases) * halved))
    if not isinstance(model, LstmAttention):
        return _Weights(layers=layers, out=_after(model.out_norm, model.out), **_ends(model))
    combine, gain = _plain(model.combine), model.out_norm.weight.detach()
    combine[len(gain) :] *= gain[:, None]
    score = _after(model.out_norm, model.score) * len(gain) ** -0.5
    return _Weights(layers=layers, out=combine, score=score, **_ends(model))


@once_a_version
def _gru(model: Gru) -> _Weights:
    halved = torch.tensor([0.5, 0.5, 1.0]).repeat_interleave(model.gru.hidden_size)
    layers = []
    for layer in range(LAYERS):
        inner, outer, bias, outer_bias = (weight.detach() for weight in _of_layer(model.gru, layer))
        outer = outer * model.norm.weight.detach() if layer == 0 else outer
        layers.append(((outer.T * halved).contiguous(), outer_bias * halved,
                       (inner.T * halved).contiguous(), bias * halved))  # fmt: skip
    return _Weights(layers=layers, out=_after(model.out_norm, model.out), **_ends(model))


@once_a_version
def _decoder(model: DecoderOnly) -> _Weights:
    layers = []
    for layer in model.decoder:
        attention, forward = layer.attention, layer.feed_forward
        qkv = _after(attention.norm, attention.qkv)
        qkv[:, : model.size.d_model] *= model.size.head_dim**-0.5
        layers.append(
            _DecoderLayer(
                qkv, _plain(attention.out), numbers(attention.out_norm.weight), _after(forward.norm, forward.inner),
                _plain(forward.out), numbers(forward.out_norm.weight),
            )
        )  # fmt: skip
    return _Weights(layers=layers, **_ends(model))
