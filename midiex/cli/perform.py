"""The command that plays: play."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadInput
from . import compose
from .shared import MusicBar, check_suffix, check_targets, file_argument

if TYPE_CHECKING:
    from ..extend import Passage
    from ..play import Bar, Played, Player, Sink

_SHARED = (
    "begin",
    "keep_ending",
    "open_end",
    "returns",
    "progression",
    "form",
    "solo",
    "mute",
    "drums",
    "temperature",
    "model",
)


def _like_extend(command: click.Command) -> click.Command:
    """The options of `extend` that mean the same here."""
    command.params += [option for option in compose.extend.params if option.name in _SHARED]
    return command


@_like_extend
@click.command()
@file_argument("song", required=False)
@click.option(
    "-s", "--seconds", type=float, help="Length of all that is played, to the last whole bar.  [default: 300]"
)
@click.option("--forever", is_flag=True, help="Go on until Ctrl-C; every ten minutes the song itself comes again.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Not aloud: to .mid, .wav, .flac, .ogg or .mp3.")
@click.option("--port", metavar="NAME", help="To this MIDI port, or the only one with NAME in its name.")
@click.option("--ports", is_flag=True, help="List the MIDI ports.")
@click.option(
    "--driver", metavar="NAME", help="FluidSynth's audio driver, such as pulseaudio.  [default: its own choice]"
)
@click.option("--save", type=click.Path(path_type=Path), help="Keep what was played as this MIDI file.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Each gives other music.")
@click.option(
    "--soundfont",
    type=click.Path(path_type=Path),
    help="Another .sf2 or .sf3.  [default: $MIDIEX_SOUNDFONT or the one that ships]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was played as JSON.")
def play(
    song: Path | None,
    seconds: float | None,
    forever: bool,
    out: Path | None,
    port: str | None,
    ports: bool,
    driver: str | None,
    save: Path | None,
    soundfont: Path | None,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Play SONG and go on composing while it plays. Ctrl-C ends it at the next bar line, a second one at once.

    \b
    midiex play song.mid                                      five minutes of it, through FluidSynth
    midiex play song.mid --forever --save evening.mid         without end; what was heard is kept
    midiex play song.mid --solo piano --no-drums -s 900       a quarter of an hour, the piano alone
    midiex play --ports                                       which MIDI ports are there?
    midiex play song.mid --port "FLUID Synth"                 to another synthesizer
    midiex play song.mid --out take.ogg                       to a file, as fast as it can be composed
    """
    if ports:
        from ..play import port_names

        click.echo("\n".join(port_names()) or "no MIDI ports")
        return
    if song is None:
        raise click.UsageError("Missing argument 'SONG'.")
    if sum(map(bool, (out, port, driver))) > 1:
        raise BadInput("Music goes to one place; give one of --out, --port and --driver.")
    if forever and (seconds is not None or out or wanted["keep_ending"] or wanted["open_end"]):
        raise BadInput("What goes on --forever has no length, no ending and no last byte; give --seconds instead.")
    check_targets(song, *(path for path in (out, save) if path))
    _check_kinds(out, save, soundfont)
    from ..play import Player, Take, composing

    with contextlib.closing(_sink(out, port, soundfont, driver)) as sink:
        first, following = _laps(song, seconds, forever, wanted)
        take = Take(first.song.midi)
        show = _Shown(
            first.length_s, song.name, forever, quiet=as_json or not (out or sys.stderr.isatty()), live=not out
        )
        with show, composing(first, following) as ahead:
            player = Player(sink, ahead, take, show.bar, show.waits)
            with _ctrl_c(player, show):
                try:
                    played = player.play()
                finally:
                    if save:
                        take.save_as(save)
    if out:
        _write(take, out, soundfont, as_json)
    report = {
        "song": str(song), "seconds": round(played.seconds, 3), "bars": played.bars, "stopped": played.stopped,
        "waits": played.waits, "waited_s": round(played.waited_s, 3), "seed": wanted["seed"],
        **{name: str(path) for name, path in (("out", out), ("save", save)) if path},
    }  # fmt: skip
    click.echo(json.dumps(report, indent=2) if as_json else _summary(song.name, played, out, save))


def _summary(name: str, played: Played, *files: Path | None) -> str:
    kept = ", ".join(str(path) for path in files if path)
    said = f"{_clock(played.seconds)} of {name} and what went on from it, {played.bars} bars"
    return f"{kept}: {said}" if kept else said


def _check_kinds(out: Path | None, save: Path | None, soundfont: Path | None) -> None:
    """Can such files be written?"""
    check_suffix(save, (".mid", ".midi"))
    if out:
        from ..render import FORMATS, find_soundfont, fluidsynth_version

        check_suffix(out, (".mid", ".midi", *FORMATS))
        if out.suffix.lower() in FORMATS:
            fluidsynth_version(), find_soundfont(soundfont)  # better to know now than after composing


def _sink(out: Path | None, port: str | None, soundfont: Path | None, driver: str | None) -> Sink:
    """Where the music goes; nothing is heard of what is for a file."""
    from ..play import Silent, open_port

    if out:
        return Silent()
    if port:
        return open_port(port)
    from ..play.speakers import Speakers

    return Speakers(soundfont, driver)


def _laps(
    song: Path, seconds: float | None, forever: bool, wanted: dict[str, Any]
) -> tuple[Passage, Callable[[int], Passage] | None]:
    """The passage to begin with, and what follows it in lap 1, 2, …, each with a seed of its own."""
    from ..extend import load, start
    from ..play import LAP_S
    from ..process import settle
    from ..score import read

    settle()
    options = wanted | {"model": load(wanted["model"])}
    if not forever:
        return start(song, 300.0 if seconds is None else seconds, **options), None
    length_s = read(song).length_s + LAP_S

    def lap(number: int) -> Passage:
        return start(song, length_s, loop=True, **options | {"seed": wanted["seed"] + number})

    return lap(0), lap


class _Shown:
    """Where the music is and how far ahead composing is: a line on stderr, or a progress bar where nothing is heard."""

    def __init__(self, total_s: float, label: str, forever: bool, quiet: bool, live: bool) -> None:
        self.live, self.quiet, self.total = live, quiet, "" if forever else f" of {_clock(total_s)}"
        self.progress = MusicBar(total_s, label, quiet=quiet or live)
        self.written = False

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.__exit__()
        if self.written:
            click.echo(err=True)

    def bar(self, bar: Bar) -> None:
        """A bar begins."""
        if not self.live:
            self.progress.to(bar.played_s)
        elif not self.quiet:
            self.written = True
            where = f"bar {bar.number}, {_clock(bar.played_s)}{self.total}"
            click.echo(f"\r{where}, composed {bar.ahead_s:.0f} s ahead (Ctrl-C ends on the bar) ", nl=False, err=True)

    def waits(self, bar: int) -> None:
        """The music waits before a bar."""
        self.say(f"bar {bar} is not composed yet; the music waits for it")

    def stops(self) -> None:
        self.say("ending on the bar; Ctrl-C once more ends at once")

    def say(self, text: str) -> None:
        click.echo(("\n" if self.written else "") + f"midiex: {text}", err=True)
        self.written = False


@contextlib.contextmanager
def _ctrl_c(player: Player, show: _Shown) -> Iterator[None]:
    """Ctrl-C stops the player, not the program."""
    presses = 0

    def pressed(*_: object) -> None:
        nonlocal presses
        presses += 1
        player.stop()
        if presses == 1:
            show.stops()

    before = signal.signal(signal.SIGINT, pressed)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _write(take: Any, out: Path, soundfont: Path | None, quiet: bool) -> None:
    """What was played, as a MIDI file or as audio."""
    from ..render import FORMATS, render

    if out.suffix.lower() not in FORMATS:
        take.save_as(out)
        return
    with tempfile.TemporaryDirectory() as folder:
        midi = Path(folder) / "take.mid"
        take.save_as(midi)
        from ..score import read

        with MusicBar(read(midi).length_s, out.name, quiet=quiet) as bar:
            render(midi, out, soundfont, progress=bar.to)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
