"""Decides what the next chunk should be: its bars, what it is told about the song, and which chunks it may look at.

Keeps the memory of everything written so far at a fixed size: summary rows of all chunks, full rows of the last few and
of the song's own. Knows rows and the network's encoder; samples nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from . import conditions
from .chunks import chunk_bars, chunk_starts, likeness_set, recall, row_times, thin
from .config import MemoryConfig
from .constraints import Grammar, Runs
from .decoding import Task
from .echoes import Listener
from .form_plan import SAME, FormPlan, PlannedPhrase
from .habits import Habits
from .model import AFTER, OPENING, RECALLED, RECENT, SOURCE, STANDING, SUMMARY, ChunkTransformer
from .phrase_task import Ready, aligned_source, asked_of, ready, told
from .progression import Progression
from .recalled import Recalled
from .returns import STILL_TO_ADD, Span, chance_of_return, varied, what_returns
from .roles import Voice, voice_roles, voices_in
from .stepper import Memory
from .tokens import BAR, FIELD_SIZES, MAX_CHUNK_BARS, MICRO_PER_BEAT, MICROS_PER_POSITION, moved, sort_rows
from .transitions import Gestures

MAX_FULL_CHUNKS = 24  # of the song's own chunks kept in full for recall; its latest ones are
MAX_KNOWN_CHUNKS = 64  # chunks before the seam that are read at all; the opening always is
MAX_FOLLOWING_CHUNKS = 4  # chunks after the new music that are read
MANY_CHUNKS = 99  # left to write: no end in sight


@dataclass(frozen=True)
class Bars:
    """Bars of the song and of what is to come, one after another."""

    beats: np.ndarray  # (bars,) length of each in quarter notes
    seconds: np.ndarray  # (bars,)
    beat_starts: np.ndarray = field(init=False)  # (bars + 1,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "beat_starts", np.concatenate([[0.0], np.cumsum(self.beats)]))

    @property
    def positions(self) -> np.ndarray:
        """Positions in each bar, shape (bars,)."""
        units = np.round(self.beats * MICRO_PER_BEAT)
        return np.ceil(units / MICROS_PER_POSITION).astype(np.int64).clip(1, 8 * 12)


@dataclass
class KnownChunk:
    first_bar: int
    bars: int
    rows: np.ndarray  # (n, 8)
    likeness_set: np.ndarray
    summary: Tensor  # (S, D)
    encoded: Tensor | None  # (S + n, D), None once it is too old to be looked at in full
    times: Tensor  # (S + n, 2)


def backward_borders(bar_s: np.ndarray) -> np.ndarray:
    """Chunk borders (chunks + 1,) cut from the end backwards, so that the latest chunks are whole ones; what is left
    over at the beginning joins the chunk after it when it is less than half as long and both fit together: a lone
    pickup bar is no example of what a chunk is like."""
    borders = [len(bar_s)]
    while borders[0] > 0:
        borders.insert(0, max(0, borders[0] - chunk_bars(bar_s[: borders[0]][::-1])))
    if len(borders) > 2 and borders[1] < (borders[2] - borders[1]) / 2 and borders[2] <= MAX_CHUNK_BARS:
        del borders[1]
    return np.array(borders)


def coming_chunks(bar_s: np.ndarray, usual: int) -> list[int]:
    """Bars of each chunk still to be written: the song's usual number, the last one or two what is left (half to one
    and a half of it)."""
    left, sizes = len(bar_s), []
    most = min(1.5 * usual, MAX_CHUNK_BARS)
    while left > 0:
        size = left if left <= most else usual
        if left > most and left - usual < usual / 2:
            size = (left + 1) // 2
        sizes.append(size)
        left -= size
    return sizes


@dataclass(frozen=True)
class Plan:
    """What is known before the first chunk is written. Rows (n, 8) count bars from the result's first."""

    bars: Bars  # of the result, and of what it leads to
    before: int  # bars of the song before the new music
    new: int  # bars of new music
    rows_before: np.ndarray
    rows_after: np.ndarray  # what the new music leads to, from bar `before + new` on; may be empty
    rows_fixed: np.ndarray  # notes that stand inside the new music
    grammar: Grammar
    end: str  # "ending": the last chunk lands; "song": the song goes on after it; "loop", "open": it must not land
    final: np.ndarray = field(default_factory=lambda: np.ones(12, bool))  # (12,) pitch classes of a final chord
    sizes: tuple[int, ...] = ()  # bars of each chunk, where they are already decided
    form: FormPlan | None = None  # phrase by phrase; its phrases are the chunks. None: nothing is planned
    # (program, instance) of each voice that the form speaks of, (voices, 2)
    voices: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))


class Planner:
    """The song so far as the model remembers it, and the plan for what follows."""

    def __init__(self, model: ChunkTransformer, memory: MemoryConfig, plan: Plan):
        self.model, self.memory, self.plan, self.bars = model, memory, plan, plan.bars
        seconds = plan.bars.seconds
        self.chunks: list[KnownChunk] = []  # what lies before the next chunk
        self.heard = self.heard_first = Listener()  # its notes, and of them the song's
        self.runs = Runs()  # how often each voice has just struck the same pitch
        self.habits = Habits()  # the song's own: counting what was written, it would drift
        borders = backward_borders(seconds[: plan.before])
        spans = list(zip(borders[:-1], borders[1:], strict=True))
        if len(spans) > MAX_KNOWN_CHUNKS:
            spans = spans[:1] + spans[1 - MAX_KNOWN_CHUNKS :]
        for first, last in spans:
            chunk = self._encoded(plan.rows_before, int(first), int(last))
            self._keep(chunk, of_song=True)
        self.song_chunks = len(self.chunks)
        end = plan.before + plan.new
        edges = end + chunk_starts(seconds[end:])[: 1 + MAX_FOLLOWING_CHUNKS]
        self.following = [  # what lies after the last chunk
            self._encoded(plan.rows_after, int(first), int(last)) for first, last in itertools.pairwise(edges)
        ]
        later = Habits()
        for chunk in self.following:
            for bar, *rest in chunk.rows.tolist():
                later.hear((bar + chunk.first_bar, *rest))
        self.habits.add(later)
        self.recalled = Recalled(self.habits)
        near = seconds[plan.before - 1 :: -1] if plan.before else seconds[end:]
        self.usual = chunk_bars(near[:MAX_CHUNK_BARS]) if len(near) else plan.new
        phrases = plan.form.phrases if plan.form else ()
        self.sizes = [phrase.bars for phrase in phrases] or list(plan.sizes)
        self.sizes = self.sizes or coming_chunks(seconds[plan.before : end], self.usual)
        self.next_bar = plan.before
        self.left_off: int | None = None  # bar after what came back in the latest chunk, None: that was new
        rows = plan.rows_before
        self.progression = Progression.of(rows, plan.bars.positions[: plan.before])
        self.chance_of_return = chance_of_return(rows, self._spans()) if len(rows) else 0.0
        self.held, self.programs, self.voices, self.figures = self._song_conditions()
        self.roles = voice_roles(rows) if plan.form else {}
        song_phrases = plan.form.song if plan.form else ()
        self.gestures = Gestures(rows, self.bars.positions[: plan.before], song_phrases, self.roles)

    @property
    def song(self) -> list[KnownChunk]:
        """The song's own chunks around the new music."""
        return self.chunks[: self.song_chunks] + self.following

    def _encoded(self, rows: np.ndarray, first_bar: int, last_bar: int) -> KnownChunk:
        low, high = np.searchsorted(rows[:, BAR], (first_bar, last_bar))
        return self._encode(thin(moved(rows[low:high], -first_bar)), first_bar, last_bar - first_bar)

    def remember(self, rows: np.ndarray, bars: int, came_back: int | None = None) -> None:
        """Keep the chunk just written (rows count bars from its first), what begins at bar `came_back` come back."""
        self._keep(self._encode(thin(rows), self.next_bar, bars), of_song=False)
        self.next_bar += bars
        self.left_off = None if came_back is None else came_back + bars

    def returning(self, readiness: float, rng: np.random.Generator) -> tuple[np.ndarray, int] | None:
        """Rows (n, 8) of earlier music that comes back in the next chunk and the bar it begins at, or None: something
        new. `readiness` multiplies the chance; the last chunk, and one among notes that stand, is always new."""
        index = len(self.chunks) - self.song_chunks
        if not readiness or not self.chunks or index >= len(self.sizes) - 1 or len(self.plan.rows_fixed):
            return None
        size, chance = self.sizes[index], min(1.0, readiness * STILL_TO_ADD * self.chance_of_return)
        bar = what_returns(self._spans(), size, self.bars.positions, self.left_off, chance, rng)
        if bar is None:
            return None
        return self._rows_at(bar, size), bar

    def _rows_at(self, bar: int, bars: int) -> np.ndarray:
        """What stands in bars [bar, bar + bars) so far, all of the song's own notes; bars counted from there."""
        new = [c for c in self.chunks[self.song_chunks :] if c.first_bar < bar + bars and c.first_bar + c.bars > bar]
        rows = np.concatenate([self.plan.rows_before, *(moved(chunk.rows, chunk.first_bar) for chunk in new)])
        return moved(rows[(rows[:, BAR] >= bar) & (rows[:, BAR] < bar + bars)], -bar)

    def _spans(self) -> list[Span]:
        """The chunks so far, as far back as none is missing."""
        spans: list[Span] = []
        for number in range(len(self.chunks) - 1, -1, -1):
            chunk = self.chunks[number]
            if spans and chunk.first_bar + chunk.bars != spans[0].first_bar:
                break
            spans.insert(0, Span(chunk.first_bar, chunk.bars, number < self.song_chunks))
        return spans

    @torch.inference_mode()
    def _encode(self, rows: np.ndarray, first_bar: int, bars: int) -> KnownChunk:
        times = row_times(moved(rows, first_bar), self.bars.beat_starts)
        start = np.array([[self.bars.beat_starts[first_bar], first_bar]], np.float32)
        encoded, row_time, _ = self.model.encode(
            torch.from_numpy(rows.astype(np.int64)),
            torch.tensor([len(rows)]),
            torch.from_numpy(times),
            torch.from_numpy(start),
        )
        summary = encoded[: self.model.size.summary_rows].clone()
        return KnownChunk(first_bar, bars, rows, likeness_set(rows), summary, encoded, row_time)

    def _keep(self, chunk: KnownChunk, of_song: bool) -> None:
        """Older chunks shrink to their summary rows."""
        self.chunks.append(chunk)
        self.runs = self.runs.after(chunk.rows)
        if not of_song:
            self.heard = self.heard.followed(self.heard_first)
        for bar, *rest in chunk.rows.tolist():
            self.heard.hear((bar + chunk.first_bar, *rest))
            self.habits.hear((bar + chunk.first_bar, *rest), count=of_song)
        keep = MAX_FULL_CHUNKS if of_song else self.memory.recent_chunks + 1
        alike = range(0 if of_song else self.song_chunks, len(self.chunks))
        for i in alike[:-keep]:
            self.chunks[i].encoded = None

    # ---- what a plan asks ----

    def next_phrase(self) -> Ready | None:
        """What the plan asks of the next chunk; None: there is no plan, or all is written."""
        index = len(self.chunks) - self.song_chunks
        if self.plan.form is None or index >= len(self.sizes):
            return None
        phrase = self.plan.form.phrases[index]
        playing = {(int(p), int(i)) for p, i in np.argwhere(self.plan.grammar.pitches.any(2))}
        asked = {(int(p), int(i)) for p, i in self.plan.voices[list(phrase.voices)]} & playing
        last = index == len(self.sizes) - 1
        source, fits = self.plan.rows_before[:0], False
        if phrase.source_bar is not None:
            source = self._rows_at(phrase.source_bar, phrase.bars)
            there, here = (self.bars.positions[b : b + phrase.bars] for b in (phrase.source_bar, phrase.first_bar))
            fits = np.array_equal(there, here)
        if last and phrase.kind == SAME and self.plan.end in ("song", "loop"):  # it has to lead to what follows
            phrase = varied(phrase)
        lands = last and self.plan.end == "ending"
        made = ready(phrase, source, frozenset(asked or playing), self.roles, fits, lands)
        if made.is_copy or lands or phrase.transition == "break":  # a break is judged with all that is written
            return made
        return replace(made, standing=self.with_transition(made.standing, phrase, voices_in(made.standing))[0])

    def with_transition(
        self, rows: np.ndarray, phrase: PlannedPhrase, voices: Collection[Voice]
    ) -> tuple[np.ndarray, str]:
        """A planned phrase's rows with its transition, made by `voices`, and its name; "" where none can be made."""
        phrases = self.plan.form.phrases if self.plan.form else ()
        following = next((p for p in phrases if p.first_bar > phrase.first_bar), None)
        span = slice(phrase.first_bar, phrase.first_bar + phrase.bars)
        return self.gestures.made(rows, phrase, following, self.bars.positions[span], voices)

    @property
    def next_size(self) -> int | None:
        """Bars of the next chunk; None: all is written."""
        index = len(self.chunks) - self.song_chunks
        return self.sizes[index] if index < len(self.sizes) else None

    def begins_section(self, phrase: PlannedPhrase) -> bool:
        """Is the phrase before it, of the plan or of the song, of another section?"""
        form = self.plan.form
        sections = {p.first_bar: p.section for p in form.song} if form else {}
        sections |= {p.first_bar: p.section for p in form.phrases} if form else {}
        before = max((bar for bar in sections if bar < phrase.first_bar), default=None)
        return before is None or sections[before] != phrase.section

    def goes_on(self, phrase: PlannedPhrase) -> bool:
        """Is the phrase after this one a copy of what comes after this one's source?"""
        after = [p for p in self.plan.form.phrases if p.first_bar > phrase.first_bar][:1] if self.plan.form else []
        if not after or phrase.source_bar is None:
            return False
        return after[0].kind == SAME and after[0].source_bar == phrase.source_bar + phrase.bars

    def _as_planned(self, task: Task, asked: Ready) -> Task:
        """The task of writing a planned phrase: here what is asked is told, and nothing else plays."""
        phrase, span = asked.phrase, slice(task.first_bar, task.first_bar + len(task.bar_positions))
        seconds = float(self.bars.seconds[span].sum())
        wanted = told(asked, self.figures, float(task.bar_beats.sum()), seconds)
        source = aligned_source(asked, wanted, self.roles)
        of_notes = wanted > 0
        silent = {(int(p), int(i)) for p, i in np.argwhere(task.grammar.pitches.any(2))} - asked.free
        programs = np.zeros_like(self.programs)
        programs[[program for program, _ in asked.voices]] = 1
        fixed = np.concatenate([task.fixed, thin(asked.standing)])
        progression = task.progression
        if self.progression and phrase.source_bar is not None:  # where its source stands in the round
            progression = self.progression.of_bars(self._origin(phrase.source_bar), phrase.bars)
        return replace(
            task,
            conditions=np.where(of_notes, wanted, task.conditions),
            programs=programs,
            voices=conditions.vector_of_voices(sorted(asked.voices)),
            source=source,
            asked=asked_of(phrase, seconds),
            grammar=task.grammar.without(silent),
            fixed=sort_rows(fixed),
            progression=progression,
        )

    def _origin(self, bar: int) -> int:
        """The bar of the song that a bar goes back to, over however many phrases."""
        for phrase in self.plan.form.phrases[::-1] if self.plan.form else ():
            if phrase.first_bar <= bar < phrase.first_bar + phrase.bars and phrase.source_bar is not None:
                bar += phrase.source_bar - phrase.first_bar
        return bar

    # ---- tasks and memory ----

    def next_task(self) -> tuple[Task, Memory] | None:
        """What to write next and what may be looked at meanwhile; None when all bars are written."""
        return None if self.next_size is None else self.task()

    def task(self) -> tuple[Task, Memory]:
        """What to write next, of bars that are still to be written."""
        index = len(self.chunks) - self.song_chunks
        size, first, last = self.sizes[index], self.next_bar, index == len(self.sizes) - 1
        span = slice(first, first + size)
        beats, seconds = self.bars.beats[span], self.bars.seconds[span]
        units = float(np.median(beats)) * MICRO_PER_BEAT
        told = conditions.frame_conditions(size, units, float(beats.sum()), float(seconds.sum()), self._left(index))
        fixed = self.plan.rows_fixed
        fixed = fixed[(fixed[:, BAR] >= first) & (fixed[:, BAR] < first + size)].copy()
        fixed[:, BAR] -= first
        task = Task(
            bar_positions=self.bars.positions[span],
            beat_starts=self.bars.beat_starts[span],
            bar_beats=beats,
            first_bar=first,
            conditions=np.where(told > 0, told, self.held),
            programs=self.programs,
            voices=self.voices,
            grammar=self.plan.grammar,
            heard=self.heard,
            recalled=self.recalled,
            runs=self.runs,
            progression=self.progression.of_bars(first, size) if self.progression else None,
            fixed=thin(fixed),
            final=self.plan.final if self.plan.end == "ending" and last else None,
        )
        asked = self.next_phrase()
        if asked is None:
            return task, self._memory(last, self._standing(task))
        task, source = self._as_planned(task, asked), asked.phrase.source_bar
        goes_back = None
        if task.source is not None and source is not None:
            goes_back = self._encode(thin(asked.source), source, asked.phrase.bars)
        return task, self._memory(last, self._standing(task), goes_back)

    def _left(self, index: int) -> int:
        """Chunks to the end of everything, this one included, as the model is told."""
        if self.plan.end in ("loop", "open"):
            return MANY_CHUNKS
        return len(self.sizes) - index + (len(self.following) if self.plan.end == "song" else 0)

    def _standing(self, task: Task) -> KnownChunk | None:
        """The notes that stand already in the chunk to be written, read as a whole."""
        return self._encode(task.fixed, task.first_bar, len(task.bar_positions)) if len(task.fixed) else None

    @torch.inference_mode()
    def _memory(self, last: bool, standing: KnownChunk | None, source: KnownChunk | None = None) -> Memory:
        """The fixed-size memory: recent chunks and the recalled one in full, the one that follows when the `last` chunk
        is written, what is `standing`, and summary rows of others. A `source` takes the place of what is recalled."""
        count = len(self.chunks)
        known = self.chunks + self.following[:1] if last or not count else self.chunks
        room = self.memory.recent_chunks - (1 if len(known) > count else 0)  # as in training
        recent = list(range(count - 1, max(-1, count - 1 - room), -1))
        full = [(i, RECENT + count - 1 - i) for i in recent]
        full += [(i, AFTER) for i in range(count, len(known))]
        # always one of the song's own chunks: what was written may drift, the song does not
        allowed = [i for i in range(self.song_chunks) if i not in recent and self.chunks[i].encoded is not None]
        recalled = None if source else recall([c.likeness_set for c in self.chunks], allowed)
        if recalled is not None:
            full.append((recalled, RECALLED))
        shown = {i for i, _ in full}
        for more, kind in ((source, SOURCE), (standing, STANDING)):
            if more is not None:
                full.append((len(known), kind))
                known = [*known, more]
        older = [i for i in range(count) if i not in shown]
        if len(older) > self.memory.summary_chunks:
            older = older[:1] + older[len(older) - self.memory.summary_chunks + 1 :]
        summaries = self.model.size.summary_rows
        encoded = [e for i, _ in full if (e := known[i].encoded) is not None]
        encoded += [known[i].summary for i in older]
        times = [known[i].times for i, _ in full] + [known[i].times[:summaries] for i in older]
        kinds = [torch.full((len(known[i].times),), kind) for i, kind in full]
        kinds += [torch.full((summaries,), OPENING if i == 0 else SUMMARY) for i in older]
        return self.model.remember(torch.cat(encoded), torch.cat(times), torch.cat(kinds))

    def _song_conditions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, float]]:
        """Conditions, programs and voices to hold: the song's own, its latest minute before the new music counts most;
        and the figures that the conditions are of."""
        near = self.chunks or self.following
        recent = [c for c in near[-6:] if len(c.rows)] or [c for c in self.song if len(c.rows)]
        if not recent:
            nobody = np.zeros((0, len(FIELD_SIZES)), np.int64)
            told = np.zeros(len(conditions.CONDITIONS), np.int64)
            return told, conditions.program_vector(nobody), conditions.voice_vector(nobody), {}
        figures = []
        for chunk in recent:
            span = slice(chunk.first_bar, chunk.first_bar + chunk.bars)
            figures.append(
                conditions.features(
                    chunk.rows, float(self.bars.beats[span].sum()), float(self.bars.seconds[span].sum())
                )
            )
        mean = {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}
        latest = np.concatenate([c.rows for c in recent[-3:]])
        programs, voices = conditions.program_vector(latest), conditions.voice_vector(latest)
        return conditions.note_conditions(mean), programs, voices, mean
