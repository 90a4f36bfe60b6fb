"""The network: a transformer encoder-decoder over note rows. Ids and tensors only; it knows no MIDI and no files.

Each chunk is encoded once, alone. The decoder writes a chunk note by note, looking at a memory of a few chunks in full
and at summary rows of the others. No recurrent layer.
`NoteModel` is all but these, so that other trunks can be put to the same test. The shapes' letters:

    N  packed rows (notes or steps of all chunks one after another, no padding)     D  width      H  heads
    C  encoded chunks     B  chunks being written     T  rows of the longest chunk      S  summary rows a chunk
    M  memory rows a written chunk may look at        F  fields of a row                E  head width D / H

Onset ahead: decoder step i knows all of note i - 1 and the onset of note i, writes note i's voice, pitch, duration,
velocity and micro-offset, then the onset of note i + 1 (or the end); step 0 knows only the conditions. So attention for
a pitch knows the exact place in the bar. A step is also shown earlier notes that its note may echo (echoes.py), and
its choices are mixed with what the song did so far in like places (habits.py). Rotary
angles come from musical time (beats and bars since the song began) and from the row's index, so that "what stood here
four bars ago" is a fixed rotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditions import CONDITION_SIZES, VOICE_SLOTS
from .config import Config
from .habits import FIRST_CONTEXT, HABITS
from .layers import (
    END,
    DecoderLayer,
    EchoReader,
    EncoderLayer,
    Heads,
    Packing,
    Rotary,
    smooth_table,
)
from .tokens import BAR, FIELD_SIZES, HEAD_ORDER, POSITION, PROGRAM

PROGRAMS = FIELD_SIZES[PROGRAM]

# What a memory row is to the chunk being written. RECENT + k: the chunk k + 1 before it.
# SOURCE: what it goes back to; STANDING: its own notes that stand already.
NOTHING, SUMMARY, OPENING, RECALLED, AFTER, SOURCE, STANDING, RECENT = range(8)


@dataclass
class Batch:
    """One training step's chunks, those of a window side by side and in the song's order. Times are (beats, bars) since
    the song's beginning."""

    rows: Tensor  # (N_enc, 8) int64, rows of the encoded chunks, one chunk after another
    lengths: Tensor  # (C,) rows of each
    times: Tensor  # (N_enc, 2) float32
    starts: Tensor  # (C, 2) float32, time at which each chunk begins
    window: Tensor  # (C,) which window of a song each encoded chunk is of, -1: a source or notes that stand
    target: Tensor  # (B,) which of the encoded chunks each decoder row writes
    conditions: Tensor  # (B, conditions) int64
    programs: Tensor  # (B, PROGRAMS) float32, 1 where a program plays; all 0 is unknown
    full: Tensor  # (B, R) int64 chunk index of each full memory slot, -1 empty
    full_kind: Tensor  # (B, R) int64
    summaries: Tensor  # (B, G) int64 chunk index of each summary slot, -1 empty
    summary_kind: Tensor  # (B, G) int64
    echoes: Tensor  # (N_steps, ECHOES, 8) int64, of the notes that the written chunks' steps write, chunk by chunk
    habit_share: Tensor  # (N_steps, CONTEXTS) float32, of each step's decisions (habits.py)
    habit_bucket: Tensor  # (N_steps, CONTEXTS) int64
    habit_level: Tensor  # (N_steps, CONTEXTS) int64
    source: Tensor  # (B,) source of each chunk, for the validation table
    voices: Tensor | None = None  # (B, VOICE_SLOTS) float32, 1 where a voice plays; all 0 is unknown
    aligned_share: Tensor | None = None  # (N_steps, 8) float32, what an aligned source says, in HEAD_ORDER (aligned.py)
    aligned_bucket: Tensor | None = None  # (N_steps, 8) int64


class NoteModel(nn.Module):
    """What any network that writes notes step by step has besides its trunk: embeddings, heads and losses."""

    encodes = True  # whether it also reads finished notes, by embeddings of their own

    def __init__(self, config: Config):
        super().__init__()
        size = config.model
        self.size, self.memory = size, config.memory
        self.rotary = Rotary(size.head_dim)
        if self.encodes:
            self.fields = nn.ModuleList(nn.Embedding(n, size.d_model) for n in FIELD_SIZES)  # the encoder's input
        self.previous = nn.ModuleList(nn.Embedding(n, size.d_model) for n in FIELD_SIZES)  # the decoder's
        self.ahead = nn.ModuleList(nn.Embedding(FIELD_SIZES[f], size.d_model) for f in (BAR, POSITION))
        self.echoes = EchoReader(size.d_model)
        self.begin = nn.Embedding(2, size.d_model)  # step 0: no onset yet; step 1: no note yet
        self.condition = nn.ModuleList(nn.Embedding(n, size.d_model) for n in CONDITION_SIZES)
        self.programs = nn.Linear(PROGRAMS, size.d_model, bias=False)
        self.voices = nn.Linear(VOICE_SLOTS, size.d_model, bias=False)
        self.add_trunk(config)
        self.heads = Heads(size)
        # embeddings near unit scale once summed: at 0.02 a token's identity would drown in the branches
        scale = len(FIELD_SIZES) ** -0.5
        nn.init.normal_(self.begin.weight, std=scale)
        with torch.no_grad():
            of_notes = [self.fields, self.previous] if self.encodes else [self.previous]
            all_fields = range(len(FIELD_SIZES))
            for tables, of in (*((tables, all_fields) for tables in of_notes), (self.ahead, (BAR, POSITION))):
                for field, weight in zip(of, tables.parameters(), strict=True):
                    weight.copy_(scale * smooth_table(field, *weight.shape))
        for weight in [*self.condition.parameters(), *self.programs.parameters(), *self.voices.parameters()]:
            nn.init.normal_(weight, std=0.1)

    def add_trunk(self, config: Config) -> None:
        """Make what is between embeddings and heads."""
        raise NotImplementedError

    def condition_vector(self, conditions: Tensor, programs: Tensor, voices: Tensor | None = None) -> Tensor:
        """conditions (B, conditions) int64, programs (B, PROGRAMS), voices (B, VOICE_SLOTS) -> (B, D)."""
        found = sum(table(conditions[:, i]) for i, table in enumerate(self.condition))
        for layer, playing in ((self.programs, programs), (self.voices, voices)):
            if playing is not None:
                found = found + layer(playing / playing.sum(1, keepdim=True).clamp(min=1).sqrt())
        return cast(Tensor, found)

    def note_vector(self, rows: Tensor) -> Tensor:
        """The decoder's embedding of finished notes: (N, 8) -> (N, D)."""
        return sum(table(rows[:, f]) for f, table in enumerate(self.previous))

    def onset_vector(self, onset: Tensor) -> Tensor:
        """Of onsets to come: (N, 2) bar and position -> (N, D)."""
        return self.ahead[0](onset[:, 0]) + self.ahead[1](onset[:, 1])

    def _embed_steps(self, steps: Steps, batch: Batch) -> Tensor:
        x = self.condition_vector(batch.conditions, batch.programs, batch.voices)[steps.packing.owner]
        step = steps.packing.row[:, None]
        x = x + torch.where(step >= 2, self.note_vector(steps.previous), self.begin.weight[(step[:, 0] == 1).long()])
        return x + torch.where(step >= 1, self.onset_vector(steps.onset), 0.0) + self.echoes(batch.echoes)

    def _losses(self, x: Tensor, steps: Steps, batch: Batch) -> Tensor:
        states = self.heads.states(x)
        losses, chosen = [], None
        for head, name in enumerate(HEAD_ORDER):
            of_field = slice(FIRST_CONTEXT[name], FIRST_CONTEXT[name] + len(HABITS[name]))
            of_habits = batch.habit_share, batch.habit_bucket, batch.habit_level
            share, bucket, level = (F.pad(known[:, of_field], (0, 1)) for known in of_habits)
            if batch.aligned_share is not None and batch.aligned_bucket is not None:
                share[:, -1], bucket[:, -1] = batch.aligned_share[:, head], batch.aligned_bucket[:, head]
            target = steps.targets[:, head]
            known = target >= 0
            features = self.heads.features(head, states, chosen)
            own, habit = self.heads.opinions(head, features, target.clamp(min=0), steps.onset[:, 0], share)
            weight = self.heads.trust(head, features, bucket, level)  # (N, 1 + K) log
            mixed = torch.logsumexp(weight + torch.cat([own[:, None], habit], 1), 1)
            losses.append(torch.where(known, -mixed, 0.0))
            if head < len(HEAD_ORDER) - 1:
                added = self.heads.choose(head, target.clamp(min=0), None) * known[:, None]
                chosen = added if chosen is None else chosen + added
        return torch.stack(losses, 1)


class ChunkTransformer(NoteModel):
    """The whole network, of the sizes its config gives."""

    def add_trunk(self, config: Config) -> None:
        size, kinds = config.model, RECENT + config.memory.recent_chunks
        self.summary = nn.Parameter(torch.randn(size.summary_rows, size.d_model))
        self.encoder = nn.ModuleList(EncoderLayer(size) for _ in range(size.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(size, kinds, self.rotary.pairs) for _ in range(size.decoder_layers))

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.decoder))

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
        memory = []
        for layer in self.decoder_layers:
            kv = layer.cross.project_memory(encoded, cos, sin)[None]
            keys, values = layer.cross.assemble(kv, kinds[None])
            memory.append((keys.contiguous(), values.contiguous()))
        return memory

    # ---- decoder -----------------------------------------------------------------------------------------------

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
        for layer in self.decoder_layers:
            x = layer.attention(x, steps.packing, self_cos, self_sin)
            kv = layer.cross.project_memory(encoded, memory_cos, memory_sin)  # (N, 2D)
            keys, values = layer.cross.assemble(layout.gather(kv, memory_packing), layout.kinds)
            x = layer.cross(x, steps.packing, keys, values, layout.mask, cross_cos, cross_sin)
            x = layer.feed_forward(x)
        return self._losses(x, steps, batch)


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
