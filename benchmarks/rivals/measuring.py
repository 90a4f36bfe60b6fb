"""What training a network costs: notes a second, and memory by how much music a step spans. Each in its own process."""

from __future__ import annotations

import itertools
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from midiex.collate import collate
from midiex.dataset import Dataset, Songs, load_split
from midiex.evaluation.likelihood import last_target
from midiex.train import Run, _keep_freed_memory
from midiex.windows import Song, Window, make_window

from . import recurrence
from .sizes import builder, config
from .training import Settings, widen_pool

LONGEST = 33  # chunks, of which the last is to be written
TYPICAL_NOTES = (90, 160)  # a chunk, of the song with which memory is measured
LIMIT_BYTES = 8 << 30
WARM, TIMED = 2, 8  # batches


@dataclass(frozen=True)
class Speed:
    parameters: int
    notes: int
    wall_s: float
    cpu_s: float


def speed(name: str, scale: str, settings: Settings, shards: Path, threads: int, kernels: str) -> Speed:
    """Steps of training on batches that are made beforehand; recurrent networks by their own kernels or by torch's."""
    recurrence.kernels = kernels
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    _keep_freed_memory()
    of_run = config(name, scale, optimizer=settings.optimizer, lr=settings.lr,
                    notes_per_batch=settings.notes_per_batch)  # fmt: skip
    widen_pool(settings)
    data = Dataset(load_split(shards, "train"), of_run.train, of_run.memory)
    batches = [parts for parts, *_ in itertools.islice(data.batches(), WARM + TIMED)]
    model = builder(name, bptt_notes=settings.bptt_notes)(of_run)
    run = Run(model, of_run.train)
    for number, parts in enumerate(batches):
        if number == WARM:
            before, begun, cpu = run.notes, time.perf_counter(), time.process_time()
        run.step_on(model, parts, 1)
    parameters = sum(weight.numel() for weight in model.parameters())
    return Speed(parameters, run.notes - before, time.perf_counter() - begun, time.process_time() - cpu)


@dataclass(frozen=True)
class Memory:
    notes: int  # that a step reads
    written: int  # of them, whose likelihood it learns
    taken_bytes: int | None  # at most, above what the process had before its first step; None: more than LIMIT_BYTES


def memory(name: str, scale: str, settings: Settings, shards: Path, chunks: int, last_only: bool) -> Memory:
    """Two steps on one window: `chunks` chunks of context and one more. With `last_only` only that one is written, else
    all are, as in training."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    of_run = config(name, scale, optimizer=settings.optimizer)
    song = long_song(load_split(shards, "train"))
    batch = collate([_from_start(song, chunks + 1)], of_run.memory, 0.0, None)
    if last_only:
        batch = last_target(batch)
    model = builder(name, bptt_notes=settings.bptt_notes)(of_run)
    run = Run(model, of_run.train)
    notes, written = int(batch.lengths.sum()), int(batch.lengths[batch.target].sum())
    # a first step brings libraries, gradients and what optimisers keep
    run.step_on(model, [collate([_from_start(song, 2)], of_run.memory, 0.0, None)], 1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
    before = _now_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (before + LIMIT_BYTES + (2 << 30), resource.RLIM_INFINITY))
    try:
        for _ in range(2):
            run.step_on(model, [batch], 1)
    except (RuntimeError, MemoryError):  # what torch raises where there is no room
        return Memory(notes, written, None)
    taken = _most_bytes() - before
    return Memory(notes, written, taken if taken <= LIMIT_BYTES else None)


def long_song(sources: list[Songs], chunks: int = LONGEST) -> Song:
    """The first that has so many chunks of typical density at its beginning, none of them sparse."""
    for songs in sources:
        for index in np.flatnonzero(np.diff(songs.song_notes) >= chunks * TYPICAL_NOTES[0]):
            song = songs.song(int(index))
            notes = [len(chunk.rows) for chunk in _from_start(song, chunks).chunks]
            typical = TYPICAL_NOTES[0] <= np.mean(notes) <= TYPICAL_NOTES[1] and min(notes) >= TYPICAL_NOTES[0] // 2
            if len(notes) == chunks and typical:
                return song
    raise SystemExit("no song of these shards is long enough to measure memory with")


def _from_start(song: Song, size: int) -> Window:
    for seed in itertools.count():
        window = make_window(song, size, 10**9, 0, np.random.default_rng(seed))
        if window.chunks[0].first_bar == 0:
            return window
    raise AssertionError


def _now_bytes() -> int:
    return next(1024 * int(line.split()[1]) for line in _status() if line.startswith("VmRSS"))


def _most_bytes() -> int:
    return next(1024 * int(line.split()[1]) for line in _status() if line.startswith("VmHWM"))


def _status() -> list[str]:
    if sys.platform != "linux":
        raise SystemExit("memory is measured by /proc, which only Linux has")
    return Path("/proc/self/status").read_text().splitlines()
