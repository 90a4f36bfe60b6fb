"""Training: the loss falls, a stopped run goes on exactly, two processes make one step, and the logs tell it all."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import BAND, lively_model, tiny_config, write_song
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from midiex import train as module
from midiex.checkpoint import CONFIG_FILE, MODEL_FILE, load_model, save_model
from midiex.config import Config, MemoryConfig, TrainConfig
from midiex.dataset import Dataset, load_split
from midiex.errors import BadInput
from midiex.model import Batch, ChunkTransformer
from midiex.prepare import prepare
from midiex.tokens import FIELDS, HEAD_ORDER
from midiex.train import LOG_FILE, STATE_FILE, VALID_FILE, Progress, Run, train, validate

CPU = torch.device("cpu")
BLOCK = re.compile(r"(qkv|kv|q|out|inner|state|mix\.\d)\.weight$")


class Stop(Exception):
    """Stands for a power cut."""


@pytest.fixture(autouse=True)
def _on_one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "LOG_EVERY", 4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five songs to train on and two sources of one song each to validate on."""
    folder = tmp_path_factory.mktemp("shards")
    lines = ["source,file,split"]
    for source, programs in (("bands", BAND), ("pianos", (0,))):
        for i in range(4):
            write_song(folder / source / f"{i}.mid", bars=16, programs=programs, seed=i)
            lines.append(f"{source},{i}.mid,{'valid' if i == 3 else 'train'}")
    (folder / "splits.csv").write_text("\n".join(lines))
    prepare([folder / "bands", folder / "pianos"], folder / "out", folder / "splits.csv", jobs=1)
    return folder / "out"


def short(**changes: object) -> Config:
    """Small batches and a schedule in which every part comes to bear."""
    return tiny_config(**{"notes_per_batch": 128, "window_chunks": 2, "warmup_steps": 3, "max_notes": 2000} | changes)


def batches(shards: Path, config: Config, n: int, rank: int = 0) -> list[list[Batch]]:
    """The first batches of a run, each in its parts."""
    data = Dataset(load_split(shards, "train"), config.train, config.memory, rank)
    return [parts for parts, _, _ in islice(data.batches(), n)]


def notes_of(parts: list[Batch]) -> int:
    return sum(int(part.lengths[part.target].sum()) for part in parts)


def state(out: Path) -> dict[str, Tensor]:
    return load_file(out / STATE_FILE)


def progress(out: Path) -> dict:
    """What a run has counted, its wall time aside."""
    with safe_open(out / STATE_FILE, "pt") as file:
        found: dict = json.loads(file.metadata()["progress"])
    del found["wall_s"]
    return found


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(a: Path, b: Path) -> None:
    ours, theirs = state(a), state(b)
    assert ours.keys() == theirs.keys()
    different = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert not different
    assert progress(a) == progress(b)
    assert (a / MODEL_FILE).read_bytes() == (b / MODEL_FILE).read_bytes()


# ---- the whole loop -------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_everything_is_written(shards: Path, tmp_path: Path) -> None:
    reports: list[Progress] = []
    result = train(shards, tmp_path, short(max_notes=5000), on_progress=reports.append)
    assert len(reports) >= 5 and [r.step for r in reports[:-1]] == list(range(4, 4 * len(reports), 4))
    assert np.mean([r.loss for r in reports[-2:]]) < 0.8 * reports[0].loss
    assert reports[-1].notes >= 5000 > reports[-2].notes and reports[0].max_notes == 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [STATE_FILE, LOG_FILE, VALID_FILE, MODEL_FILE, CONFIG_FILE, "tokenizer.json"]
    )
    log = table(tmp_path / LOG_FILE)
    assert [int(row["step"]) for row in log] == [r.step for r in reports]
    assert [float(row["loss"]) for row in log] == pytest.approx([r.loss for r in reports], abs=1e-3)
    assert float(log[0]["lr_share"]) == 1 and float(log[-1]["lr_share"]) < 0.2
    assert all(float(row["grad_norm"]) > 0 for row in log)
    valid = table(tmp_path / VALID_FILE)
    assert [row["source"] for row in valid] == ["bands", "pianos"]
    assert set(valid[0]) == {"step", "notes", "trained_notes", "source", "all", *FIELDS}
    assert set(result) == {"bands", "pianos", "pooled"}
    assert result["pooled"] == pytest.approx((result["bands"] + result["pianos"]) / 2)
    assert float(valid[0]["all"]) == pytest.approx(result["bands"], abs=1e-3)


def test_what_is_left_is_the_running_mean(shards: Path, tmp_path: Path) -> None:
    config = short(max_notes=600)
    train(shards, tmp_path, config)
    tensors = state(tmp_path)
    loaded, its_config = load_model(tmp_path)
    assert its_config == config
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, tensors[f"ema.{name}"].bfloat16().float())
    assert any(not torch.equal(tensors[f"ema.{name}"], tensors[f"model.{name}"]) for name in loaded.state_dict())


def test_training_without_a_validation_split_works(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "train").symlink_to(shards / "train")
    assert train(tmp_path / "shards", tmp_path / "out", short(max_notes=1)) == {}
    assert progress(tmp_path / "out")["step"] == 1 and not (tmp_path / "out" / VALID_FILE).exists()


def test_without_shards_there_is_no_training(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no shards"):
        train(tmp_path, tmp_path / "out", short())


def test_minutes_end_a_run_too(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path, short(max_notes=10**9), max_minutes=1e-9)
    assert progress(tmp_path)["step"] == 1


def test_fine_tuning_begins_with_the_given_weights(shards: Path, tmp_path: Path) -> None:
    config = short(lr=1e-12, max_notes=200)
    given = lively_model(config)
    save_model(tmp_path / "given", given.state_dict(), config)
    train(shards, tmp_path / "out", config, start_from=tmp_path / "given")
    start = load_model(tmp_path / "given")[0].state_dict()
    tensors = state(tmp_path / "out")
    for name, value in start.items():
        torch.testing.assert_close(tensors[f"model.{name}"], value, rtol=0, atol=1e-6)
        torch.testing.assert_close(tensors[f"ema.{name}"], value, rtol=0, atol=1e-6)


# ---- resuming -------------------------------------------------------------------------------------------------------


def test_a_run_cut_off_goes_on_exactly(shards: Path, tmp_path: Path) -> None:
    config = short()
    train(shards, tmp_path / "whole", config)
    steps = progress(tmp_path / "whole")["step"]
    assert steps >= 12

    def cut_off(report: Progress) -> None:
        if report.step == 8:
            raise Stop

    with pytest.raises(Stop):  # before step 8 is saved: the last one on disk is 7
        train(shards, tmp_path / "parts", config, save_every_s=0, on_progress=cut_off)
    assert progress(tmp_path / "parts")["step"] == 7
    assert not torch.equal(state(tmp_path / "parts")["model.summary"], state(tmp_path / "whole")["model.summary"])
    train(shards, tmp_path / "parts", config)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_longer_run_goes_on_from_a_finished_one(shards: Path, tmp_path: Path) -> None:
    flat = {"decay_fraction": 0.0}
    train(shards, tmp_path / "whole", short(max_notes=1500, **flat))
    train(shards, tmp_path / "parts", short(max_notes=700, **flat))
    half = progress(tmp_path / "parts")["step"]
    train(shards, tmp_path / "parts", short(max_notes=1500, **flat))
    assert 1 < half < progress(tmp_path / "whole")["step"]
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run_is_left_as_it_is(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path, short(max_notes=400))
    before = progress(tmp_path)["step"]
    train(shards, tmp_path, short(max_notes=400))
    assert progress(tmp_path)["step"] == before


def test_a_run_stopped_while_it_saves_goes_on_exactly(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = short(max_notes=1000)
    train(shards, tmp_path / "whole", config)
    write, written = module.write_whole, []

    def stop_at_the_fourth(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 4:
            raise Stop
        write(path, data)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(module, "write_whole", stop_at_the_fourth)
        train(shards, tmp_path / "parts", config, save_every_s=0)
    train(shards, tmp_path / "parts", config)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_of_another_model_is_refused(shards: Path, tmp_path: Path) -> None:
    config = short(max_notes=1)
    train(shards, tmp_path, config)
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(BadInput, match="another model"):
        train(shards, tmp_path, replace(config, model=replace(config.model, d_ff=64)))
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_a_run_of_another_memory_is_refused(shards: Path, tmp_path: Path) -> None:
    config = short(max_notes=1)
    train(shards, tmp_path, config)
    with pytest.raises(BadInput):
        train(shards, tmp_path, replace(config, memory=MemoryConfig(recent_chunks=3)))


def test_a_damaged_run_is_refused(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path, short(max_notes=1))
    (tmp_path / STATE_FILE).write_bytes((tmp_path / STATE_FILE).read_bytes()[:20])
    with pytest.raises(BadInput):
        train(shards, tmp_path, short(max_notes=1000))


# ---- a step ---------------------------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_holds_and_falls() -> None:
    config: TrainConfig = short(warmup_steps=4, decay_fraction=0.25, min_lr_ratio=0.1).train
    assert [module.learning_rate_share(config, step, 0.0) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    falling = [module.learning_rate_share(config, 99, done) for done in (0.5, 0.75, 0.875, 0.95, 1.0, 1.2)]
    assert falling == pytest.approx([1, 1, 0.5, 0.2, 0.1, 0.1])
    assert module.learning_rate_share(replace(config, decay_fraction=0.0), 99, 1.0) == 1
    assert module.learning_rate_share(replace(config, warmup_steps=0), 0, 0.0) == 1
    assert module.learning_rate_share(config, 0, 0.875) == pytest.approx(0.125)


def test_the_running_mean_warms_up_and_follows(shards: Path) -> None:
    config = short(ema_decay=0.5)
    model = lively_model(config)
    run = Run(model, config.train)
    mean = {name: value.clone() for name, value in model.state_dict().items()}
    for step, batch in enumerate(batches(shards, config, 12), 1):
        run.step_on(model, batch, 1)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            mean[name] = decay * mean[name] + (1 - decay) * value
    for name, value in mean.items():
        torch.testing.assert_close(run.ema[name], value)


def test_a_step_counts_notes_and_takes_the_scheduled_rate(shards: Path) -> None:
    config = short(warmup_steps=10, lr=0.01, optimizer="adamw")
    model = lively_model(config)
    run = Run(model, config.train)
    (batch, _) = batches(shards, config, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = run.step_on(model, batch, 1)
    notes = notes_of(batch)
    assert (run.step, run.notes) == (1, notes) and run.share_done == notes / 2000
    assert run.lr_share == 0.1 and rates(run) == {0.001}
    with torch.no_grad():
        fresh = lively_model(config)
        assert loss == pytest.approx(
            sum(float(fresh(part).sum()) for part in batch) / notes, rel=0.02
        )  # the step may have run in bf16
    largest = max(float((p.detach() - before[name]).abs().max()) for name, p in model.named_parameters())
    assert 0.0005 < largest < 0.0015  # Adam's first step is the rate itself, and a little decay
    assert all(p.grad is None for p in model.parameters())


def rates(run: Run) -> set[float]:
    return {group["lr"] for optimizer in run.optimizers for group in optimizer.param_groups}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_matrices_decay_and_each_weight_has_one_optimizer(optimizer: str) -> None:
    config = short(weight_decay=0.5, optimizer=optimizer)
    model = lively_model(config)
    run = Run(model, config.train)
    groups = [group for optimizer in run.optimizers for group in optimizer.param_groups]
    assert {(group["weight_decay"], p.ndim >= 2) for group in groups for p in group["params"]} == {
        (0.5, True),
        (0.0, False),
    }
    taken = [id(p) for group in groups for p in group["params"]]
    assert sorted(taken) == sorted(map(id, model.parameters()))


def test_muon_takes_the_matrices_inside_and_the_scheduled_rate(shards: Path) -> None:
    config = short(warmup_steps=10, lr=0.01, optimizer="muon", weight_decay=0.0)
    model = lively_model(config)
    run = Run(model, config.train)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run.step_on(model, batches(shards, config, 1)[0], 1)
    assert rates(run) == {0.001}
    inner = {id(p) for group in run.optimizers[1].param_groups for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in inner}
    assert names == {n for n, m in model.named_parameters() if m.ndim == 2 and BLOCK.search(n)}
    for name in names:
        change = model.get_parameter(name).detach() - before[name]
        parts = {"qkv": 3, "kv": 2, "inner": 2, "state": 8}.get(name.split(".")[-2], 1)
        for part in change.chunk(parts):
            values = torch.linalg.svdvals(part) / (0.001 * 0.8 * max(part.shape) ** 0.5)
            assert 0.6 < float(values.max()) < 1.3, name  # of a gradient that has few directions, not all


def test_gradients_are_clipped(shards: Path) -> None:
    config = short(grad_clip=1e-9, weight_decay=0.0, optimizer="adamw")
    model = lively_model(config)
    seen: list[float] = []
    run = Run(model, config.train)
    (optimizer,) = run.optimizers
    take_step = optimizer.step

    def watch() -> None:
        seen.append(float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()))
        take_step()

    optimizer.step = watch  # type: ignore[method-assign, assignment]
    run.step_on(model, batches(shards, config, 1)[0], 1)
    assert run.grad_norm > 0.01 and seen[0] == pytest.approx(1e-9, rel=0.01)


# ---- validation -----------------------------------------------------------------------------------------------------


def test_validation_tells_each_source_and_field(shards: Path) -> None:
    config = short()
    model = lively_model(config)
    run = Run(model, config.train)
    sources = load_split(shards, "valid")
    result = validate(run, sources, config, CPU)
    assert set(result) == {"bands", "pianos"}
    for fields in result.values():
        assert set(fields) == {*FIELDS, "all", "notes"}
        assert fields["all"] == pytest.approx(sum(fields[name] for name in FIELDS))
        assert all(np.isfinite(v) and v > 0 for v in fields.values()) and fields["notes"] >= 16
    assert validate(run, sources, config, CPU) == result
    assert [FIELDS[f] for f in HEAD_ORDER] == list(module.HEAD_NAMES)


def test_validation_uses_the_mean_and_leaves_the_model_alone(shards: Path) -> None:
    config = short()
    model = lively_model(config)
    run = Run(model, config.train)
    sources = load_split(shards, "valid")
    before = validate(run, sources, config, CPU)
    other = lively_model(config, seed=1).state_dict()
    model.load_state_dict(other)
    assert validate(run, sources, config, CPU) == before
    assert all(torch.equal(value, other[name]) for name, value in model.state_dict().items())
    run.load(other)
    assert validate(run, sources, config, CPU) != before


# ---- threads and processes ------------------------------------------------------------------------------------------


def test_batches_made_ahead_come_in_order_and_errors_come_through() -> None:
    def numbers() -> object:
        yield from range(20)
        raise Stop

    ahead = module._prefetch(numbers())  # type: ignore[arg-type]
    assert [next(ahead) for _ in range(20)] == list(range(20))
    with pytest.raises(Stop):
        next(ahead)


def test_no_thread_outlives_a_run(shards: Path, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    train(shards, tmp_path, short(max_notes=1))
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(2)
    assert not any(thread.is_alive() for thread in left)


WORKER = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
torch.set_num_threads(1)
torch.cuda.is_available = lambda: False
from helpers import tiny_config
from midiex import train as module

class Watched(module.Run):
    def __init__(self, *args):
        super().__init__(*args)
        runs.append(self)

runs, module.Run = [], Watched
shards, out, settings = sys.argv[1:4]
module.train(shards, out, tiny_config(**eval(settings)))
rank = module.dist.get_rank()
save_file(dict(runs[0].model.state_dict()), Path(out, f"rank{rank}.safetensors"))
"""


def test_two_processes_have_the_gradients_of_one(shards: Path, tmp_path: Path) -> None:
    settings = {"notes_per_batch": 128, "window_chunks": 2, "warmup_steps": 0, "decay_fraction": 0.0, "max_notes": 500,
                "precision": "float32"}  # fmt: skip
    config = tiny_config(**settings)
    (tmp_path / "worker.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(module.__file__).parents[1])]),
    }  # fmt: skip
    command = [sys.executable, str(tmp_path / "worker.py"), str(shards), str(tmp_path / "out"), repr(settings)]
    (tmp_path / "out").mkdir()
    workers = [
        subprocess.Popen(command, env=common | {"RANK": r, "LOCAL_RANK": r}, stderr=subprocess.PIPE, text=True)
        for r in ("0", "1")
    ]
    try:
        errors = [worker.communicate(timeout=300)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], errors
    first, second = (load_file(tmp_path / "out" / f"rank{r}.safetensors") for r in (0, 1))
    steps = progress(tmp_path / "out")["step"]
    by_rank = [batches(shards, config, steps, rank) for rank in (0, 1)]
    assert 2 <= steps < len(batches(shards, config, 99)) and len(table(tmp_path / "out" / LOG_FILE)) >= 1
    assert progress(tmp_path / "out")["notes"] == sum(notes_of(batch) for batches in by_rank for batch in batches)

    torch.manual_seed(config.train.seed)
    model = ChunkTransformer(config)
    run = Run(model, config.train)
    for pair in zip(*by_rank, strict=True):
        for batch in pair:
            for part in batch:
                with module.autocast(CPU, config.train.precision):
                    loss = model(part).sum() / sum(map(notes_of, pair))  # as one process has of both
                loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.train.grad_clip)
        for optimizer in run.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        run.step += 1
        run._update_ema()
    for name, value in model.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state(tmp_path / "out")[f"ema.{name}"], run.ema[name], rtol=1e-4, atol=1e-5)
