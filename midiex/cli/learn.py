"""Commands that make models: prepare, train."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .shared import file_argument


@click.command()
@file_argument("folders", nargs=-1, required=True)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder for the shards.")
@click.option(
    "--splits", type=click.Path(path_type=Path), help="CSV with columns source, file, split (train, valid, test)."
)
@click.option("--jobs", type=click.IntRange(1), help="Processes.  [default: one a core]")
def prepare(folders: tuple[Path, ...], out: Path, splits: Path | None, jobs: int | None) -> None:
    """Turn FOLDERS of MIDI into training shards. Each folder is one source; bad files are skipped and listed.

    \b
    midiex prepare my_songs -o shards
    """
    from tqdm import tqdm

    from ..prepare import prepare as run

    with tqdm(unit="file", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = run(folders, out, splits, jobs, show)
    for path, reason in report.skipped:
        click.echo(f"skipped {path}: {reason}", err=True)
    click.echo(f"{report.songs} songs, {report.notes} notes in {out}; {len(report.skipped)} files skipped")
    if not report.songs:
        sys.exit(1)


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder made by `midiex prepare`.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the model; a run found there goes on."
)
@click.option("--config", default="small", show_default=True, help="A size (tiny, small, base) or a YAML file.")
@click.option("--start", type=click.Path(path_type=Path), help="Fine-tune this model ('small' is the one that ships).")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), help="Stop after so many minutes of training in all."
)
@click.option("--notes", type=click.IntRange(1), help="Train over so many notes.  [default: the config's]")
@click.option("--lr", type=click.FloatRange(0, min_open=True), help="Peak learning rate.  [default: the config's]")
def train(
    data: Path, out: Path, config: str, start: Path | None, minutes: float | None, notes: int | None, lr: float | None
) -> None:
    """Train a model on shards; resumes by itself. Logs: train.csv and valid.csv in --out.

    \b
    midiex train --data shards --out my_model --config small --minutes 90
    midiex train --data shards --out my_model --start small --notes 500000 --lr 3e-4
    torchrun --nproc-per-node 2 -m midiex train --data shards --out my_model
    """
    from dataclasses import replace

    from tqdm import tqdm

    from ..config import load_config
    from ..train import train as run

    chosen = load_config(config)
    usual = chosen.train
    chosen = replace(chosen, train=replace(usual, max_notes=notes or usual.max_notes, lr=lr or usual.lr))
    with tqdm(total=chosen.train.max_notes, unit="note", unit_scale=True, disable=None) as bar:

        def show(progress: Any) -> None:
            bar.update(progress.notes - bar.n)
            bar.set_postfix(nats_a_note=f"{progress.loss:.3f}", notes_per_s=round(progress.notes_per_s))

        valid = run(data, out, chosen, start_from=start, max_minutes=minutes, on_progress=show)
    click.echo(
        f"{out}: "
        + (
            ", ".join(f"{name} {value:.3f}" for name, value in valid.items()) + " nats a note on valid"
            if valid
            else "trained (no validation shards)"
        )
    )
