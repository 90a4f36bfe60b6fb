"""Commands that write music: extend, fill, insert, regenerate."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .shared import MusicBar, check_suffix, check_targets, file_argument

if TYPE_CHECKING:
    from ..extend import Model, Passage


@dataclass(frozen=True)
class Wanted:
    """What every composing command is told."""

    out: Path | None
    audio: Path | None
    plot: Path | None
    seed: int | None
    temperature: float | None
    takes: int
    model: Path | None
    soundfont: Path | None
    as_json: bool


_OPTIONS = (
    click.option("-o", "--out", type=click.Path(path_type=Path), help="MIDI file to write."),
    click.option("--audio", type=click.Path(path_type=Path), help="Also render to this .wav, .flac, .ogg or .mp3."),
    click.option("--plot", type=click.Path(path_type=Path), help="Also draw a piano roll to this .png."),
    click.option("--seed", type=click.IntRange(0), help="Each gives other music.  [default: 0; regenerate: a new one]"),
    click.option(
        "-t", "--temperature", type=click.FloatRange(0, 5, min_open=True), help="Below 1 safer, above 1 bolder."
    ),
    click.option(
        "--takes",
        default=1,
        show_default=True,
        type=click.IntRange(1, 100),
        help="Write this many different ones, the best first, and say why.",
    ),
    click.option("--model", type=click.Path(path_type=Path), help="Folder of a model.  [default: the one that ships]"),
    click.option(
        "--soundfont",
        type=click.Path(path_type=Path),
        help="For --audio; else $MIDIEX_SOUNDFONT, else the one that ships.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON."),
)
_PLAYERS = (
    click.option(
        "--solo",
        "--keep-instruments",
        "solo",
        multiple=True,
        metavar="TRACK",
        help="Only these play in the new music: name or number as in `midiex info`; may be repeated.",
    ),
    click.option("--mute", multiple=True, metavar="TRACK", help="These do not play in the new music."),
    click.option("--only-drums", "drums", flag_value=True, default=None, help="Only drums play in the new music."),
    click.option("--no-drums", "drums", flag_value=False, help="No drums play in the new music."),
)


def _with(*groups: tuple[Callable, ...]) -> Callable:
    def decorate(function: Callable) -> Callable:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return decorate


@click.command()
@file_argument("song")
@click.option("-s", "--seconds", default=300.0, show_default=True, help="Length of the result, to the last whole bar.")
@click.option(
    "--from",
    "begin",
    default="auto",
    show_default=True,
    metavar="PLACE",
    help="Where new music begins: auto (before the song's ending, if it has one), end, 95.5, 1:35.5 or bar:24.",
)
@click.option("--keep-ending", is_flag=True, help="What lay after that place follows the new music.")
@click.option("--exact", is_flag=True, help="The last note ends on the second (tempo changes by 1 % at most).")
@click.option("--loop", is_flag=True, help="The end leads back to the beginning, for games.")
@click.option("--open-end", is_flag=True, help="No ending: the music stops where it is, to be faded out.")
@click.option(
    "--returns",
    type=click.FloatRange(0, 10),
    help="How readily earlier music comes back: 0 never, 1 as in songs like it, 2 twice as much.  [default: 1]",
)
@click.option(
    "--progression",
    type=click.FloatRange(0, 3),
    help="How strictly a progression that the song goes round is kept to: 0 freely, 1 as it does.  [default: 0.8]",
)
@click.option(
    "--form", metavar="LETTERS", help='Sections to come, such as "A B A C A", or flat for no plan.  [default: as fits]'
)
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), help="Keep to this plan: JSON of `midiex plan`, edited."
)
@_with(_PLAYERS, _OPTIONS)
def extend(
    song: Path,
    seconds: float,
    begin: str,
    keep_ending: bool,
    exact: bool,
    loop: bool,
    open_end: bool,
    returns: float | None,
    progression: float | None,
    form: str | None,
    plan_file: Path | None,
    solo: tuple[str, ...],
    mute: tuple[str, ...],
    drums: bool | None,
    **wanted: Any,
) -> None:
    """Continue SONG until it is --seconds long; the original stays as it is, event for event.

    \b
    midiex extend song.mid                                    song_300s.mid, five minutes
    midiex extend song.mid -s 90 -o long.mid --seed 7         another continuation
    midiex extend song.mid --keep-ending --exact              new music, then the song's own ending, on the second
    midiex extend song.mid --from bar:17 --solo piano         go on from bar 17, with the piano alone
    midiex extend theme.mid --loop -s 120                     the end leads back to the beginning
    midiex extend song.mid --form "A B A C A"                 these sections, A and B as in `midiex info song.mid`
    midiex plan song.mid --json > plan.json                   the plan alone; edit it, and then
    midiex extend song.mid --plan plan.json                   music that keeps to it
    midiex extend song.mid --takes 3 --audio long.ogg         three of them, long_1.ogg the best by midiex's own ranking
    """
    from ..extend import start
    from ..outline import is_flat, read_plan

    is_flat(form)  # better to know now than when the network is loaded
    plan = None if plan_file is None else read_plan(plan_file)

    def begun(model: Model, seed: int, temperature: float | None) -> Passage:
        return start(
            song, seconds, begin=begin, keep_ending=keep_ending, exact=exact, loop=loop, open_end=open_end,
            returns=returns, progression=progression, solo=solo, mute=mute, drums=drums, model=model, seed=seed,
            temperature=temperature, form=form, plan=plan,
        )  # fmt: skip

    reports = _compose(song, f"{seconds:g}s", begun, Wanted(**wanted))
    if keep_ending and reports[0]["leads_to"] != "song":
        click.echo(f"midiex: no ending was found in {song.name} to keep; say where it begins with --from.", err=True)


@click.command()
@file_argument("song")
@click.option("--from", "begin", required=True, metavar="PLACE", help="Where: 40, 0:40 or bar:17; to the nearest bar.")
@click.option("--to", "end", required=True, metavar="PLACE", help="Up to where; bar:25 means up to where it begins.")
@click.option(
    "--tracks", multiple=True, metavar="TRACK", help="Only for these: name or number as in `midiex info`; repeat it."
)
@_with(_OPTIONS)
def fill(song: Path, begin: str, end: str, tracks: tuple[str, ...], **wanted: Any) -> None:
    """Write a passage of SONG anew, for all tracks or some; everything else stays as it is, event for event.

    \b
    midiex fill song.mid --from 0:40 --to 1:00                          song_filled.mid
    midiex fill song.mid --from bar:17 --to bar:25 --tracks drums       another drum part for bars 17 to 24
    midiex fill song.mid --from 0:40 --to 1:00 --takes 5                five to choose from
    """
    from .. import edit

    def begun(model: Model, seed: int, temperature: float | None) -> Passage:
        return edit.start_fill(song, begin, end, tracks=tracks, model=model, seed=seed, temperature=temperature)

    _compose(song, "filled", begun, Wanted(**wanted))


@click.command()
@file_argument("song")
@click.option("--at", required=True, metavar="PLACE", help="Where: 80, 1:20 or bar:33; to the nearest bar line.")
@click.option("-s", "--seconds", default=30.0, show_default=True, help="How much, to the nearest bar.")
@_with(_PLAYERS, _OPTIONS)
def insert(
    song: Path,
    at: str,
    seconds: float,
    solo: tuple[str, ...],
    mute: tuple[str, ...],
    drums: bool | None,
    **wanted: Any,
) -> None:
    """Make room in the middle of SONG for new music that leads from what was before to what comes after.

    \b
    midiex insert song.mid --at 1:20 --seconds 30             song_inserted.mid, half a minute longer
    midiex insert song.mid --at bar:33 -s 15 --only-drums     a drum break
    """
    from .. import edit

    def begun(model: Model, seed: int, temperature: float | None) -> Passage:
        return edit.start_insert(
            song, at, seconds, solo=solo, mute=mute, drums=drums, model=model, seed=seed, temperature=temperature
        )

    _compose(song, "inserted", begun, Wanted(**wanted))


@click.command()
@file_argument("song")
@click.option("--chunk", required=True, type=click.IntRange(1), help="Which of the new chunks, counted from 1.")
@_with(_OPTIONS)
def regenerate(song: Path, chunk: int, **wanted: Any) -> None:
    """Write one chunk of SONG, a result of midiex, anew; everything else stays as it is, event for event.

    Chunks are the pieces of about ten seconds that `midiex extend --json` lists and `--plot` shows.

    \b
    midiex regenerate song_300s.mid --chunk 7                 song_300s_chunk7.mid
    midiex regenerate song_300s.mid --chunk 7 --takes 4       four to choose from
    """
    from .. import edit

    def begun(model: Model, seed: int, temperature: float | None) -> Passage:
        return edit.start_regenerate(song, chunk, model=model, seed=seed, temperature=temperature)

    told = Wanted(**wanted)
    if told.seed is None and song.exists():
        told = replace(told, seed=edit.fresh_seed(song))
    _compose(song, f"chunk{chunk}", begun, told)


def _compose(
    song: Path, suffix: str, begin: Callable[[Model, int, float | None], Passage], wanted: Wanted
) -> list[dict[str, Any]]:
    """Write the takes, rank them, save them and print and return their reports."""
    out = wanted.out or song.with_name(f"{song.stem}_{suffix}.mid")
    named = {name: path for name, path in (("out", out), ("audio", wanted.audio), ("plot", wanted.plot)) if path}
    targets = [{name: _numbered(path, n, wanted.takes) for name, path in named.items()}
               for n in range(1, wanted.takes + 1)]  # fmt: skip
    check_targets(song, *(path for paths in targets for path in paths.values()))
    from ..render import FORMATS, find_soundfont, fluidsynth_version

    check_suffix(wanted.audio, FORMATS)
    check_suffix(wanted.plot, (".png",))
    if wanted.audio:
        fluidsynth_version(), find_soundfont(wanted.soundfont)  # better to know now than after composing
    from ..extend import load
    from ..process import settle

    settle()
    started = time.perf_counter()
    model = load(wanted.model)
    results = []
    for take in range(wanted.takes):
        passage = begin(model, (wanted.seed or 0) + take, wanted.temperature)
        label = f"take {take + 1}/{wanted.takes}" if wanted.takes > 1 else song.name
        with MusicBar(passage.end_s - passage.start_s, label, quiet=wanted.as_json) as bar:
            for chunk in passage.chunks():
                bar.advance(chunk.end_s - chunk.start_s)
        results.append(passage)
    results.sort(key=lambda passage: passage.mean_score)
    reports = []
    for passage, paths in zip(results, targets, strict=True):
        report = _finish(passage, paths, wanted)
        reports.append(report | {"wall_s": round(time.perf_counter() - started, 2)})
    if wanted.as_json:
        click.echo(json.dumps(reports[0] if wanted.takes == 1 else reports, indent=2))
    else:
        for report in reports:
            click.echo(_told(report))
        if wanted.takes > 1:
            click.echo("\n" + "\n".join(_reasons(reports)))
    return reports


def _finish(passage: Passage, targets: dict[str, Path], wanted: Wanted) -> dict[str, Any]:
    """Write one passage's files and report on it."""
    out = passage.save(targets["out"])
    if "audio" in targets:
        from ..render import render as render_audio

        with MusicBar(passage.length_s, targets["audio"].name, quiet=wanted.as_json) as bar:
            render_audio(out, targets["audio"], wanted.soundfont, progress=bar.to)
    if "plot" in targets:
        from ..plots import piano_roll
        from ..provenance import sections_s
        from ..score import read

        borders = [chunk.start_s for chunk in passage.written]
        bars = passage.line.grid.seconds.tolist()
        new_s = [(passage.start_s, passage.end_s)]
        form = sections_s(read(out))
        piano_roll(out, targets["plot"], new_s, borders, passage.song.path.stem, bars, form)
    return passage.report() | {name: str(path) for name, path in targets.items()}


def _numbered(path: Path, number: int, of: int) -> Path:
    return path.with_name(f"{path.stem}_{number}{path.suffix}") if of > 1 else path


def _told(report: dict) -> str:
    files = ", ".join(report[name] for name in ("out", "audio", "plot") if name in report)
    first, last = report["bars"]
    why = f" ({report['why_here']})" if report["why_here"] else ""
    return (
        f"{files}: {report['seconds']:.1f} s, new from {_clock(report['new_from_s'])}{why} to "
        f"{_clock(report['new_to_s'])}, bars {first} to {last}: {report['new_notes']} notes in "
        f"{len(report['chunks'])} chunks, seed {report['seed']}"
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{seconds:04.1f}"


def _reasons(reports: list[dict]) -> list[str]:
    """A table of the takes: what each term adds to the score (less is nearer to the song), and where each is best."""
    names = list(reports[0]["terms"])
    heads = ["take", "seed", "score", *names, "nearest to the song in"]
    lines = []
    for number, report in enumerate(reports, 1):
        terms = report["terms"]
        best = [n for n in names if 0 < terms[n] == min(r["terms"].get(n, 0.0) for r in reports)]
        figures = [f"{terms.get(n, 0.0):.2f}" for n in names]
        lines.append(
            [str(number), str(report["seed"]), f"{report['score'] or 0:.2f}", *figures, ", ".join(best) or "-"]
        )
    widths = [max(len(row[i]) for row in [heads, *lines]) for i in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [heads, *lines]]  # fmt: skip
