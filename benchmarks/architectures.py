"""Why an encoder-decoder transformer: networks of other kinds trained, measured and judged as midiex's own is.

python benchmarks/architectures.py search --data SHARDS --runs RUNS            settings for every network, equal effort
python benchmarks/architectures.py train --data SHARDS --runs RUNS --seeds 0 1 2
python benchmarks/architectures.py train --data SHARDS --runs RUNS --scale 12M
python benchmarks/architectures.py train --data SHARDS --runs RUNS --alone     without echoes and habits
python benchmarks/architectures.py train --data SHARDS --runs RUNS --networks ours --minutes 5      less time
python benchmarks/architectures.py remi --data SHARDS --runs RUNS              over REMI's tokens, plain and merged
python benchmarks/architectures.py speed --data SHARDS                         notes a second in training
python benchmarks/architectures.py memory --data SHARDS                        of training, by chunks of context

python benchmarks/architectures.py judge --data SHARDS --runs RUNS --midi FOLDERS --splits splits.csv
python benchmarks/architectures.py generation --runs RUNS                      speed and memory of writing
python benchmarks/architectures.py curves --runs RUNS                          nats a note by time and by notes
python benchmarks/architectures.py page                                        docs/why-encoder-decoder.md from all that

Networks (rivals/networks.py): ours, lstm, lstm_attention, gru, decoder_only. They differ in their trunk only; note
rows, embeddings, heads, data, validation and schedule are the same. Trainings run side by side, a thread each (--jobs),
go on where they were stopped, and are kept in the folder --runs, which is no part of the repository. Figures are saved
as benchmarks/results/architectures_*.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common import RESULTS, machine, report, table
from tqdm import tqdm

SEARCH = RESULTS / "architectures_search.json"
SEARCH_MINUTES = 2.0
SCALES = ("3M", "12M")


def side_by_side(function: Callable, tasks: Iterable[tuple], jobs: int, what: str) -> Iterator[tuple[tuple, Any]]:
    """Each task and what the function gives for it, in processes of one thread."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    os.environ.update(dict.fromkeys(names, "1"))
    tasks = list(tasks)
    with ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = {pool.submit(function, *task): task for task in tasks}
        for done in tqdm(as_completed(waiting), total=len(tasks), desc=what, unit=" runs"):
            yield waiting[done], done.result()


def chosen(name: str) -> Any:
    """Settings that the search found for a network."""
    from rivals.training import Settings

    found = json.loads(SEARCH.read_text())["networks"].get(name) if SEARCH.exists() else None
    if found is None:
        sys.exit(f"No settings are known for {name}; run `architectures.py search` first.")
    return Settings(**found["settings"])


def search(args: argparse.Namespace) -> None:
    """Stage after stage, all networks at once; every network gets as many runs."""
    from rivals.sizes import RECURRENT
    from rivals.training import Run, Settings, candidates, train_run

    best = {name: (float("inf"), Settings()) for name in args.networks}
    tried: dict[str, list[dict[str, Any]]] = {name: [] for name in args.networks}
    for stage in range(3):
        runs = [
            Run(name, args.scale, settings, args.minutes)
            for name in args.networks
            for settings in candidates(best[name][1], stage, name in RECURRENT)
        ]
        folders = [args.runs / "search" / f"{run.name}-{args.scale}-{_key(run.settings)}" for run in runs]
        tasks = [(run, args.data, folder, 1e9) for run, folder in zip(runs, folders, strict=True)]
        for (run, *_), nats in side_by_side(train_run, tasks, args.jobs, f"search, stage {stage + 1} of 3"):
            tried[run.name].append(asdict(run.settings) | {"nats_a_note": nats})
            best[run.name] = min(best[run.name], (nats, run.settings), key=lambda found: found[0])
    known = json.loads(SEARCH.read_text())["networks"] if SEARCH.exists() else {}
    known |= {
        name: {"settings": asdict(best[name][1]), "minutes": args.minutes, "scale": args.scale, "tried": tried[name]}
        for name in args.networks
    }
    SEARCH.parent.mkdir(exist_ok=True)
    SEARCH.write_text(json.dumps({"machine": machine(), "networks": known}, indent=1) + "\n")
    rows = [{"network": n, **asdict(settings), "lr": f"{settings.lr:g}", "nats a note": nats}
            for n, (nats, settings) in best.items()]  # fmt: skip
    print(table(rows))


def _key(settings: Any) -> str:
    return "-".join(str(value) for value in asdict(settings).values())


def train(args: argparse.Namespace) -> None:
    """As many runs as networks and seeds."""
    from rivals.training import Run, train_run, usual_minutes

    minutes = args.minutes or usual_minutes(args.scale, args.alone)
    runs = [Run(name, args.scale, chosen(name), minutes, seed, args.alone)
            for seed in args.seeds for name in args.networks]  # fmt: skip
    tasks = [(run, args.data, args.runs / run.label) for run in runs]
    rows = [{"run": run.label, "nats a note": nats} for (run, *_), nats in
            side_by_side(train_run, tasks, args.jobs, "training")]  # fmt: skip
    print(table(sorted(rows, key=lambda row: row["run"])))


def remi(args: argparse.Namespace) -> None:
    """The decoder over REMI's tokens, plain and merged."""
    from rivals.training import train_remi_run

    tasks = [(bpe, args.minutes, args.data, args.runs) for bpe in (False, True)]
    for (bpe, *_), nats in side_by_side(train_remi_run, tasks, args.jobs, "training"):
        print(f"{'remi_bpe' if bpe else 'remi'}: {nats:.3f} nats a note")


def speed(args: argparse.Namespace) -> None:
    from rivals.measuring import speed as measure
    from rivals.recurrence import OWN, TORCHS
    from rivals.sizes import RECURRENT

    tasks = [(name, scale, chosen(name), args.data, threads, kernels)
             for scale in SCALES for name in args.networks for threads in (1, 2)
             for kernels in (OWN, TORCHS) if kernels == OWN or name in RECURRENT]  # fmt: skip
    rows = []
    for (name, scale, settings, _, threads, kernels), found in side_by_side(measure, tasks, 1, "speed"):
        rows.append({
            "network": name, "scale": scale, "parameters": found.parameters, "threads": threads, "kernels": kernels,
            "notes a batch": settings.notes_per_batch, "notes/s": found.notes / found.wall_s,
            "notes a CPU second": found.notes / found.cpu_s,
        })  # fmt: skip
    rows.sort(key=lambda row: (row["scale"], row["threads"], row["kernels"], row["network"]))
    report("architectures_speed", rows)


def memory(args: argparse.Namespace) -> None:
    from rivals.measuring import memory as measure

    tasks = [(name, args.scale, chosen(name), args.data, chunks, last_only)
             for last_only in (False, True) for name in args.networks for chunks in args.chunks]  # fmt: skip
    rows = []
    for (name, scale, _, _, chunks, last_only), found in side_by_side(measure, tasks, args.jobs, "memory"):
        taken = "more than 8 GB" if found.taken_bytes is None else found.taken_bytes / 2**20
        rows.append({
            "network": name, "scale": scale, "chunks of context": chunks, "written": "last" if last_only else "all",
            "notes read": found.notes, "notes written": found.written, "MB": taken,
        })  # fmt: skip
    rows.sort(key=lambda row: (row["written"], row["network"], row["chunks of context"]))
    report("architectures_memory", rows)


def judge(args: argparse.Namespace) -> None:
    from rivals.judging import judge as measure

    runs = _trained(args.runs)
    tasks = [(folder, alone, args.data, args.midi, args.splits) for folder, alone in runs]
    path = RESULTS / "architectures_judged.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}  # those judged before stay
    for (folder, *_), found in side_by_side(measure, tasks, args.jobs, "judging"):
        figures[folder.name] = found
    rows = []
    for name in sorted(figures):
        own = figures[name]
        row = {"run": name, "nats a note": _told(own["nll"]), "true next among four": _told(own["choice"]),
               "by what the past takes off": _told(own["recognised"]),
               "overlap, share of real": _told(own["overlap_share"])}  # fmt: skip
        rows.append(
            row
            | {"notes/s written (real)": f"{own['notes_per_s']['mean']:.1f} ({own['notes_per_s_real']['mean']:.1f})"}
        )
    report("architectures_judged", rows, figures=figures)


def _told(figure: dict[str, Any]) -> str:
    return f"{figure['mean']:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"


def generation(args: argparse.Namespace) -> None:
    from rivals.judging import generation as measure

    rows = []
    folders = [folder for folder, alone in _trained(args.runs) if folder.name.endswith("seed0") and not alone]
    for folder in tqdm(folders, unit=" runs"):
        rows += [{"run": folder.name, **found} for found in measure(folder)]
    report("architectures_generation", rows)


def _trained(runs: Path) -> list[tuple[Path, bool]]:
    """Folders of trainings that had their whole time, and whether echoes and habits were kept from them."""
    from rivals.curves import finished

    return [(folder, one.alone) for folder, one in finished(runs) if one.network in NETWORKS and not one.is_short]


def curves(args: argparse.Namespace) -> None:
    """Those trained elsewhere or earlier stay, unless the same training is in the folder."""
    from rivals.curves import Curve, finished

    path = RESULTS / "architectures_curves.json"
    known = [Curve(**one) for one in json.loads(path.read_text())["curves"]] if path.exists() else []
    found = {one.training: one for one in [*known, *(one for _, one in finished(args.runs))]}
    path.write_text(json.dumps({"curves": [asdict(found[training]) for training in sorted(found)]}) + "\n")
    print(f"saved {path}")


def page(args: argparse.Namespace) -> None:
    from rivals.page import draw

    print(f"saved {draw(args.docs)}")


NETWORKS = ("ours", "lstm", "lstm_attention", "gru", "decoder_only")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--data", type=Path, required=True, help="shards of `midiex prepare`")
    shared.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    shared.add_argument("--jobs", type=int, default=2, help="runs side by side")
    sized = argparse.ArgumentParser(add_help=False)
    sized.add_argument("--scale", choices=SCALES, default="3M")
    kept = argparse.ArgumentParser(add_help=False)
    kept.add_argument("--runs", type=Path, required=True, help="folder for trainings")
    for function, parents in ((search, [shared, sized, kept]), (train, [shared, sized, kept]), (speed, [shared]),
                              (memory, [shared, sized])):  # fmt: skip
        command = commands.add_parser(function.__name__, parents=parents, help=function.__doc__)
        command.set_defaults(function=function)
        if function is search:
            command.add_argument("--minutes", type=float, default=SEARCH_MINUTES)
        if function is train:
            command.add_argument("--minutes", type=float, help="of a core; by default as in rivals/training.py")
            command.add_argument("--seeds", type=int, nargs="+", default=[0])
            command.add_argument("--alone", action="store_true", help="without echoes and habits")
        if function is memory:
            command.add_argument("--chunks", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    tokens = commands.add_parser("remi", parents=[shared, kept], help=remi.__doc__)
    tokens.add_argument("--minutes", type=float, default=15.0)
    tokens.set_defaults(function=remi)
    judging = commands.add_parser("judge", parents=[shared, kept], help="what trained networks are worth")
    judging.add_argument("--midi", type=Path, nargs="+", required=True, help="folders of MIDI, named as the sources")
    judging.add_argument("--splits", type=Path, required=True, help="table of which song is of which split")
    judging.set_defaults(function=judge)
    writing = commands.add_parser("generation", parents=[kept], help="what writing costs")
    writing.set_defaults(function=generation)
    gathering = commands.add_parser("curves", parents=[kept], help="gather what trainings logged")
    gathering.set_defaults(function=curves)
    drawing = commands.add_parser("page", help="write docs/why-encoder-decoder.md")
    drawing.add_argument("--docs", type=Path, default=Path(__file__).resolve().parent.parent / "docs")
    drawing.set_defaults(function=page)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
