"""The decoder one step at a time: what ChunkTransformer.forward does to a whole chunk, for K candidates side by side.

A step's sums are small, so that beginning them costs more than doing them, and numpy begins them at a quarter of
torch's cost. The layers run in ONNX Runtime too, in onnx_stepper.py. Knows rows and the network; knows no masks, no
habits, and draws nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from mmap import mmap
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from .layers import ECHO_FIRSTS, NORM_EPS
from .prepared import once_a_version
from .tokens import FIELD_SIZES, MICRO_PER_BEAT, MICROS_PER_POSITION

if TYPE_CHECKING:
    from .decoding import Task
    from .model import ChunkTransformer

Memory = list[tuple[Tensor, Tensor]]  # keys and values of each decoder layer, (1, H, M, E)
FIRSTS = np.cumsum([0, *FIELD_SIZES[:-1]])  # of each field's rows in a table of all fields
ECHO_ROWS = np.array(ECHO_FIRSTS)


class Angles(NamedTuple):
    """Cosines and sines, each (K, P): of the note a step asks about, of the note it carries, and of the former's time
    without its place in the row."""

    query: tuple[np.ndarray, np.ndarray]
    key: tuple[np.ndarray, np.ndarray]
    cross: tuple[np.ndarray, np.ndarray]


class Stepper(ABC):
    """Steps of one chunk. The subclass keeps what its layers remember of the steps before."""

    def __init__(self, model: ChunkTransformer, task: Task, candidates: int):
        self.model, self.task = model, task
        self.previous = np.concatenate([numbers(table.weight) for table in model.previous])  # (all values, D)
        self.ahead = [numbers(table.weight) for table in model.ahead]
        self.begin = numbers(model.begin.weight)
        self.echo = numbers(model.echoes.table.weight)
        self.turns = numbers(model.rotary.matrix)  # (3, P)
        voices = None if task.voices is None else torch.from_numpy(task.voices)[None]
        told = model.condition_vector(
            torch.from_numpy(task.conditions)[None], torch.from_numpy(task.programs)[None], voices
        )
        self.condition = np.repeat(numbers(told), candidates, 0)  # (K, D)
        self.at = 0
        start = np.array([task.beat_starts[0], task.first_bar], np.float32)
        self.key_times = self.query_times = np.repeat(start[None], len(self.condition), 0)  # (K, 2) beats and bars

    def step(
        self, previous: np.ndarray | None, onset: np.ndarray | None, echoes: np.ndarray, again: bool = False
    ) -> np.ndarray:
        """Head states (K, heads * width) after one more step. `previous` (K, 8): the note before the one to be written,
        None at steps 0 and 1; `onset` (K, 2): bar and position of the note to be written, None at step 0; `echoes` (K,
        ECHOES, 8): the earlier notes it may echo. With `again` the step before is taken anew, with another onset."""
        self.at -= again
        x = self.condition + (
            self.begin[self.at] if previous is None else np.add.reduce(self.previous.take(previous + FIRSTS, 0), 1)
        )
        if onset is not None:
            x += self.ahead[0].take(onset[:, 0], 0) + self.ahead[1].take(onset[:, 1], 0)
            if self.at >= 2 and not again:
                self.key_times = self.query_times
            self.query_times = self._times(onset)
        heard = np.add.reduce(self.echo.take(echoes + ECHO_ROWS, 0), 2).reshape(len(x), -1)  # (K, ECHOES * ECHO_WIDTH)
        place = np.float32(self.at) * self.turns[2]
        cross, key = self.query_times @ self.turns[:2], self.key_times @ self.turns[:2] + place
        states = self._layers(x, heard, Angles(_turn(cross + place), _turn(key), _turn(cross)))
        self.at += 1
        return states

    @abstractmethod
    def _layers(self, x: np.ndarray, heard: np.ndarray, angles: Angles) -> np.ndarray:
        """x (K, D) without echoes, which are `heard` (K, ECHOES * ECHO_WIDTH) -> states (K, heads * width)."""

    def _times(self, onset: np.ndarray) -> np.ndarray:
        bar, beat = onset[:, 0], onset[:, 1] * (MICROS_PER_POSITION / MICRO_PER_BEAT)
        beats = self.task.beat_starts[bar] + beat
        bars = self.task.first_bar + bar + beat / self.task.bar_beats[bar]
        return np.stack([beats, bars], 1).astype(np.float32)


class TorchStepper(Stepper):
    """The layers in float32: torch multiplies matrices, and numpy does the rest. Keys and values of earlier steps lie
    in arrays of the chunk's greatest length."""

    def __init__(self, model: ChunkTransformer, memory: Memory, task: Task, candidates: int, longest: int):
        super().__init__(model, task, candidates)
        size = model.size
        self.weights = _weights(model)
        self.heads = candidates, size.n_heads, size.head_dim
        self.memory = [(keys[0].transpose(1, 2).contiguous(), values[0].contiguous()) for keys, values in memory]
        shape = (size.decoder_layers, candidates, size.n_heads, longest + 2, size.head_dim)
        self.keys, self.values = room(shape), room(shape)  # read only where a step has written

    def _layers(self, x: np.ndarray, heard: np.ndarray, angles: Angles) -> np.ndarray:
        cos, sin = (
            np.stack(both, 1)[:, :, None] for both in zip(angles.query, angles.key, strict=True)
        )  # (K, 2, 1, P)
        cross = tuple(part[:, None] for part in angles.cross)  # (K, 1, P)
        until, weights = self.at + 1, self.weights
        x = x + _times(heard, weights.heard)
        for i, layer in enumerate(weights.layers):
            qkv = _times(_normed(x), layer.qkv).reshape(len(x), 3, *self.heads[1:])
            _rotate(qkv[:, :2], cos, sin)
            self.keys[i, :, :, self.at], self.values[i, :, :, self.at] = qkv[:, 1], qkv[:, 2]
            odds = np.matmul(qkv[:, 0, :, None], self.keys[i, :, :, :until].swapaxes(2, 3))  # (K, H, 1, T)
            odds -= np.maximum.reduce(odds, 3, keepdims=True)
            np.exp(odds, odds)
            y = np.matmul(odds, self.values[i, :, :, :until]) / np.add.reduce(odds, 3, keepdims=True)
            x = x + _normed(_times(y.reshape(x.shape), layer.out)) * layer.out_gain
            q = _times(_normed(x), layer.q).reshape(self.heads)
            _rotate(q, *cross)
            keys, values = self.memory[i]
            rows = torch.from_numpy(q).transpose(0, 1)  # (H, K, E): the memory is the same for all candidates
            y = torch.bmm(torch.softmax(torch.bmm(rows, keys), -1), values).transpose(0, 1).reshape(x.shape).numpy()
            x = x + _normed(_times(y, layer.cross_out)) * layer.cross_gain
            gate, value = np.split(_times(_normed(x), layer.inner), 2, 1)
            x = x + _normed(_times(gate / (1 + np.exp(-gate)) * value, layer.forward_out)) * layer.forward_gain
        return _times(_normed(x), weights.state)


@dataclass(frozen=True)
class _Layer:
    """A decoder layer's matrices (inputs, outputs), with what comes before and after them multiplied in: the gains of
    norms and the scale of attention. Gains (D,) are those of what leaves a branch."""

    qkv: Tensor
    out: Tensor
    out_gain: np.ndarray
    q: Tensor
    cross_out: Tensor
    cross_gain: np.ndarray
    inner: Tensor
    forward_out: Tensor
    forward_gain: np.ndarray


@dataclass(frozen=True)
class _Weights:
    heard: Tensor
    layers: list[_Layer]
    state: Tensor


@once_a_version
def _weights(model: ChunkTransformer) -> _Weights:
    scale, width = model.size.head_dim**-0.5, model.size.d_model
    layers = []
    for layer in model.decoder_layers:
        attention, cross, forward = layer.attention, layer.cross, layer.feed_forward
        qkv = _after(attention.norm, attention.qkv)
        qkv[:, :width] *= scale
        layers.append(
            _Layer(
                qkv,
                _plain(attention.out),
                numbers(attention.out_norm.weight),
                scale * _after(cross.norm, cross.q),
                _plain(cross.out),
                numbers(cross.out_norm.weight),
                _after(forward.norm, forward.inner),
                _plain(forward.out),
                numbers(forward.out_norm.weight),
            )  # fmt: skip
        )
    return _Weights(_plain(model.echoes.out), layers, _after(model.heads.norm, model.heads.state))


def _plain(matrix: nn.Linear) -> Tensor:
    """(inputs, outputs)"""
    return matrix.weight.detach().float().T.contiguous()


def _after(norm: nn.RMSNorm, matrix: nn.Linear) -> Tensor:
    """(inputs, outputs), with the gains of the norm before it."""
    return (matrix.weight.detach().float() * norm.weight.detach()).T.contiguous()


def _times(x: np.ndarray, matrix: Tensor) -> np.ndarray:
    return torch.mm(torch.from_numpy(x), matrix).numpy()


def _normed(x: np.ndarray) -> np.ndarray:
    """x (K, D) with a mean square of 1."""
    return x / np.sqrt(np.add.reduce(x * x, 1, keepdims=True) / np.float32(x.shape[1]) + np.float32(NORM_EPS))


def _rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
    """`layers.rotate` in place."""
    pairs = cos.shape[-1]
    a, b = x[..., :pairs], x[..., pairs : 2 * pairs]
    turned = a * cos - b * sin
    x[..., pairs : 2 * pairs] = a * sin + b * cos
    x[..., :pairs] = turned


def room(shape: tuple[int, ...]) -> np.ndarray:
    """A float32 array in pages of its own, which go back when it does: megabytes taken from the heap for every chunk
    and given back would break it up, so that it grew with the length of the music."""
    return np.frombuffer(mmap(-1, 4 * math.prod(shape)), np.float32).reshape(shape)


def numbers(tensor: Tensor | nn.Module) -> np.ndarray:
    """A tensor's values as float32, without copying them where they are that."""
    return cast(Tensor, tensor).detach().float().numpy()  # a ModuleList's members are typed as modules


def _turn(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(angles), np.sin(angles)
