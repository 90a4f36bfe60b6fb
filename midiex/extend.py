"""The way of the data: a song is read, cut, remembered; chunk after chunk is planned, written, ranked; all is joined.

`Passage.chunks()` is a generator; whoever shows progress, writes files or plays along consumes it. New music after a
song is begun here (`start`, `extend`), that inside a song in edit.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import mido
import numpy as np

from . import __version__, candidates, pedal, ranking, score, smf, timeline, tokens
from .aligned import likeness
from .callable_module import make_callable
from .candidates import Chosen
from .checkpoint import fingerprint, load_model
from .chunks import thin
from .config import Config, GenerateConfig
from .constraints import Grammar
from .decoding import Candidate, Task, write_chunk
from .endings import final_chord
from .errors import BadInput
from .form_plan import FormPlan, PlannedPhrase
from .model import ChunkTransformer
from .newnotes import NewNotes
from .outline import ENDING, LOOP, MAX_SECONDS, OPEN, SONG, outline
from .phrase_task import Ready, joined
from .planner import Bars, Plan, Planner
from .provenance import Formed, Provenance, carried, runs_of
from .report import report_on
from .splice import Joint, splice
from .stand_in import own_chunk
from .stepper import Memory
from .tokens import BAR

__all__ = ["ENDING", "LOOP", "MAX_SECONDS", "OPEN", "SONG", "Model", "NewChunk", "Passage", "extend", "load", "start"]

RETURNS = 1_000  # names a chunk's random numbers for what comes back, apart from those of its attempts
LOOP_BARS = 16  # of a loop's beginning that its end is shown


@dataclass(frozen=True)
class Model:
    """A loaded network and its config."""

    network: ChunkTransformer
    config: Config
    fingerprint: str = ""  # of its weights


def load(model: str | PathLike[str] | None = None) -> Model:
    """Load a model: a folder, the name of a shipped one, or by default the shipped `small`.

    Raises MissingPart when it is not there and BadInput when it cannot be used.
    """
    name = None if model is None else str(model)
    return Model(*load_model(name), fingerprint(name))


@dataclass(frozen=True)
class NewChunk:
    """One chunk written. Times are in the finished song."""

    index: int
    of: int  # how many there will be
    first_bar: int
    bars: int
    start_s: float
    end_s: float
    rows: np.ndarray  # (n, 8) of new notes
    attempts: int
    terms: dict[str, float]  # of ranking
    fallback: bool  # nothing usable was written, so a chunk of the song itself stands here
    came_back: int | None = None  # first of the earlier bars that come back here, None: it is new
    phrase: PlannedPhrase | None = None  # what was planned, None: nothing was
    kind: str = ""  # as what it was written, where something was planned
    likeness: float | None = None  # to its source, if it has one
    transition: str = ""  # which of those planned was made


@dataclass
class Passage:
    """New music on its way. Iterate `chunks()` to the end, then take `midi()` or `save()`."""

    song: score.Song
    model: Model
    joint: Joint
    leads_to: str  # ENDING, SONG, LOOP or OPEN
    players: frozenset[int]  # voices the new music may use
    generate: GenerateConfig
    seed: int = 0
    standing: frozenset[int] = frozenset()  # voices whose notes inside the new music stay
    sizes: tuple[int, ...] = ()  # bars of each chunk, where they are already decided
    exact: bool = False  # the last release falls on the end
    why_here: str = ""  # why the new music begins where it does
    replaces: tuple[Provenance, Provenance] | None = None  # a note in the song, and what is to stand there instead
    form: FormPlan | None = None  # what is planned, phrase by phrase; None: chunk after chunk, as it comes
    written: list[NewChunk] = field(default_factory=list)

    @property
    def line(self) -> timeline.Timeline:
        return self.joint.line

    @cached_property
    def voices(self) -> np.ndarray:
        """(program, instance) of each of the song's voices, shape (voices, 2)."""
        return tokens.voice_ids(self.song.score)

    @property
    def start_s(self) -> float:
        """Where the new music begins."""
        return self.line.start_s

    @property
    def end_s(self) -> float:
        """Where the new music ends."""
        return self.line.end_s

    def chunks(self) -> Iterator[NewChunk]:
        """Write chunk after chunk until the new music is complete."""
        self.written.clear()
        plan = self._plan()
        planner = Planner(self.model.network, self.model.config.memory, plan)
        style = self.style = self._style(planner)
        while (size := planner.next_size) is not None:
            index, first, asked = len(self.written), planner.next_bar, planner.next_phrase()
            seconds = float(plan.bars.seconds[first : first + size].sum())
            lands = self.leads_to == ENDING and index == len(planner.sizes) - 1
            before = self._before(planner, int(plan.bars.positions[first]))
            fit = ranking.Fit(style, before, size, seconds, lands)
            if asked is not None:
                fit = self._fit_as_asked(fit, asked, planner)
                back = self._copied(planner, asked)
            else:
                rng = np.random.default_rng((self.seed, index, RETURNS))
                back = planner.returning(self.generate.returns, rng)
                back = None if back is not None and fit.faults(back[0]) else back
            came_back, fallback = None, False
            if back is not None:
                rows, attempts, terms, came_back = back[0], 1, fit.terms(back[0]), back[1]
            else:
                task, remembered = planner.task()
                chosen = self._best(task, remembered, index, fit)
                attempts, terms, fallback = chosen.attempts, chosen.terms, chosen.rows is None
                rows = self._own_chunk(planner, task, asked) if chosen.rows is None else chosen.rows
            rows, transition = self._with_transition(planner, asked, rows, fit)
            planner.remember(rows, size, came_back)
            chunk = NewChunk(
                index, len(planner.sizes), first, size, float(self.line.grid.seconds[first]),
                min(float(self.line.grid.seconds[first + size]), self.end_s), self._new_rows(rows), attempts, terms,
                fallback, came_back,
            )  # fmt: skip
            if asked is not None:
                like = likeness(rows, asked.source) if len(asked.source) else None
                chunk = replace(chunk, phrase=asked.phrase, kind=asked.kind, likeness=like, transition=transition)
            self.written.append(chunk)
            yield chunk

    def _plan(self) -> Plan:
        """All rows around the new music, on the bars of the result."""
        line, grid = self.line, self.song.grid
        rows = tokens.encode(tokens.notes_of(self.song.score), self.voices, grid)
        rows = rows[self._of(self.players | self.standing, rows)]
        before = rows[rows[:, BAR] < line.before]
        fixed, after, bars = rows[:0], rows[:0], Bars(line.grid.bar_beats, line.grid.bar_s)
        end = line.before + line.new
        if line.after is not None:
            inside = (rows[:, BAR] >= line.before) & (rows[:, BAR] < line.after)
            fixed = rows[inside & self._of(self.standing, rows)]
            after = rows[rows[:, BAR] >= line.after].copy()
            after[:, BAR] += end - line.after
        if self.leads_to == LOOP:  # the beginning comes again
            again = min(LOOP_BARS, line.before)
            after = rows[rows[:, BAR] < again].copy()
            after[:, BAR] += end
            bars = Bars(np.append(bars.beats, bars.beats[:again]), np.append(bars.seconds, bars.seconds[:again]))
        around = np.concatenate([before, after - line.new * (np.arange(rows.shape[1]) == BAR)])  # without the gap
        grammar = Grammar.of(around if len(around) else rows, end, int(np.median(bars.positions)))
        stay = {(int(program), int(instance)) for program, instance in self.voices[sorted(self.standing)]}
        return Plan(
            bars, line.before, line.new, before, after, fixed, grammar.without(stay), self.leads_to,
            final=final_chord(rows), sizes=self.sizes, form=self.form, voices=self.voices,
        )  # fmt: skip

    def _new_rows(self, rows: np.ndarray) -> np.ndarray:
        """The rows without those of voices that stand: what is judged, and what is written."""
        return rows[~self._of(self.standing, rows)]

    def _of(self, voices: frozenset[int], rows: np.ndarray) -> np.ndarray:
        """Which rows (n, 8) are of the given voices of the song, (n,) bool."""
        wanted = np.zeros((tokens.FIELD_SIZES[tokens.PROGRAM], tokens.MAX_INSTANCES), bool)
        wanted[tuple(self.voices[sorted(voices)].T)] = True
        return wanted[rows[:, tokens.PROGRAM], rows[:, tokens.INSTANCE]]

    def _before(self, planner: Planner, bar_positions: int) -> ranking.Before:
        if not planner.chunks:
            return ranking.Before(np.zeros((0, len(tokens.FIELDS)), np.int32), 0, bar_positions)
        return ranking.Before(self._new_rows(planner.chunks[-1].rows), planner.chunks[-1].bars, bar_positions)

    def _copied(self, planner: Planner, asked: Ready) -> tuple[np.ndarray, int] | None:
        """Rows of a phrase that is to come back as it was and the bar it begins at, None for all others. Where it does
        not go on as its source does, nothing rings over its end."""
        if not asked.is_copy or asked.phrase.source_bar is None:
            return None
        span = slice(asked.phrase.first_bar, asked.phrase.first_bar + asked.phrase.bars)
        goes_on = planner.goes_on(asked.phrase)
        rows = asked.source if goes_on else joined(asked.source, planner.bars.positions[span])
        return thin(rows), asked.phrase.source_bar

    def _with_transition(
        self, planner: Planner, asked: Ready | None, rows: np.ndarray, fit: ranking.Fit
    ) -> tuple[np.ndarray, str]:
        """A phrase's rows with the transition that is planned, and its name; as they are and "" where the song has no
        such gesture, where it would be a fault and where the music is to land."""
        if asked is None or fit.lands:
            return rows, ""
        changed, name = planner.with_transition(rows, asked.phrase, asked.voices)
        faults = set(fit.faults(self._new_rows(changed))) - set(fit.faults(self._new_rows(rows)))
        return (rows, "") if faults else (changed, name)

    def _fit_as_asked(self, fit: ranking.Fit, asked: Ready, planner: Planner) -> ranking.Fit:
        begins, bar_positions = planner.begins_section(asked.phrase), int(np.median(planner.bars.positions))
        return candidates.as_asked(fit, asked, begins, self._song_chunks(planner), bar_positions)

    def _best(self, task: Task, memory: Memory, index: int, fit: ranking.Fit) -> Chosen:
        """What is chosen of all that is written for one chunk."""

        def write(config: GenerateConfig, rng: np.random.Generator) -> Sequence[Candidate]:
            return write_chunk(self.model.network, memory, task, config, rng)

        config = candidates.fewer_where_it_stands(self.generate, fit, len(task.fixed))
        return candidates.best(write, config, fit, self._new_rows, (self.seed, index))

    def _own_chunk(self, planner: Planner, task: Task, asked: Ready | None = None) -> np.ndarray:
        """What stands where nothing usable was written."""
        chunks = planner.following[::-1] + planner.chunks[: planner.song_chunks]
        return own_chunk([(c.rows, c.bars) for c in chunks], task, asked, self._new_rows)

    def _song_chunks(self, planner: Planner) -> list[tuple[np.ndarray, int, float]]:
        """(rows, bars, seconds) of the song's own chunks, without voices that stand."""
        chunks = []
        for chunk in planner.song:
            span = slice(chunk.first_bar, chunk.first_bar + chunk.bars)
            chunks.append((self._new_rows(chunk.rows), chunk.bars, float(planner.bars.seconds[span].sum())))
        return chunks

    def _style(self, planner: Planner) -> ranking.Style:
        chunks = self._song_chunks(planner)
        if not any(len(rows) for rows, _, _ in chunks):
            raise BadInput(
                f"{self.song.path} has no notes around the new music to go by "
                "in the tracks that are to play; choose other tracks or another place."
            )
        return ranking.Style.of(chunks, int(np.median(planner.bars.positions)))

    @property
    def mean_terms(self) -> dict[str, float]:
        """Each ranking term's mean over the written chunks, weighted as in the score; lower is better."""
        scored = [c.terms for c in self.written if c.terms]
        names = dict.fromkeys(name for terms in scored for name in terms)
        return {n: ranking.WEIGHTS[n] * float(np.mean([terms.get(n, 0.0) for terms in scored])) for n in names}

    @property
    def mean_score(self) -> float:
        """Mean ranking score of the written chunks; lower is better."""
        return sum(self.mean_terms.values()) if self.mean_terms else float("inf")

    def report(self) -> dict[str, Any]:
        """What was done, ready for JSON; with a plan, that too and what was asked of each chunk beside what it is."""
        return report_on(self)

    @property
    def length_s(self) -> float:
        """Length of the result: to the end of the new music, or of the song where that goes on after it."""
        if self.leads_to != SONG or self.joint.resume_tick is None:
            return self.end_s
        return float(self.line.tempo.to_seconds(max(self.song.end_tick + self.joint.shift_ticks, self.line.end_tick)))

    def new_notes(self) -> NewNotes:
        """All written notes, on the song's own tracks, as long as they sound."""
        parts = [tokens.decode(c.rows, self.voices, self.line.grid, c.first_bar) for c in self.written]
        notes = [np.concatenate(column) for column in zip(*(_columns(p) for p in parts), strict=True)]
        voice, start, duration, pitch, velocity = notes
        end_tick = self.line.end_tick
        inside = start < end_tick + self.song.grid.tpq / 4  # all but those of a bar that was cut
        voice, start, duration, pitch, velocity = (column[inside] for column in notes)
        start = np.minimum(start, end_tick - 1)  # a note pushed late in the last bar
        end = np.minimum(start + duration, end_tick)  # nothing rings past the end
        if self.exact and len(end):
            tuned = np.array([not v.is_drum for v in self.song.voices])[voice]
            last = tuned if tuned.any() else np.ones(len(end), bool)
            end[last & (end == end[last].max())] = end_tick
        return NewNotes(voice, start, np.maximum(end - start, 1), pitch, velocity)

    def midi(self) -> mido.MidiFile:
        """The song's events and the new ones."""
        return smf.like(self.song.midi, [mido.MidiTrack(track) for track in self._tracks()])

    def _tracks(self) -> list[Iterator[Any]]:
        """The messages of each track, to be taken once."""
        notes, pedals = pedal.under_pedal(self.song, self.line, self.new_notes(), self.standing)
        texts = [] if self.replaces else [(self.line.start_tick, _text("text", self._provenance().text))]
        if self.leads_to == LOOP and not self.replaces:
            texts.append((self.line.end_tick, _text("marker", "loopEnd")))
        told = carried(self.song, self.line.start_tick, self.joint.resume_tick, self.joint.shift_ticks)
        if self.replaces:
            told = {self.replaces[0].text: self.replaces[1].text}  # all other chunks are where they were
        return [_retold(track, told) for track in splice(self.song, self.joint, notes, pedals, texts)]

    def _provenance(self) -> Provenance:
        start_tick, ticks = self.line.start_tick, self.line.grid.ticks
        return Provenance(
            start_tick, self.seed, self.model.fingerprint, __version__, self.leads_to,
            tuple(sorted({self.song.voices[i].track for i in self.players})),
            tuple((int(ticks[c.first_bar]) - start_tick, c.bars, self.seed) for c in self.written),
            tuple(_formed(c) for c in self.written) if self.form else (),
            runs_of(self.form.song) if self.form else (),
        )  # fmt: skip

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the result; whole or not at all."""
        score.save(smf.like(self.song.midi, self._tracks()), path)
        return Path(path)


def _formed(chunk: NewChunk) -> Formed:
    phrase = chunk.phrase
    if phrase is None or phrase.source_bar is None:
        return Formed(phrase.section if phrase else "", chunk.kind)
    return Formed(phrase.section, chunk.kind, phrase.first_bar - phrase.source_bar)


def _retold(track: Iterator[Any], told: dict[str, str]) -> Iterator[Any]:
    """Messages with other texts in place of some."""
    for message in track:
        if message.type == "text":
            message.text = told.get(message.text, message.text)
        yield message


def _text(kind: str, text: str) -> mido.MetaMessage:
    return mido.MetaMessage(kind, text=text)


def _columns(notes: tokens.Notes) -> tuple[np.ndarray, ...]:
    return notes.track, notes.start_ticks, notes.duration_ticks, notes.pitch, notes.velocity


def start(
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
    model: Model | str | PathLike[str] | None = None,
    seed: int = 0,
    temperature: float | None = None,
    candidates: int | None = None,
    returns: float | None = None,
    progression: float | None = None,
    form: str | None = None,
    plan: FormPlan | None = None,
) -> Passage:
    """Begin a continuation of a MIDI file to `seconds`; nothing is written yet: iterate the result's `chunks()`.

    `begin` is where the new music begins: "auto" (before the song's ending gesture if it has one, else at its end),
    "end" (after the last bar with notes), or a place as in places.py. What lay after that point is left out, or with
    `keep_ending` follows the new music. With `exact` the last release falls on the second; with `loop` the end leads
    back to the beginning; with `open_end` the music does not come to an end but stops where it is. `solo`, `mute` and
    `drums` choose who plays, as in places.players. `returns` is how readily earlier music comes back as it was, 1 as in
    songs of the same habits, 0 never; `progression` how strictly its chord progression is kept to, 0 not at all.

    The music follows a plan: `plan`, as made by `midiex.plan` and edited perhaps, which is kept to as it is; or one
    made here, of the sections that `form` names ("A B A C A") or as fits the song. With the form "flat" there is none.

    Raises BadInput for a file or value that cannot be used.
    """
    planned = outline(
        path, seconds, begin=begin, keep_ending=keep_ending, exact=exact, loop=loop, open_end=open_end, solo=solo,
        mute=mute, drums=drums,
    )  # fmt: skip
    if plan is not None and form is not None:
        raise BadInput("A plan has its own form; give one of the two.")
    usual, loaded = settings(model, seed, temperature, candidates)
    usual = usual if returns is None else replace(usual, returns=returns)
    usual = usual if progression is None else replace(usual, progression=progression)
    made = planned.planned(seed, form, usual.returns) if plan is None else planned.checked(plan)
    return Passage(
        planned.song, loaded, planned.joint, planned.leads_to, planned.players, usual, seed, exact=exact,
        why_here=planned.why_here, form=made,
    )  # fmt: skip


def settings(
    model: Model | str | PathLike[str] | None, seed: int, temperature: float | None, candidates: int | None
) -> tuple[GenerateConfig, Model]:
    """The model, loaded if it is not yet, and how it is to write: its usual settings but for those given.

    Raises BadInput for a seed below 0 and values no setting allows.
    """
    if seed < 0:
        raise BadInput(f"The seed {seed} is below 0; give 0 or more.")
    loaded = model if isinstance(model, Model) else load(model)
    usual = loaded.config.generate
    chosen = replace(usual, temperature=temperature or usual.temperature, candidates=candidates or usual.candidates)
    return chosen, loaded


def extend(
    path: str | PathLike[str], seconds: float = 300.0, out: str | PathLike[str] | None = None, **options: Any
) -> Passage:
    """Extend a MIDI file to `seconds` and, if `out` is given, write it there; options as of `start`.

    Same file, seed, model and machine: same bytes. Raises BadInput for a file or value that cannot be used.
    """
    check_out(path, out)
    return finish(start(path, seconds, **options), out)


def check_out(path: str | PathLike[str], out: str | PathLike[str] | None) -> None:
    """Raise BadInput when `out` is the input itself."""
    if out is not None and Path(out).exists() and Path(path).exists() and Path(out).samefile(path):
        raise BadInput(f"{out} is the input itself, which midiex never changes; choose another name.")


def finish(passage: Passage, out: str | PathLike[str] | None) -> Passage:
    """Write all chunks and, if `out` is given, the file."""
    for _ in passage.chunks():
        pass
    if out is not None:
        passage.save(out)
    return passage


make_callable(__name__)
