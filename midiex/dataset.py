"""Shards of note rows to training batches: augmented windows of songs, packed by length.

Batches depend only on (seed, rank, number), so that training resumes exactly. Knows no model weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from . import augment
from .collate import collate
from .config import MemoryConfig, TrainConfig
from .errors import BadInput
from .model import Batch
from .tokens import BAR, DRUM_PROGRAM, PROGRAM, sort_rows
from .windows import Song, Window, make_window, with_likest, with_standing

POOL_WINDOWS = 48  # windows drawn together, so that batches can be filled with windows of like length
MICRO_BATCHES = 2  # parts of a batch, one of thin and one of dense music: either alone would pull the weights its way
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


def load_split(folder: str | Path, split: str) -> list[Songs]:
    """All sources of a split, sorted by name; empty when the split has no shards."""
    return [Songs.load(path) for path in sorted(Path(folder, split).glob("*.safetensors"))]


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
                    yield [self._collated(p, rng) for p in parts], pool, number
            pool, skip = pool + 1, 0

    def _collated(self, windows: list[Window], rng: np.random.Generator) -> Batch:
        return collate(windows, self.memory, self.train.condition_dropout, rng, self.train.without_past)

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
        size, share = self.train.window_chunks, self.train.with_source
        window = make_window(self._augmented(song, rng), size, WINDOW_NOTES, source, rng, share)
        return with_standing(window, self.train.with_standing, rng)

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
        if rng.random() < 0.1:
            rows = augment.spread_instances(rows, rng)
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


def validation_windows(sources: list[Songs], size: int, per_source: int, with_source: bool = False) -> list[Window]:
    """One window of each of the first `per_source` songs of every source, always the same ones, unaugmented; if asked
    each chunk with the likest earlier bars as its source."""
    windows = []
    for number, songs in enumerate(sources):
        for index in range(min(len(songs), per_source)):
            song = songs.song(index)
            window = make_window(song, size, 4096, number, np.random.default_rng(index))
            windows.append(with_likest(window, song) if with_source else window)
    return windows
