"""The rivals one step at a time, K candidates of a chunk side by side, after what a past (pasts.py) keeps.

The twins of networks.py, as midiex/stepper.py is of ChunkTransformer: numpy does what is small, torch multiplies
matrices, all in float32. Letters of shapes as in midiex/model.py, and L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from midiex.decoding import Task
from midiex.model import NoteModel
from midiex.prepared import once_a_version
from midiex.stepper import Angles, Stepper, _after, _normed, _plain, _rotate, _times, numbers, room

from .networks import LAYERS, DecoderOnly, Gru, Lstm, LstmAttention
from .recurrence import _weights as _of_layer

if TYPE_CHECKING:
    from .pasts import AttentionPast, DecoderPast, GruPast, LstmPast, RunningPast


# ---- an encoder and a decoder ----------------------------------------------------------------------------------------


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
    """Its outputs look at the encoder's."""

    past: AttentionPast

    def _project(self, written: np.ndarray) -> np.ndarray:
        query, memory = torch.from_numpy(written) @ self.weights.score, self.past.memory
        found = (torch.softmax(query @ memory.T, 1) @ memory).numpy()
        return np.tanh(_times(np.concatenate([found, written], 1), self.weights.out))


# ---- the running song ------------------------------------------------------------------------------------------------


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
