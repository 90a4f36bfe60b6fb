"""Rival trunks between midiex's own embeddings and heads: two with an encoder, two that read the running song.

What a chunk is told (conditions, echoes) is put into its own steps, as in midiex; in the running song later steps look
back at these. Chunks that are not written have nothing told. Only chunks up to the last one being written in their
window are read: none of these networks can use what follows a gap. Letters of shapes as in midiex/model.py, and W
windows, L layers, K chunks that are read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midiex.config import Config
from midiex.echoes import ECHOES
from midiex.echoes import NOTHING as NO_ECHO
from midiex.layers import NORM_EPS, EncoderLayer, Matrix, Packing, SelfAttention
from midiex.model import Batch, NoteModel, Steps

from .recurrence import begin_well, run_gru, run_lstm

LAYERS = 2  # recurrent ones, each side


def plain(batch: Batch) -> Batch:
    """The same music without what is counted for the network: no echoes, no habits, nothing that a source says."""
    return replace(
        batch,
        echoes=torch.from_numpy(NO_ECHO).to(batch.echoes).expand_as(batch.echoes),
        habit_share=torch.zeros_like(batch.habit_share),
        habit_bucket=torch.zeros_like(batch.habit_bucket),
        habit_level=torch.zeros_like(batch.habit_level),
        aligned_share=None if batch.aligned_share is None else torch.zeros_like(batch.aligned_share),
        aligned_bucket=None if batch.aligned_bucket is None else torch.zeros_like(batch.aligned_bucket),
    )


def last_targets(batch: Batch) -> Tensor:
    """(W,) the last chunk to be written of each window, -1 if none is."""
    last = batch.target.new_full((int(batch.window.max()) + 1,), -1)
    return last.scatter_reduce(0, batch.window[batch.target], batch.target, "amax")


def _norm(width: int) -> nn.RMSNorm:
    return nn.RMSNorm(width, eps=NORM_EPS)


# ---- an encoder and a decoder ----------------------------------------------------------------------------------------


class Lstm(NoteModel):
    """Two LSTMs (Sutskever et al., arXiv 1409.3215). The encoder reads the notes of a window one by one; its state
    before a chunk is the one in which the decoder begins to write that chunk. Both are `d_ff` wide.

    `bptt_notes`: after the chunk that passes so many notes read, gradients no longer flow to what came before; None:
    through the whole window.
    """

    def __init__(self, config: Config, bptt_notes: int | None = None):
        super().__init__(config)
        self.bptt_notes = bptt_notes

    def add_trunk(self, config: Config) -> None:
        width, hidden = config.model.d_model, config.model.d_ff
        self.encoder_norm, self.decoder_norm, self.out_norm = _norm(width), _norm(width), _norm(hidden)
        self.encoder, self.decoder = (nn.LSTM(width, hidden, LAYERS) for _ in range(2))
        self.start = nn.Parameter(0.1 * torch.randn(2, LAYERS, hidden))  # the state before any note
        self.out = Matrix(hidden, width)
        begin_well(self.encoder)
        begin_well(self.decoder)

    def forward(self, batch: Batch) -> Tensor:
        """As ChunkTransformer.forward."""
        heard = self.read(batch)
        steps = Steps.build(batch)
        x = self._embed_steps(steps, batch)
        padded = steps.packing.pad(self.decoder_norm(x))
        y, _ = run_lstm(self.decoder, padded, batch.lengths[batch.target] + 1, heard.states)
        return self._losses(x + self.project(self.out_norm(steps.packing.pack(y)), heard, steps, batch), steps, batch)

    def project(self, written: Tensor, heard: Heard, steps: Steps, batch: Batch) -> Tensor:
        """The decoder's outputs (N, hidden) -> (N, D)."""
        return self.out(written)

    def read(self, batch: Batch) -> Heard:
        """Runs the encoder once over the windows side by side, chunk by chunk, so that its state is known between."""
        last, lengths = last_targets(batch), batch.lengths
        chunk = torch.arange(len(lengths), device=lengths.device)
        opening = torch.searchsorted(batch.window, torch.arange(len(last), device=chunk.device))  # (W,)
        number = chunk - opening[batch.window]  # (C,) of each chunk in its window
        notes = self.encoder_norm(sum(table(batch.rows[:, f]) for f, table in enumerate(self.fields)))
        x = Packing(lengths).pad(notes) if len(notes) else notes  # (C, T, D)
        state = self.start[:, :, None].repeat(1, 1, len(last), 1)
        since_cut = torch.zeros_like(last)  # notes through which gradients still flow
        states, outputs, places = [state], [], []
        for place in range(int(number[batch.target].max())):
            own = ((number == place) & (chunk < last[batch.window]) & (lengths > 0)).nonzero()[:, 0]  # (w,)
            if len(own):
                window, size = batch.window[own], lengths[own]
                before = state.index_select(2, window)
                if self.bptt_notes is not None:
                    cut = since_cut[window] >= self.bptt_notes
                    before = torch.where(cut[:, None], before.detach(), before)
                    since_cut[window] = since_cut[window].masked_fill(cut, 0) + size
                y, after = run_lstm(self.encoder, x[own, : int(size.max())], size, before)
                state = state.index_copy(2, window, after)
                of_piece = Packing(size)
                outputs.append(of_piece.pack(y))
                places.append((torch.cumsum(lengths, 0) - lengths)[own][of_piece.owner] + of_piece.row)
            states.append(state)
        count = torch.zeros_like(last).index_add(0, batch.window, lengths.masked_fill(chunk >= last[batch.window], 0))
        before = torch.stack(states)[number[batch.target], :, :, batch.window[batch.target]].permute(1, 2, 0, 3)
        in_order = torch.cat(outputs)[torch.cat(places).argsort()] if outputs else state.new_zeros(0, state.shape[3])
        return Heard(before, in_order, count)


@dataclass
class Heard:
    """What the encoder made of the chunks before."""

    states: Tensor  # (2, L, B, hidden) before each chunk being written
    outputs: Tensor  # (M, hidden) of all notes that were read, window by window
    count: Tensor  # (W,) how many of them are of each window


class LstmAttention(Lstm):
    """The same with Luong's global attention (arXiv 1508.04025): the decoder's outputs look at the encoder's of all
    notes before the chunk by the general score, and what they find is concatenated to them. His input feeding is left
    out: it would write a chunk's steps one after another in training too."""

    def add_trunk(self, config: Config) -> None:
        super().add_trunk(config)
        width, hidden = config.model.d_model, config.model.d_ff
        self.memory_norm = _norm(hidden)
        self.score = Matrix(hidden, hidden)
        self.combine = Matrix(2 * hidden, width)
        del self.out

    def project(self, written: Tensor, heard: Heard, steps: Steps, batch: Batch) -> Tensor:
        window = batch.window[batch.target]  # (B,) targets of a window stand side by side
        sizes = torch.zeros_like(heard.count).index_add(0, window, batch.lengths[batch.target] + 1)
        queries, keys = Packing(sizes), Packing(heard.count + 1)
        start = self.start[0, -1].to(heard.outputs.dtype)  # stands before the notes, so that there is always something
        note = (torch.cumsum((keys.row > 0).long(), 0) - 1).clamp(min=0)
        outputs = F.pad(heard.outputs, (0, 0, 0, 1))[note]
        memory = keys.pad(self.memory_norm(torch.where(keys.row[:, None] > 0, outputs, start)))  # (W, M, hidden)
        first = torch.cumsum(batch.lengths, 0) - batch.lengths
        opening = first[torch.searchsorted(batch.window, torch.arange(len(sizes), device=window.device))]
        known = (first[batch.target] - opening[window])[steps.packing.owner]  # (N,) notes before the chunk
        mask = torch.arange(keys.longest, device=known.device) <= queries.pad(known[:, None].float())  # (W, Q, M)
        found = F.scaled_dot_product_attention(queries.pad(self.score(written)), memory, memory, mask)
        return self.combine(torch.cat([queries.pack(found), written], 1)).tanh()


# ---- the running song ------------------------------------------------------------------------------------------------


@dataclass
class Running:
    """All steps of a window's chunks, one after another, those that are only read too; of these, nothing is told."""

    batch: Batch  # whose targets are all K chunks that are read
    steps: Steps
    packing: Packing  # of steps, a row a window
    written: Tensor  # (N_steps,) which of the steps are the batch's own
    ends: Tensor  # (E,) first steps of chunks that follow a chunk with notes
    closing: Tensor  # (E,) the last note of that, which no step of its own carries

    @classmethod
    def build(cls, batch: Batch) -> Running:
        chunk = torch.arange(len(batch.lengths), device=batch.target.device)
        read = (chunk <= last_targets(batch)[batch.window]).nonzero()[:, 0]  # (K,)
        place = torch.searchsorted(read, batch.target)  # (B,) of the targets among those
        lengths = batch.lengths[read] + 1
        first = torch.cumsum(lengths, 0) - lengths
        own = Packing(lengths[place])
        written = first[place][own.owner] + own.row

        def of_read(values: Tensor) -> Tensor:  # (B, n) -> (K, n)
            return values.new_zeros(len(read), values.shape[1]).index_copy(0, place, values)

        told = replace(
            batch,
            target=read,
            conditions=of_read(batch.conditions),
            programs=of_read(batch.programs),
            voices=None if batch.voices is None else of_read(batch.voices),
            echoes=torch.from_numpy(NO_ECHO).to(batch.echoes).repeat(int(lengths.sum()), ECHOES, 1).index_copy(
                0, written, batch.echoes
            ),
        )  # fmt: skip
        steps = Steps.build(told)
        windows = lengths.new_zeros(int(batch.window.max()) + 1).index_add(0, batch.window[read], lengths)
        follows = (read > 0) & (batch.window[read] == batch.window[read - 1]) & (batch.lengths[read - 1] > 0)
        ends, closing = first[follows], (torch.cumsum(batch.lengths, 0) - 1)[read[follows] - 1]
        steps.key_times = steps.key_times.index_copy(0, ends, batch.times[closing])
        return cls(told, steps, Packing(windows[windows > 0]), written, ends, closing)


class RunningModel(NoteModel):
    """Reads a window as one sequence of steps. The first step of a chunk carries the last note of the one before."""

    encodes = False

    def forward(self, batch: Batch) -> Tensor:
        """As ChunkTransformer.forward."""
        running = Running.build(batch)
        x = self._embed_steps(running.steps, running.batch)
        x = x.index_add(0, running.ends, self.note_vector(batch.rows[running.closing]).to(x.dtype))
        return self._losses(self.trunk(x, running)[running.written], Steps.build(batch), batch)

    def trunk(self, x: Tensor, running: Running) -> Tensor:
        """Steps (N, D) -> (N, D)."""
        raise NotImplementedError


class Gru(RunningModel):
    """A language model of GRU layers (Cho et al., arXiv 1406.1078), `d_ff` wide.

    `bptt_notes`: the song is read in pieces of so many steps, gradients stay within one; None: in one piece.
    """

    def __init__(self, config: Config, bptt_notes: int | None = None):
        super().__init__(config)
        self.bptt_notes = bptt_notes

    def add_trunk(self, config: Config) -> None:
        width, hidden = config.model.d_model, config.model.d_ff
        self.norm, self.out_norm = _norm(width), _norm(hidden)
        self.gru = nn.GRU(width, hidden, LAYERS)
        self.start = nn.Parameter(0.1 * torch.randn(LAYERS, hidden))
        self.out = Matrix(hidden, width)
        begin_well(self.gru)

    def trunk(self, x: Tensor, running: Running) -> Tensor:
        padded = running.packing.pad(self.norm(x)).transpose(0, 1)  # (T, W, D); padding stands at the end
        state = self.start[:, None].repeat(1, padded.shape[1], 1)
        outputs = []
        for piece in padded.split(self.bptt_notes or len(padded)):
            y, state = run_gru(self.gru, piece, state)
            state = state.detach()
            outputs.append(y)
        y = running.packing.pack(torch.cat(outputs).transpose(0, 1))
        return x + self.out(self.out_norm(y))


class DecoderOnly(RunningModel):
    """A causal transformer (Radford et al. 2018) of `decoder_layers` of midiex's own blocks."""

    def add_trunk(self, config: Config) -> None:
        self.decoder = nn.ModuleList(EncoderLayer(config.model) for _ in range(config.model.decoder_layers))
        for layer in self.decoder:
            layer.attention = SelfAttention(config.model, causal=True)

    def trunk(self, x: Tensor, running: Running) -> Tensor:
        place = running.packing.row
        both = (self.rotary(times, place) for times in (running.steps.query_times, running.steps.key_times))
        cos, sin = (torch.stack(parts, 1)[:, :, None] for parts in zip(*both, strict=True))  # (N, 2, 1, P)
        for layer in self.decoder:
            x = layer(x, running.packing, cos, sin)
        return x
