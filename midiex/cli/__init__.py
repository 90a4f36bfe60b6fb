"""The command line: parsing and printing only. Everything heavy is imported inside the commands.

compose.py holds the commands that write music, plan.py the one that plans it, perform.py the one that plays while it
writes, many.py those for whole folders, look.py those that show and render it, learn.py those that train, judge.py
those that measure.
"""

from __future__ import annotations

from typing import Any

import click

from .. import __version__
from ..errors import MidiexError
from . import compose, judge, learn, look, many, perform, plan

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
    midiex extend song.mid --keep-ending                         new music in the middle, the song's own ending last
    midiex plan song.mid                                         what five minutes would be, section by section
    midiex play song.mid --forever                               hear it, composed while it plays
    midiex fill song.mid --from 0:40 --to 1:00 --tracks piano    write a passage anew for some tracks
    midiex insert song.mid --at 1:20 --seconds 30                make room in the middle
    midiex regenerate song_300s.mid --chunk 7                    write one piece of a result anew
    midiex batch songs -o long                                   a whole folder, however often it is interrupted
    midiex convert songs.zip -o audio                            the same, MIDI to audio alone
    midiex render song.mid song.flac                             any MIDI file as audio
    midiex plot song.mid --structure                             what comes back, bar by bar
    midiex info song.mid                                         what is in it
    midiex prepare my_songs -o shards                            make training data of your own MIDI
    midiex train --data shards --out my_model --start small      and a model of it
    midiex evaluate my_songs                                     how good is the music? figures beside a loop's
    midiex mirex prompt.json -o out.json                         four bars of piano continued for the MIREX task
    midiex doctor                                                is everything there that midiex needs?
    """


for command in (
    *(compose.extend, compose.fill, compose.insert, compose.regenerate),
    plan.plan,
    perform.play,
    *(many.batch, many.convert),
    *(look.render, look.plot, look.info, look.doctor),
    *(learn.prepare, learn.train),
    *(judge.evaluate, judge.mirex),
):
    main.add_command(command)
