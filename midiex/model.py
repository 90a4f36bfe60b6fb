"""The network: a transformer encoder-decoder over note rows. Ids and tensors only; it knows no MIDI and no files.

Each chunk is encoded once, alone. The decoder writes a chunk note by note, looking at a memory of a few chunks in full
and at summary rows of the others. No recurrent layer. The shapes' letters:

    N  packed rows (notes or steps of all chunks one after another, no padding)     D  width      H  heads
    C  encoded chunks     B  chunks being written     T  rows of the longest chunk      S  summary rows a chunk
    M  memory rows a written chunk may look at        F  fields of a row                E  head width D / H

Onset ahead: decoder step i knows all of note i - 1 and the onset of note i, writes note i's voice, pitch, duration,
velocity and micro-offset, then the onset of note i + 1 (or the end); step 0 knows only the conditions. So attention for
a pitch knows the exact place in the bar. Rotary angles come from musical time (beats and bars since the song began) and
from the row's index, so that "what stood here four bars ago" is a fixed rotation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Config, ModelConfig
from .conditions import CONDITION_SIZES
from .tokens import BAR, DURATION, FIELD_SIZES, INSTANCE, MICRO, PITCH, POSITION, PROGRAM, VELOCITY

END = FIELD_SIZES[BAR]  # the bar head's extra class: the chunk is complete
HEAD_ORDER = (PROGRAM, INSTANCE, PITCH, DURATION, VELOCITY, MICRO, BAR, POSITION)  # the last two: of the next note
HEAD_SIZES = tuple(FIELD_SIZES[f] + (f == BAR) for f in HEAD_ORDER)

PROGRAMS = FIELD_SIZES[PROGRAM]

# What a memory row is to the chunk being written. RECENT + k: the chunk k + 1 before it.
NOTHING, SUMMARY, OPENING, RECALLED, AFTER, RECENT = range(6)

# Periods of the rotary angles: in beats, in bars, in rows.
BEAT_PERIODS = (1 / 3, 1 / 2, 1.0, 2.0, 4.0, 16.0)
BAR_PERIODS = (1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
INDEX_PERIODS = (4.0, 16.0, 64.0, 256.0)


class _Scatter(torch.autograd.Function):
    """Rows to distinct slots of a zeroed table; the gradient is a plain gather (index_add would be slow on a CPU)."""

    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor, slots: int) -> Tensor:
        ctx.save_for_backward(index)
        return rows.new_zeros(slots, rows.shape[1]).index_copy_(0, index, rows)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _Gather(torch.autograd.Function):
    """Distinct rows of a table; the gradient is a plain scatter."""

    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.slots = table.shape[0]
        return table.index_select(0, index)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad.new_zeros(ctx.slots, grad.shape[1]).index_copy_(0, ctx.saved_tensors[0], grad), None


class Packing:
    """Moves between packed rows (N, D), on which all but attention runs, and a padded batch (B, T, D)."""

    def __init__(self, lengths: Tensor):
        self.batch, self.longest = len(lengths), int(lengths.max())
        self.valid = torch.arange(self.longest, device=lengths.device)[None, :] < lengths[:, None]  # (B, T)
        self.index = self.valid.flatten().nonzero()[:, 0]  # (N,)
        self.row = self.index % self.longest  # (N,) index of each row in its chunk
        self.owner = self.index // self.longest  # (N,) chunk of each row

    def pad(self, rows: Tensor) -> Tensor:
        table = _Scatter.apply(rows, self.index, self.batch * self.longest)
        return table.view(self.batch, self.longest, -1)  # (B, T, D)

    def pack(self, padded: Tensor) -> Tensor:
        return _Gather.apply(padded.reshape(self.batch * self.longest, -1), self.index)  # (N, D)


@dataclass
class Batch:
    """One training step's chunks. Times are (beats, bars) since the song's beginning."""

    rows: Tensor  # (N_enc, 8) int64, rows of the encoded chunks, one chunk after another
    lengths: Tensor  # (C,) rows of each
    times: Tensor  # (N_enc, 2) float32
    starts: Tensor  # (C, 2) float32, time at which each chunk begins
    target: Tensor  # (B,) which of the encoded chunks each decoder row writes
    conditions: Tensor  # (B, conditions) int64
    programs: Tensor  # (B, PROGRAMS) float32, 1 where a program plays; all 0 is unknown
    full: Tensor  # (B, R) int64 chunk index of each full memory slot, -1 empty
    full_kind: Tensor  # (B, R) int64
    summaries: Tensor  # (B, G) int64 chunk index of each summary slot, -1 empty
    summary_kind: Tensor  # (B, G) int64
    source: Tensor  # (B,) int64 source of each chunk, for the validation table


class Rotary(nn.Module):
    """Angles from musical time and row index for the first 2P dimensions of every head; the rest stays plain."""

    def __init__(self, head_dim: int):
        super().__init__()
        room = head_dim // 4  # pairs; half of the head turns
        periods = [(0, p) for p in BEAT_PERIODS] + [(1, p) for p in BAR_PERIODS] + [(2, p) for p in INDEX_PERIODS]
        if room < len(periods):  # narrow heads take every other period
            periods = [periods[round(i * (len(periods) - 1) / max(1, room - 1))] for i in range(room)]
        matrix = torch.zeros(3, len(periods))
        for column, (axis, period) in enumerate(periods):
            matrix[axis, column] = 2 * math.pi / period
        self.register_buffer("matrix", matrix, persistent=False)
        self.pairs = len(periods)

    def forward(self, times: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """times (..., 2), index (...) -> cos, sin, each (..., P)."""
        last = torch.zeros_like(times[..., :1]) if index is None else index[..., None].to(times.dtype)
        angles = torch.cat([times, last], -1) @ self.matrix
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (..., H, E), cos and sin (..., 1, P): turns pairs (j, P + j) of the first 2P dimensions."""
    pairs = cos.shape[-1]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b, rest = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], -1)  # split: slices would each zero a full gradient
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)


def _linear(inputs: int, outputs: int, zero: bool = False) -> nn.Linear:
    """Bias-free; residual outputs start at zero, so that at first a token's own identity passes through undisturbed."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(layer.weight) if zero else nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202), pre-norm."""

    def __init__(self, size: ModelConfig):
        super().__init__()
        self.norm = nn.RMSNorm(size.d_model, eps=1e-6)
        self.inner = _linear(size.d_model, 2 * size.d_ff)
        self.out = _linear(size.d_ff, size.d_model, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.inner(self.norm(x)).chunk(2, -1)
        return x + self.out(F.silu(gate) * value)


class SelfAttention(nn.Module):
    def __init__(self, size: ModelConfig, causal: bool):
        super().__init__()
        self.heads, self.causal = size.n_heads, causal
        self.norm = nn.RMSNorm(size.d_model, eps=1e-6)
        self.qkv = _linear(size.d_model, 3 * size.d_model)
        self.out = _linear(size.d_model, size.d_model, zero=True)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (N, D), cos and sin (N, 2 or 1, 1, P) for queries and keys -> (N, 3, H, E)."""
        qk, v = self.qkv(self.norm(x)).view(len(x), 3, self.heads, -1).split([2, 1], 1)
        return torch.cat([rotate(qk, cos, sin), v], 1)

    def forward(self, x: Tensor, packing: Packing, cos: Tensor, sin: Tensor) -> Tensor:
        qkv = packing.pad(self.project(x, cos, sin).flatten(1))  # (B, T, 3D)
        q, k, v = qkv.view(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, T, E)
        # causal: padding stands at the end, where no valid query looks
        mask = None if self.causal else packing.valid[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=self.causal)
        return x + self.out(packing.pack(y.transpose(1, 2).flatten(2)))

    def step(self, x: Tensor, keys: Tensor, values: Tensor, at: int, cos: Tensor, sin: Tensor) -> Tensor:
        """One row a candidate: x (K, D); keys and values (K, H, T, E) are written at row `at` and read up to it."""
        q, k, v = self.project(x, cos, sin).unbind(1)  # each (K, H, E)
        keys[:, :, at], values[:, :, at] = k, v
        y = F.scaled_dot_product_attention(q[:, :, None], keys[:, :, : at + 1], values[:, :, : at + 1])
        return x + self.out(y.flatten(1))


class CrossAttention(nn.Module):
    """Attention over the memory. Keys and values are computed once per encoded chunk; a slot's kind (how the chunk
    relates to the one being written) is added to the part of the keys that does not turn."""

    def __init__(self, size: ModelConfig, kinds: int, pairs: int):
        super().__init__()
        self.heads, self.pairs = size.n_heads, pairs
        self.norm, self.memory_norm = nn.RMSNorm(size.d_model, eps=1e-6), nn.RMSNorm(size.d_model, eps=1e-6)
        self.q = _linear(size.d_model, size.d_model)
        self.kv = _linear(size.d_model, 2 * size.d_model)
        self.out = _linear(size.d_model, size.d_model, zero=True)
        self.kind = nn.Parameter(torch.randn(kinds, size.n_heads, size.head_dim - 2 * pairs) * 0.5)
        self.nothing = nn.Parameter(torch.randn(2, size.n_heads, size.head_dim) * 0.02)  # so that memory is never empty

    def project_memory(self, encoded: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """encoded (N, D), cos and sin (N, P) -> keys and values (N, 2D), keys turned by their time."""
        keys, values = self.kv(self.memory_norm(encoded)).view(len(encoded), 2, self.heads, -1).unbind(1)
        return torch.stack([rotate(keys, cos[:, None], sin[:, None]), values], 1).flatten(1)

    def assemble(self, kv: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        """kv (B, M, 2D) and the kind of each row (B, M) -> keys, values (B, H, M + 1, E), the empty row first."""
        batch, rows = kinds.shape
        keys, values = kv.view(batch, rows, 2, self.heads, -1).unbind(2)
        kind = F.pad(self.kind, (2 * self.pairs, 0)).to(kv.dtype)  # (kinds, H, E)
        keys = keys + F.embedding(kinds, kind.flatten(1)).view(batch, rows, self.heads, -1)
        nothing = self.nothing.to(kv.dtype)[:, None, None].expand(2, batch, 1, -1, -1)
        keys, values = torch.cat([nothing[0], keys], 1), torch.cat([nothing[1], values], 1)
        return keys.transpose(1, 2), values.transpose(1, 2)

    def query(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (N, D) -> (N, H, E), turned by the time each row asks about."""
        return rotate(self.q(self.norm(x)).view(len(x), self.heads, -1), cos, sin)

    def forward(self, x: Tensor, packing: Packing, keys: Tensor, values: Tensor, mask: Tensor, cos: Tensor, sin: Tensor):
        q = packing.pad(self.query(x, cos, sin).flatten(1))  # (B, T, D)
        q = q.view(*q.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, T, E)
        y = F.scaled_dot_product_attention(q, keys, values, mask)
        return x + self.out(packing.pack(y.transpose(1, 2).flatten(2)))

    def step(self, x: Tensor, keys: Tensor, values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (K, D); keys and values (1, H, M, E) serve all candidates, whose queries go as one batch of rows."""
        q = self.query(x, cos, sin).transpose(0, 1)[None]  # (1, H, K, E)
        y = F.scaled_dot_product_attention(q, keys, values)
        return x + self.out(y[0].transpose(0, 1).flatten(1))


class EncoderLayer(nn.Module):
    def __init__(self, size: ModelConfig):
        super().__init__()
        self.attention, self.feed_forward = SelfAttention(size, causal=False), FeedForward(size)

    def forward(self, x: Tensor, packing: Packing, cos: Tensor, sin: Tensor) -> Tensor:
        return self.feed_forward(self.attention(x, packing, cos, sin))


class DecoderLayer(nn.Module):
    def __init__(self, size: ModelConfig, kinds: int, pairs: int):
        super().__init__()
        self.attention, self.cross = SelfAttention(size, causal=True), CrossAttention(size, kinds, pairs)
        self.feed_forward = FeedForward(size)


class Heads(nn.Module):
    """Cascaded heads: each field is predicted from the step's state and the fields already chosen for this note."""

    def __init__(self, size: ModelConfig):
        super().__init__()
        width = size.d_head_hidden
        self.width = width
        self.norm = nn.RMSNorm(size.d_model, eps=1e-6)
        self.state = _linear(size.d_model, len(HEAD_ORDER) * width)
        self.chosen = nn.ModuleList(nn.Embedding(n, width) for n in HEAD_SIZES[:-1])
        self.mix = nn.ModuleList(_linear(width, width) for _ in HEAD_ORDER[1:])
        self.out = nn.ModuleList(nn.Linear(width, n) for n in HEAD_SIZES)
        for table in self.chosen:
            nn.init.normal_(table.weight, std=0.5)
        for layer in self.out:
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def states(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (N, D) -> one (N, width) a head."""
        return self.state(self.norm(x)).chunk(len(HEAD_ORDER), -1)

    def logits(self, head: int, states: tuple[Tensor, ...], chosen: Tensor | None) -> Tensor:
        """Logits (N, size) of the head-th field of HEAD_ORDER; `chosen` (N, width) sums what is chosen so far."""
        z = states[head]
        if head and chosen is not None:
            z = z + self.mix[head - 1](chosen)
        return self.out[head](F.silu(z))

    def choose(self, head: int, values: Tensor, chosen: Tensor | None) -> Tensor:
        """`chosen` with one more field's values (N,) in it."""
        added = self.chosen[head](values)
        return added if chosen is None else chosen + added


class ChunkTransformer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        size = config.model
        self.size, self.memory = size, config.memory
        self.rotary = Rotary(size.head_dim)
        kinds = RECENT + config.memory.recent_chunks
        self.fields = nn.ModuleList(nn.Embedding(n, size.d_model) for n in FIELD_SIZES)  # the encoder's input
        self.previous = nn.ModuleList(nn.Embedding(n, size.d_model) for n in FIELD_SIZES)  # the decoder's
        self.ahead = nn.ModuleList(nn.Embedding(FIELD_SIZES[f], size.d_model) for f in (BAR, POSITION))
        self.begin = nn.Embedding(2, size.d_model)  # step 0: no onset yet; step 1: no note yet
        self.condition = nn.ModuleList(nn.Embedding(n, size.d_model) for n in CONDITION_SIZES)
        self.programs = nn.Linear(PROGRAMS, size.d_model, bias=False)
        self.summary = nn.Parameter(torch.randn(size.summary_rows, size.d_model))
        self.encoder = nn.ModuleList(EncoderLayer(size) for _ in range(size.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(size, kinds, self.rotary.pairs) for _ in range(size.decoder_layers))
        self.heads = Heads(size)
        # embeddings near unit scale once summed: at 0.02 a token's identity would drown in the branches
        for table in [*self.fields, *self.previous, *self.ahead, self.begin]:
            nn.init.normal_(table.weight, std=len(FIELD_SIZES) ** -0.5)
        for table in [*self.condition, self.programs]:
            nn.init.normal_(table.weight, std=0.1)

    # ---- encoder -----------------------------------------------------------------------------------------------

    def encode(self, rows: Tensor, lengths: Tensor, times: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Packing]:
        """Chunks, each on its own. rows (N, 8), lengths (C,), times (N, 2), starts (C, 2).

        Returns encoded rows (N + C S, D), their times (N + C S, 2) and how they are packed: each chunk's S summary
        rows stand before its notes.
        """
        summaries = self.size.summary_rows
        packing = Packing(lengths + summaries)
        is_note = (packing.row >= summaries)[:, None]  # (N + C S, 1)
        note = (is_note[:, 0].cumsum(0) - 1).clamp(min=0)  # which note each row is, where it is one
        notes = sum(table(rows[:, f]) for f, table in enumerate(self.fields))  # (N, D)
        x = torch.where(is_note, notes[note] if len(rows) else notes.new_zeros(1, notes.shape[1]),
                        self.summary[packing.row.clamp(max=summaries - 1)])  # fmt: skip
        row_times = torch.where(is_note, times[note] if len(rows) else times.new_zeros(1, 2), starts[packing.owner])
        cos, sin = (t[:, None, None] for t in self.rotary(row_times, packing.row))
        for layer in self.encoder:
            x = layer(x, packing, cos, sin)
        return x, row_times, packing

    def remember(self, encoded: Tensor, times: Tensor, kinds: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (1, H, M + 1, E) of each decoder layer for memory rows encoded (M, D), times (M, 2), kinds
        (M,); the decoder's cross-attention reads nothing else."""
        cos, sin = self.rotary(times)
        return [
            tuple(t.contiguous() for t in layer.cross.assemble(layer.cross.project_memory(encoded, cos, sin)[None], kinds[None]))
            for layer in self.decoder
        ]

    # ---- decoder -----------------------------------------------------------------------------------------------

    def condition_vector(self, conditions: Tensor, programs: Tensor) -> Tensor:
        """conditions (B, 11) int64, programs (B, PROGRAMS) -> (B, D)."""
        scale = programs.sum(1, keepdim=True).clamp(min=1).sqrt()
        return sum(table(conditions[:, i]) for i, table in enumerate(self.condition)) + self.programs(programs / scale)

    def note_vector(self, rows: Tensor) -> Tensor:
        """The decoder's embedding of finished notes: (N, 8) -> (N, D)."""
        return sum(table(rows[:, f]) for f, table in enumerate(self.previous))

    def onset_vector(self, onset: Tensor) -> Tensor:
        """Of onsets to come: (N, 2) bar and position -> (N, D)."""
        return self.ahead[0](onset[:, 0]) + self.ahead[1](onset[:, 1])

    def forward(self, batch: Batch) -> Tensor:
        """Negative log likelihood in nats of every decision: (N_steps, 8) in HEAD_ORDER, 0 where a step has no such
        decision (step 0 writes no note, the end has no position). Steps are packed by target chunk."""
        encoded, times, memory_packing = self.encode(batch.rows, batch.lengths, batch.times, batch.starts)
        steps = Steps.build(batch)
        x = self._embed_steps(steps, batch)
        q_cos, q_sin = self.rotary(steps.query_times, steps.packing.row)
        k_cos, k_sin = self.rotary(steps.key_times, steps.packing.row)
        self_cos, self_sin = torch.stack([q_cos, k_cos], 1)[:, :, None], torch.stack([q_sin, k_sin], 1)[:, :, None]
        cross_cos, cross_sin = (t[:, None] for t in self.rotary(steps.query_times))
        memory_cos, memory_sin = self.rotary(times)
        layout = MemoryLayout.build(batch, memory_packing, self.size.summary_rows)
        for layer in self.decoder:
            x = layer.attention(x, steps.packing, self_cos, self_sin)
            kv = layer.cross.project_memory(encoded, memory_cos, memory_sin)  # (N, 2D)
            keys, values = layer.cross.assemble(layout.gather(kv, memory_packing), layout.kinds)
            x = layer.cross(x, steps.packing, keys, values, layout.mask, cross_cos, cross_sin)
            x = layer.feed_forward(x)
        return self._losses(x, steps)

    def _embed_steps(self, steps: Steps, batch: Batch) -> Tensor:
        x = self.condition_vector(batch.conditions, batch.programs)[steps.packing.owner]
        step = steps.packing.row[:, None]
        x = x + torch.where(step >= 2, self.note_vector(steps.previous), self.begin.weight[(step[:, 0] == 1).long()])
        return x + torch.where(step >= 1, self.onset_vector(steps.onset), 0.0)

    def _losses(self, x: Tensor, steps: Steps) -> Tensor:
        states = self.heads.states(x)
        losses, chosen = [], None
        for head in range(len(HEAD_ORDER)):
            logits = self.heads.logits(head, states, chosen)
            target = steps.targets[:, head]
            losses.append(F.cross_entropy(logits.float(), target, ignore_index=-1, reduction="none"))
            if head < len(HEAD_ORDER) - 1:
                known = (target >= 0)[:, None]
                added = self.heads.choose(head, target.clamp(min=0), None) * known
                chosen = added if chosen is None else chosen + added
        return torch.stack(losses, 1)


@dataclass
class Steps:
    """The decoder's teacher-forced steps of a batch: n + 1 for a chunk of n notes."""

    packing: Packing
    previous: Tensor  # (N, 8) the note before the one being written (garbage at steps 0 and 1)
    onset: Tensor  # (N, 2) bar and position of the note being written (garbage at step 0)
    targets: Tensor  # (N, 8) in HEAD_ORDER, -1 where there is nothing to decide
    query_times: Tensor  # (N, 2) the time a step asks about: its note's onset, at step 0 the chunk's start
    key_times: Tensor  # (N, 2) the time of the note a step carries

    @classmethod
    def build(cls, batch: Batch) -> Steps:
        lengths = batch.lengths[batch.target]
        packing = Packing(lengths + 1)
        first = torch.cumsum(batch.lengths, 0) - batch.lengths  # (C,) where each encoded chunk's rows begin
        base = first[batch.target][packing.owner]
        step, length = packing.row, lengths[packing.owner]
        most = max(0, len(batch.rows) - 1)
        rows = batch.rows if len(batch.rows) else batch.rows.new_zeros(1, 8)
        times = batch.times if len(batch.rows) else batch.times.new_zeros(1, 2)

        def row_of(note: Tensor) -> Tensor:  # note counts from 1
            return (base + note - 1).clamp(0, most)

        note = rows[row_of(step)]  # (N, 8) the note each step writes
        following = rows[row_of(step + 1)]
        is_end = step == length
        targets = note[:, HEAD_ORDER].masked_fill((step == 0)[:, None], -1)
        bar, position = HEAD_ORDER.index(BAR), HEAD_ORDER.index(POSITION)
        targets[:, bar] = torch.where(is_end, END, following[:, BAR])
        targets[:, position] = torch.where(is_end, -1, following[:, POSITION])
        start = batch.starts[batch.target][packing.owner]
        query_times = torch.where((step >= 1)[:, None], times[row_of(step)], start)
        key_times = torch.where((step >= 2)[:, None], times[row_of(step - 1)], start)
        return cls(packing, rows[row_of(step - 1)], note[:, [BAR, POSITION]], targets, query_times, key_times)


@dataclass
class MemoryLayout:
    """Which encoded rows each written chunk may look at."""

    full: Tensor  # (B R,) chunk of each full slot
    summaries: Tensor  # (B G S,) packed row of each summary row
    kinds: Tensor  # (B, M)
    mask: Tensor  # (B, 1, 1, 1 + M) True where a row may be looked at; the first is the empty row

    @classmethod
    def build(cls, batch: Batch, packing: Packing, summary_rows: int) -> MemoryLayout:
        longest = packing.longest
        full_valid = packing.valid[batch.full.clamp(min=0)] & (batch.full >= 0)[:, :, None]  # (B, R, T)
        summary_valid = (batch.summaries >= 0)[:, :, None].expand(-1, -1, summary_rows)  # (B, G, S)
        kinds = torch.cat([
            batch.full_kind[:, :, None].expand(-1, -1, longest).flatten(1),
            batch.summary_kind[:, :, None].expand(-1, -1, summary_rows).flatten(1),
        ], 1)  # fmt: skip
        valid = torch.cat([full_valid.flatten(1), summary_valid.flatten(1)], 1)
        mask = F.pad(valid, (1, 0), value=True)[:, None, None, :]
        lengths = batch.lengths + summary_rows
        first = torch.cumsum(lengths, 0) - lengths  # (C,) a chunk's summary rows stand before its notes
        rows = first[batch.summaries.clamp(min=0)][:, :, None] + torch.arange(summary_rows, device=first.device)
        return cls(batch.full.clamp(min=0).flatten(), rows.flatten(), kinds, mask)

    def gather(self, kv: Tensor, packing: Packing) -> Tensor:
        """kv (N, 2D), packed -> (B, M, 2D)."""
        batch, width = len(self.kinds), kv.shape[1]
        full = packing.pad(kv).index_select(0, self.full).view(batch, -1, width)
        return torch.cat([full, kv.index_select(0, self.summaries).view(batch, -1, width)], 1)
