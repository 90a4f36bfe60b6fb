"""The command line: parsing and printing only. Everything heavy is imported inside the commands."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import click

from . import __version__
from .errors import BadInput, MidiexError

EXIT_FAILED, EXIT_BAD_INPUT = 1, 2


class Cli(click.Group):
    """Shows midiex's own errors as one sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MidiexError as error:
            click.echo(f"midiex: {error}", err=True)
            ctx.exit(EXIT_BAD_INPUT)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="midiex")
def main() -> None:
    """Make a MIDI song longer, and hear it.

    \b
    midiex extend song.mid --seconds 300                         five minutes of it, as song_300s.mid
    midiex extend song.mid --audio song.ogg --plot song.png      to listen to and to look at as well
    midiex render song.mid song.flac                             any MIDI file as audio
    midiex info song.mid                                         what is in it
    midiex prepare my_songs -o shards                            make training data of your own MIDI
    midiex train --data shards --out my_model --start small      and a model of it
    midiex doctor                                                is everything there that midiex needs?
    """


def _file(name: str, **options: Any) -> Callable:
    return click.argument(name, type=click.Path(path_type=Path), **options)


def _check_targets(source: Path, *targets: Path) -> None:
    """Refuse, before any work, an input that is not there and outputs that cannot be written or would overwrite it."""
    import os

    if not source.exists():
        raise BadInput(f"There is no file {source}; check its name and folder.")
    for target in targets:
        if target.is_dir():
            raise BadInput(f"{target} is a folder; name the file to write.")
        if not target.parent.is_dir():
            raise BadInput(f"There is no folder {target.parent} to write {target.name} into; make it first.")
        if not os.access(target.parent, os.W_OK) or (target.exists() and not os.access(target, os.W_OK)):
            raise BadInput(f"{target} cannot be written; choose a place you may write to.")
        if target.exists() and target.samefile(source):
            raise BadInput(f"{target} is the input itself, which midiex never changes; choose another name.")


def _check_suffix(target: Path | None, known: Collection[str]) -> None:
    if target and target.suffix.lower() not in known:
        raise BadInput(f"{target.name} does not end in a kind of file to write there; use one of {', '.join(known)}.")


@main.command()
@_file("song")
@click.option("-s", "--seconds", default=300.0, show_default=True, help="Length of the result, to the nearest bar.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="MIDI file to write.  [default: SONG_300s.mid]")
@click.option("--audio", type=click.Path(path_type=Path), help="Also render to this .wav, .flac, .ogg or .mp3.")
@click.option("--plot", type=click.Path(path_type=Path), help="Also draw a piano roll to this .png.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Each gives another continuation.")
@click.option("-t", "--temperature", type=click.FloatRange(0, 5, min_open=True), help="Below 1 safer, above 1 bolder.")
@click.option(
    "--takes", default=1, show_default=True, type=click.IntRange(1, 100), help="Write this many different ones."
)
@click.option("--model", type=click.Path(path_type=Path), help="Folder of a model.  [default: the one that ships]")
@click.option(
    "--soundfont",
    type=click.Path(path_type=Path),
    help="For --audio; else $MIDIEX_SOUNDFONT, else the one that ships.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def extend(
    song: Path,
    seconds: float,
    out: Path | None,
    audio: Path | None,
    plot: Path | None,
    seed: int,
    temperature: float | None,
    takes: int,
    model: Path | None,
    soundfont: Path | None,
    as_json: bool,
) -> None:
    """Continue SONG until it is --seconds long; the original stays as it is, event for event.

    \b
    midiex extend song.mid                                    song_300s.mid, five minutes
    midiex extend song.mid -s 90 -o long.mid --seed 7         another continuation
    midiex extend song.mid --takes 3 --audio long.ogg         three of them, long_1.ogg the best by midiex's own ranking
    """
    out = out or song.with_name(f"{song.stem}_{seconds:g}s.mid")
    named = {name: path for name, path in (("out", out), ("audio", audio), ("plot", plot)) if path}
    targets = [{name: _numbered(path, n, takes) for name, path in named.items()} for n in range(1, takes + 1)]
    _check_targets(song, *(path for paths in targets for path in paths.values()))
    from .render import FORMATS, find_soundfont, fluidsynth_version

    _check_suffix(audio, FORMATS)
    _check_suffix(plot, (".png",))
    if audio:
        fluidsynth_version(), find_soundfont(soundfont)  # better to know now than after composing
    import torch

    from .extend import load, start

    torch.set_num_threads(1)  # a second one gains little on an idle machine, and on a busy one each step waits for it
    started = time.perf_counter()
    loaded = load(model)
    results = []
    for take in range(takes):
        extension = start(song, seconds, model=loaded, seed=seed + take, temperature=temperature)
        label = f"take {take + 1}/{takes}" if takes > 1 else song.name
        with _Bar(extension.end_s - extension.seam_s, label, quiet=as_json) as bar:
            for chunk in extension.chunks():
                bar.advance(chunk.end_s - chunk.start_s)
        results.append(extension)
    results.sort(key=lambda e: e.mean_score)
    reports = []
    for extension, paths in zip(results, targets, strict=True):
        report = _finish(extension, paths, soundfont, as_json)
        reports.append(report | {"wall_s": round(time.perf_counter() - started, 2)})
    if as_json:
        click.echo(json.dumps(reports[0] if takes == 1 else reports, indent=2))
    else:
        for report in reports:
            click.echo(_told(report))


def _finish(extension: Any, targets: dict[str, Path], soundfont: Path | None, quiet: bool) -> dict[str, Any]:
    """Write one extension's files and report on it."""
    out = extension.save(targets["out"])
    if "audio" in targets:
        from .render import render as render_audio

        with _Bar(extension.end_s, targets["audio"].name, quiet=quiet) as bar:
            render_audio(out, targets["audio"], soundfont, progress=bar.to)
    if "plot" in targets:
        from .plots import piano_roll

        borders = [chunk.start_s for chunk in extension.written]
        title = extension.song.path.stem
        piano_roll(out, targets["plot"], extension.seam_s, borders, title, extension.grid.seconds.tolist())
    return extension.report() | {name: str(path) for name, path in targets.items()}


def _numbered(path: Path, number: int, of: int) -> Path:
    return path.with_name(f"{path.stem}_{number}{path.suffix}") if of > 1 else path


def _told(report: dict) -> str:
    files = ", ".join(report[name] for name in ("out", "audio", "plot") if name in report)
    return (
        f"{files}: {report['seconds']:.1f} s, of which {report['seconds'] - report['seam_s']:.1f} s new "
        f"({report['new_notes']} notes in {len(report['chunks'])} chunks, seed {report['seed']})"
    )


@main.command()
@_file("midi")
@_file("audio", required=False)
@click.option(
    "--soundfont",
    type=click.Path(path_type=Path),
    help="Another .sf2 or .sf3.  [default: $MIDIEX_SOUNDFONT or the one that ships]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def render(midi: Path, audio: Path | None, soundfont: Path | None, as_json: bool) -> None:
    """Play MIDI through FluidSynth into AUDIO (.wav, .flac, .ogg, .mp3; default: MIDI's name with .ogg).

    \b
    midiex render song.mid
    midiex render song.mid song.flac --soundfont grand_piano.sf2
    """
    from .describe import seconds_view
    from .render import FORMATS
    from .render import render as render_audio
    from .score import read

    audio = audio or midi.with_suffix(".ogg")
    _check_targets(midi, audio)
    _check_suffix(audio, FORMATS)
    length_s = seconds_view(read(midi)).get_end_time()
    with _Bar(length_s, audio.name, quiet=as_json) as bar:
        info = render_audio(midi, audio, soundfont, progress=bar.to)
    report = {
        "audio": str(audio),
        "seconds": info.seconds,
        "loudness_lufs": info.loudness_lufs if math.isfinite(info.loudness_lufs) else None,  # silence has none
        "peak": info.peak,
        "wall_s": info.wall_s,
    }
    click.echo(
        json.dumps(report, indent=2) if as_json else f"{audio}: {info.seconds:.1f} s at {info.loudness_lufs:.1f} LUFS"
    )


@main.command()
@_file("song")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(song: Path, as_json: bool) -> None:
    """Tell what is in SONG: length, bars, tempo and meter map, instruments, key, chunks, mood.

    \b
    midiex info song.mid
    midiex info song.mid --json
    """
    from .describe import describe
    from .score import read

    found = describe(read(song))
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_info_lines(found)))


def _info_lines(found: dict) -> list[str]:
    minutes, seconds = divmod(found["length_s"], 60)
    tempi, meters, mood = found["tempo_bpm"], found["meter"], found["mood"]
    lines = [
        f"{found['file']}: {int(minutes)}:{seconds:04.1f}, {found['bars']} bars, {found['notes']} notes, "
        f"MIDI type {found['type']}",
        f"tempo   {_map([(t['at_s'], format(t['bpm'], 'g') + ' bpm') for t in tempi])}",
        f"meter   {_map([(m['at_s'], m['meter']) for m in meters])}",
        f"key     {found['key'] or 'none (drums only)'} (fit {found['key_fit']:.2f})",
        f"mood    arousal {mood['arousal']:+.1f}, valence {mood['valence']:+.1f} ({mood['note']})",
        f"chunks  {len(found['chunks'])} of {', '.join(map(str, sorted({c['bars'] for c in found['chunks']})))} bars",
    ]
    for voice in found["instruments"]:
        name = f" '{voice['track_name']}'" if voice["track_name"] else ""
        lines.append(
            f"  track {voice['track']}{name}, channel {voice['channel']}: {voice['instrument']}, "
            f"{voice['notes']} notes, {voice['lowest']} to {voice['highest']}"
        )
    return lines


def _map(points: list[tuple[float, str]], most: int = 6) -> str:
    shown = ", ".join(what if at == 0 else f"{what} from {at:.1f} s" for at, what in points[:most])
    return shown + (f", and {len(points) - most} more changes" if len(points) > most else "")


@main.command()
@_file("folders", nargs=-1, required=True)
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

    from .prepare import prepare as run

    with tqdm(unit="file", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = run(folders, out, splits, jobs, show)
    for path, reason in report.skipped:
        click.echo(f"skipped {path}: {reason}", err=True)
    click.echo(f"{report.songs} songs, {report.notes} notes in {out}; {len(report.skipped)} files skipped")
    if not report.songs:
        sys.exit(EXIT_FAILED)


@main.command()
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

    from .config import load_config
    from .train import train as run

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


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def doctor(as_json: bool) -> None:
    """Check that all midiex needs is there, and say how to mend what is not.

    \b
    midiex doctor
    """
    from dataclasses import asdict

    from .doctor import check

    checks = check()
    if as_json:
        click.echo(json.dumps([asdict(c) for c in checks], indent=2))
    else:
        for one in checks:
            click.echo(
                f"{'ok ' if one.ok else 'BAD'}  {one.name}: {one.found}" + ("" if one.ok else f"\n     {one.mend}")
            )
    if not all(one.ok for one in checks):
        sys.exit(EXIT_FAILED)


class _Bar:
    """Progress in seconds of music, with the speed as a multiple of real time."""

    def __init__(self, total_s: float, label: str, quiet: bool):
        from tqdm import tqdm

        self.total_s, self.done_s = round(total_s), 0.0
        form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total} s of music, {rate_noinv_fmt}, {remaining} left"
        hidden = True if quiet else None  # None: hidden where nobody watches
        self.bar = tqdm(
            total=self.total_s, desc=label, disable=hidden, leave=False, bar_format=form, unit="x real time"
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, seconds: float) -> None:
        self.to(self.done_s + seconds)

    def to(self, seconds: float) -> None:
        seconds = min(seconds, self.total_s)
        self.bar.update(max(0.0, seconds - self.done_s))
        self.done_s = max(self.done_s, seconds)
