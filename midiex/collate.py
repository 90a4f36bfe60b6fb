"""Windows to one batch: what each chunk that is written may look at, what it is told, what is counted for it.

Every layout of memory that extending uses is drawn here: few or many recent chunks, a recalled one, summaries, a chunk
after the gap, a source that is gone back to, voices that stand already, or no past at all. Knows no weights.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from . import aligned, conditions, metrics
from .chunks import recall
from .config import MemoryConfig
from .echoes import ECHOES, echoes
from .echoes import NOTHING as NO_ECHO
from .habits import CONTEXTS, FIRST_CONTEXT, Evidence, habits
from .model import AFTER, NOTHING, OPENING, RECALLED, RECENT, SOURCE, STANDING, SUMMARY, Batch
from .sources import Source
from .tokens import FIELDS, POSITION, moved
from .windows import Window, WindowChunk

ALL_ECHOES_HIDDEN, ECHO_HIDDEN = 0.1, 0.05  # how often a chunk is to be written without any, without one kind
HABITS_HIDDEN = 0.1  # how often a chunk is to be written without what was counted


def memory_slots(
    chunks: list[WindowChunk],
    target: int,
    extras: int,
    memory: MemoryConfig,
    rng: np.random.Generator | None,
    has_source: bool = False,
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """What target chunk `target` of a window may look at: (index, kind) of full slots and of summary slots.

    With an `rng` slots are dropped and changed at random; without one the layout is that of extending a song. A chunk
    that has a source recalls no other.
    """
    recent = list(range(target - 1, max(extras, target - memory.recent_chunks) - 1, -1))
    if rng is not None and rng.random() < 0.15:
        recent = recent[: int(rng.integers(1, memory.recent_chunks + 1))]
    full = [(i, RECENT + target - 1 - i) for i in recent]
    older = [i for i in range(target) if i not in recent]
    if rng is not None and target + 1 < len(chunks) and rng.random() < 0.12:
        full = [*full[: memory.recent_chunks - 1], (target + 1, AFTER)]
    recalled = None
    if has_source:
        pass
    elif rng is None:
        recalled = recall([c.likeness_set for c in chunks[:target]], older)
    elif older and rng.random() < 0.7:
        recalled = older[int(rng.integers(len(older)))]
        if rng.random() < 0.7:  # the theme that comes back
            recalled = max(older, key=lambda i: metrics.likeness(chunks[i].likeness_set, chunks[target].likeness_set))
    if recalled is not None:
        full.append((recalled, RECALLED))
    shown = {i for i, _ in full}
    summaries = [(i, OPENING if i == 0 else SUMMARY) for i in range(target) if i not in shown]
    if len(summaries) > memory.summary_chunks:  # the opening and the latest
        summaries = [*summaries[:1], *summaries[len(summaries) - memory.summary_chunks + 1 :]][: memory.summary_chunks]
    return full, summaries


def collate(
    windows: list[Window],
    memory: MemoryConfig,
    condition_dropout: float,
    rng: np.random.Generator | None,
    without_past: float = 0.0,
    told: bool = False,
) -> Batch:
    """Windows to one batch. Without an `rng` (validation) nothing is dropped at random, and what only the true chunk
    could tell (density, mood, instruments, how like its source it is …) is unknown unless it is to be `told`. With one,
    all of the past of a share of chunks `without_past` is hidden."""
    gathered = _Gathered()
    for window in windows:
        gathered.add(window, memory, condition_dropout, rng, without_past, told)
    return gathered.batch()


class _Gathered:
    """A batch's chunks and what is known of each that is written, window after window."""

    def __init__(self) -> None:
        self.chunks: list[WindowChunk | Source] = []  # windows' first, then sources and notes that stand
        self.window: list[int] = []
        self.more: list[Source] = []
        self.target: list[int] = []
        self.conditions: list[np.ndarray] = []
        self.programs: list[np.ndarray] = []
        self.voices: list[np.ndarray] = []
        self.full: list[list[tuple[int, int]]] = []  # more than all windows' chunks: of `more`, counted from there
        self.summaries: list[list[tuple[int, int]]] = []
        self.source: list[int] = []
        self.echoes: list[np.ndarray] = []
        self.habits: list[Evidence] = []
        self.aligned: list[aligned.Evidence] = []

    def add(
        self, window: Window, memory: MemoryConfig, condition_dropout: float, rng: np.random.Generator | None,
        without_past: float, told: bool,
    ) -> None:  # fmt: skip
        """One more window."""
        base = len(self.chunks)
        self.chunks += window.chunks
        self.window += [max(self.window, default=-1) + 1] * len(window.chunks)
        heard, counted = window_echoes(window, rng), window_habits(window)
        for i in range(window.extras, len(window.chunks)):
            chunk = window.chunks[i]
            hidden = rng is not None and rng.random() < without_past
            slots, older = memory_slots(window.chunks, i, window.extras, memory, rng, chunk.goes_back is not None)
            full = [] if hidden else [(base + j, kind) for j, kind in slots]
            self.summaries.append([] if hidden else [(base + j, kind) for j, kind in older])
            condition, programs, voices = told_conditions(chunk, condition_dropout, rng, told)
            echoes, habits = heard[i - window.extras], counted[i - window.extras]
            if hidden:
                echoes[:] = NO_ECHO
            if hidden or rng is not None and rng.random() < HABITS_HIDDEN:
                habits = replace(habits, bucket=np.zeros_like(habits.bucket))
            evidence = _no_source(len(chunk.rows))
            if chunk.goes_back is not None and len(chunk.goes_back.rows):
                full.append((-1 - len(self.more), SOURCE))
                self.more.append(chunk.goes_back)
                bins = aligned.told_bins(chunk.goes_back.rows, condition[conditions.LIKENESS :], window.roles)
                overall = int(condition[conditions.LIKENESS])
                evidence = aligned.evidence(chunk.rows, chunk.goes_back.rows, bins, overall)
                echoes[:, -2:] = evidence.echoes
            if chunk.standing is not None:
                full.append((-1 - len(self.more), STANDING))
                rows, times = chunk.rows[chunk.standing], chunk.times[chunk.standing]
                self.more.append(Source(chunk.first_bar, rows, times, chunk.start, np.zeros(0)))
            self.full.append(full)
            self.target.append(base + i)
            self.conditions.append(condition)
            self.programs.append(programs)
            self.voices.append(voices)
            self.source.append(window.source)
            self.echoes.append(echoes)
            self.habits.append(habits)
            self.aligned.append(evidence)

    def batch(self) -> Batch:
        """All of them."""
        count = len(self.chunks)
        chunks = [*self.chunks, *self.more]
        placed = [[(count - 1 - i if i < 0 else i, kind) for i, kind in slots] for slots in self.full]
        full_index, full_kind = _slots(placed)
        summary_index, summary_kind = _slots(self.summaries)
        return Batch(
            rows=torch.from_numpy(np.concatenate([c.rows for c in chunks]).astype(np.int64)),
            lengths=torch.tensor([len(c.rows) for c in chunks]),
            times=torch.from_numpy(np.concatenate([c.times for c in chunks])),
            starts=torch.from_numpy(np.stack([c.start for c in chunks])),
            window=torch.tensor(self.window + [-1] * len(self.more)),
            target=torch.tensor(self.target),
            conditions=torch.from_numpy(np.stack(self.conditions)),
            programs=torch.from_numpy(np.stack(self.programs)),
            full=full_index,
            full_kind=full_kind,
            summaries=summary_index,
            summary_kind=summary_kind,
            echoes=torch.from_numpy(np.concatenate(self.echoes)),
            habit_share=torch.from_numpy(np.concatenate([own.share for own in self.habits])),
            habit_bucket=torch.from_numpy(np.concatenate([own.bucket for own in self.habits])),
            habit_level=torch.from_numpy(np.concatenate([own.level for own in self.habits])),
            source=torch.tensor(self.source),
            voices=torch.from_numpy(np.stack(self.voices)),
            aligned_share=torch.from_numpy(np.concatenate([own.share for own in self.aligned])),
            aligned_bucket=torch.from_numpy(np.concatenate([own.bucket for own in self.aligned])),
        )


def _no_source(notes: int) -> aligned.Evidence:
    none = np.zeros((0, len(FIELDS)), np.int64)
    return aligned.evidence(np.zeros((notes, len(FIELDS)), np.int64), none, none[:, 0], 0)


def told_conditions(
    chunk: WindowChunk, dropout: float, rng: np.random.Generator | None, told: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Conditions, programs and voices of a chunk as the network is told them: some or all hidden at random or, without
    an `rng`, all that only the chunk itself could tell unless it is to be `told`."""
    condition = chunk.conditions.copy()
    programs, voices = conditions.program_vector(chunk.rows), conditions.voice_vector(chunk.rows)
    if chunk.goes_back is not None:
        condition[conditions.LIKENESS :] = aligned.likeness_conditions(chunk.goes_back.likeness)
    if rng is None:
        if not told:
            condition[conditions.DENSITY : conditions.LEFT], condition[conditions.LIKENESS :] = 0, 0
            programs[:], voices[:] = 0, 0
    elif rng.random() < 0.1:
        condition[:], programs[:], voices[:] = 0, 0, 0
    else:
        condition[rng.random(len(condition)) < dropout] = 0
        if rng.random() < dropout:
            condition[conditions.LIKENESS :] = 0
        for playing in (programs, voices):
            if rng.random() < dropout:
                playing[:] = 0
    return condition, programs, voices


def window_habits(window: Window) -> list[Evidence]:
    """`step_habits` of the chunks to be written, the song before them counted."""
    chunks = window.chunks[window.extras :]
    return step_habits([c.rows for c in chunks], [c.first_bar for c in chunks], before_of(window))


def before_of(window: Window) -> np.ndarray:
    """Rows (m, 8) of the song before a window's first target: all that are known."""
    if window.before is not None:
        return window.before
    return np.concatenate([
        np.zeros((0, len(FIELDS)), np.int32), *(moved(c.rows, c.first_bar) for c in window.chunks[: window.extras])
    ])  # fmt: skip


def step_habits(chunks: list[np.ndarray], first_bars: list[int], before: np.ndarray | None = None) -> list[Evidence]:
    """For each chunk of n notes the evidence on the decisions of its n + 1 steps, in all notes before, those of the
    song `before` (m, 8) included; buckets are 0 where a step decides nothing."""
    parts = [] if before is None else [before]
    rows = np.concatenate([*parts, *(moved(own, first) for own, first in zip(chunks, first_bars, strict=True))])
    known, found = habits(rows), []
    of_next = slice(FIRST_CONTEXT[POSITION], CONTEXTS)  # a step decides its note and the next one's position
    ends = sum(map(len, parts)) + np.cumsum([len(own) for own in chunks])
    for end, own in zip(ends, chunks, strict=True):
        steps = []
        for values in (known.share, known.bucket, known.level):
            of_chunk = values[end - len(own) : end]
            step = np.concatenate([np.zeros((1, CONTEXTS), values.dtype), of_chunk])
            step[:-1, of_next], step[-1, of_next] = of_chunk[:, of_next], 0
            steps.append(step)
        found.append(Evidence(*steps))
    return found


def step_echoes(chunks: list[np.ndarray], first_bars: list[int], before: np.ndarray | None = None) -> list[np.ndarray]:
    """Echoes (n + 1, ECHOES, 8) of the notes of each chunk, none at its first step, among those of all before it, those
    of the song `before` (m, 8) included."""
    parts = [] if before is None else [before]
    rows = np.concatenate([*parts, *(moved(own, first) for own, first in zip(chunks, first_bars, strict=True))])
    found = np.split(echoes(rows)[sum(map(len, parts)) :], np.cumsum([len(own) for own in chunks])[:-1])
    return [np.concatenate([np.tile(NO_ECHO, (1, ECHOES, 1)), own]) for own in found]


def window_echoes(window: Window, rng: np.random.Generator | None) -> list[np.ndarray]:
    """`step_echoes` of the chunks to be written. With an `rng` some are hidden at random, so that the network can do
    without."""
    chunks = window.chunks[window.extras :]
    found = step_echoes([c.rows for c in chunks], [c.first_bar for c in chunks], before_of(window))
    for own in found:
        if rng is not None:
            hidden = rng.random(ECHOES // 2) < (1.0 if rng.random() < ALL_ECHOES_HIDDEN else ECHO_HIDDEN)
            own[:, np.repeat(hidden, 2)] = NO_ECHO
    return found


def _slots(lists: list[list[tuple[int, int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged (index, kind) lists to two (B, most) tensors, -1 and NOTHING where empty; at least one column."""
    most = max(1, max(map(len, lists)))
    index, kind = torch.full((len(lists), most), -1), torch.full((len(lists), most), NOTHING)
    for b, slots in enumerate(lists):
        for s, (chunk, what) in enumerate(slots):
            index[b, s], kind[b, s] = chunk, what
    return index, kind
