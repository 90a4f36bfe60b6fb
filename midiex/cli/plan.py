"""The command that plans: plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import compose
from .shared import check_targets, file_argument

if TYPE_CHECKING:
    from ..form_plan import FormPlan
    from ..outline import Outline

_SHARED = ("begin", "keep_ending", "exact", "loop", "open_end", "solo", "mute", "drums", "form", "returns")
_HEADS = ("section", "kind", "bars", "from", "seconds", "goes back to", "notes/s", "loudness", "register", "voices")


def _like_extend(command: click.Command) -> click.Command:
    """The options of `extend` that mean the same here."""
    command.params += [option for option in compose.extend.params if option.name in _SHARED]
    return command


@_like_extend
@click.command()
@file_argument("song")
@click.option("-s", "--seconds", default=300.0, show_default=True, help="Length of the result, to the last whole bar.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Each gives another plan.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the plan to this file as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON, for `midiex extend --plan`.")
def plan(
    song: Path, seconds: float, seed: int, out: Path | None, as_json: bool, form: str | None, returns: float | None,
    **where: Any,
) -> None:  # fmt: skip
    """Tell by what plan `midiex extend` would continue SONG, phrase by phrase, without writing a note.

    Kinds: same (as it was), varied, new lead (the same accompaniment), harmony (the same bass) and new.

    \b
    midiex plan song.mid                                      what five minutes of it would be
    midiex plan song.mid -s 120 --form "A B A" --seed 3       another, of these sections
    midiex plan song.mid -o plan.json                         to edit, and to be given to `midiex extend`
    """
    check_targets(song, *((out,) if out else ()))
    from ..errors import BadInput
    from ..outline import outline

    place = outline(song, seconds, **where)
    made = place.planned(seed, form, 1.0 if returns is None else returns)
    if made is None:
        raise BadInput("The form flat has no plan; give letters of sections, or none.")
    text = json.dumps(made.to_dict(), indent=2)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
    click.echo(text if as_json else "\n".join(_table(made, place)))


def _table(made: FormPlan, place: Outline) -> list[str]:
    """The song's form, the plan's, and a line for each phrase."""
    seconds = place.joint.line.grid.seconds
    lines = [_HEADS]
    for phrase in made.phrases:
        source, end = phrase.source_bar, phrase.first_bar + phrase.bars
        length_s = seconds[min(end, len(seconds) - 1)] - seconds[phrase.first_bar]
        lines.append((
            phrase.section, phrase.kind, f"{phrase.first_bar + 1}-{end}", _clock(float(seconds[phrase.first_bar])),
            f"{length_s:.1f}", "" if source is None else f"{source + 1}-{source + phrase.bars}",
            f"{phrase.density:.1f}", f"{phrase.loudness:.0f}", f"{phrase.register:.0f}",
            _who(place, frozenset(phrase.voices)),
        ))  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return [f"the song: {made.song_form or 'nothing told'}", f"to come:  {made.form}", "", *table]


def _who(place: Outline, playing: frozenset[int]) -> str:
    """The voices that play, or those that do not, whichever is told sooner."""
    silent = place.players - playing
    most = len(silent) < len(playing)
    named = ", ".join(dict.fromkeys(_name(place, voice) for voice in sorted(silent if most else playing)))
    if not most:
        return named
    return f"all but {named}" if silent else "all"


def _name(place: Outline, index: int) -> str:
    voice = place.song.voices[index]
    name = "".join(filter(str.isprintable, voice.name)).strip()
    return name or ("drums" if voice.is_drum else f"track {voice.track}")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
