"""What each rival keeps of all music before a chunk: what `write_chunk` takes for a memory.

A past reads every finished chunk by the network's own layers, as training reads a target of a window. Letters of shapes
as in midiex/model.py, and L layers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from midiex.dataset import WINDOW_NOTES
from midiex.decoding import Task, stepper_for
from midiex.layers import rotate
from midiex.model import Batch, ChunkTransformer, NoteModel, Steps
from midiex.stepper import Stepper

from .networks import DecoderOnly, Gru, Lstm, LstmAttention
from .recurrence import run_gru, run_lstm
from .stepping import AttentionStepper, DecoderStepper, GruStepper, LstmStepper


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
