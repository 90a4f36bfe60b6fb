"""Wall time and peak memory of `midiex extend`, each run a process of its own: start-up and model load included.

python benchmarks/extend_speed.py [SONG] [--seconds 300 1200]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from common import report

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "band_groove.mid"


def run(song: Path, seconds: float, out: Path, *options: str) -> dict:
    """One `midiex extend` in a child process: wall time, peak resident memory, its own report."""
    begun = time.perf_counter()
    log = out.with_suffix(".json")
    child = os.fork()
    if child == 0:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.execv(
                sys.executable,
                [
                    sys.executable,
                    "-m",
                    "midiex",
                    "extend",
                    str(song),
                    "-s",
                    str(seconds),
                    "-o",
                    str(out),
                    "--json",
                    *options,
                ],
            )
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"midiex extend failed with status {status}")
    wall_s = time.perf_counter() - begun
    told = json.loads(log.read_text())
    made = told["new_to_s"] - told["new_from_s"]
    return {
        "seconds": seconds, "wall s": wall_s, "peak MB": usage.ru_maxrss / 1024, "new notes": told["new_notes"],
        "music s per wall s": made / wall_s, "kept notes/s": told["new_notes"] / wall_s,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("song", type=Path, nargs="?", default=EXAMPLE)
    parser.add_argument("--seconds", type=float, nargs="+", default=[300, 1200])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [run(args.song, s, Path(folder, f"{s:g}.mid")) for s in args.seconds]
        first, again = (Path(folder, f"same{i}.mid") for i in (1, 2))
        run(args.song, args.seconds[0], first, "--seed", "3"), run(args.song, args.seconds[0], again, "--seed", "3")
        same = first.read_bytes() == again.read_bytes()
    report("extend_speed", rows, song=args.song.name, same_seed_same_bytes=same)
    print(f"same seed twice: {'identical files' if same else 'DIFFERENT FILES'}")


if __name__ == "__main__":
    main()
