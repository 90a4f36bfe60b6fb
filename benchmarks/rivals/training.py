"""Trains one network of the comparison, and finds settings for each by the same small search.

A run lies in a folder of its own, as midiex.train.train leaves it. Its time is that which cores spend on it, so that
runs side by side, or beside other work, have the same budget. Knows no figures, no page.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from common import machine

from midiex import dataset
from midiex.train import train

from .sizes import builder, config

RUN_FILE = "run.json"
MINUTES = {"3M": 15.0, "12M": 20.0}  # of a core, by scale
ALONE_MINUTES = 10.0
USUAL_NOTES, USUAL_POOL_WINDOWS = 1536, dataset.POOL_WINDOWS  # the latter was chosen for batches of the former
BPTT_NOTES = 256
WARMUP_NOTES = 60_000


@dataclass(frozen=True)
class Settings:
    """What the search may choose for a network."""

    optimizer: str = "muon"  # of plain matrices; recurrent ones have AdamW in any case
    lr: float = 0.001
    notes_per_batch: int = USUAL_NOTES
    grad_clip: float = 1.0
    bptt_notes: int | None = None  # of recurrent networks: how far gradients reach


@dataclass(frozen=True)
class Run:
    """One training."""

    name: str  # of the network, as in sizes.NETWORKS
    scale: str
    settings: Settings
    minutes: float  # of a core, by which the learning rate falls
    seed: int = 0
    alone: bool = False  # without echoes and habits

    @property
    def label(self) -> str:
        budget = "" if self.minutes == usual_minutes(self.scale, self.alone) else f"-{self.minutes:g}min"
        return f"{self.name}-{self.scale}-{'alone-' if self.alone else ''}seed{self.seed}{budget}"


def usual_minutes(scale: str, alone: bool) -> float:
    """What a training is given, so that those of a kind can be compared."""
    return ALONE_MINUTES if alone else MINUTES[scale]


def train_run(run: Run, shards: Path, out: Path, valid_every_s: float = 120.0) -> float:
    """Trains, or goes on with, a run in the folder `out`; returns its validation NLL in nats a note, sources weighing
    alike."""
    _tell(run, out)
    settings = run.settings
    widen_pool(settings)
    of_run = config(
        run.name, run.scale, optimizer=settings.optimizer, lr=settings.lr, notes_per_batch=settings.notes_per_batch,
        grad_clip=settings.grad_clip, seed=1 + run.seed, max_notes=10**9,
        warmup_steps=max(10, WARMUP_NOTES // settings.notes_per_batch),
        ema_decay=1 - 0.002 * settings.notes_per_batch / USUAL_NOTES,
    )  # fmt: skip
    valid = train(
        shards, out, of_run, build=builder(run.name, run.alone, settings.bptt_notes), max_minutes=run.minutes,
        valid_every_s=valid_every_s, save_every_s=120.0, clock=time.process_time,
    )  # fmt: skip
    if not valid:  # it was complete before
        from .curves import curve

        return curve(out).nats[-1]
    return valid["pooled"]


def widen_pool(settings: Settings) -> None:
    """Batches are filled with windows of like length out of a pool, which must hold enough of them."""
    dataset.POOL_WINDOWS = USUAL_POOL_WINDOWS * max(1, settings.notes_per_batch // USUAL_NOTES)


def _tell(run: Run, out: Path) -> None:
    """What is trained in a folder, and where: a minute of one core is not one of another."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RUN_FILE).write_text(json.dumps(asdict(run) | {"cpu": machine()["cpu"]}, indent=1) + "\n")


def train_remi_run(bpe: bool, minutes: float, shards: Path, runs: Path) -> float:
    """Trains, or goes on with, the decoder over REMI's tokens in a folder of its own; returns what `train_run` does."""
    from .curves import curve
    from .remi import LR, train_remi

    run = Run("remi_bpe" if bpe else "remi", "3M", Settings(lr=LR), minutes)
    out = runs / run.label
    _tell(run, out)
    train_remi(bpe, minutes, 1, shards, out, valid_every_s=300.0)
    return curve(out).nats[-1]


def candidates(best: Settings, stage: int, is_recurrent: bool) -> list[Settings]:
    """What a stage of the search tries beside the best so far: eight runs for every network, and one more for recurrent
    ones, whose gradients may do better not to reach all the way back."""
    if stage == 0:
        return [replace(best, optimizer=optimizer, notes_per_batch=notes)
                for optimizer in ("muon", "adamw") for notes in (USUAL_NOTES, 4 * USUAL_NOTES)]  # fmt: skip
    if stage == 1:
        return [replace(best, lr=best.lr * factor) for factor in (0.4, 2.5, 6.25)]
    clipped = [replace(best, grad_clip=0.25)]
    return [*clipped, replace(best, bptt_notes=BPTT_NOTES)] if is_recurrent else clipped
