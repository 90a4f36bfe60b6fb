"""What comes next and what may be looked at: borders, the plan of chunks, a memory of fixed size, held conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import random_rows, tiny_config
from hypothesis import given
from hypothesis import strategies as st
from songs import bars_of_4_4, programs_in, talkative_model

from midiex import conditions
from midiex.chunks import MAX_CHUNK_BARS, chunk_bars
from midiex.conditions import BARS, DENSITY, LEFT, LOUDNESS, METER, REGISTER, TEMPO
from midiex.config import MemoryConfig
from midiex.decoding import Task
from midiex.model import OPENING, RECALLED, ChunkTransformer
from midiex.planner import (
    MAX_FULL_CHUNKS,
    MAX_KNOWN_CHUNKS,
    Bars,
    Planner,
    backward_borders,
    coming_chunks,
)
from midiex.tokens import BAR, PROGRAM, VELOCITY

CHUNK = 4  # bars of two seconds make a chunk
LENGTHS_S = st.lists(st.floats(0.3, 9), min_size=1, max_size=60).map(np.array)


@pytest.fixture
def model() -> ChunkTransformer:
    return talkative_model(tiny_config())


def planner_of(
    model: ChunkTransformer, chunks: int, coming: int, memory: MemoryConfig | None = None, notes_per_bar: int = 3
) -> Planner:
    """A planner for a random song of so many chunks and as many to come."""
    bars = CHUNK * chunks
    rows = random_rows(np.random.default_rng(7), notes_per_bar * bars, bars)
    return Planner(model, memory or MemoryConfig(), rows, bars_of_4_4(bars + CHUNK * coming), bars)


def go_on(planner: Planner, visit: Callable[[Task, list], None] = lambda task, memory: None) -> None:
    """Remember random rows for every chunk to come."""
    rng = np.random.default_rng(1)
    while (plan := planner.next_task()) is not None:
        visit(*plan)
        bars = len(plan[0].bar_positions)
        planner.remember(random_rows(rng, 12, bars), planner.next_bar, bars)


# ---- borders and sizes -----------------------------------------------------------------------------------------------


@given(LENGTHS_S)
def test_borders_cover_all_bars_and_the_latest_chunk_is_whole(bar_s: np.ndarray) -> None:
    borders = backward_borders(bar_s)
    sizes = np.diff(borders)
    assert borders[0] == 0 and borders[-1] == len(bar_s)
    assert (sizes >= 1).all() and (sizes <= MAX_CHUNK_BARS).all()
    assert sizes[-1] == chunk_bars(bar_s[::-1])


def test_a_short_chunk_stands_at_the_beginning() -> None:
    assert backward_borders(np.full(10, 2.0)).tolist() == [0, 2, 6, 10]
    assert backward_borders(np.full(1, 2.0)).tolist() == [0, 1]


@given(LENGTHS_S, st.integers(1, MAX_CHUNK_BARS))
def test_coming_chunks_are_usual_ones_and_what_is_left(bar_s: np.ndarray, usual: int) -> None:
    sizes = coming_chunks(bar_s, usual)
    assert sum(sizes) == len(bar_s)
    assert all(size == usual for size in sizes[:-1])
    assert 1 <= sizes[-1] <= MAX_CHUNK_BARS
    if 1.5 * usual <= MAX_CHUNK_BARS and len(sizes) > 1:
        assert usual / 2 < sizes[-1] <= 1.5 * usual


def test_bars_in_positions_and_beats() -> None:
    bars = Bars(np.array([4.0, 3.0, 2.5, 0.01, 9.0]), np.ones(5))
    assert bars.positions.tolist() == [48, 36, 30, 1, 96]
    assert bars.beat_starts.tolist() == pytest.approx([0, 4, 7, 9.5, 9.51, 18.51])


def test_tasks_follow_one_another_to_the_last_bar(model: ChunkTransformer) -> None:
    bars = Bars(np.full(35, 3.0), np.concatenate([np.full(20, 2.0), np.full(15, 2.2)]))
    planner = Planner(model, MemoryConfig(), random_rows(np.random.default_rng(0), 60, 20), bars, 20)
    tasks: list[Task] = []
    go_on(planner, lambda task, _: tasks.append(task))
    assert [task.first_bar for task in tasks] == [20, 24, 28, 32][: len(tasks)]
    assert sum(len(task.bar_positions) for task in tasks) == 15
    assert planner.next_bar == 35 and planner.next_task() is None
    for task in tasks:
        assert task.beat_starts[0] == 3 * task.first_bar
        assert (task.bar_positions == 36).all() and (task.bar_beats == 3).all()
        assert len(task.beat_starts) == len(task.bar_positions)


# ---- the memory ------------------------------------------------------------------------------------------------------


def test_the_memory_stays_the_same_size_however_long_the_song(model: ChunkTransformer) -> None:
    memory = MemoryConfig(recent_chunks=2, summary_chunks=5)
    planner = planner_of(model, 30, 60, memory)
    rows, held = [], []

    def look(_: Task, remembered: list) -> None:
        assert len(remembered) == model.size.decoder_layers
        (size,) = {tensor.shape[2] for layer in remembered for tensor in layer}
        rows.append(size)
        held.append(sum(chunk.encoded is not None for chunk in planner.chunks))

    go_on(planner, look)
    most_rows = model.size.summary_rows + max(len(chunk.rows) for chunk in planner.chunks)
    assert len(planner.chunks) == 90
    assert max(rows) <= 1 + (memory.recent_chunks + 1) * most_rows + memory.summary_chunks * model.size.summary_rows
    assert max(held) <= MAX_FULL_CHUNKS + memory.recent_chunks + 1
    assert len(set(held[5:])) == 1


def test_what_is_forgotten_is_what_is_old(model: ChunkTransformer) -> None:
    planner = planner_of(model, 3, 10, MemoryConfig(recent_chunks=2))
    go_on(planner)
    encoded = [chunk.encoded is not None for chunk in planner.chunks]
    assert encoded == [True] * 3 + [False] * 7 + [True] * 3  # the song's own for recall, and the last few
    assert all(len(chunk.summary) == model.size.summary_rows for chunk in planner.chunks)


@pytest.mark.parametrize("summary_chunks", [1, 2, 24])
@pytest.mark.parametrize("chunks", [1, 2, 4, 30])
def test_the_opening_is_always_among_the_memory(
    chunks: int, summary_chunks: int, model: ChunkTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = planner_of(model, chunks, 6, MemoryConfig(summary_chunks=summary_chunks))
    opening = planner.chunks[0].summary
    seen = []
    inner = model.remember

    def spy(encoded: torch.Tensor, times: torch.Tensor, kinds: torch.Tensor) -> list:
        at = [i for i in range(len(encoded)) if torch.equal(encoded[i], opening[0])]
        seen.append([int(kinds[i]) for i in at])
        assert len(encoded) == len(times) == len(kinds)
        return inner(encoded, times, kinds)

    monkeypatch.setattr(model, "remember", spy)
    go_on(planner)
    assert len(seen) == 6 and all(len(kinds) == 1 for kinds in seen)
    if chunks == 30:  # too old to be looked at in full
        assert {kind for kinds in seen for kind in kinds} == {OPENING}


def test_the_song_is_recalled_where_it_is_like_what_was_just_written(
    model: ChunkTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = planner_of(model, 8, 2)
    planner.remember(planner.chunks[3].rows, planner.next_bar, CHUNK)
    asked, inner = [], model.remember
    monkeypatch.setattr(model, "remember", lambda *given: asked.append(given) or inner(*given))
    planner.next_task()
    encoded, times, kinds = asked[0]
    followed = planner.chunks[4]
    assert torch.equal(encoded[kinds == RECALLED], followed.encoded)
    assert torch.equal(times[kinds == RECALLED], followed.times)


def test_a_song_longer_than_is_read_keeps_its_opening_and_its_latest_chunks(model: ChunkTransformer) -> None:
    planner = planner_of(model, MAX_KNOWN_CHUNKS + 20, 2, notes_per_bar=1)
    assert planner.song_chunks == MAX_KNOWN_CHUNKS
    assert [chunk.bars for chunk in planner.chunks] == [CHUNK] * MAX_KNOWN_CHUNKS
    firsts = [chunk.first_bar for chunk in planner.chunks]
    assert firsts == [0, *range(CHUNK * 21, CHUNK * (MAX_KNOWN_CHUNKS + 20), CHUNK)]
    assert all(chunk.rows[:, BAR].max(initial=0) < CHUNK for chunk in planner.chunks)
    go_on(planner)
    assert planner.next_task() is None


def test_the_longest_song_read_in_full_has_no_gap(model: ChunkTransformer) -> None:
    for chunks in (MAX_KNOWN_CHUNKS, MAX_KNOWN_CHUNKS + 1):
        planner = planner_of(model, chunks, 1, notes_per_bar=1)
        assert planner.song_chunks == MAX_KNOWN_CHUNKS
        assert max(chunk.bars for chunk in planner.chunks) == CHUNK


def test_overfull_chunks_are_thinned_before_they_are_remembered(model: ChunkTransformer) -> None:
    rows = random_rows(np.random.default_rng(0), 3000, CHUNK)
    planner = Planner(model, MemoryConfig(), rows, bars_of_4_4(2 * CHUNK), CHUNK)
    assert len(rows) > 512 == len(planner.chunks[0].rows)


def test_a_song_with_silent_chunks_can_be_planned(model: ChunkTransformer) -> None:
    rows = random_rows(np.random.default_rng(0), 60, 8 * CHUNK)
    rows = rows[(rows[:, BAR] < CHUNK) | (rows[:, BAR] >= 7 * CHUNK)]
    planner = Planner(model, MemoryConfig(), rows, bars_of_4_4(12 * CHUNK), 8 * CHUNK)
    assert [len(chunk.rows) > 0 for chunk in planner.chunks] == [True, *[False] * 6, True]
    go_on(planner)
    assert len(planner.chunks) == 12


# ---- conditions ------------------------------------------------------------------------------------------------------


def test_conditions_of_the_song_are_held(model: ChunkTransformer) -> None:
    planner = planner_of(model, 6, 10)
    own = [
        conditions.features(chunk.rows, 4.0 * CHUNK, 2.0 * CHUNK) for chunk in planner.chunks
    ]  # the song's latest minute: here all of it
    held = conditions.note_conditions({name: float(np.mean([f[name] for f in own])) for name in own[0]})
    tasks: list[Task] = []
    go_on(planner, lambda task, _: tasks.append(task))
    frame = [BARS, METER, TEMPO, LEFT]
    played = programs_in(np.concatenate([chunk.rows for chunk in planner.chunks[:6]]))
    for task in tasks:
        notes = np.setdiff1d(np.arange(len(held)), frame)
        assert (task.conditions[notes] == held[notes]).all() and (held[notes] > 0).all()
        assert task.conditions[BARS] == CHUNK and task.conditions[METER] == 48
        assert set(np.flatnonzero(task.programs).tolist()) <= played
        assert task.grammar is planner.grammar
    left = [int(task.conditions[LEFT]) for task in tasks]
    assert left == [conditions.chunks_left_bin(n) for n in range(10, 0, -1)]


def test_held_conditions_follow_the_song(model: ChunkTransformer) -> None:
    """A louder, denser, higher song is continued as such."""
    rows = random_rows(np.random.default_rng(0), 160, 4 * CHUNK, voices=1)
    rows[:, PROGRAM], rows[:, VELOCITY], rows[:, 5] = 0, 10, 50
    loud = rows.copy()
    loud[:, VELOCITY], loud[:, 5] = 28, 80
    held = []
    for song in (rows, loud, rows[::6]):
        held.append(Planner(model, MemoryConfig(), song, bars_of_4_4(5 * CHUNK), 4 * CHUNK).held)
    plain, louder, thin = held
    assert louder[LOUDNESS] > plain[LOUDNESS] and louder[REGISTER] > plain[REGISTER]
    assert thin[DENSITY] < plain[DENSITY] == louder[DENSITY]


def test_instruments_that_have_long_stopped_are_not_told(model: ChunkTransformer) -> None:
    rows = random_rows(np.random.default_rng(0), 300, 8 * CHUNK, voices=1)
    rows[:, PROGRAM] = np.where(rows[:, BAR] < 3 * CHUNK, 40, 8)
    planner = Planner(model, MemoryConfig(), rows, bars_of_4_4(9 * CHUNK), 8 * CHUNK)
    assert np.flatnonzero(planner.programs).tolist() == [8]
    assert planner.grammar.pitches[40].any()  # but they may come back


def test_a_larger_memory_is_used(model: ChunkTransformer) -> None:
    sizes = []
    for recent in (1, 3):
        config = replace(tiny_config(), memory=MemoryConfig(recent_chunks=recent, summary_chunks=0))
        _, memory = planner_of(talkative_model(config), 6, 1, config.memory).next_task() or (None, [])
        sizes.append(memory[0][0].shape[2])
    assert sizes[1] > sizes[0] > 0
