"""Commands for many songs at once: batch and convert."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadInput

if TYPE_CHECKING:
    from ..batch.jobs import Job, Outcome, Settings
    from ..batch.run import Plan, Tally

EXIT_SOME_FAILED = 1
SHOWN = 20  # of the songs that are not done
TIMEOUT_S, MEMORY_GIB = 600.0, 4.0

_SHARED = (
    click.argument("inputs", nargs=-1, required=True, metavar="IN..."),
    click.option("-o", "--out", required=True, metavar="OUT", help="Folder or fsspec URL for the results."),
    click.option("--soundfont", type=click.Path(path_type=Path), help="For audio; else the one that ships."),
    click.option("-j", "--jobs", type=click.IntRange(1), help="Songs at a time.  [default: one for each core]"),
    click.option("--timeout", default=TIMEOUT_S, show_default=True, help="Seconds after which a song is given up."),
    click.option("--memory", default=MEMORY_GIB, show_default=True, help="GiB that a song may need (Linux)."),
    click.option("--force", is_flag=True, help="Do again what is done already."),
    click.option("--dry-run", is_flag=True, help="Only tell what would be done."),
    click.option("--shuffle", is_flag=True, help="In another order; the results are the same."),
    click.option("--shard", metavar="I/N", help="Only the I-th of N parts, for N machines given the same."),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Do it on a Dask cluster: its address, or `config` for what Dask's own configuration says.",
    ),
    click.option("--manifest", type=click.Path(path_type=Path), help="Folder of the record.  [default: OUT, if local]"),
    click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON."),
)


def _shared(function: Callable) -> Callable:
    for option in reversed(_SHARED):
        function = option(function)
    return function


@click.command()
@_shared
@click.option("-s", "--seconds", default=300.0, show_default=True, help="Length of each result.")
@click.option("--audio", type=click.Choice(["wav", "flac", "ogg", "mp3"]), help="Also render each.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Each gives other music.")
@click.option("--model", type=click.Path(path_type=Path), help="Folder of a model.  [default: the one that ships]")
@click.option("--keep-ending", is_flag=True, help="A song's own ending follows the new music.")
@click.option("--exact", is_flag=True, help="The last note ends on the second.")
@click.option("--loop", is_flag=True, help="The end leads back to the beginning.")
def batch(
    inputs: tuple[str, ...], out: str, seconds: float, audio: str | None, seed: int, model: Path | None,
    keep_ending: bool, exact: bool, loop: bool, soundfont: Path | None, **how: Any,
) -> None:  # fmt: skip
    """Extend every song in folders, globs, zip archives and URLs; what is done already is not done again.

    \b
    midiex batch songs -o long                                     the tree of songs/, five minutes each, in long/
    midiex batch "songs/**/*.mid" more.zip -o long -s 120 --audio ogg -j 4
    midiex batch songs -o long --dry-run                           what would be done?
    midiex batch songs -o long --shard 1/3                         a third of it, on the first of three machines
    midiex batch s3://bucket/songs -o s3://bucket/long --scheduler tcp://host:8786

    OUT holds midiex-manifest.jsonl, a line of JSON a song: its hash, settings, seed, result, and why it failed. Exit
    code 0: all done, 1: some not, 2: could not start.
    """
    from ..batch.jobs import Settings

    options = {name: True for name, on in (("keep_ending", keep_ending), ("exact", exact), ("loop", loop)) if on}
    settings = Settings(
        "extend", out, seconds, f".{audio}" if audio else "", seed=seed, model=str(model or ""),
        soundfont=str(soundfont or ""), options=options,
    )  # fmt: skip
    _run(inputs, settings, **how)


@click.command()
@_shared
@click.option(
    "--to",
    "audio",
    type=click.Choice(["wav", "flac", "ogg", "mp3"]),
    default="ogg",
    show_default=True,
    help="Kind of audio file.",
)
@click.option("--stems", is_flag=True, help="Each track as a file of its own as well, in a folder beside the audio.")
def convert(inputs: tuple[str, ...], out: str, audio: str, stems: bool, soundfont: Path | None, **how: Any) -> None:
    """Render every MIDI file in folders, globs, zip archives and URLs to audio; what is done is not done again.

    \b
    midiex convert songs -o audio                                  the tree of songs/ as OGG, in audio/
    midiex convert songs.zip -o audio --to flac -j 8 --stems
    """
    to_audio(inputs, out, f".{audio}", stems, soundfont, **how)


def to_audio(
    inputs: tuple[str, ...], out: str, suffix: str, stems: bool, soundfont: Path | None, **how: Any
) -> None:  # fmt: skip
    """What `midiex convert` does, and `midiex render` with a folder."""
    from ..batch.jobs import Settings

    _run(inputs, Settings("convert", out, audio=suffix, stems=stems, soundfont=str(soundfont or "")), **how)


def _run(
    inputs: tuple[str, ...], settings: Settings, *, jobs: int | None, as_json: bool, timeout: float = TIMEOUT_S,
    memory: float = MEMORY_GIB, force: bool = False, dry_run: bool = False, shuffle: bool = False,
    shard: str | None = None, scheduler: str | None = None, manifest: Path | None = None,
) -> None:  # fmt: skip
    from ..batch import run as running
    from ..batch.jobs import Limits
    from ..batch.manifest import Manifest

    part = _shard(shard)
    if "://" in settings.out and manifest is None:
        raise BadInput(f"{settings.out} is no folder to keep a record in; name one with --manifest.")
    record = manifest or Path(settings.out)
    if timeout <= 0 or memory <= 0:
        raise BadInput("Limits of time and memory must be above 0; leave them out for the usual ones.")
    settings = running.with_made_by(settings)
    kept = Manifest(record, f"{part[0]}-of-{part[1]}" if shard else "")
    planned = running.plan(inputs, settings, kept, force=force, shuffle=shuffle, shard=part)
    if dry_run:
        return _show_plan(planned, as_json)
    running.prepare_out(settings, record)
    limits = Limits(timeout, int(memory * 2**30))
    workers: running.Workers
    if scheduler is not None:
        from ..batch.cluster import Cluster

        workers = Cluster("" if scheduler == "config" else scheduler, limits)
    else:
        workers = running.Local(jobs or os.cpu_count() or 1, limits)
    begun = time.perf_counter()
    with closing(workers), _terminated(), _Bar(len(planned), quiet=as_json) as bar:
        tally = running.run(planned.jobs, workers, kept, bar.done)
    _tell(planned, tally, time.perf_counter() - begun, kept.path, as_json)
    if tally.stopped or tally.reasons or planned.refused:
        sys.exit(EXIT_SOME_FAILED)


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise BadInput(f"--shard {text} is no part of a whole; write 1/3 for the first of three.")
    return int(number), int(of)


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Bar:
    """Progress over songs, with seconds of music made a second."""

    def __init__(self, songs: int, quiet: bool):
        from tqdm import tqdm

        self.bar = tqdm(total=songs, unit=" songs", disable=True if quiet else None, leave=False)
        self.begun = time.perf_counter()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def done(self, job: Job, outcome: Outcome, tally: Tally) -> None:
        rate = tally.music_s / max(1e-9, time.perf_counter() - self.begun)
        self.bar.set_postfix_str(f"{rate:.0f} s of music a s, {len(tally.reasons)} not done", refresh=False)
        self.bar.update()


def _show_plan(planned: Plan, as_json: bool) -> None:
    if as_json:
        songs = [{"song": job.item.url, "outputs": list(job.outputs().values())} for job in planned.jobs]
        told = {"to_do": songs, "done": planned.done, "refused": dict(planned.refused)}
        click.echo(json.dumps(told | {"of_other_shards": planned.others}, indent=1))
        return
    for job in planned.jobs:
        click.echo(f"{job.item.url} -> {', '.join(job.outputs().values())}")
    over = f"{planned.done} done already, {len(planned.refused)} refused before"
    click.echo(f"{len(planned)} songs to do, {over}, {planned.others} of other shards")


def _tell(planned: Plan, tally: Tally, wall_s: float, record: Path, as_json: bool) -> None:
    not_done = [*tally.reasons, *planned.refused]
    counts = {name: tally.results[name] for name in ("done", "refused", "failed")}
    told = counts | {
        "done_before": planned.done, "refused_before": len(planned.refused), "of_other_shards": planned.others,
        "stopped": tally.stopped, "music_s": round(tally.music_s, 1), "wall_s": round(wall_s, 1),
        "manifest": str(record),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(told | {"not_done": dict(not_done)}, indent=1))
        return
    for place, reason in not_done[:SHOWN]:
        click.echo(f"{place}: {reason}")
    if len(not_done) > SHOWN:
        click.echo(f"… and {len(not_done) - SHOWN} more, all in {record}")
    before = {"done before": planned.done, "refused before": len(planned.refused), "of other shards": planned.others}
    rows = (counts | before).items()
    width = max(len(name) for name, _ in rows)
    click.echo("\n".join(f"{name:{width}}  {count:6}" for name, count in rows if count or name == "done"))
    if len(planned):
        rate = tally.music_s / max(1e-9, wall_s)
        click.echo(f"{tally.music_s:.0f} s of music in {wall_s:.0f} s, {rate:.0f} s a s" + "; stopped" * tally.stopped)
