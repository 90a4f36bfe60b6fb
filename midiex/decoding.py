"""Writes one chunk: several candidates at once, note by note, with cached keys and values and under the grammar.

Rows that stand already (other tracks', when only some are rewritten) are woven in at their places: the network is fed
every row in canonical order, whoever wrote it. Knows rows, masks and the network; knows no files and no song beyond
what the task says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from . import onnx_stepper
from .aligned import AlignedSource, Says
from .choices import Choices, told_more
from .chunks import MAX_CHUNK_NOTES
from .config import GenerateConfig
from .constraints import END, Grammar, Runs, State
from .echoes import ECHOES, NO_SOURCE, NOTHING, Listener
from .habits import Habits, Told
from .model import ChunkTransformer
from .progression import HALVES
from .recalled import Recalled
from .sampling import pick
from .steering import Asked, Steering
from .stepper import Memory, Stepper, TorchStepper
from .tokens import (
    BAR,
    DURATION,
    FIELD_SIZES,
    HEAD_ORDER,
    INSTANCE,
    MICRO,
    PITCH,
    POSITION,
    PROGRAM,
)

BAR_HEAD, POSITION_HEAD = HEAD_ORDER.index(BAR), HEAD_ORDER.index(POSITION)
WHICH = (PROGRAM, INSTANCE, PITCH)  # what sorts the notes of one onset, the first of HEAD_ORDER


@dataclass(frozen=True)
class Task:
    """The chunk to be written."""

    bar_positions: np.ndarray  # (bars,) positions in each bar
    beat_starts: np.ndarray  # (bars,) beats since the song's beginning at which each bar starts
    bar_beats: np.ndarray  # (bars,)
    first_bar: int  # bars since the song's beginning
    conditions: np.ndarray  # (conditions,)
    programs: np.ndarray  # (129,) float32
    grammar: Grammar
    heard: Listener  # all notes so far, that new ones may echo
    recalled: Recalled  # the habits of the song
    # (m, 8) rows that stand already, in canonical order, bars counted from the chunk's first; of voices that the
    # grammar does not hold
    fixed: np.ndarray = field(default_factory=lambda: np.zeros((0, len(FIELD_SIZES)), np.int32))
    progression: np.ndarray | None = None  # (bars, HALVES, pitches) nats by which the song's harmony asks for a pitch
    voices: np.ndarray | None = None  # (VOICE_SLOTS,) float32, which voices play
    source: AlignedSource | None = None  # earlier bars that it goes back to
    asked: Asked | None = None  # how many notes, how loud, how high
    runs: Runs | None = None  # how often each voice has struck its last pitch before
    final: np.ndarray | None = None  # (12,) bool, pitch classes of the chord on which the music ends in this chunk


@dataclass(frozen=True)
class Candidate:
    rows: np.ndarray  # (n, 8), the fixed ones included
    finished: bool  # False: it ran into the note limit
    nll: float | None = None  # nats a free note under the model, at temperature 1 and without masks; None: not asked


@dataclass(frozen=True)
class _Onset:
    """Where the next note of each candidate lies. Arrays (K,)."""

    bar: np.ndarray
    position: np.ndarray
    ended: np.ndarray  # there is no next note
    to_fixed: np.ndarray  # it is the next fixed row
    nats: np.ndarray


class _Fixed:
    """The fixed rows, and how many of them each candidate has written."""

    def __init__(self, rows: np.ndarray, candidates: int):
        beyond = np.full((1, len(FIELD_SIZES)), END + 1)  # so that there always is a next one; none lies after it
        self.rows = np.concatenate([rows, beyond]).astype(np.int64)  # (m + 1, 8)
        self.written = np.zeros(candidates, np.int64)
        self.voices = np.zeros((len(self.rows), FIELD_SIZES[PROGRAM], FIELD_SIZES[INSTANCE]), bool)
        for i in range(len(rows) - 1, -1, -1):  # of each row and of those after it at its onset
            if (self.rows[i, :2] == self.rows[i + 1, :2]).all():
                self.voices[i] = self.voices[i + 1]
            self.voices[i, self.rows[i, PROGRAM], self.rows[i, INSTANCE]] = True

    def next(self) -> np.ndarray:
        """(K, 8)"""
        return self.rows[self.written]

    def allow(self, mask: np.ndarray, name: int, level: np.ndarray) -> None:
        """Where level (K,), allow in mask (K, n) of a field the next fixed row, and the fixed voices after it there."""
        if name == PROGRAM:
            mask |= level[:, None] & self.voices[self.written].any(2)
        elif name == INSTANCE:
            mask |= level[:, None] & self.voices[self.written, self.next()[:, PROGRAM]]
        else:
            mask[level, self.next()[level, name]] = True


def stepper_for(
    engine: str, model: ChunkTransformer, memory: Memory, task: Task, candidates: int, longest: int
) -> Stepper:
    """What takes the steps of a chunk: `engine` is torch, onnx, or auto for onnx where it is installed.

    Raises MissingPart for onnx where it is not.
    """
    if engine == "torch" or (engine == "auto" and not onnx_stepper.is_installed()):
        return TorchStepper(model, memory, task, candidates, longest)
    return onnx_stepper.OnnxStepper(model, memory, task, candidates, longest)


@torch.inference_mode()
def write_chunk(
    model: ChunkTransformer,
    memory: Memory,
    task: Task,
    config: GenerateConfig,
    rng: np.random.Generator,
    most_notes: int = MAX_CHUNK_NOTES,
    weigh: bool = False,
    steppers: Callable[..., Stepper] = stepper_for,
) -> list[Candidate]:
    """`config.candidates` versions of the chunk, sampled side by side, of at most `most_notes` free notes each.

    The next fixed row is one of the choices, whatever the grammar says of its place and voice. It is written when it is
    chosen and when what is chosen lies beyond it. Before it, an onset is kept as often as the model expects a free
    voice there, and else drawn anew, up to `config.redraws` times: where it expects another, that has nothing to play.

    With `weigh` candidates tell how likely the model found them; what is written is the same. `steppers` makes what
    takes the steps, as `stepper_for` does: networks of other kinds bring their own, and a `memory` that these know.
    """
    return _Writing(model, memory, task, config, rng, most_notes, weigh, steppers).candidates()


class _Writing:
    """K candidates of a chunk on their way, side by side. Arrays are (K, ...)."""

    def __init__(
        self, model: ChunkTransformer, memory: Memory, task: Task, config: GenerateConfig, rng: np.random.Generator,
        most_notes: int, weigh: bool, steppers: Callable[..., Stepper],
    ):  # fmt: skip
        self.task, self.config, self.rng, self.most_notes, self.weigh = task, config, rng, most_notes, weigh
        count, self.longest = config.candidates, most_notes + len(task.fixed)
        self.state = State(task.grammar, task.bar_positions, count, task.final, task.runs)
        self.fixed = _Fixed(task.fixed, count)
        self.stepper = steppers(config.engine, model, memory, task, count, self.longest)
        self.listeners = [Listener(task.heard) for _ in range(count)]
        self.growing = [Habits(task.recalled.habits) for _ in range(count)]
        self.followers = [] if task.source is None else [task.source.follow() for _ in range(count)]
        self.choices = Choices(model.heads, task.recalled, config.habits, config.aligned)
        self.pull = _pull(task, config.progression)
        self.steering = None
        if task.asked is not None and config.steering:
            self.steering = Steering(task.asked, int(task.bar_positions.sum()), count, config.steering)
        self.bar_starts = np.concatenate([[0], np.cumsum(task.bar_positions)])  # positions before each bar
        # the last row for those that are finished
        self.rows = np.zeros((count, self.longest + 1, len(FIELD_SIZES)), np.int64)
        self.lengths = np.zeros(count, np.int64)
        self.done, self.cut_short = np.zeros(count, bool), np.zeros(count, bool)
        self.is_fixed = np.zeros(count, bool)  # whose next row is a fixed one
        self.nll, self.each = np.zeros(count), np.arange(count)
        self.settled = self.nll  # without the choices that a fixed row may yet make void
        self.previous: np.ndarray | None = None  # the latest notes
        self.onset: np.ndarray | None = None  # (K, 2) of the next ones
        self.source: np.ndarray | None = None  # the states that the onset was drawn from
        self.coming = self.fixed.next()

    def candidates(self) -> list[Candidate]:
        """Writes them to their end."""
        for step in range(self.longest + 1):
            states = self.stepper.step(self.previous, self.onset, self._echoes())
            if self.onset is not None:
                if len(self.task.fixed) and self.source is not None:
                    states = self._redrawn(self.onset, self.source, states)
                states = self._write_notes(self.onset, states)
            self.settled, self.source, self.coming = self.nll, states, self.fixed.next()
            drawn = self._draw_onset(states)
            self.nll = self.nll + drawn.nats
            self.done = drawn.ended
            if self.done.all() or step == self.longest:
                break
            self.cut_short |= ~self.done & (self.lengths - self.fixed.written == self.most_notes)
            self.is_fixed = drawn.to_fixed
            self._move(np.array([drawn.bar, drawn.position]).T)
        return [
            Candidate(
                self.rows[k, : self.lengths[k]].astype(np.int32),
                bool(self.done[k] and not self.cut_short[k]),
                float(self.nll[k]) / max(1, self.lengths[k] - self.fixed.written[k]) if self.weigh else None,
            )
            for k in range(len(self.each))
        ]

    def _place(self) -> np.ndarray:
        """Positions from the chunk's beginning to each one's latest note, (K,)."""
        if self.previous is None:
            return np.zeros(len(self.each))
        return np.asarray(self.bar_starts[self.previous[:, BAR]] + self.previous[:, POSITION], np.float64)

    def _move(self, onset: np.ndarray) -> None:
        self.onset = onset
        self.state.move(onset[:, 0], onset[:, 1])

    def _nats(self, p: np.ndarray, values: np.ndarray, ignored: np.ndarray) -> np.ndarray:
        return np.where(ignored, 0, -np.log(p[self.each, values])) if self.weigh else np.zeros(1)

    # ---- where the next notes lie ----

    def _draw_onset(self, states: np.ndarray) -> _Onset:
        fixed, coming, done = self.fixed, self.coming, self.done
        bars = None if self.previous is None else self.previous[:, BAR]
        p = self.choices.p(BAR_HEAD, states, self._behind(None), bars, self._said_of_bar())
        at, wished = self._place(), p
        if self.steering and bars is not None and (tilt := self.steering.leaving(at)) is not None:
            wished = p * tilt[:, None]
            wished[self.each, bars] = p[self.each, bars]
        # a later bar leads to the fixed row as well
        bar = pick(wished, _never_empty(self.state.bars(), done), self.config, self.rng)
        spent = self._nats(p, bar, done)
        ended = done | (bar == END)
        to_fixed = np.zeros(len(done), bool)
        if len(self.task.fixed):
            is_left = fixed.written < len(self.task.fixed)
            ended = done | (bar == END) & ~is_left
            # the free notes are used up: only fixed rows are still to come
            full = (self.lengths - fixed.written == self.most_notes) & is_left
            to_fixed = ~ended & (full | (bar > coming[:, BAR]))
            bar = np.where(to_fixed, coming[:, BAR], bar)
        bar = bar * ~ended
        if ended.all():
            return _Onset(bar, bar, ended, to_fixed, spent)
        here = [follower.position(at) for follower, at in zip(self.followers, bar.tolist(), strict=False)] or None
        p = self.choices.p(POSITION_HEAD, self.choices.after(BAR_HEAD, bar, states), self._behind(bar), said=here)
        mask, wished = self.state.positions(bar), p
        if self.steering:
            same = np.zeros_like(bar) if bars is None or self.previous is None else bar == bars
            from_here = self.previous[:, POSITION] * same if self.previous is not None else same
            tilts = self.steering.positions_of(at, from_here)
            wished = p if tilts is None else p * tilts
        if len(self.task.fixed):
            fixed.allow(mask, POSITION, coming[:, BAR] == bar)
        position = pick(wished, _never_empty(mask, ended | to_fixed), self.config, self.rng)
        spent = spent + self._nats(p, position, ended)
        if len(self.task.fixed):
            to_fixed |= ~ended & (bar == coming[:, BAR]) & (position > coming[:, POSITION])
            position = np.where(to_fixed, coming[:, POSITION], position)
        return _Onset(bar, position, ended, to_fixed, spent)

    def _redrawn(self, onset: np.ndarray, source: np.ndarray, states: np.ndarray) -> np.ndarray:
        """Onsets at which the model expects only fixed voices are drawn anew; the states after the last draw."""
        for _ in range(self.config.redraws):
            at_fixed = (onset == self.coming[:, [BAR, POSITION]]).all(1)
            share = self._share_of_free(states, onset)
            again = ~self.done & ~self.is_fixed & ~at_fixed & (self.rng.random(len(share)) >= share)
            if not again.any():
                break
            new = self._draw_onset(source)
            self.is_fixed = np.where(again, new.to_fixed, self.is_fixed)
            self.nll = np.where(again, self.settled + new.nats, self.nll)
            self.done = self.done | again & new.ended
            onset = np.where(again[:, None], np.stack([new.bar, new.position], 1), onset)
            self._move(onset)
            states = self.stepper.step(self.previous, onset, self._echoes(), again=True)
        return states

    # ---- what they are ----

    def _write_notes(self, onset: np.ndarray, states: np.ndarray) -> np.ndarray:
        """The next note of each, field after field; returns the states after the last."""
        weaves = len(self.task.fixed) > 0
        note = np.zeros((len(self.each), len(FIELD_SIZES)), np.int64)
        note[:, BAR], note[:, POSITION] = onset.T
        told = self._here(onset)
        # where the note is the fixed row itself, as far as it is chosen
        level = ~self.is_fixed & (onset == self.coming[:, [BAR, POSITION]]).all(1)
        for head, name in enumerate(HEAD_ORDER[:BAR_HEAD]):
            picked = None if self.weigh or weaves else self.state.only(name, note[:, PROGRAM])
            if picked is None:
                p = self.choices.p(head, states, told, said=self._said(name, note))
                picked = self._pick(name, p, note, level)
            else:
                self.rng.random(len(note))  # so that what is drawn later does not depend on `weigh`
            if weaves:
                picked = self._kept_to(name, picked, level)
            note[:, name] = picked
            if name in WHICH:
                told = told_more(self.growing, told, name, note)
            if self.weigh:
                self.nll = self.nll + self._nats(p, picked, self.done)
            states = self.choices.after(head, picked, states)
        self._keep(note, told)
        return states

    def _pick(self, name: int, p: np.ndarray, note: np.ndarray, level: np.ndarray) -> np.ndarray:
        """A value for a field of the notes, of probabilities p (K, n)."""
        mask = _mask(self.state, note, name)
        if len(self.task.fixed) and mask is not None:
            self.fixed.allow(mask, name, level)
        wished = p if self.pull is None or name != PITCH else p * _guidance(self.pull, self.task, note)
        if self.steering and (tilt := self.steering.field(name, note[:, PROGRAM])) is not None:
            wished = wished * tilt
        return pick(wished, _never_empty(mask, self.done | self.is_fixed), self.config, self.rng)

    def _kept_to(self, name: int, picked: np.ndarray, level: np.ndarray) -> np.ndarray:
        """The values, those of the fixed rows where these are reached or passed; `level` is brought up to date."""
        if name in WHICH:
            self.is_fixed = self.is_fixed | level & (picked > self.coming[:, name])
            level &= picked == self.coming[:, name]
            if name == WHICH[-1]:
                self.is_fixed = self.is_fixed | level
                level[:] = False
        return np.where(self.is_fixed, self.coming[:, name], picked)

    def _keep(self, note: np.ndarray, told: list[Told]) -> None:
        """Notes that are whole, for all that follows."""
        self.state.write(note[:, PROGRAM], note[:, INSTANCE], note[:, PITCH])
        self.rows[self.each, self.lengths] = note
        self.lengths += ~self.done
        if self.steering:
            self.steering.hear(note, self.done)
        if len(self.task.fixed):
            self.nll = np.where(self.is_fixed, self.settled, self.nll)
            self.fixed.written += self.is_fixed & ~self.done
        for k, ((bar, *rest), over) in enumerate(zip(note.tolist(), self.done.tolist(), strict=True)):
            if not over:
                row = (bar + self.task.first_bar, *rest)
                self.listeners[k].hear(row)
                self.growing[k].hear(row, count=False, told=told[k])
                if self.followers:
                    self.followers[k].hear((bar, *rest))
        self.previous = note

    # ---- what the past says of them ----

    def _behind(self, bar: np.ndarray | None) -> list[Told]:
        """What the next onset's habits depend on; a chunk's first bar depends on none."""
        if bar is None:
            return [
                {} if over or self.previous is None else habits.behind()
                for habits, over in zip(self.growing, self.done, strict=True)
            ]
        bars = (bar + self.task.first_bar).tolist()
        places = zip(self.growing, self.done, bars, strict=True)
        return [{} if over else habits.behind(at) for habits, over, at in places]

    def _here(self, onset: np.ndarray) -> list[Told]:
        """What the habits of a note at this onset depend on."""
        bars, positions = (onset[:, 0] + self.task.first_bar).tolist(), onset[:, 1].tolist()
        places = zip(self.growing, bars, positions, self.done, strict=True)
        return [{} if over else habits.coming(bar, position) for habits, bar, position, over in places]

    def _echoes(self) -> np.ndarray:
        """What each next note may echo, (K, ECHOES, n)."""
        if self.onset is None:
            return np.tile(NOTHING, (len(self.each), ECHOES, 1))
        places = zip(
            self.listeners, (self.onset[:, 0] + self.task.first_bar).tolist(), self.onset[:, 1].tolist(), strict=True
        )
        found = [listener.expect(bar, position) for listener, bar, position in places]
        for k, (bar, position) in enumerate(self.onset.tolist()):
            found[k] += self.followers[k].expect(bar, position) if self.followers else NO_SOURCE
        return np.array(found, np.int64)

    # ---- what an aligned source says of them ----

    def _said_of_bar(self) -> list[Says] | None:
        if not self.followers or self.previous is None:
            return None
        return [f.stays(bar) for f, bar in zip(self.followers, self.previous[:, BAR].tolist(), strict=True)]

    def _said(self, name: int, note: np.ndarray) -> list[Says] | None:
        """Of a field of the notes (K, 8) as far as they are chosen."""
        if not self.followers:
            return None
        return [follower.says(name, row) for follower, row in zip(self.followers, note.tolist(), strict=True)]

    def _share_of_free(self, states: np.ndarray, onset: np.ndarray) -> np.ndarray:
        """How likely the model finds it that the note at the onset (K, 2) is one of the free voices', (K,)."""
        told = self._here(onset)
        note = np.zeros((len(onset), len(FIELD_SIZES)), np.int64)
        note[:, BAR], note[:, POSITION] = onset.T
        programs = self.choices.p(0, states, told, said=self._said(PROGRAM, note))
        share = np.zeros(len(programs))
        for program in np.flatnonzero(self.state.voices_of.any(1)).tolist():
            note[:, PROGRAM] = program
            chosen = self.choices.after(0, note[:, PROGRAM], states)
            told_program = [t and t | {"program": program} for t in told]
            instances = self.choices.p(1, chosen, told_program, said=self._said(INSTANCE, note))
            share += programs[:, program] * instances[:, self.state.voices_of[program]].sum(1)
        return share


def _pull(task: Task, weight: float) -> np.ndarray | None:
    """How many times likelier the song's progression makes each pitch, (bars, HALVES, pitches); None: no likelier."""
    if task.progression is None or weight == 0:
        return None
    return np.exp(weight * task.progression).astype(np.float32)


def _guidance(pull: np.ndarray, task: Task, note: np.ndarray) -> np.ndarray:
    """Of `pull` (bars, HALVES, pitches) what lies where the notes (K, 8) begin, (K, pitches)."""
    bar = note[:, BAR]
    half = np.minimum(HALVES * note[:, POSITION] // task.bar_positions[bar], HALVES - 1)
    return pull[bar, half]


def _mask(state: State, note: np.ndarray, name: int) -> np.ndarray | None:
    """What the grammar allows for a field of the notes (K, 8) as far as they are chosen; None: everything."""
    if name == PROGRAM:
        return state.programs()
    if name == INSTANCE:
        return state.instances(note[:, PROGRAM])
    if name == PITCH:
        return state.pitches(note[:, PROGRAM], note[:, INSTANCE])
    if name == DURATION:
        return state.durations(note[:, PROGRAM])
    return state.micros(note[:, PROGRAM]) if name == MICRO else None


def _never_empty(mask: np.ndarray | None, ignored: np.ndarray) -> np.ndarray | None:
    """Some run on unseen beside the others, those that are finished or whose row is fixed; whatever they pick must
    only exist."""
    if mask is not None and ignored.any():
        mask[ignored, 0] = True
    return mask
