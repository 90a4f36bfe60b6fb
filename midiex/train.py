"""Trains the network on shards: schedule, optimisers, EMA, validation, checkpoints and exact resume.

Runs on a CPU, on one GPU and, under torchrun, on several processes. Knows batches and models; knows no MIDI.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import json
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .checkpoint import save_model, write_whole
from .collate import collate
from .config import Config, TrainConfig
from .dataset import Dataset, Songs, load_split, validation_windows
from .errors import BadInput
from .layers import Matrix
from .model import Batch, ChunkTransformer
from .muon import Muon
from .tokens import FIELDS, HEAD_ORDER

STATE_FILE, LOG_FILE, VALID_FILE = "train_state.safetensors", "train.csv", "valid.csv"
LOG_EVERY = 20  # steps
VALID_WINDOWS = 4  # a source
HEAD_NAMES = tuple(FIELDS[f] for f in HEAD_ORDER)


@dataclass(frozen=True)
class Progress:
    """What is told to the caller now and then."""

    step: int
    notes: int
    max_notes: int
    loss: float  # nats a note, mean since the last report
    notes_per_s: float


def train(
    shards: str | Path,
    out: str | Path,
    config: Config,
    *,
    build: Callable[[Config], nn.Module] = ChunkTransformer,
    start_from: str | Path | None = None,
    max_minutes: float | None = None,
    valid_every_s: float = 600.0,
    save_every_s: float = 300.0,
    on_progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Train until config.train.max_notes (or `max_minutes` in all) and leave the model's EMA in `out`.

    The learning rate falls towards whichever of the two comes first. A run found in `out` is resumed where it stopped.
    `build` makes the network, which gives its losses as ChunkTransformer does. `start_from` is a model folder to
    fine-tune. All times are by `clock`, such as time.process_time where others share the cores. Returns the last
    validation's NLL per note by source, with "pooled" (equal weight a source).

    Raises BadInput when there are no shards or `out` holds a run of another config.
    """
    _keep_freed_memory()
    rank, world, device = _processes()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    dataset = Dataset(load_split(shards, "train"), config.train, config.memory, rank)
    valid = load_split(shards, "valid")
    torch.manual_seed(config.train.seed)
    model = build(config).to(device)
    run = Run(model, config.train, max_minutes)
    position = run.restore(out, config) if (out / STATE_FILE).exists() else (0, 0)
    if start_from is not None and run.step == 0:
        from .checkpoint import load_model

        run.load(load_model(start_from)[0].state_dict())
    network = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    if run.share_done >= 1:
        return {}

    def keep(position: tuple[int, int]) -> None:
        run.save(out, config, position)
        save_model(out, run.ema, config)

    return learn(
        run, network, dataset.batches(*position), device, Pace(valid_every_s, save_every_s, clock),
        log=_Log(out, run.step) if rank == 0 else None,
        validate=(lambda: validate(run, valid, config, device)) if rank == 0 and valid else None,
        keep=keep if rank == 0 else None, world=world, on_progress=on_progress,
    )  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """How often, by which clock."""

    valid_every_s: float = 600.0
    save_every_s: float = 300.0
    clock: Callable[[], float] = time.perf_counter


def learn(
    run: Run,
    network: nn.Module,
    batches: Iterator[Any],
    device: torch.device,
    pace: Pace,
    *,
    log: _Log | None,
    validate: Callable[[], dict[str, dict[str, float]]] | None,
    keep: Callable[[tuple[int, int]], None] | None,
    world: int = 1,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, float]:
    """Steps over batches (their parts, and the pool and number by which the data are gone on with) until the run is
    done. Now and then, and at the end, `validate` is asked for figures by source and `keep` told to save, with the
    place in the data. Returns the last validation, pooled, which is empty where there is none."""
    last = last_saved = last_valid = since = pace.clock()
    since_notes, losses = run.notes, []
    found: dict[str, float] = {}
    with contextlib.closing(_prefetch(batches)) as coming:
        for parts, pool, number in coming:
            losses.append(run.step_on(network, [to_device(part, device) for part in parts], world))
            now = pace.clock()
            run.wall_s += now - last
            last = now
            done = _agree(run.share_done >= 1, device, world)
            if log and (run.step % LOG_EVERY == 0 or done):
                report = Progress(run.step, run.notes, run.train.max_notes, sum(losses) / len(losses),
                                  (run.notes - since_notes) / (now - since))  # fmt: skip
                log.step(report, run)
                since, since_notes, losses = now, run.notes, []
                if on_progress:
                    on_progress(report)
            if log and validate and (done or now - last_valid > pace.valid_every_s):
                found = log.validation(run, validate())
                last_valid = pace.clock()
                since += last_valid - now  # the speed logged is that of training
            if keep and (done or now - last_saved > pace.save_every_s):
                keep((pool, number + 1))
                last_saved = pace.clock()
                since += last_saved - max(now, last_valid)
            if done:
                break
    if world > 1:
        dist.barrier()
    return found


class Run:
    """Model, optimisers, EMA and counters: all that a checkpoint must bring back."""

    def __init__(self, model: nn.Module, train: TrainConfig, max_minutes: float | None = None):
        self.model, self.train = model, train
        self.step, self.notes, self.wall_s = 0, 0, 0.0
        self.max_s = 60 * max_minutes if max_minutes else None
        self.lr_share, self.grad_norm = 0.0, 0.0
        self.optimizers = _optimizers(model, train)
        self.ema = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @property
    def share_done(self) -> float:
        by_time = 0.0 if self.max_s is None else self.wall_s / self.max_s
        return max(self.notes / self.train.max_notes, by_time)

    def step_on(self, network: nn.Module, parts: list[Batch], world: int) -> float:
        """One optimiser step over a batch's parts; returns its loss in nats a note."""
        notes = sum(int(part.lengths[part.target].sum()) for part in parts)
        self.lr_share = learning_rate_share(self.train, self.step, self.share_done)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.train.lr * self.lr_share
        total, device = 0.0, parts[0].rows.device
        of_all = _total(notes, device, world)
        weight = max(1.0, of_all / world)  # processes' gradients are averaged: every note weighs the same in all
        for part in parts:
            with autocast(device, self.train.precision):
                loss = network(part).sum()
            (loss / weight).backward()
            total += loss.item() / max(1, notes)
        self.grad_norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.train.grad_clip))
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad(set_to_none=True)
        self.step += 1
        self.notes += int(of_all)
        self._update_ema()
        return total

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(self.train.ema_decay, (1 + self.step) / (10 + self.step))
        current = self.model.state_dict()
        torch._foreach_lerp_(list(self.ema.values()), [current[name] for name in self.ema], 1 - decay)

    def load(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)
        self.ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def save(self, out: Path, config: Config, position: tuple[int, int]) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.items()}
        for which, optimizer in enumerate(self.optimizers):
            for number, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{which}.{number}.{k}": torch.as_tensor(v) for k, v in state.items()}
        progress = {
            "step": self.step,
            "notes": self.notes,
            "wall_s": self.wall_s,
            "position": position,
            "shape": _shape(config),
        }
        kept = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        write_whole(out / STATE_FILE, save(kept, {"progress": json.dumps(progress)}))

    def restore(self, out: Path, config: Config) -> tuple[int, int]:
        """Bring back a saved run; returns where in the data to go on."""
        try:
            with safe_open(out / STATE_FILE, "pt") as file:
                progress = json.loads(file.metadata()["progress"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{out / STATE_FILE} is damaged ({error}); delete it to begin the run anew.") from None
        if progress["shape"] != _shape(config):
            raise BadInput(
                f"{out} holds a run of another model ({progress['shape']}); choose another --out or its own --config."
            )
        self.model.load_state_dict(_under("model.", tensors))
        self.ema = {k: v.to(self.ema[k].device) for k, v in _under("ema.", tensors).items()}
        for which, optimizer in enumerate(self.optimizers):
            saved: dict[int, dict[str, Tensor]] = {}
            for key, value in _under(f"optimizer.{which}.", tensors).items():
                number, name = key.split(".", 1)
                saved.setdefault(int(number), {})[name] = value
            optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
        self.step, self.notes, self.wall_s = progress["step"], progress["notes"], progress["wall_s"]
        return tuple(progress["position"])


def _shape(config: Config) -> str:
    """What a run's tensors depend on."""
    return f"{config.model}, recent_chunks={config.memory.recent_chunks}, optimizer={config.train.optimizer}"


def _optimizers(model: nn.Module, train: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for embeddings, gains and the last layers; the matrices between them by themselves where Muon is chosen."""
    inner: dict[int, list[Tensor]] = {}  # by the parts each is made of
    if train.optimizer == "muon":
        for module in model.modules():
            if isinstance(module, Matrix):
                inner.setdefault(module.parts, []).append(module.weight)
    taken = {id(weight) for weights in inner.values() for weight in weights}
    outer = [p for p in model.parameters() if id(p) not in taken]
    adamw = torch.optim.AdamW(
        [{"params": [p for p in outer if p.ndim >= 2], "weight_decay": train.weight_decay},
         {"params": [p for p in outer if p.ndim < 2], "weight_decay": 0.0}],
        lr=train.lr, betas=(0.9, 0.98), eps=1e-9, fused=True,
    )  # fmt: skip
    if not inner:
        return [adamw]
    groups = [{"params": weights, "parts": parts} for parts, weights in inner.items()]
    return [adamw, Muon(groups, lr=train.lr, weight_decay=train.weight_decay)]


def learning_rate_share(train: TrainConfig, step: int, share_done: float) -> float:
    """Share of the peak: warm-up in steps, then flat, then straight down over the last `decay_fraction` of the run."""
    warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
    if not train.decay_fraction:
        return warm
    to_end = max(0.0, 1 - share_done) / train.decay_fraction
    return warm * max(train.min_lr_ratio, min(1.0, to_end))


@torch.no_grad()
def validate(run: Run, sources: list[Songs], config: Config, device: torch.device) -> dict[str, dict[str, float]]:
    """NLL in nats a note of the EMA weights, {source: {field: …, "all": …, "notes": …}}. Context is true, and nothing
    about the chunk is told but its bars, meter, tempo and place before the end."""
    windows = validation_windows(sources, config.train.window_chunks, VALID_WINDOWS)
    keep = {k: v.clone() for k, v in run.model.state_dict().items()}
    run.model.load_state_dict(run.ema)
    sums = torch.zeros(len(sources), len(HEAD_ORDER), dtype=torch.float64)
    notes = torch.zeros(len(sources), dtype=torch.float64)
    for window in windows:
        batch = to_device(collate([window], config.memory, 0.0, None), device)
        with autocast(device, config.train.precision):
            losses = run.model(batch)
        sums[window.source] += losses.double().sum(0).cpu()
        notes[window.source] += int(batch.lengths[batch.target].sum())
    run.model.load_state_dict(keep)
    result = {}
    for i, songs in enumerate(sources):
        per_note = sums[i] / notes[i].clamp(min=1)
        fields = {name: float(v) for name, v in zip(HEAD_NAMES, per_note, strict=True)}
        result[songs.source] = fields | {"all": float(per_note.sum()), "notes": float(notes[i])}
    return result


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bf16 where the hardware multiplies it fast and `precision` is not float32, else float32."""
    if precision == "float32" or not multiplies_bf16(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def multiplies_bf16(device: torch.device) -> bool:
    """Does the hardware have units for it?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else ""
    return "AVX512" in capabilities and _cpu_has("amx_bf16", "avx512_bf16")


def _cpu_has(*flags: str) -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in text for flag in flags)


AnyBatch = TypeVar("AnyBatch")


def to_device(batch: AnyBatch, device: torch.device) -> AnyBatch:
    """A dataclass of tensors, elsewhere."""
    return type(batch)(**{
        name: None if value is None else value.to(device, non_blocking=True) for name, value in vars(batch).items()
    })  # fmt: skip


def _prefetch(batches: Iterator) -> Generator[Any, None, None]:
    """Batches made by a thread while the step before runs; closing ends the thread. Its errors are raised here."""
    queue: Queue = Queue(maxsize=4)
    stop = Event()

    def put(item: object) -> None:
        while not stop.is_set():
            with contextlib.suppress(Full):
                return queue.put(item, timeout=0.2)

    def fill() -> None:
        try:
            for item in batches:
                put(item)
                if stop.is_set():
                    return
        except Exception as error:  # handed to the consumer
            put(error)

    thread = Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            item = queue.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them to the system after every operation: on a CPU the
    page faults of fresh memory otherwise cost a good part of a step. Does nothing on other C libraries."""
    m_trim_threshold, m_mmap_max = -1, -4
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def _processes() -> tuple[int, int, torch.device]:
    """(rank, world size, device), joining the group torchrun has set up."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return int(os.environ.get("RANK", "0")), world, device


def _total(value: float, device: torch.device, world: int) -> float:
    if world == 1:
        return value
    total = torch.tensor(float(value), device=device)
    dist.all_reduce(total)
    return float(total)


def _agree(done: bool, device: torch.device, world: int) -> bool:
    """True on every process as soon as it is on one."""
    return _total(float(done), device, world) > 0


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


class _Log:
    """Two CSV files beside the checkpoint: one line every few steps, one line a source and validation."""

    def __init__(self, out: Path, step: int):
        self.out = out
        for path in (out / LOG_FILE, out / VALID_FILE):
            if path.exists():  # what a stopped run wrote after its last checkpoint will be written again
                head, *lines = path.read_text().splitlines()
                kept = [line for line in lines if int(line.split(",")[0]) <= step]
                write_whole(path, "\n".join([head, *kept, ""]).encode())

    def step(self, report: Progress, run: Run) -> None:
        self._append(LOG_FILE, {
            "step": report.step, "notes": report.notes, "wall_s": round(run.wall_s, 1),
            "loss": round(report.loss, 4), "notes_per_s": round(report.notes_per_s), "lr_share": round(run.lr_share, 4),
            "grad_norm": round(run.grad_norm, 3),
        })  # fmt: skip

    def validation(self, run: Run, result: dict[str, dict[str, float]]) -> dict[str, float]:
        for source, fields in result.items():
            row = {"step": run.step, "trained_notes": run.notes, "source": source}
            self._append(VALID_FILE, row | {k: round(v, 4) for k, v in fields.items()})
        pooled = {source: fields["all"] for source, fields in result.items()}
        return pooled | {"pooled": sum(pooled.values()) / len(pooled)}

    def _append(self, name: str, row: dict) -> None:
        path = self.out / name
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
