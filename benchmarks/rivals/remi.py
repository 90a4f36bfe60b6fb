"""A decoder-only transformer over MidiTok's REMI, plain or with byte pairs merged: the usual way to the same music.

It trains on the very windows that midiex.dataset draws from the same shards, changed in the same ways and, for the same
seed, in the same order, so notes are counted as midiex counts them. Tokens are made while it trains (remi_tokens.py),
which takes a hundredth of the time; only merges are learned before.

What the figures mean: nats a note are the sum over all tokens of a window's chunks over their notes, the same notes
of the same songs as in midiex.train.validate. It is not quite the same quantity:

- Places (12 a beat), velocities (32), programs and pitches have the same bins, one for one. Of 48 lengths REMI tells 39
  apart (its grid is the twelfth up to 4 beats, the quarter up to 12, the beat up to 32). It drops micro-offsets (8, not
  the middle one in 16 % of the notes of the corpus) and instances (8, not the first in 38 %): beside it stands midiex's
  sum without these two fields, which valid.csv has.
- REMI has to foresee meters, which midiex's networks are told, as they are the tempo and the place before the end; they
  pay for the end of each chunk, where REMI pays for each bar but not for the window's end.
- Before each note REMI's network sees all of the window so far, and the chunks that a window remembers from earlier.
- In bars of an odd number of eighths MidiTok's beat is the eighth, so lengths reach half as far there. Bars that are no
  whole number of eighths, of which there are about 3 in 10,000, are longer here until they are one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import miditok
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midiex.config import Config
from midiex.dataset import Songs, load_split
from midiex.layers import NORM_EPS, EncoderLayer, Packing, SelfAttention
from midiex.train import STATE_FILE, Pace, Run, _keep_freed_memory, _Log, _processes, autocast, learn, to_device

from . import sizes
from .remi_tokens import MERGES_FILE, TokenBatch, TokenDataset, TokenWindow, prepare, remi, validation

ROTARY_BASE = 10_000.0
COUNTED = 20  # batches
LR = 0.01  # after two minutes of a core far ahead of 0.001, with which midiex's own learns
# Layers of each and their inner width, by scale: so that all have about as many parameters as midiex's own
LAYERS = {
    "remi": {"3M": (7, 520), "12M": (9, 976)},
    "remi_bpe": {"3M": (6, 512), "12M": (9, 880)},
}


class TokenModel(nn.Module):
    """midiex's blocks between tokens read and tokens foreseen. They know their number in the sequence by rotary angles
    of the usual periods (Su et al., arXiv 2104.09864)."""

    periods: Tensor

    def __init__(self, config: Config, vocabulary: int):
        super().__init__()
        size = config.model
        self.table = nn.Embedding(vocabulary, size.d_model)
        self.layers = nn.ModuleList(EncoderLayer(size) for _ in range(size.decoder_layers))
        for layer in self.layers:
            layer.attention = SelfAttention(size, causal=True)
        self.norm = nn.RMSNorm(size.d_model, eps=NORM_EPS)
        self.out = nn.Linear(size.d_model, vocabulary)
        pairs = size.head_dim // 2
        self.register_buffer("periods", ROTARY_BASE ** (torch.arange(pairs) / pairs), persistent=False)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def begin_with(self, tokens: Tensor) -> None:
        """Foresee each token as often as it is among these, so that no training is spent on what can be counted."""
        counts = torch.bincount(tokens, minlength=self.out.out_features) + 0.1
        with torch.no_grad():
            self.out.bias.copy_((counts / counts.sum()).log())

    def forward(self, batch: TokenBatch) -> Tensor:
        """Nats of each token that is to be foreseen, one after another."""
        packing = Packing(batch.sizes)
        angles = (packing.row[:, None] / self.periods)[:, None, None]  # (N, 1, 1, P)
        cos, sin = angles.cos(), angles.sin()
        x = self.table(batch.rows)
        for layer in self.layers:
            x = layer(x, packing, cos, sin)
        asked = (batch.following >= 0).nonzero()[:, 0]
        logits = self.out(self.norm(x[asked])).float()
        return F.cross_entropy(logits, batch.following[asked], reduction="none")


def config(name: str, scale: str, **train: Any) -> Config:
    """Config of `remi` or `remi_bpe`; keywords replace values of the section `train`."""
    base = sizes.config("decoder_only", scale, **train)
    layers, width = LAYERS[name][scale]
    model = replace(base.model, name=f"{name}-{scale}", decoder_layers=layers, d_ff=width)
    return replace(base, model=model)


def train_remi(
    bpe: bool,
    minutes: float,
    seed: int,
    data: str | Path,
    out: str | Path,
    valid_every_s: float = 600.0,
    *,
    merges: str | Path | None = None,
    scale: str = "3M",
    clock: Callable[[], float] = time.process_time,
    **train: Any,
) -> float:
    """Train on the shards in `data` for so many minutes of `clock` (of a core), as midiex.train.train does and with the
    same logs, and return the nats a note of the last validation, pooled with equal weight a source. A run found in
    `out` is resumed.

    `merges` is the file that `prepare` wrote; without it, merges are learned first. Further keywords, such as lr and
    notes_per_batch, replace values of the section `train` of the config.
    """
    chosen = config("remi_bpe" if bpe else "remi", scale, **{"max_notes": 10**9, "seed": seed, "lr": LR} | train)
    return train_on(chosen, _tokenizer(bpe, data, Path(out), merges), minutes, data, Path(out), valid_every_s, clock)


def _tokenizer(bpe: bool, data: str | Path, out: Path, merges: str | Path | None) -> miditok.REMI:
    if not bpe:
        return remi()
    if merges is None:
        merges = out / MERGES_FILE if (out / MERGES_FILE).exists() else prepare(data, out)
    return miditok.REMI(params=merges)


def train_on(
    config: Config,
    tokenizer: miditok.REMI,
    minutes: float,
    data: str | Path,
    out: Path,
    valid_every_s: float,
    clock: Callable[[], float],
) -> float:
    """As train_remi, of any size."""
    _keep_freed_memory()
    _, _, device = _processes()
    out.mkdir(parents=True, exist_ok=True)
    dataset = TokenDataset(load_split(data, "train"), config, tokenizer)
    sources = load_split(data, "valid")
    heard = validation(sources, config.train.window_chunks, tokenizer)
    torch.manual_seed(config.train.seed)
    network = TokenModel(config, len(tokenizer))
    network.begin_with(torch.cat([part.rows for parts, *_ in islice(dataset.batches(), COUNTED) for part in parts]))
    run = Run(network.to(device), config.train, minutes)
    position = run.restore(out, config) if (out / STATE_FILE).exists() else (0, 0)
    if run.share_done >= 1:
        return _pooled(validate(run, heard, sources, device))
    found = learn(
        run, run.model, dataset.batches(*position), device, Pace(valid_every_s, clock=clock), log=_Log(out, run.step),
        validate=lambda: validate(run, heard, sources, device), keep=lambda place: run.save(out, config, place),
    )  # fmt: skip
    return found["pooled"]


def _pooled(result: dict[str, dict[str, float]]) -> float:
    return float(np.mean([fields["all"] for fields in result.values()]))


@torch.no_grad()
def validate(
    run: Run, heard: list[TokenWindow], sources: list[Songs], device: torch.device
) -> dict[str, dict[str, float]]:
    """Nats a note of the EMA weights, {source: {"all": …, "notes": …}}."""
    keep = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.model.load_state_dict(run.ema)
    nats, notes = np.zeros(len(sources)), np.zeros(len(sources))
    for window in heard:
        batch = to_device(TokenBatch.of([window]), device)
        with autocast(device, run.train.precision):
            nats[window.source] += float(run.model(batch).double().sum())
        notes[window.source] += int(batch.lengths.sum())
    run.model.load_state_dict(keep)
    return {
        songs.source: {"all": nats[i] / max(1, notes[i]), "notes": float(notes[i])} for i, songs in enumerate(sources)
    }
