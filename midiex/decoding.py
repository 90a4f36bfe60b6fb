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
from .choices import Choices, told_more
from .chunks import MAX_CHUNK_NOTES
from .config import GenerateConfig
from .constraints import END, Grammar, Runs, State
from .echoes import ECHOES, NOTHING, Listener
from .habits import Habits, Told
from .model import ChunkTransformer
from .progression import HALVES
from .recalled import Recalled
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
    conditions: np.ndarray  # (11,)
    programs: np.ndarray  # (129,) float32
    grammar: Grammar
    heard: Listener  # all notes so far, that new ones may echo
    recalled: Recalled  # the habits of the song
    # (m, 8) rows that stand already, in canonical order, bars counted from the chunk's first; of voices that the
    # grammar does not hold
    fixed: np.ndarray = field(default_factory=lambda: np.zeros((0, len(FIELD_SIZES)), np.int32))
    progression: np.ndarray | None = None  # (bars, HALVES, pitches) nats by which the song's harmony asks for a pitch
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


def pick(p: np.ndarray, mask: np.ndarray | None, config: GenerateConfig, rng: np.random.Generator) -> np.ndarray:
    """One sample a row of probabilities p (K, n) above 0, mask True where allowed: temperature, min-p, top-p.

    min-p (Nguyen et al., arXiv 2407.01082) drops what is unlikely beside the likeliest choice; top-p (Holtzman et al.,
    arXiv 1904.09751) the tail beyond a total probability.
    """
    if mask is not None:
        p = p * mask
    p = p / np.maximum.reduce(p, 1, keepdims=True)  # beside the likeliest
    row, value = (p >= config.min_p**config.temperature).nonzero()
    weights, values = (p[row, value] ** (1 / config.temperature)).tolist(), value.tolist()
    draws, ends = rng.random(len(p)).tolist(), row.searchsorted(np.arange(1, len(p) + 1)).tolist()
    picked, begin = [], 0
    for draw, end in zip(draws, ends, strict=True):  # so few are left that numpy would be slower from here on
        picked.append(values[begin + _one_of(weights[begin:end], config.top_p, draw)])
        begin = end
    return np.array(picked)


def _one_of(weights: list[float], top_p: float, draw: float) -> int:
    """Which of the weights, the least likely left out, a number from 0 to below 1 falls upon."""
    if len(weights) == 1:
        return 0
    least, out = weights[0], (1 - top_p) * sum(weights)
    for least in sorted(weights):
        out -= least
        if out < 0:
            break
    kept = [(which, weight) for which, weight in enumerate(weights) if weight >= least]
    left = draw * sum(weight for _, weight in kept)
    for which, weight in kept:
        left -= weight
        if left < 0:
            return which
    return kept[-1][0]  # sums are rounded


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
    count, longest = config.candidates, most_notes + len(task.fixed)
    state = State(task.grammar, task.bar_positions, count, task.final, task.runs)
    fixed = _Fixed(task.fixed, count)
    stepper = steppers(config.engine, model, memory, task, count, longest)
    listeners = [Listener(task.heard) for _ in range(count)]
    growing = [Habits(task.recalled.habits) for _ in range(count)]
    choices = Choices(model.heads, task.recalled, config.habits)
    pull = _pull(task, config.progression)
    rows = np.zeros((count, longest + 1, len(FIELD_SIZES)), np.int64)  # the last for those that are finished
    lengths = np.zeros(count, np.int64)
    done, cut_short, is_fixed = (np.zeros(count, bool) for _ in range(3))  # is_fixed: whose next row is a fixed one
    nll, each = np.zeros(count), np.arange(count)
    settled = nll  # without the choices that a fixed row may yet make void
    previous: np.ndarray | None = None
    onset: np.ndarray | None = None
    coming = fixed.next()
    source: np.ndarray | None = None  # the states that the latest onset was drawn from

    def nats(p: np.ndarray, values: np.ndarray, ignored: np.ndarray) -> np.ndarray:
        return np.where(ignored, 0, -np.log(p[each, values])) if weigh else np.zeros(1)

    def draw_onset(states: np.ndarray) -> _Onset:
        bars = None if previous is None else previous[:, BAR]
        p = choices.p(BAR_HEAD, states, behind(None), bars)
        bar = pick(p, _never_empty(state.bars(), done), config, rng)  # a later bar leads to the fixed row as well
        spent = nats(p, bar, done)
        ended = done | (bar == END)
        to_fixed = np.zeros(count, bool)
        if len(task.fixed):
            ended = done | (bar == END) & (fixed.written == len(task.fixed))
            # the free notes are used up: only fixed rows are still to come
            full = (lengths - fixed.written == most_notes) & (fixed.written < len(task.fixed))
            to_fixed = ~ended & (full | (bar > coming[:, BAR]))
            bar = np.where(to_fixed, coming[:, BAR], bar)
        bar = bar * ~ended
        if ended.all():
            return _Onset(bar, bar, ended, to_fixed, spent)
        p = choices.p(POSITION_HEAD, choices.after(BAR_HEAD, bar, states), behind(bar))
        mask = state.positions(bar)
        if len(task.fixed):
            fixed.allow(mask, POSITION, coming[:, BAR] == bar)
        position = pick(p, _never_empty(mask, ended | to_fixed), config, rng)
        spent = spent + nats(p, position, ended)
        if len(task.fixed):
            to_fixed |= ~ended & (bar == coming[:, BAR]) & (position > coming[:, POSITION])
            position = np.where(to_fixed, coming[:, POSITION], position)
        return _Onset(bar, position, ended, to_fixed, spent)

    def behind(bar: np.ndarray | None) -> list[Told]:
        """What the next onset's habits depend on; a chunk's first bar depends on none."""
        if bar is None:
            return [{} if over or previous is None else h.behind() for h, over in zip(growing, done, strict=True)]
        bars = (bar + task.first_bar).tolist()
        return [{} if over else h.behind(b) for h, over, b in zip(growing, done, bars, strict=True)]

    def here(onset: np.ndarray) -> list[Told]:
        """What the habits of a note at this onset depend on."""
        places = zip(growing, (onset[:, 0] + task.first_bar).tolist(), onset[:, 1].tolist(), done, strict=True)
        return [{} if over else habits.coming(bar, position) for habits, bar, position, over in places]

    def echoes() -> np.ndarray:
        if onset is None:
            return np.tile(NOTHING, (count, ECHOES, 1))
        places = zip(listeners, (onset[:, 0] + task.first_bar).tolist(), onset[:, 1].tolist(), strict=True)
        values = [v for listener, bar, position in places for echo in listener.expect(bar, position) for v in echo]
        return np.array(values, np.int64).reshape(count, ECHOES, -1)

    for step in range(longest + 1):
        states = stepper.step(previous, onset, echoes())
        if onset is not None:
            for _ in range(config.redraws if len(task.fixed) and source is not None else 0):
                at_fixed = (onset == coming[:, [BAR, POSITION]]).all(1)
                share = _share_of_free(choices, states, here(onset), state)
                again = ~done & ~is_fixed & ~at_fixed & (rng.random(count) >= share)
                if not again.any() or source is None:
                    break
                new = draw_onset(source)
                is_fixed = np.where(again, new.to_fixed, is_fixed)
                nll = np.where(again, settled + new.nats, nll)
                done |= again & new.ended
                onset = np.where(again[:, None], np.stack([new.bar, new.position], 1), onset)
                state.move(onset[:, 0], onset[:, 1])
                states = stepper.step(previous, onset, echoes(), again=True)
            note = np.zeros((count, len(FIELD_SIZES)), np.int64)
            note[:, BAR], note[:, POSITION] = onset.T
            told = here(onset)
            ignored = done | is_fixed
            level = is_fixed  # so far the note is the fixed row itself
            if len(task.fixed):
                level = ~is_fixed & (onset == coming[:, [BAR, POSITION]]).all(1)
            for head, name in enumerate(HEAD_ORDER[:BAR_HEAD]):
                picked = None if weigh or len(task.fixed) else state.only(name, note[:, PROGRAM])
                if picked is None:
                    mask = _mask(state, note, name)
                    if len(task.fixed) and mask is not None:
                        fixed.allow(mask, name, level)
                    p = choices.p(head, states, told)
                    wished = p if pull is None or name != PITCH else p * _guidance(pull, task, note)
                    picked = pick(wished, _never_empty(mask, ignored), config, rng)
                else:
                    rng.random(count)  # so that what is drawn later does not depend on `weigh`
                if len(task.fixed):
                    if name in WHICH:
                        is_fixed |= level & (picked > coming[:, name])
                        level &= picked == coming[:, name]
                        if name == WHICH[-1]:
                            is_fixed |= level
                            level[:] = False
                    picked = np.where(is_fixed, coming[:, name], picked)
                    ignored = done | is_fixed
                note[:, name] = picked
                if name in WHICH:
                    told = told_more(growing, told, name, note)
                if weigh:
                    nll = nll + nats(p, picked, done)
                states = choices.after(head, picked, states)
            state.write(note[:, PROGRAM], note[:, INSTANCE], note[:, PITCH])
            rows[each, lengths] = note
            lengths += ~done
            if len(task.fixed):
                nll = np.where(is_fixed, settled, nll)
                fixed.written += is_fixed & ~done
            for k, ((bar, *rest), over) in enumerate(zip(note.tolist(), done.tolist(), strict=True)):
                if not over:
                    row = (bar + task.first_bar, *rest)
                    listeners[k].hear(row)
                    growing[k].hear(row, count=False, told=told[k])
            previous = note
        settled, coming = nll, fixed.next()
        source = states
        drawn = draw_onset(source)
        nll = nll + drawn.nats
        done = drawn.ended
        if done.all() or step == longest:
            break
        cut_short |= ~done & (lengths - fixed.written == most_notes)
        is_fixed = drawn.to_fixed
        state.move(drawn.bar, drawn.position)
        onset = np.array([drawn.bar, drawn.position]).T
    nll = nll / np.maximum(1, lengths - fixed.written)
    return [
        Candidate(
            rows[k, : lengths[k]].astype(np.int32), bool(done[k] and not cut_short[k]), float(nll[k]) if weigh else None
        )
        for k in range(count)
    ]


def _share_of_free(choices: Choices, states: np.ndarray, told: list[Told], state: State) -> np.ndarray:
    """How likely the model finds it that the note at the onset it was given is one of the free voices', (K,)."""
    programs = choices.p(0, states, told)
    share = np.zeros(len(programs))
    for program in np.flatnonzero(state.voices_of.any(1)).tolist():
        chosen = choices.after(0, np.full(len(programs), program), states)
        instances = choices.p(1, chosen, [t and t | {"program": program} for t in told])
        share += programs[:, program] * instances[:, state.voices_of[program]].sum(1)
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
