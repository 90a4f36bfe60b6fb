"""Commands by which midiex is judged beside others: mirex."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from .shared import MusicBar, check_targets, file_argument


@click.command()
@file_argument("prompt")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="JSON file to write.  [default: PROMPT_generation.json]"
)
@click.option(
    "--takes",
    default=4,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Write this many, each with the next seed, and keep the one that fits best.",
)
@click.option(
    "--candidates", type=click.IntRange(1, 100), help="Versions of each chunk to choose from.  [default: the model's]"
)
@click.option("--bpm", default=120.0, show_default=True, help="Tempo, which the format does not tell.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Each gives other music.")
@click.option("--model", type=click.Path(path_type=Path), help="Folder of a model.  [default: the one that ships]")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def mirex(
    prompt: Path,
    out: Path | None,
    takes: int,
    candidates: int | None,
    bpm: float,
    seed: int,
    model: Path | None,
    as_json: bool,
) -> None:
    """Continue PROMPT, four bars of piano and a pickup, by twelve, in the format of MIREX 2025.

    In: {"prompt": [{"start": 16, "pitch": 72, "duration": 6}, ...]} in sixteenths of 4/4, bars of steps 0-79, the
    pickup first. Out: {"generation": [...]}, steps 80-271, the end of the piece.

    \b
    midiex mirex prompt.json                                  prompt_generation.json, the best of four
    midiex mirex prompt.json -o out.json --takes 8            the best of eight
    midiex mirex prompt.json -o sample_02.json --seed 100     another one
    midiex mirex prompt.json --bpm 72 --json                  a slow piece; what was done, for scripts
    """
    out = out or prompt.with_name(f"{prompt.stem}_generation.json")
    check_targets(prompt, out)
    import torch

    from .. import mirex as task
    from ..extend import load

    torch.set_num_threads(1)  # as in compose.py
    started = time.perf_counter()
    notes = task.read_prompt(prompt)
    loaded = load(model)
    results = []
    for number in range(takes):
        take = task.start(notes, bpm=bpm, model=loaded, seed=seed + number, candidates=candidates)
        passage = take.passage
        label = f"take {number + 1}/{takes}" if takes > 1 else prompt.name
        with MusicBar(passage.end_s - passage.start_s, label, quiet=as_json) as bar:
            for chunk in passage.chunks():
                bar.advance(chunk.end_s - chunk.start_s)
        results.append(take)
    best = min(results, key=lambda take: take.passage.mean_score)
    written = best.notes()
    task.write_generation(out, written)
    told = [take.passage.report() for take in results]
    report = {
        "prompt": str(prompt), "out": str(out), "bpm": bpm, "notes": len(written),
        **{key: best.passage.report()[key] for key in ("seed", "score", "terms")},
        "takes": [{key: one[key] for key in ("seed", "score")} for one in told],
        "wall_s": round(time.perf_counter() - started, 2),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    chosen = f", the best of {takes} takes by midiex's own ranking" if takes > 1 else ""
    click.echo(f"{out}: {len(written)} notes in 12 bars, seed {report['seed']}{chosen}")
