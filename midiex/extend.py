"""The way of the data: a song is read, cut, remembered; chunk after chunk is planned, written, ranked; all is joined.

`Extension.chunks()` is a generator; whoever shows progress, writes files or plays along consumes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import mido
import numpy as np

from . import ranking, score, tokens
from .callable_module import make_callable
from .checkpoint import load_model
from .chunks import thin
from .config import Config, GenerateConfig
from .decoding import Candidate, Memory, Task, write_chunk
from .errors import BadInput
from .grid import BarGrid, TempoMap
from .model import ChunkTransformer
from .planner import Bars, Planner
from .tokens import BAR, POSITION

MAX_SECONDS = 6 * 3600
STEADY = 0.02  # a tempo this near the song's usual one goes on as it is
RETRY_TEMPERATURE = {"silent": 1.1, "hole": 1.05, "stuck": 1.15, "looping": 1.2}  # hotter each time a fault shows


@dataclass(frozen=True)
class Model:
    """A loaded network and its config."""

    network: ChunkTransformer
    config: Config


def load(model: str | PathLike[str] | None = None) -> Model:
    """Load a model: a folder, the name of a shipped one, or by default the shipped `small`.

    Raises MissingPart when it is not there and BadInput when it cannot be used.
    """
    return Model(*load_model(None if model is None else str(model)))


@dataclass(frozen=True)
class NewChunk:
    """One chunk written. Times are in the finished song."""

    index: int
    of: int  # how many there will be
    first_bar: int
    bars: int
    start_s: float
    end_s: float
    rows: np.ndarray  # (n, 8)
    attempts: int
    terms: dict[str, float]  # of ranking
    fallback: bool  # nothing usable was written, so a chunk of the song itself stands here


@dataclass
class Extension:
    """A song on its way to `seconds`. Iterate `chunks()` to the end, then take `midi()` or `save()`."""

    song: score.Song
    model: Model
    seconds: float
    generate: GenerateConfig
    seed: int = 0
    written: list[NewChunk] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = tokens.encode(tokens.notes_of(self.song.score), self.voices, self.song.grid)
        song_bars = int(self.rows[-1, BAR]) + 1
        grid = self.song.grid
        self.seam_tick, self.seam_s = int(grid.ticks[song_bars]), float(grid.seconds[song_bars])
        self.tempo_us_per_beat = self._coming_tempo(grid, song_bars)
        self.grid = self._coming_grid(grid, song_bars)
        self.song_bars = song_bars

    @property
    def voices(self) -> np.ndarray:
        return tokens.voice_ids(self.song.score)

    @property
    def end_s(self) -> float:
        """Where the last bar will end."""
        return float(self.grid.seconds[-1])

    def _coming_tempo(self, grid: BarGrid, song_bars: int) -> int:
        """Microseconds a beat to go on with: the song's usual, or exactly what is in force where that is near it."""
        in_force = self.song.tempo.us_per_beat_at(self.seam_tick)
        usual = float(np.median(grid.bar_s[:song_bars] / grid.bar_beats[:song_bars])) * 1e6
        return round(in_force if abs(in_force / usual - 1) < STEADY else usual)

    def _coming_grid(self, grid: BarGrid, song_bars: int) -> BarGrid:
        """The song's bars and, after them, as many of its usual ones as fill `seconds` to the nearest bar.

        Raises BadInput when not one bar fits.
        """
        bar_ticks = int(np.median(np.diff(grid.ticks[: song_bars + 1])[-8:]))
        tempo = self.song.tempo
        ticks, us = np.append(tempo.ticks, self.seam_tick), np.append(tempo.us_per_beat, self.tempo_us_per_beat)
        tempo = TempoMap.build(tempo.tpq, ticks, us) if self.song.midi.ticks_per_beat > 0 else tempo
        end_tick = float(tempo.to_ticks(self.seconds))
        count = round((end_tick - self.seam_tick) / bar_ticks)
        if self.seam_s >= self.seconds or count < 1:
            raise BadInput(
                f"{self.song.path} already lasts {self.seam_s:.1f} s and {self.seconds:.1f} s were asked for; "
                f"ask for at least {math.ceil(self.seam_s + bar_ticks / tempo.tpq * self.tempo_us_per_beat / 1e6)} s."
            )
        all_ticks = np.concatenate([grid.ticks[: song_bars + 1], self.seam_tick + bar_ticks * np.arange(1, count + 1)])
        return BarGrid(tempo.tpq, all_ticks, tempo.to_seconds(all_ticks))

    def chunks(self) -> Iterator[NewChunk]:
        """Write chunk after chunk until the song is long enough."""
        network, memory = self.model.network, self.model.config.memory
        bars = Bars(self.grid.bar_beats, self.grid.bar_s)
        planner = Planner(network, memory, self.rows, bars, self.song_bars)
        style = self.style = self._style(planner)
        while (plan := planner.next_task()) is not None:
            task, remembered = plan
            index, size = len(self.written), len(task.bar_positions)
            first = planner.next_bar
            seconds = float(bars.seconds[first : first + size].sum())
            before = ranking.Before(planner.chunks[-1].rows, planner.chunks[-1].bars, int(task.bar_positions[0]))
            rows, attempts, terms = self._best(task, remembered, index, seconds, style, before)
            fallback = rows is None
            if rows is None:
                rows = self._own_chunk(planner, task)
            planner.remember(rows, first, size)
            chunk = NewChunk(
                index, len(planner.sizes), first, size, float(self.grid.seconds[first]),
                float(self.grid.seconds[first + size]), rows, attempts, terms, fallback,
            )  # fmt: skip
            self.written.append(chunk)
            yield chunk

    def _best(
        self, task: Task, memory: Memory, index: int, seconds: float, style: ranking.Style, before: ranking.Before
    ) -> tuple[np.ndarray | None, int, dict[str, float]]:
        """Rows (None: nothing usable), attempts and ranking terms of the best candidate; a round in which all are
        faulty is followed by a hotter one."""
        size, config = len(task.bar_positions), self.generate
        poor: list[tuple[int, float, Candidate, dict[str, float]]] = []
        for attempt in range(config.max_attempts):
            rng = np.random.default_rng((self.seed, index, attempt))
            good: list[tuple[float, Candidate, dict[str, float]]] = []
            seen: list[str] = []
            for candidate in write_chunk(self.model.network, memory, task, config, rng):
                found = ranking.faults(candidate.rows, size, seconds, style, before)
                if "silent" in found and len(candidate.rows) == 0:
                    seen += found
                    continue
                terms = ranking.terms(candidate.rows, candidate.nll, seconds, style, before)
                if found or not candidate.finished:
                    seen += found
                    if "silent" not in found:
                        poor.append((len(found), ranking.score(terms), candidate, terms))
                else:
                    good.append((ranking.score(terms), candidate, terms))
            if good:
                _, candidate, terms = min(good, key=lambda g: g[0])
                return candidate.rows, attempt + 1, terms
            hotter = max([RETRY_TEMPERATURE[name] for name in seen], default=1.1)
            config = replace(config, temperature=config.temperature * hotter)
        if poor:
            _, _, candidate, terms = min(poor, key=lambda p: p[:2])
            return candidate.rows, self.generate.max_attempts, terms
        return None, self.generate.max_attempts, {}

    def _own_chunk(self, planner: Planner, task: Task) -> np.ndarray:
        """Rows of the song's own latest chunk that has notes, from its first note's bar on, cut or repeated to fit."""
        chunk = [c for c in planner.chunks[: planner.song_chunks] if len(c.rows)][-1]
        first, size = int(chunk.rows[0, BAR]), len(task.bar_positions)
        copies = []
        for start in range(0, size, chunk.bars - first):
            part = chunk.rows.copy()
            part[:, BAR] += start - first
            copies.append(part)
        rows = np.concatenate(copies)
        rows = rows[rows[:, BAR] < size]
        return thin(rows[rows[:, POSITION] < task.bar_positions[rows[:, BAR]]])  # the song's bars may have been longer

    def _style(self, planner: Planner) -> ranking.Style:
        chunks = []
        for chunk in planner.chunks:
            span = slice(chunk.first_bar, chunk.first_bar + chunk.bars)
            chunks.append((chunk.rows, chunk.bars, float(planner.bars.seconds[span].sum())))
        return ranking.Style.of(chunks, int(np.median(planner.bars.positions[: self.song_bars])))

    @property
    def mean_score(self) -> float:
        """Mean ranking score of the written chunks; lower is better."""
        return float(np.mean([ranking.score(c.terms) for c in self.written if c.terms] or [np.inf]))

    def report(self) -> dict[str, Any]:
        """What was done, ready for JSON."""
        return {
            "song": str(self.song.path),
            "seconds": round(self.end_s, 3),
            "seam_s": round(self.seam_s, 3),
            "seed": self.seed,
            "new_notes": sum(len(c.rows) for c in self.written),
            "score": round(self.mean_score, 4) if np.isfinite(self.mean_score) else None,
            "chunks": [
                {
                    "start_s": round(c.start_s, 3), "end_s": round(c.end_s, 3), "bars": c.bars, "notes": len(c.rows),
                    "attempts": c.attempts, "fallback": c.fallback,
                    "terms": {k: round(v, 4) for k, v in c.terms.items()},
                }
                for c in self.written
            ],
        }  # fmt: skip

    def new_notes(self) -> score.NewNotes:
        """All written notes on the song's own tracks."""
        parts = [tokens.decode(c.rows, self.voices, self.grid, c.first_bar) for c in self.written]
        notes = [np.concatenate(column) for column in zip(*(_columns(p) for p in parts), strict=True)]
        voice, start, duration, pitch, velocity = notes
        end_tick = int(self.grid.ticks[-1])
        start = np.minimum(start, end_tick - 1)  # a note pushed late in the last bar
        duration = np.minimum(start + duration, end_tick) - start  # nothing rings past the end
        return score.NewNotes(voice, start, np.maximum(duration, 1), pitch, velocity)

    def midi(self) -> mido.MidiFile:
        """The original's events and the new ones."""
        return score.append(
            self.song, self.new_notes(), self.seam_tick, int(self.grid.ticks[-1]), self.tempo_us_per_beat
        )

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the extended song; whole or not at all."""
        score.save(self.midi(), path)
        return Path(path)


def _columns(notes: tokens.Notes) -> tuple[np.ndarray, ...]:
    return notes.track, notes.start_ticks, notes.duration_ticks, notes.pitch, notes.velocity


def extend(
    path: str | PathLike[str],
    seconds: float = 300.0,
    out: str | PathLike[str] | None = None,
    *,
    model: Model | str | PathLike[str] | None = None,
    seed: int = 0,
    temperature: float | None = None,
    candidates: int | None = None,
) -> Extension:
    """Extend a MIDI file to `seconds` and, if `out` is given, write it there.

    Same file, seed, model and machine: same bytes. Raises BadInput for a file or value that cannot be used.
    """
    if out is not None and Path(out).exists() and Path(path).exists() and Path(out).samefile(path):
        raise BadInput(f"{out} is the input itself, which midiex never changes; choose another name.")
    extension = start(path, seconds, model=model, seed=seed, temperature=temperature, candidates=candidates)
    for _ in extension.chunks():
        pass
    if out is not None:
        extension.save(out)
    return extension


def start(
    path: str | PathLike[str],
    seconds: float = 300.0,
    *,
    model: Model | str | PathLike[str] | None = None,
    seed: int = 0,
    temperature: float | None = None,
    candidates: int | None = None,
) -> Extension:
    """As `extend`, but nothing is written yet: iterate the result's `chunks()`."""
    if not 0 < seconds <= MAX_SECONDS:
        raise BadInput(f"A length of {seconds:g} s cannot be made; ask for more than 0 and at most {MAX_SECONDS} s.")
    if seed < 0:
        raise BadInput(f"The seed {seed} is below 0; give 0 or more.")
    song = score.read(path)
    loaded = model if isinstance(model, Model) else load(model)
    usual = loaded.config.generate
    generate = replace(usual, temperature=temperature or usual.temperature, candidates=candidates or usual.candidates)
    return Extension(song, loaded, seconds, generate, seed)


make_callable(__name__)
