"""The network's building blocks: packing, rotary positions, attention, feed-forward, cascaded heads.

Tensors only; the letters of the shapes are explained in model.py.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .echoes import ECHO_SIZES, ECHOES
from .habits import HABITS, LEVELS
from .occurrences import BUCKETS
from .tokens import BAR, DRUM_PITCH_OFFSET, FIELD_SIZES, HEAD_ORDER, INSTANCE, PITCH, POSITION, PROGRAM

END = FIELD_SIZES[BAR]  # the bar head's extra class: the chunk is complete
HEAD_SIZES = tuple(FIELD_SIZES[f] + (f == BAR) for f in HEAD_ORDER)

# Periods of the rotary angles: in beats, in bars, in rows.
BEAT_PERIODS = (1 / 3, 1 / 2, 1.0, 2.0, 4.0, 16.0)
BAR_PERIODS = (1.0, 2.0, 4.0, 8.0, 16.0, 64.0)
INDEX_PERIODS = (4.0, 16.0, 64.0, 256.0)
NORM_EPS = 1e-6
ECHO_WIDTH = 96
TRUST_SCALE = 32.0  # few numbers, which must move far: learned as if at so many times the learning rate
ECHO_FIRSTS = tuple(sum(n + 1 for n in ECHO_SIZES[:field]) for field in range(len(ECHO_SIZES)))  # of each field's rows


class _Scatter(torch.autograd.Function):
    """Rows to distinct slots of a zeroed table; the gradient is a plain gather (index_add would be slow on a CPU)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, slots: int) -> Tensor:
        ctx.save_for_backward(index)
        return rows.new_zeros(slots, rows.shape[1]).index_copy_(0, index, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _Gather(torch.autograd.Function):
    """Distinct rows of a table; the gradient is a plain scatter."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.slots = table.shape[0]
        return table.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
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


class Rotary(nn.Module):
    """Angles from musical time and row index for the first 2P dimensions of every head; the rest stays plain."""

    matrix: Tensor

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
        # autocast would multiply in bf16, whose eight bits cannot tell bar 301 from bar 302
        with torch.autocast(times.device.type, enabled=False):
            angles = torch.cat([times, last], -1) @ self.matrix
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (..., H, E), cos and sin (..., 1, P): turns pairs (j, P + j) of the first 2P dimensions."""
    pairs = cos.shape[-1]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b, rest = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], -1)  # split: slices would each zero a full gradient
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)


class Matrix(nn.Linear):
    """A linear map without a bias, of `parts` maps stacked (such as those to queries, keys and values), which the
    optimiser takes apart."""

    def __init__(self, inputs: int, outputs: int, parts: int = 1):
        super().__init__(inputs, outputs, bias=False)
        self.parts = parts

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.in_features**-0.5)


def _norm(width: int, gain: float = 1.0) -> nn.RMSNorm:
    norm = nn.RMSNorm(width, eps=NORM_EPS)
    nn.init.constant_(norm.weight, gain)
    return norm


def smooth_table(field: int, size: int, width: int) -> Tensor:
    """Random start (size, width) of unit variance for a field's values, near values alike: random Fourier features
    (Rahimi and Recht 2007) of many lengths, for pitches and positions partly of period 12, so that an interval or a
    beat is the same linear map everywhere and need not be learned key by key. Programs, instances and drums, which
    have no order, start unlike each other."""
    if field in (PROGRAM, INSTANCE):
        return torch.randn(size, width)
    ordered = min(size, DRUM_PITCH_OFFSET)
    lengths = torch.exp(torch.rand(width) * math.log(max(2, ordered) / 2))
    frequencies = torch.randn(width) / lengths
    if field in (PITCH, POSITION):
        periodic = torch.arange(width) % 5 < 2
        frequencies = torch.where(periodic, 2 * math.pi / 12 * torch.randint(1, 7, (width,)), frequencies)
    phases = torch.rand(width) * 2 * math.pi
    table = 2**0.5 * torch.cos(torch.arange(ordered)[:, None] * frequencies + phases)
    return torch.cat([table, torch.randn(size - ordered, width)])


BRANCH_GAIN = 0.2  # every branch is normed before it joins the stream, and starts this small: left free, the first
# feed-forward grows to twenty times the embeddings within minutes and a token's own identity drowns in it


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202), normed before and after (as in Gemma 2, arXiv 2408.00118)."""

    def __init__(self, size: ModelConfig):
        super().__init__()
        self.norm = _norm(size.d_model)
        self.inner = Matrix(size.d_model, 2 * size.d_ff, parts=2)
        self.out = Matrix(size.d_ff, size.d_model)
        self.out_norm = _norm(size.d_model, BRANCH_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.inner(self.norm(x)).chunk(2, -1)
        return x + self.out_norm(self.out(F.silu(gate) * value))


class SelfAttention(nn.Module):
    def __init__(self, size: ModelConfig, causal: bool):
        super().__init__()
        self.heads, self.causal = size.n_heads, causal
        self.norm = _norm(size.d_model)
        self.qkv = Matrix(size.d_model, 3 * size.d_model, parts=3)
        self.out = Matrix(size.d_model, size.d_model)
        self.out_norm = _norm(size.d_model, BRANCH_GAIN)

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
        return x + self.out_norm(self.out(packing.pack(y.transpose(1, 2).flatten(2))))


class CrossAttention(nn.Module):
    """Attention over the memory. Keys and values are computed once per encoded chunk; a slot's kind (how the chunk
    relates to the one being written) is added to the part of the keys that does not turn."""

    def __init__(self, size: ModelConfig, kinds: int, pairs: int):
        super().__init__()
        self.heads, self.pairs = size.n_heads, pairs
        self.norm, self.memory_norm = _norm(size.d_model), _norm(size.d_model)
        self.q = Matrix(size.d_model, size.d_model)
        self.kv = Matrix(size.d_model, 2 * size.d_model, parts=2)
        self.out = Matrix(size.d_model, size.d_model)
        self.out_norm = _norm(size.d_model, BRANCH_GAIN)
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
        # no place in time: a key that turned with the queries would weigh differently in every bar
        still = torch.cat([torch.zeros(2 * self.pairs), torch.ones(self.kind.shape[2])]).to(self.nothing)
        nothing = (self.nothing * torch.stack([still, torch.ones_like(still)])[:, None]).to(kv.dtype)
        nothing = nothing[:, None, None].expand(2, batch, 1, -1, -1)
        keys, values = torch.cat([nothing[0], keys], 1), torch.cat([nothing[1], values], 1)
        return keys.transpose(1, 2), values.transpose(1, 2)

    def query(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (N, D) -> (N, H, E), turned by the time each row asks about."""
        return rotate(self.q(self.norm(x)).view(len(x), self.heads, -1), cos, sin)

    def forward(
        self, x: Tensor, packing: Packing, keys: Tensor, values: Tensor, mask: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        q = packing.pad(self.query(x, cos, sin).flatten(1))  # (B, T, D)
        q = q.view(*q.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, T, E)
        y = F.scaled_dot_product_attention(q, keys, values, mask)
        return x + self.out_norm(self.out(packing.pack(y.transpose(1, 2).flatten(2))))


class EchoReader(nn.Module):
    """Earlier notes that a note may echo, as one vector: each is the sum of its fields' embeddings, and all stand side
    by side."""

    def __init__(self, width: int):
        super().__init__()
        sizes = [n + 1 for n in ECHO_SIZES]  # the last of each is NOTHING
        self.table = nn.EmbeddingBag(sum(sizes), ECHO_WIDTH, mode="sum")
        self.out = Matrix(ECHOES * ECHO_WIDTH, width)
        with torch.no_grad():
            start = [smooth_table(field, n, ECHO_WIDTH) for field, n in enumerate(sizes)]
            self.table.weight.copy_(len(sizes) ** -0.5 * torch.cat(start))
            self.out.weight.mul_(BRANCH_GAIN)

    def forward(self, echoes: Tensor) -> Tensor:
        """echoes (N, ECHOES, 8) -> (N, D)."""
        notes = self.table((echoes + echoes.new_tensor(ECHO_FIRSTS)).flatten(0, 1))  # (N * ECHOES, ECHO_WIDTH)
        return self.out(notes.view(len(echoes), -1))


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


def opinions_of(name: int) -> int:
    """How many opinions on a field there are besides the network's: its contexts and the aligned source."""
    return len(HABITS[name]) + 1


class Heads(nn.Module):
    """Cascaded heads: each field is predicted from the step's state and the fields already chosen for this note, and
    what the network thinks is mixed with K other opinions: what the song did so far in the field's contexts (habits.py)
    and, last, what an aligned source has there (aligned.py)."""

    def __init__(self, size: ModelConfig):
        super().__init__()
        width = size.d_head_hidden
        self.width = width
        self.norm = _norm(size.d_model)
        self.state = Matrix(size.d_model, len(HEAD_ORDER) * width, parts=len(HEAD_ORDER))
        self.chosen = nn.ModuleList(nn.Embedding(n, width) for n in HEAD_SIZES[:-1])
        self.mix = nn.ModuleList(Matrix(width, width) for _ in HEAD_ORDER[1:])
        self.out = nn.ModuleList(nn.Linear(width, n) for n in HEAD_SIZES)
        self.gate = nn.ModuleList(nn.Linear(width, 1 + opinions_of(name)) for name in HEAD_ORDER)
        self.bucket = nn.ModuleList(nn.Embedding(opinions_of(name) * BUCKETS, 1) for name in HEAD_ORDER)
        self.level = nn.ModuleList(nn.Embedding(opinions_of(name) * LEVELS, 1) for name in HEAD_ORDER)
        with torch.no_grad():
            for field, weight in zip(HEAD_ORDER, self.chosen.parameters(), strict=False):
                weight.copy_(0.5 * smooth_table(field, *weight.shape))
            for field, layer in zip(HEAD_ORDER, cast(list[nn.Linear], list(self.out)), strict=True):
                layer.weight.copy_(0.05 * smooth_table(field, *layer.weight.shape))
                layer.bias.zero_()
            for parameter in [*self.gate.parameters(), *self.bucket.parameters(), *self.level.parameters()]:
                parameter.zero_()

    def states(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (N, D) -> one (N, width) a head."""
        return self.state(self.norm(x)).chunk(len(HEAD_ORDER), -1)

    def features(self, head: int, states: tuple[Tensor, ...], chosen: Tensor | None) -> Tensor:
        """What the head-th field of HEAD_ORDER is decided from, (N, width); `chosen` (N, width) sums what is chosen so
        far."""
        z = states[head]
        if head and chosen is not None:
            z = z + self.mix[head - 1](chosen)
        return F.silu(z)

    def trust(self, head: int, features: Tensor, bucket: Tensor, level: Tensor) -> Tensor:
        """How much the network, first, and each context of these buckets and levels (N, K) is believed: log weights (N,
        1 + K) whose shares sum to 1; contexts of bucket 0 have none."""
        gate = self.gate[head](features).float()
        context = torch.arange(bucket.shape[1], device=bucket.device)
        known = self.bucket[head](bucket + BUCKETS * context) + self.level[head](level + LEVELS * context)  # (N, K, 1)
        contexts = (gate[:, 1:] + TRUST_SCALE * known[..., 0].float()).masked_fill(bucket == 0, -torch.inf)
        return torch.log_softmax(torch.cat([gate[:, :1], contexts], 1), 1)

    def opinions(
        self, head: int, features: Tensor, target: Tensor, bar: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log probability of the targets (N,) by the network, (N,), and by each context, (N, K), whose `share` (N, K)
        of like cases went as this one does. On bars a context only tells whether the next note stays in the note's
        `bar` (N,); where else it goes, the network says."""
        logits = self.out[head](features).float()
        own = -F.cross_entropy(logits, target, reduction="none")
        habit = share.log()
        if HEAD_ORDER[head] == BAR:
            here = F.one_hot(bar, logits.shape[1]).bool()
            elsewhere = -F.cross_entropy(logits.masked_fill(here, -1e9), target, reduction="none")
            habit = habit + torch.where(target == bar, 0.0, elsewhere)[:, None]
        return own, habit

    def choose(self, head: int, values: Tensor, chosen: Tensor | None) -> Tensor:
        """`chosen` with one more field's values (N,) in it."""
        added = self.chosen[head](values)
        return added if chosen is None else chosen + added
