"""Many songs at once: speed by jobs, runs that are killed and go on, a cluster that loses a worker, a large plan.

    python benchmarks/batch.py FOLDER [--songs 300] [--seconds 60] [--kills 3] [--only jobs kills cluster plan]

Songs are those of FOLDER's MIDI files that leave room for new music, from each folder in it in turn. `jobs` extends
them with one job and with two; `kills` does the same with two, is killed (SIGKILL, workers too) at random moments and
begun again; `cluster` gives them to three workers of a local Dask cluster, one of which is killed. All outputs are
compared byte by byte with those of one job. `plan` is a dry run over ten thousand generated files.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import report

from midiex import score
from midiex.errors import MidiexError

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "chiptune_loop.mid"
SECTIONS = ("jobs", "kills", "cluster", "plan")


def chosen(folder: Path, songs: int, longest_s: float) -> list[Path]:
    """So many of a folder's songs that are no longer, from each folder in it in turn, each in an order of its own."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) or [folder]
    sources = [sorted(source.rglob("*.mid"), key=_place_in_order) for source in folders]
    mixed = (path for turn in itertools.zip_longest(*sources) for path in turn if path)
    return list(itertools.islice((path for path in mixed if _lasts_s(path) <= longest_s), songs))


def _place_in_order(path: Path) -> bytes:
    return hashlib.sha256(path.name.encode()).digest()


def _lasts_s(path: Path) -> float:
    try:
        return score.read(path).length_s
    except MidiexError:
        return math.inf


def command(songs: Path, out: Path, seconds: float, jobs: int, *more: str) -> list[str]:
    own = ["batch", str(songs), "-o", str(out), "-s", f"{seconds:g}", "-j", str(jobs), "--json", *more]
    return [sys.executable, "-m", "midiex", *own]


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every MIDI file, by place."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.mid")}


def run(arguments: list[str]) -> tuple[dict[str, Any], float]:
    begun = time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return json.loads(done.stdout), time.perf_counter() - begun


def killed(arguments: list[str], kills: int, expected_s: float, rng: random.Random) -> list[float]:
    """Begins a run and kills it so many times, each when a random part of what it should take has passed; returns when
    each kill came, in seconds."""
    moments = []
    for _ in range(kills):
        wait_s = rng.uniform(0.05, 0.9) * expected_s / (kills + 1)
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait_s)
        for pid in [*_children(process.pid), process.pid]:  # the workers first: what is half-written stays so
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        moments.append(round(wait_s, 1))
    return moments


def _children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in found.split()]


def on_cluster(songs: Path, out: Path, seconds: float, kill_after_s: float) -> tuple[dict[str, Any], float]:
    """The same on three Dask workers, one of which is killed."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL") as cluster:

        def kill() -> None:
            time.sleep(kill_after_s)
            with Client(cluster.scheduler_address) as client:
                pids = client.run(os.getpid)
                os.kill(next(iter(pids.values())), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        found = run(command(songs, out, seconds, 1, "--scheduler", cluster.scheduler_address))
        killer.join()
        return found


def plan(folder: Path, files: int = 10_000) -> dict[str, Any]:
    """A dry run over so many files, each of which differs."""
    data = EXAMPLE.read_bytes()
    for number in range(files):
        path = folder / f"{number // 100:03d}" / f"{number:05d}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data + number.to_bytes(4, "big"))
    timed = ["/usr/bin/time", "-v"] if Path("/usr/bin/time").exists() else []
    begun = time.perf_counter()
    asked = [*timed, *command(folder, folder / "out", 300, 1, "--dry-run")]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    wall_s = time.perf_counter() - begun
    peak = re.search(r"Maximum resident.*?(\d+)", done.stderr)
    return {"what": f"dry run over {files} files", "songs": len(json.loads(done.stdout)["to_do"]),
            "wall s": wall_s, "songs/s": files / wall_s,
            "told": f"{int(peak[1]) / 1024:.0f} MB at most" if peak else ""}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--songs", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    args = parser.parse_args()
    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        songs = folder / "songs"
        for path in chosen(args.folder, args.songs, 0.75 * args.seconds):
            target = songs / path.relative_to(args.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        one_s, expected = 0.0, {}
        if {"jobs", "kills", "cluster"} & set(args.only):
            made, one_s = run(command(songs, folder / "one", args.seconds, 1))
            expected = tree(folder / "one")
            rows.append(row("one job", made, one_s))
        if "jobs" in args.only:
            made, two_s = run(command(songs, folder / "two", args.seconds, 2))
            rows.append(row("two jobs", made, two_s, f"{one_s / two_s:.2f} times one job"))
            wrong += ["two jobs"] * (tree(folder / "two") != expected)
        if "kills" in args.only:
            again = command(songs, folder / "killed", args.seconds, 2)
            moments = killed(again, args.kills, one_s / 2, random.Random(args.seed))
            before = len(tree(folder / "killed"))
            made, rest_s = run(again)
            told = f"killed after {', '.join(map(str, moments))} s with {before} done; outputs "
            same = tree(folder / "killed") == expected
            rows.append(row("killed and begun again", made, rest_s, told + ("as undisturbed" if same else "DIFFER")))
            wrong += ["kills"] * (not same)
        if "cluster" in args.only:
            made, there_s = on_cluster(songs, folder / "cluster", args.seconds, one_s / 8)
            same = tree(folder / "cluster") == expected
            told = f"one of three workers killed after {one_s / 8:.0f} s; outputs "
            rows.append(row("Dask cluster", made, there_s, told + ("as undisturbed" if same else "DIFFER")))
            wrong += ["cluster"] * (not same)
        if "plan" in args.only:
            rows.append(plan(folder / "many"))
    report("batch", rows, songs=args.songs, seconds=args.seconds, seed=args.seed)
    sys.exit(f"other outputs: {', '.join(wrong)}" if wrong else 0)


def row(what: str, made: dict[str, Any], wall_s: float, told: str = "") -> dict[str, Any]:
    done = made["done"] + made["done_before"]
    counts = f"{done} done, {made['refused'] + made['refused_before']} refused, {made['failed']} failed"
    return {"what": what, "songs": done, "wall s": wall_s, "songs/s": made["done"] / wall_s,
            "told": f"{counts}; {told}" if told else counts}  # fmt: skip


if __name__ == "__main__":
    main()
