"""Commands by which midiex is judged: evaluate, mirex."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from .shared import MusicBar, check_targets, file_argument


@click.command()
@file_argument("folders", nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default="quality",
    show_default=True,
    help="Folder for quality.md, its pictures and quality.json.",
)
@click.option("--model", type=click.Path(path_type=Path), help="Folder of a model.  [default: the one that ships]")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Shards of `midiex prepare`: what the n-gram learns from and originality is judged by.",
)
@click.option("--splits", type=click.Path(path_type=Path), help="CSV with columns source, file, split.")
@click.option("--split", default="test", show_default=True, help="Which songs of --splits.")
@click.option("--full", is_flag=True, help="More songs, and 20 minutes of 30 of them: hours instead of minutes.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what is written.")
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate(
    folders: tuple[Path, ...],
    out: Path,
    model: Path | None,
    data: Path | None,
    splits: Path | None,
    split: str,
    full: bool,
    seed: int,
    jobs: int | None,
    as_json: bool,
) -> None:
    """How good is a model's music? Continues the songs in FOLDERS and compares with what follows in them.

    Each folder is a source; all weigh the same. Beside the model stand a loop of the prompt's last bars, the prompt
    repeated, an n-gram (with --data) and the song itself. Songs must last 75 seconds to be continued, and 130 for
    their form to be told.

    \b
    midiex evaluate my_songs                                           quality/quality.md, in a few minutes
    midiex evaluate my_songs --model my_model -o mine                  of another model
    midiex evaluate corpus/* --splits splits.csv --data shards --full  everything, on songs kept apart
    """  # fmt: skip
    import os

    from tqdm import tqdm

    from ..evaluation.page import to_json, write_page
    from ..evaluation.run import FULL, QUICK
    from ..evaluation.run import evaluate as run

    bar = tqdm(disable=True if as_json else None, leave=False)

    def show(stage: str, done: int, total: int) -> None:
        bar.set_description(stage, refresh=False)
        bar.total, bar.n = total, done
        bar.refresh()

    with bar:
        result = run(
            folders, model=model, shards=data, splits=splits, split=split, scope=FULL if full else QUICK, seed=seed,
            jobs=jobs or os.cpu_count() or 1, progress=show,
        )  # fmt: skip
    written = write_page(result, out)
    if as_json:
        sys.stdout.write(to_json(result))
        return
    click.echo(f"{written[-1]}: {sum(result['songs'].values())} songs of {len(result['songs'])} sources")


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
    from .. import mirex as task
    from ..extend import load
    from ..process import settle

    settle()
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
