"""Music by any of the networks, written the plain way: one version of each chunk, which stays whatever it is.

No ranking, no second attempt, nothing brought back, no chord progression kept: what comes out is the network's. The
plan, the grammar and the sampling are midiex's own for all of them. A network that was trained alone is `deafened`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from midiex import score
from midiex.chunks import likeness_set
from midiex.collate import collate
from midiex.conditions import program_vector, voice_vector
from midiex.config import Config, GenerateConfig, MemoryConfig
from midiex.decoding import write_chunk
from midiex.echoes import ECHOES, NO_SOURCE, Listener
from midiex.echoes import NOTHING as NO_ECHO
from midiex.evaluation.excerpts import Example, Excerpt
from midiex.extend import Model, Passage, start
from midiex.layers import ECHO_FIRSTS
from midiex.model import Batch, ChunkTransformer, NoteModel
from midiex.planner import MANY_CHUNKS, KnownChunk, Plan, Planner
from midiex.tokens import MICRO_PER_BEAT, moved
from midiex.windows import Song, Window, make_chunk

from .pasts import LstmPast, RunningPast, any_stepper, past_of

SURE = 1e6  # nats by which a deafened network believes itself


class RivalPlanner(Planner):
    """Plans as ever; instead of chunks to be looked at, it keeps what the rival makes of them all."""

    def __init__(self, model: NoteModel, memory: MemoryConfig, plan: Plan):
        self.past = past_of(model)
        super().__init__(model, memory, plan)

    def _encode(self, rows: np.ndarray, first_bar: int, bars: int) -> KnownChunk:
        nothing = torch.zeros(0)
        return KnownChunk(first_bar, bars, rows, likeness_set(rows), nothing, None, nothing)

    @torch.inference_mode()
    def _keep(self, chunk: KnownChunk, of_song: bool) -> None:
        self.past.read(self.batch_of(chunk))
        super()._keep(chunk, of_song)

    def _memory(
        self, last: bool, standing: KnownChunk | None, source: KnownChunk | None = None
    ) -> LstmPast | RunningPast:
        return self.past

    def batch_of(self, chunk: KnownChunk) -> Batch:
        """The chunk that comes next, finished, as a target of training: told its own conditions and echoes of all that
        was heard before it."""
        bars, rows = self.bars, moved(chunk.rows, chunk.first_bar)
        units = np.round(bars.beats * MICRO_PER_BEAT).astype(np.int64)
        song = Song(rows, bars.seconds, units)
        told = make_chunk(song, chunk.first_bar, chunk.bars, bars.beat_starts, MANY_CHUNKS)
        return replace(
            collate([Window([told], 0, 0, len(rows))], self.memory, 0.0, None),
            conditions=torch.from_numpy(told.conditions)[None],
            programs=torch.from_numpy(program_vector(rows))[None],
            voices=torch.from_numpy(voice_vector(rows))[None],
            echoes=torch.from_numpy(self._echoes(rows)),
        )

    def _echoes(self, rows: np.ndarray) -> np.ndarray:
        """(n + 1, ECHOES, 8) of the next rows (n, 8), bars counted from the song's first; the first step has none."""
        listener, found = Listener(self.heard), [NO_ECHO] * ECHOES
        for bar, position, *rest in rows.tolist():
            found += [*listener.expect(bar, position), *NO_SOURCE]
            listener.hear((bar, position, *rest))
        return np.array(found, np.int64).reshape(len(rows) + 1, ECHOES, -1)


@dataclass(frozen=True)
class Wrote:
    """A chunk."""

    rows: np.ndarray  # (n, 8), bars counted from its first
    first_bar: int  # of the result
    bars: int
    wall_s: float  # that its notes took
    cpu_s: float  # of them, on a core


@torch.no_grad()
def deafen(network: NoteModel) -> NoteModel:
    """The same network, from now on as one that hears no echoes and believes no habits: for a batch, what it is for
    `plain` of it; when it writes as well."""
    table = network.echoes.table.weight
    for first, nothing in zip(ECHO_FIRSTS, NO_ECHO.tolist(), strict=True):
        table[first : first + nothing] = table[first + nothing]
    for gate in network.heads.gate:
        gate.bias[0] = SURE
    return network


def plainly(config: Config) -> GenerateConfig:
    """A config's settings for writing the plain way."""
    return replace(config.generate, candidates=1, returns=0.0, progression=0.0, engine="torch")


def chunks_of(passage: Passage) -> Iterator[Wrote]:
    """The passage's chunks as its network writes them."""
    network, config = passage.model.network, passage.model.config
    plans = Planner if isinstance(network, ChunkTransformer) else RivalPlanner
    planner = plans(network, config.memory, passage._plan())
    while (step := planner.next_task()) is not None:
        task, memory = step
        first, bars = planner.next_bar, len(task.bar_positions)
        rng = np.random.default_rng((passage.seed, first))
        begun, cpu = time.perf_counter(), time.process_time()
        [written] = write_chunk(network, memory, task, plainly(config), rng, steppers=any_stepper)
        wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
        planner.remember(written.rows, bars)
        yield Wrote(written.rows, first, bars, wall_s, cpu_s)


def continue_song(network: NoteModel, config: Config, example: Example, seconds: float, seed: int) -> Excerpt:
    """About `seconds` of new music after the prompt, which does not come to an end."""
    begin_s = float(example.song.grid.seconds[example.seam_bar])
    until_s = begin_s + seconds + 2 * float(example.prompt.bar_s.max())
    passage = _open_passage(network, config, example.song.path, until_s, f"bar:{example.seam_bar + 1}", seed)
    line = passage.line
    rows = [moved(chunk.rows, chunk.first_bar - line.before) for chunk in chunks_of(passage)]
    bars = slice(line.before, line.before + line.new)
    music = Excerpt(np.concatenate(rows), line.grid.bar_beats[bars], line.grid.bar_s[bars])
    return music.part(0, max(1, music.bar_at(seconds)))


def long_song(network: NoteModel, config: Config, path: Path, seconds: float, seed: int) -> Iterator[Wrote]:
    """So much new music after the whole of a song, chunk by chunk."""
    until_s = score.read(path).length_s + seconds
    return chunks_of(_open_passage(network, config, path, until_s, "end", seed))


def _open_passage(network: NoteModel, config: Config, path: Path, until_s: float, begin: str, seed: int) -> Passage:
    return start(path, until_s, begin=begin, open_end=True, model=Model(network, config), seed=seed, form="flat")
