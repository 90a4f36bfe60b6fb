"""What new music after a song is to be, before a note of it is written: where it begins, how long it is, who plays,
what it leads to, and its plan.

Knows songs, bars and plans; knows no network, so that a plan is made at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from . import score, timeline, tokens
from .endings import find_ending, stops_short
from .errors import BadInput
from .form_letters import parse_form
from .form_plan import NEW, SAME, VARIED, FormPlan, PlannedPhrase
from .phrase_task import figures_of
from .places import bar_at, players
from .provenance import Formed
from .returns import readily
from .roles import voices_in
from .splice import Joint
from .tokens import BAR, MAX_CHUNK_BARS

MAX_SECONDS = 6 * 3600
MAX_NAME = 12  # letters of a section's name
ENDING, SONG, LOOP, OPEN = "ending", "song", "loop", "open"  # what the last chunk leads to
FLAT = "flat"  # the form of music without a plan


@dataclass(frozen=True)
class Outline:
    """New music after a song, not yet written."""

    song: score.Song
    joint: Joint
    leads_to: str  # ENDING, SONG, LOOP or OPEN
    players: frozenset[int]  # voices the new music may use
    exact: bool = False  # the last release falls on the end
    why_here: str = ""  # why the new music begins where it does
    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, len(tokens.FIELDS)), np.int32))  # of all the song

    @cached_property
    def voices(self) -> np.ndarray:
        """(program, instance) of each of the song's voices, shape (voices, 2)."""
        return tokens.voice_ids(self.song.score)

    def planned(self, seed: int = 0, form: str | None = None, returns: float = 1.0) -> FormPlan | None:
        """The plan of the new music, None for a `form` that is FLAT. `form` names sections, such as "A B A"; `returns`
        is how readily earlier music comes back as it was. Raises BadInput for a form that cannot be read."""
        if is_flat(form):
            return None
        from .form_planner import plan_form

        line = self.joint.line
        before = self.rows[self.rows[:, BAR] < line.before]
        made = plan_form(
            before, self.voices, self.players, line.grid.bar_beats, line.grid.bar_s, line.before, line.new,
            self.leads_to, seed, form,
        )  # fmt: skip
        return readily(made, returns)

    def checked(self, plan: FormPlan) -> FormPlan:
        """The plan, if it is one of this music. Raises BadInput where it is not."""
        line = self.joint.line
        bar = line.before
        for phrase in plan.phrases:
            if phrase.first_bar != bar:
                raise BadInput(
                    f"The plan's phrase at bar {phrase.first_bar + 1} should begin at bar {bar + 1}, where the one "
                    "before it ends; let its phrases follow one another."
                )
            if phrase.bars > MAX_CHUNK_BARS:
                raise BadInput(
                    f"The plan's phrase at bar {bar + 1} has {phrase.bars} bars and the limit is {MAX_CHUNK_BARS}; "
                    "make two of it."
                )
            if not (phrase.section.isprintable() and 1 <= len(phrase.section) <= MAX_NAME):
                raise BadInput(
                    f"The plan's phrase at bar {bar + 1} is of a section called {phrase.section[:20]!r}; "
                    f"give a letter, or {MAX_NAME} at most."
                )
            if strange := sorted(set(phrase.voices) - self.players):
                raise BadInput(
                    f"In the plan's phrase at bar {bar + 1} voice {strange[0]} plays, which must not or is none; "
                    f"those that may are {', '.join(map(str, sorted(self.players)))}."
                )
            bar += phrase.bars
        if bar != line.before + line.new or not plan.phrases:
            raise BadInput(
                f"The plan ends with bar {bar} and the new music has bars {line.before + 1} to "
                f"{line.before + line.new}; plan them all, for the same length and the same place."
            )
        return plan


def is_flat(form: str | None) -> bool:
    """Is a form as it is given that of music without a plan? Raises BadInput for one that cannot be read."""
    if form is None or form.strip().lower() == FLAT:
        return form is not None
    parse_form(form)
    return False


def outline(
    path: str | PathLike[str],
    seconds: float = 300.0,
    *,
    begin: str | float = "auto",
    keep_ending: bool = False,
    exact: bool = False,
    loop: bool = False,
    open_end: bool = False,
    solo: Sequence[str] = (),
    mute: Sequence[str] = (),
    drums: bool | None = None,
) -> Outline:
    """Where new music after a MIDI file would stand; options as of `extend.start`.

    Raises BadInput for a file or value that cannot be used.
    """
    if not 0 < seconds <= MAX_SECONDS:
        raise BadInput(f"A length of {seconds:g} s cannot be made; ask for more than 0 and at most {MAX_SECONDS} s.")
    if loop and keep_ending:
        raise BadInput("A loop has no ending to keep; choose one of the two.")
    if open_end and (loop or keep_ending):
        raise BadInput("An open end is neither a loop nor an ending that is kept; choose one of them.")
    song = score.read(path)
    rows = tokens.encode(tokens.notes_of(song.score), tokens.voice_ids(song.score), song.grid)
    song_bars = int(rows[-1, BAR]) + 1
    before = song_bars
    ending = find_ending(song, rows) if begin == "auto" else None
    why_here = "after the last bar with notes"
    if ending:
        before, why_here = ending.first_bar, f"before the song's ending: {' and '.join(ending.kinds)}"
    elif begin == "auto" and stops_short(song, song_bars):
        before, why_here = song_bars - 1, "before its last bar, in which it stops short"
    elif begin not in ("auto", "end"):
        before, why_here = min(bar_at(song, begin), song_bars), "as asked"
    if before < 1:
        raise BadInput(f"New music needs a bar of {song.path} to go on from; let it begin at bar 2 or later.")
    follows = keep_ending and before < song_bars
    lands = not (follows or loop or open_end)
    slowing = range(before, song_bars) if lands and ending and "ritardando" in ending.kinds else range(0)
    line = timeline.go_on(song, before, seconds, before if follows else None, exact, slowing)
    resume_tick = line.start_tick if follows or before == song_bars else None
    leads_to = ENDING if lands else LOOP if loop else OPEN if open_end else SONG
    joint = Joint(line, resume_tick, clip=not follows, loops=loop)
    return Outline(song, joint, leads_to, players(song, solo, mute, drums), exact, why_here, rows)


def plan(
    path: str | PathLike[str],
    seconds: float = 300.0,
    *,
    seed: int = 0,
    form: str | None = None,
    returns: float = 1.0,
    **options: Any,
) -> FormPlan:
    """The plan by which `extend` would make a MIDI file so long, made without a network: look at it, edit it, and hand
    it to `extend(..., plan=plan)`. Options as of `extend.start`, as far as they matter.

    Raises BadInput for a file or value that cannot be used, and for the form "flat", which has no plan.
    """
    made = outline(path, seconds, **options).planned(seed, form, returns)
    if made is None:
        raise BadInput("The form flat has no plan; give letters of sections, or none.")
    return made


def as_it_was(
    song: score.Song, line: timeline.Timeline, playing: frozenset[int], formed: Formed, seed: int
) -> FormPlan:
    """The plan of one chunk of a result, to be written anew as what it was (`formed`): its voices, density and the like
    are those it has. What came back as it was is varied, since something else is wanted."""
    voices = tokens.voice_ids(song.score)
    rows = tokens.encode(tokens.notes_of(song.score), voices, song.grid)
    rows = rows[(rows[:, BAR] >= line.before) & (rows[:, BAR] < line.before + line.new)]
    there = voices_in(rows)
    play = tuple(i for i in sorted(playing) if tuple(voices[i].tolist()) in there) or tuple(sorted(playing))
    figures = figures_of(rows, float(line.grid.bar_s[line.before : line.before + line.new].sum()))
    source = line.before - formed.back
    known = formed.kind != NEW and 0 <= source <= line.before - line.new
    kind = NEW if not known else VARIED if formed.kind == SAME else formed.kind
    phrase = PlannedPhrase(
        line.before, line.new, formed.section, kind, source if known else None, play,
        figures["density"], figures["loudness"], figures["register"],
    )  # fmt: skip
    return FormPlan((), (phrase,), seed)


def read_plan(path: str | PathLike[str]) -> FormPlan:
    """A plan from a file of JSON, as `FormPlan.to_dict` gives it. Raises BadInput for a file that holds none."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error}); check its name and folder.") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} holds no JSON ({error}); give what `midiex plan --json` prints.") from None
    if not isinstance(data, Mapping):
        raise BadInput(f"{path} holds no plan of midiex; give what `midiex plan --json` prints.")
    return FormPlan.from_dict(data)
