"""How good the music is: `midiex evaluate` over a corpus, its page and pictures in docs/quality, its figures here.

    python benchmarks/quality.py FOLDER… --splits splits.csv --data SHARDS [--split test] [--full] [--model FOLDER]

Each FOLDER is a source. The quick run takes minutes on two cores, the full one hours. Figures, baselines and
their definitions: docs/quality/quality.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

from common import RESULTS, machine, table
from tqdm import tqdm

from midiex.evaluation.excerpts import FORM_PROMPTS_S
from midiex.evaluation.findings import FORM_GROUPS
from midiex.evaluation.form import JUDGED
from midiex.evaluation.page import to_json, write_page
from midiex.evaluation.run import FULL, QUICK, evaluate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "quality"
SHOWN = (
    "nll",
    "choice",
    "recognised",
    "overlap_share",
    "compression",
    "longest_repeat_bars",
    "shared_grams",
    "resampled",
    *(f"{group}_{prompt_s:g}_{name}" for group in FORM_GROUPS for prompt_s in FORM_PROMPTS_S for name in JUDGED),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--data", type=Path, help="shards, for the n-gram and originality")
    parser.add_argument("--model")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--scope", type=json.loads, default={}, help='changes to it as JSON, such as {"long_songs": 8}')
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generate", type=json.loads, default={}, help='settings as JSON, such as {"temperature": 1}')
    parser.add_argument("--out", type=Path, default=PAGE, help="folder of the page")
    args = parser.parse_args()
    began = time.perf_counter()
    with tqdm(leave=False, mininterval=5) as bar:

        def show(stage: str, done: int, total: int) -> None:
            bar.set_description(stage, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        result = evaluate(
            args.folders, model=args.model, shards=args.data, splits=args.splits, split=args.split,
            scope=replace(FULL if args.full else QUICK, **args.scope), seed=args.seed, jobs=args.jobs,
            generate=args.generate, progress=show,
        )  # fmt: skip
    result["machine"] = machine() | {"wall_s": round(time.perf_counter() - began)}
    if args.model:
        result["model"]["name"] = Path(args.model).name
    written = write_page(result, args.out)
    if args.out == PAGE:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "quality.json").write_text(to_json(result) + "\n")
    rows = []
    for name in SHOWN:
        for writer, found in result["figures"].get(name, {}).items():
            if "pooled" in found:
                rows.append({"figure": name, "writer": writer} | found["pooled"])
    for known, writers in result["discriminator"].items():
        rows += [{"figure": f"AUC, {known}", "writer": w, "mean": a["auc"], "low": a["low"], "high": a["high"],
                  "songs": a["songs"]} for w, a in writers.items()]  # fmt: skip
    print(table(rows))
    print(f"\n{written[-1]} in {result['machine']['wall_s']} s")


if __name__ == "__main__":
    main()
