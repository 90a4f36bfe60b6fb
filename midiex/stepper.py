"""The decoder one step at a time: what ChunkTransformer.forward does to a whole chunk, for K candidates side by side.

What leads into the layers (embeddings, angles) is small and runs in numpy, whose calls cost a quarter of torch's; the
layers run in torch here, and in ONNX Runtime in onnx_stepper.py. Knows rows and the network; knows no masks, no habits,
and draws nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from .layers import ECHO_FIRSTS
from .tokens import FIELD_SIZES, MICRO_PER_BEAT, MICROS_PER_POSITION

if TYPE_CHECKING:
    from .decoding import Task
    from .model import ChunkTransformer

Memory = list[tuple[Tensor, Tensor]]  # keys and values of each decoder layer, (1, H, M, E)
FIRSTS = np.cumsum([0, *FIELD_SIZES[:-1]])  # of each field's rows in a table of all fields


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
        told = model.condition_vector(torch.from_numpy(task.conditions)[None], torch.from_numpy(task.programs)[None])
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
        x = self.condition + (self.begin[self.at] if previous is None else self.previous[previous + FIRSTS].sum(1))
        if onset is not None:
            x += self.ahead[0][onset[:, 0]] + self.ahead[1][onset[:, 1]]
            if self.at >= 2 and not again:
                self.key_times = self.query_times
            self.query_times = self._times(onset)
        heard = self.echo[echoes + ECHO_FIRSTS].sum(2).reshape(len(x), -1)  # (K, ECHOES * ECHO_WIDTH)
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
    """The layers in torch, with keys and values of earlier steps in tensors of the chunk's greatest length."""

    def __init__(self, model: ChunkTransformer, memory: Memory, task: Task, candidates: int, longest: int):
        super().__init__(model, task, candidates)
        self.memory = memory
        size = model.size
        shape = (size.decoder_layers, candidates, size.n_heads, longest + 2, size.head_dim)
        self.keys, self.values = torch.empty(shape), torch.empty(shape)  # read only where a step has written

    def _layers(self, x: np.ndarray, heard: np.ndarray, angles: Angles) -> np.ndarray:
        model = self.model
        cos, sin = (
            torch.from_numpy(np.stack(both, 1)[:, :, None]) for both in zip(angles.query, angles.key, strict=True)
        )  # (K, 2, 1, P)
        cross_cos, cross_sin = (torch.from_numpy(part[:, None]) for part in angles.cross)
        stream = torch.from_numpy(x) + model.echoes.out(torch.from_numpy(heard))
        for i, layer in enumerate(model.decoder_layers):
            stream = layer.attention.step(stream, self.keys[i], self.values[i], self.at, cos, sin)
            stream = layer.cross.step(stream, *self.memory[i], cross_cos, cross_sin)
            stream = layer.feed_forward(stream)
        return numbers(model.heads.state(model.heads.norm(stream)))


def numbers(tensor: Tensor | nn.Module) -> np.ndarray:
    """A tensor's values as float32, without copying them where they are that."""
    return cast(Tensor, tensor).detach().float().numpy()  # a ModuleList's members are typed as modules


def _turn(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.cos(angles), np.sin(angles)
