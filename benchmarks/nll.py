"""NLL in nats a note of a model beside a uniform and a unigram model over the same notes, by source and by field.

    python benchmarks/nll.py SHARDS [--split test] [--model FOLDER] [--windows 12]

Windows are fixed stretches of consecutive chunks, one a song. As in use, the model counts all notes of the song before
them (beside it: what the same model gives when it knows the window's own chunks alone), and it is told a chunk's bars,
meter, tempo and place before the end; then also the likest earlier bars as its source ("source"), or how dense, loud
and high it is and which voices play ("plan"), or both. The unigram model knows how often each value of a field occurs
in the training split, sources weighted as in training; the uniform one only how many values there are.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import report

from midiex.checkpoint import load_model
from midiex.collate import collate
from midiex.dataset import DEFAULT_WEIGHT, SOURCE_WEIGHTS, Songs, load_split, validation_windows
from midiex.layers import END, HEAD_SIZES
from midiex.model import Steps
from midiex.tokens import BAR, FIELDS, HEAD_ORDER

MINUTE = "model, window alone"
NAMES = [FIELDS[f] for f in HEAD_ORDER]


def unigram(sources: list[Songs]) -> list[np.ndarray]:
    """Log probability of each value of each head, add-one smoothed; chunk bars as the training windows cut them."""
    weights = np.array([SOURCE_WEIGHTS.get(s.source, DEFAULT_WEIGHT) for s in sources])
    counts = [np.ones(size) for size in HEAD_SIZES]
    for songs, weight in zip(sources, weights / weights.sum(), strict=True):
        own = [np.zeros(size) for size in HEAD_SIZES]
        for window in validation_windows([songs], 8, 40):
            batch = collate([window], _Memory, 0.0, None)
            targets = Steps.build(batch).targets.numpy()
            for head in range(len(HEAD_ORDER)):
                own[head] += np.bincount(targets[targets[:, head] >= 0, head], minlength=HEAD_SIZES[head])
        for head, value in enumerate(own):
            counts[head] += 1e6 * weight * value / max(1.0, own[0].sum())
    return [np.log(c / c.sum()) for c in counts]


class _Memory:
    recent_chunks, summary_chunks = 1, 1


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default=None)
    parser.add_argument("--windows", type=int, default=12, help="a source")
    args = parser.parse_args()
    model, config = load_model(args.model)
    table = unigram(load_split(args.shards, "train"))
    sources = load_split(args.shards, args.split)
    rows = []
    told = {"model": (False, False), "source": (True, False), "plan": (False, True), "source, plan": (True, True)}
    fields: dict[str, list[np.ndarray]] = {name: [] for name in (*told, MINUTE, "unigram", "uniform")}
    for songs in sources:
        sums = {name: np.zeros(len(HEAD_ORDER)) for name in fields}
        notes = 0
        asked = config.train.window_chunks, args.windows
        for window, with_source in zip(
            validation_windows([songs], *asked), validation_windows([songs], *asked, with_source=True), strict=True
        ):
            notes += window.notes - (len(window.chunks) - window.extras)
            for name, (source, plan) in told.items():
                batch = collate([with_source if source else window], config.memory, 0.0, None, told=plan)
                sums[name] += model(batch).double().sum(0).numpy()
            targets = Steps.build(batch).targets.numpy()
            alone = collate([replace(window, before=None)], config.memory, 0.0, None)
            sums[MINUTE] += model(alone).double().sum(0).numpy()
            for head in range(len(HEAD_ORDER)):
                known = targets[targets[:, head] >= 0, head]
                sums["unigram"][head] -= table[head][known].sum()
                sums["uniform"][head] += len(known) * np.log(HEAD_SIZES[head])
        for name, value in sums.items():
            fields[name].append(value / max(1, notes))
        totals = {name: float(fields[name][-1].sum()) for name in fields}
        pitch = float(fields["model"][-1][NAMES.index("pitch")])
        rows.append({"source": songs.source, "notes": notes} | totals | {"model pitch": pitch})
    pooled = {name: np.mean(values, 0) for name, values in fields.items()}
    rows.append(
        {"source": "pooled (equal weight)", "notes": sum(r["notes"] for r in rows)}
        | {name: float(v.sum()) for name, v in pooled.items()}
        | {"model pitch": float(pooled["model"][NAMES.index("pitch")])}
    )
    by_field = {name: dict(zip(NAMES, map(float, v), strict=True)) for name, v in pooled.items()}
    report(
        f"nll_{args.split}", rows, split=args.split, by_field=by_field, end_class=END, bar_head=NAMES.index(FIELDS[BAR])
    )
    print("\npooled by field, nats a note:")
    for name in NAMES:
        print(f"  {name:10s}" + "".join(f"  {kind} {by_field[kind][name]:.3f}" for kind in by_field))


if __name__ == "__main__":
    main()
