"""Shards of note rows to training batches: windows of consecutive chunks, each encoded once and each a target.

Every layout of memory that extending uses is drawn here: few or many recent chunks, a recalled one, summaries, a chunk
after the gap. Batches depend only on (seed, rank, number), so that training resumes exactly. Knows no model weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from . import augment, conditions, metrics
from .chunks import chunk_bars, likeness_set, recall, row_times, thin
from .config import MemoryConfig, TrainConfig
from .echoes import ECHOES, echoes
from .echoes import NOTHING as NO_ECHO
from .errors import BadInput
from .habits import CONTEXTS, FIRST_CONTEXT, Evidence, habits
from .model import AFTER, NOTHING, OPENING, RECALLED, RECENT, SUMMARY, Batch
from .tokens import BAR, DRUM_PROGRAM, MICRO_PER_BEAT, POSITION, PROGRAM, moved, sort_rows

POOL_WINDOWS = 48  # windows drawn together, so that batches can be filled with windows of like length
MICRO_BATCHES = 2  # parts of a batch, one of thin and one of dense music: either alone would pull the weights its way
ALL_ECHOES_HIDDEN, ECHO_HIDDEN = 0.1, 0.05  # how often a chunk is to be written without any, without one kind
WINDOW_NOTES = 1600  # a window of dense music stops after the chunk that passes this many target notes
# How often each source is drawn, relative to its size being nothing: bands with drums are scarce in the corpus this was
# tuned on and are drawn more often than their share. A source not named here weighs DEFAULT_WEIGHT.
SOURCE_WEIGHTS = {
    "polish_scores": 20.0, "pop909": 12.0, "openscore_lieder": 8.0, "freedoom": 5.0, "freedoom_history": 7.0,
    "simutrans": 6.0, "blasphemer": 1.5, "easyrpg_rtp": 1.5, "pianobooster": 0.5, "groove_midi": 2.0,
    "mma_openewld": 6.0, "mma_pop909": 6.0, "openscore_quartets": 5.0, "hauptstimme": 4.0, "chopin_first_editions": 6.0,
    "mutopia": 6.0, "musetrainer": 2.5, "mei_samples": 1.5, "openewld": 1.0, "openhymnal": 1.5,
}  # fmt: skip
DEFAULT_WEIGHT = 5.0


@dataclass(frozen=True)
class Songs:
    """All songs of one source, as arrays (see prepare.py)."""

    source: str
    notes: np.ndarray
    bar: np.ndarray
    bar_s: np.ndarray
    bar_units: np.ndarray
    song_notes: np.ndarray
    song_bars: np.ndarray

    @classmethod
    def load(cls, path: Path) -> Songs:
        """Raises BadInput when the file is no shard."""
        try:
            return cls(path.stem, **load_file(path))
        except (SafetensorError, TypeError, OSError) as error:
            raise BadInput(f"{path} is not a shard of midiex ({error}); make shards with `midiex prepare`.") from None

    def __len__(self) -> int:
        return len(self.song_notes) - 1

    def song(self, index: int) -> Song:
        notes = slice(self.song_notes[index], self.song_notes[index + 1])
        bars = slice(self.song_bars[index], self.song_bars[index + 1])
        rows = np.concatenate([self.bar[notes, None].astype(np.int32), self.notes[notes].astype(np.int32)], 1)
        return Song(rows, self.bar_s[bars].astype(np.float64), self.bar_units[bars].astype(np.int64))


@dataclass(frozen=True)
class Song:
    rows: np.ndarray  # (n, 8), bar counted from the song's beginning
    bar_s: np.ndarray  # (bars,)
    bar_units: np.ndarray  # (bars,) in 1/96 beat
    bars_after: int = 0  # bars that follow but were cut off


@dataclass(frozen=True)
class WindowChunk:
    """One chunk of a window, ready for the model."""

    rows: np.ndarray  # (n, 8), bar counted from the chunk's beginning
    first_bar: int
    bars: int
    times: np.ndarray  # (n, 2) float32 beats and bars since the song's beginning
    start: np.ndarray  # (2,) float32
    seconds: float
    beats: float
    conditions: np.ndarray  # (11,)
    likeness_set: np.ndarray  # what `metrics.likeness` compares


@dataclass(frozen=True)
class Window:
    """`chunks[:extras]` come from earlier in the song and are only remembered; the others follow one another."""

    chunks: list[WindowChunk]
    extras: int
    source: int
    notes: int  # of the targets


def load_split(folder: str | Path, split: str) -> list[Songs]:
    """All sources of a split, sorted by name; empty when the split has no shards."""
    return [Songs.load(path) for path in sorted(Path(folder, split).glob("*.safetensors"))]


def make_chunk(song: Song, first_bar: int, bars: int, beat_starts: np.ndarray, left: int) -> WindowChunk:
    """Chunk of the song's bars [first_bar, first_bar + bars). `beat_starts` (bars + 1,): beats before each bar."""
    low, high = np.searchsorted(song.rows[:, BAR], (first_bar, first_bar + bars))
    rows = song.rows[low:high].copy()
    times = row_times(rows, beat_starts)
    rows[:, BAR] -= first_bar
    if len(rows):
        kept = thin(np.concatenate([rows, np.arange(len(rows))[:, None]], 1))
        rows, times = kept[:, :8], times[kept[:, 8]]
    seconds = float(song.bar_s[first_bar : first_bar + bars].sum())
    beats = float(beat_starts[first_bar + bars] - beat_starts[first_bar])
    units = float(np.median(song.bar_units[first_bar : first_bar + bars]))
    told = conditions.frame_conditions(bars, units, beats, seconds, left)
    if len(rows):
        told = told + conditions.note_conditions(conditions.features(rows, beats, seconds))
    start = np.array([beat_starts[first_bar], first_bar], np.float32)
    return WindowChunk(rows, first_bar, bars, times, start, seconds, beats, told, likeness_set(rows))


class Dataset:
    """Draws windows and packs them into batches."""

    def __init__(self, sources: list[Songs], train: TrainConfig, memory: MemoryConfig, rank: int = 0):
        if not sources:
            raise BadInput("There are no shards to train on; make some with `midiex prepare FOLDER -o SHARDS`.")
        self.sources, self.train, self.memory, self.rank = sources, train, memory, rank
        weights = np.array([SOURCE_WEIGHTS.get(s.source, DEFAULT_WEIGHT) for s in sources])
        self.source_chance = weights / weights.sum()
        # long songs are drawn more often, but an opera not a hundred times as often as a song
        self.song_chance = [_normalised(np.minimum(np.diff(s.song_bars), 200) ** 0.75) for s in sources]
        self.drum_patterns = [
            (source, index) for source in sources if source.source == "groove_midi" for index in range(len(source))
        ]

    def batches(self, pool: int = 0, skip: int = 0) -> Iterator[tuple[list[Batch], int, int]]:
        """Endless (batch in parts, pool, number in pool), from any point on."""
        while True:
            for number, parts in enumerate(self._pool(pool)):
                if number >= skip:
                    rng = np.random.default_rng((self.train.seed, self.rank, pool, number))
                    yield [collate(p, self.memory, self.train.condition_dropout, rng) for p in parts], pool, number
            pool, skip = pool + 1, 0

    def _pool(self, pool: int) -> list[list[list[Window]]]:
        """Batches of about notes_per_batch target notes, each in MICRO_BATCHES parts from thin to dense music; inside a
        part lengths are alike, so that little is padding."""
        rng = np.random.default_rng((self.train.seed, self.rank, pool))
        windows = [self.draw(rng) for _ in range(POOL_WINDOWS)]
        windows.sort(key=lambda w: max(len(c.rows) for c in w.chunks))
        ends = np.cumsum([w.notes for w in windows])
        layers = []
        for layer in range(MICRO_BATCHES):
            share = (ends - 1) * MICRO_BATCHES // ends[-1] == layer
            layers.append(_grouped([w for w, mine in zip(windows, share, strict=True) if mine], self._part_notes))
        steps = max(1, min(map(len, layers)))
        orders = [rng.permutation(len(groups)) for groups in layers]
        return [[groups[order[i]] for groups, order in zip(layers, orders, strict=True) if i < len(groups)]
                for i in range(steps)]  # fmt: skip

    @property
    def _part_notes(self) -> int:
        return self.train.notes_per_batch // MICRO_BATCHES

    def draw(self, rng: np.random.Generator) -> Window:
        """One augmented window."""
        source = int(rng.choice(len(self.sources), p=self.source_chance))
        songs = self.sources[source]
        song = songs.song(int(rng.choice(len(songs), p=self.song_chance[source])))
        return make_window(self._augmented(song, rng), self.train.window_chunks, WINDOW_NOTES, source, rng)

    def _augmented(self, song: Song, rng: np.random.Generator) -> Song:
        rows = song.rows
        if len(rows) > 20_000:  # a whole opera act: only a stretch of it is needed
            at = int(rng.integers(0, len(rows) - 20_000))
            first_bar = int(rows[at, BAR])
            rows = rows[rows[:, BAR] >= first_bar][:20_000]
            last_bar = int(rows[-1, BAR]) + 1
            rows = rows.copy()
            rows[:, BAR] -= first_bar
            bars = slice(first_bar, last_bar)
            song = Song(rows, song.bar_s[bars], song.bar_units[bars], len(song.bar_s) - last_bar)
        if rng.random() < 0.15:
            rows = augment.drop_voice(rows, rng)
        if rng.random() < 0.85:
            rows = augment.transpose(rows, rng)
        if rng.random() < 0.4:
            rows = augment.swap_instruments(rows, rng, 0.4)
        rows = augment.level_velocity(rows, rng)
        if rng.random() < 0.12 and not (rows[:, PROGRAM] == DRUM_PROGRAM).any():
            rows = self._with_drums(rows, song, rng)
        bar_s = song.bar_s * np.exp(rng.uniform(-0.15, 0.15)) if rng.random() < 0.5 else song.bar_s
        return Song(sort_rows(rows), bar_s, song.bar_units, song.bars_after)

    def _with_drums(self, rows: np.ndarray, song: Song, rng: np.random.Generator) -> np.ndarray:
        """A human drummer's pattern of the same meter under the whole song."""
        meter = int(np.median(song.bar_units))
        for _ in range(6 if self.drum_patterns else 0):
            source, index = self.drum_patterns[int(rng.integers(len(self.drum_patterns)))]
            drummer = source.song(index)
            bars = min(len(drummer.bar_units) - 1, 8)
            if bars >= 2 and int(np.median(drummer.bar_units)) == meter:
                bars = 2 ** int(np.log2(bars))
                pattern = drummer.rows[drummer.rows[:, BAR] < bars]
                if len(pattern) >= 8:
                    return augment.overlay_drums(rows, pattern, bars, 0, len(song.bar_s))
        return rows


def _grouped(windows: list[Window], notes: int) -> list[list[Window]]:
    """Neighbours together, about `notes` target notes a group."""
    groups: list[list[Window]] = []
    room = 0
    for window in windows:
        if not groups or window.notes > room:
            groups.append([])
            room = round(1.15 * notes)
        groups[-1].append(window)
        room -= window.notes
    return groups


def _normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()


def make_window(song: Song, size: int, most_notes: int, source: int, rng: np.random.Generator) -> Window:
    """`size` consecutive chunks from a random bar of the song, with up to two earlier ones to remember."""
    beat_starts = np.concatenate([[0.0], np.cumsum(song.bar_units / MICRO_PER_BEAT)])
    bars = len(song.bar_s)
    usual = chunk_bars(song.bar_s)
    if rng.random() < 0.35:
        first = 0
    else:
        first = int(rng.integers(0, max(1, bars - 3 * usual)))
        if rng.random() < 0.6:
            first -= first % usual  # phrases begin on the song's own chunk borders more often than not
    borders = [first]
    while borders[-1] < bars and len(borders) <= size:
        borders.append(min(bars, borders[-1] + chunk_bars(song.bar_s[borders[-1] :])))
    left_after = int(np.ceil((bars - borders[-1] + song.bars_after) / max(1, usual)))
    chunks = []
    for i in range(len(borders) - 1):
        left = len(borders) - 1 - i + left_after
        chunks.append(make_chunk(song, borders[i], borders[i + 1] - borders[i], beat_starts, left))
        if sum(len(c.rows) for c in chunks) > most_notes:
            break
    extras: list[WindowChunk] = []
    if first >= usual and rng.random() < 0.6:
        starts = {0} | {int(rng.integers(0, first - usual + 1))}
        for start in sorted(starts)[: int(rng.integers(1, 3))]:
            if extras and start < extras[-1].first_bar + extras[-1].bars:
                continue  # bars would be heard twice
            length = min(chunk_bars(song.bar_s[start:]), first - start)
            extras.append(make_chunk(song, start, length, beat_starts, 0))
    return Window(extras + chunks, len(extras), source, sum(len(c.rows) + 1 for c in chunks))


def memory_slots(
    chunks: list[WindowChunk], target: int, extras: int, memory: MemoryConfig, rng: np.random.Generator | None
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """What target chunk `target` of a window may look at: (index, kind) of full slots and of summary slots.

    With an `rng` slots are dropped and changed at random; without one the layout is that of extending a song.
    """
    recent = list(range(target - 1, max(extras, target - memory.recent_chunks) - 1, -1))
    if rng is not None and rng.random() < 0.15:
        recent = recent[: int(rng.integers(1, memory.recent_chunks + 1))]
    full = [(i, RECENT + target - 1 - i) for i in recent]
    older = [i for i in range(target) if i not in recent]
    if rng is not None and target + 1 < len(chunks) and rng.random() < 0.12:
        full = [*full[: memory.recent_chunks - 1], (target + 1, AFTER)]
    recalled = None
    if rng is None:
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
    windows: list[Window], memory: MemoryConfig, condition_dropout: float, rng: np.random.Generator | None
) -> Batch:
    """Windows to one batch. Without an `rng` (validation) what only the true chunk could tell (density, mood,
    instruments …) is unknown, and nothing is dropped at random."""
    chunks = [c for w in windows for c in w.chunks]
    target, told, programs, full, summaries, source, echoed, known = [], [], [], [], [], [], [], []
    base = 0
    for window in windows:
        echoed += window_echoes(window, rng)
        known += step_habits([c.rows for c in window.chunks], [c.first_bar for c in window.chunks])[window.extras :]
        for i in range(window.extras, len(window.chunks)):
            chunk = window.chunks[i]
            slots, older = memory_slots(window.chunks, i, window.extras, memory, rng)
            full.append([(base + j, kind) for j, kind in slots])
            summaries.append([(base + j, kind) for j, kind in older])
            condition, program = chunk.conditions.copy(), conditions.program_vector(chunk.rows)
            if rng is None:
                condition[conditions.DENSITY : conditions.LEFT] = 0
                program[:] = 0
            elif rng.random() < 0.1:
                condition[:], program[:] = 0, 0
            else:
                condition[rng.random(len(condition)) < condition_dropout] = 0
                if rng.random() < condition_dropout:
                    program[:] = 0
            target.append(base + i)
            told.append(condition)
            programs.append(program)
            source.append(window.source)
        base += len(window.chunks)
    full_index, full_kind = _slots(full)
    summary_index, summary_kind = _slots(summaries)
    return Batch(
        rows=torch.from_numpy(np.concatenate([c.rows for c in chunks]).astype(np.int64)),
        lengths=torch.tensor([len(c.rows) for c in chunks]),
        times=torch.from_numpy(np.concatenate([c.times for c in chunks])),
        starts=torch.from_numpy(np.stack([c.start for c in chunks])),
        window=torch.repeat_interleave(torch.tensor([len(w.chunks) for w in windows])),
        target=torch.tensor(target),
        conditions=torch.from_numpy(np.stack(told)),
        programs=torch.from_numpy(np.stack(programs)),
        full=full_index,
        full_kind=full_kind,
        summaries=summary_index,
        summary_kind=summary_kind,
        echoes=torch.from_numpy(np.concatenate(echoed)),
        habit_share=torch.from_numpy(np.concatenate([own.share for own in known])),
        habit_bucket=torch.from_numpy(np.concatenate([own.bucket for own in known])),
        habit_level=torch.from_numpy(np.concatenate([own.level for own in known])),
        source=torch.tensor(source),
    )


def step_habits(chunks: list[np.ndarray], first_bars: list[int]) -> list[Evidence]:
    """For each chunk of n notes the evidence on the decisions of its n + 1 steps, in all notes before; buckets are 0
    where a step decides nothing."""
    rows = np.concatenate([moved(own, first) for own, first in zip(chunks, first_bars, strict=True)])
    known, found = habits(rows), []
    of_next = slice(FIRST_CONTEXT[POSITION], CONTEXTS)  # a step decides its note and the next one's position
    ends = np.cumsum([len(own) for own in chunks])
    for end, own in zip(ends, chunks, strict=True):
        steps = []
        for values in (known.share, known.bucket, known.level):
            of_chunk = values[end - len(own) : end]
            step = np.concatenate([np.zeros((1, CONTEXTS), values.dtype), of_chunk])
            step[:-1, of_next], step[-1, of_next] = of_chunk[:, of_next], 0
            steps.append(step)
        found.append(Evidence(*steps))
    return found


def step_echoes(chunks: list[np.ndarray], first_bars: list[int]) -> list[np.ndarray]:
    """Echoes (n + 1, ECHOES, 8) of the notes of each chunk, none at its first step, among those of all before it."""
    rows = np.concatenate([moved(own, first) for own, first in zip(chunks, first_bars, strict=True)])
    found = np.split(echoes(rows), np.cumsum([len(own) for own in chunks])[:-1])
    return [np.concatenate([np.tile(NO_ECHO, (1, ECHOES, 1)), own]) for own in found]


def window_echoes(window: Window, rng: np.random.Generator | None) -> list[np.ndarray]:
    """`step_echoes` of the chunks to be written. With an `rng` some are hidden at random, so that the network can do
    without."""
    of_chunks = step_echoes([c.rows for c in window.chunks], [c.first_bar for c in window.chunks])
    result = []
    for own in of_chunks[window.extras :]:
        if rng is not None:
            hidden = rng.random(ECHOES // 2) < (1.0 if rng.random() < ALL_ECHOES_HIDDEN else ECHO_HIDDEN)
            own[:, np.repeat(hidden, 2)] = NO_ECHO
        result.append(own)
    return result


def _slots(lists: list[list[tuple[int, int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged (index, kind) lists to two (B, most) tensors, -1 and NOTHING where empty; at least one column."""
    most = max(1, max(map(len, lists)))
    index, kind = torch.full((len(lists), most), -1), torch.full((len(lists), most), NOTHING)
    for b, slots in enumerate(lists):
        for s, (chunk, what) in enumerate(slots):
            index[b, s], kind[b, s] = chunk, what
    return index, kind


def validation_windows(sources: list[Songs], size: int, per_source: int) -> list[Window]:
    """One window of each of the first `per_source` songs of every source, always the same ones, unaugmented."""
    windows = []
    for number, songs in enumerate(sources):
        for index in range(min(len(songs), per_source)):
            song = songs.song(index)
            windows.append(make_window(song, size, 4096, number, np.random.default_rng(index)))
    return windows
