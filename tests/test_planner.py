"""What comes next and what may be looked at: borders, the plan of chunks, a memory of fixed size, held conditions."""

from __future__ import annotations

from array import array
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
from midiex.conditions import BARS, DENSITY, LEFT, LIKENESS, LOUDNESS, METER, REGISTER, TEMPO
from midiex.config import MemoryConfig
from midiex.constraints import Grammar
from midiex.decoding import Memory, Task
from midiex.echoes import Listener
from midiex.habits import Habits
from midiex.model import AFTER, OPENING, RECALLED, RECENT, ChunkTransformer
from midiex.planner import (
    MAX_FOLLOWING_CHUNKS,
    MAX_FULL_CHUNKS,
    MAX_KNOWN_CHUNKS,
    Bars,
    Plan,
    Planner,
    backward_borders,
    coming_chunks,
)
from midiex.tokens import BAR, PROGRAM, VELOCITY, moved

CHUNK = 4  # bars of two seconds make a chunk
LENGTHS_S = st.lists(st.floats(0.3, 9), min_size=1, max_size=60).map(np.array)


@pytest.fixture
def model() -> ChunkTransformer:
    return talkative_model(tiny_config())


def plan_of(rows: np.ndarray, bars: Bars, before: int, **more: object) -> Plan:
    """A plan for all bars after the first `before`, or with `new` for so many, the song's rows following."""
    new = int(more.pop("new", len(bars.beats) - before))  # type: ignore[call-overload]
    known = rows[rows[:, BAR] < before]
    after = rows[rows[:, BAR] >= before + new]
    given = {"rows_fixed": rows[:0], "grammar": Grammar.of(rows, before), "end": "ending"} | more
    return Plan(bars, before, new, known, after, **given)  # type: ignore[arg-type]


def inside_plan(chunks: tuple[int, int, int], seed: int = 5, end: str = "song", **more: object) -> Plan:
    """Random chunks before, to be written, and after."""
    bars = CHUNK * sum(chunks)
    rows = random_rows(np.random.default_rng(seed), 3 * bars, bars)
    return plan_of(rows, bars_of_4_4(bars), CHUNK * chunks[0], new=CHUNK * chunks[1], end=end, **more)


def planner_of(
    model: ChunkTransformer, chunks: int, coming: int, memory: MemoryConfig | None = None, notes_per_bar: int = 3
) -> Planner:
    """A planner for a random song of so many chunks and as many to come."""
    bars = CHUNK * chunks
    rows = random_rows(np.random.default_rng(7), notes_per_bar * bars, bars)
    return Planner(model, memory or MemoryConfig(), plan_of(rows, bars_of_4_4(bars + CHUNK * coming), bars))


def go_on(planner: Planner, visit: Callable[[Task, Memory], None] = lambda task, memory: None) -> None:
    """Remember random rows for every chunk to come."""
    rng = np.random.default_rng(1)
    while (step := planner.next_task()) is not None:
        visit(*step)
        bars = len(step[0].bar_positions)
        planner.remember(random_rows(rng, 12, bars), bars)


def kinds_told(model: ChunkTransformer, monkeypatch: pytest.MonkeyPatch) -> list[dict[int, list[int]]]:
    """Will hold, for each memory made from now on, how many rows of each kind it has."""
    told: list[dict[int, list[int]]] = []
    inner = model.remember

    def spy(encoded: torch.Tensor, times: torch.Tensor, kinds: torch.Tensor) -> Memory:
        told.append({int(kind): torch.flatten(torch.argwhere(kinds == kind)).tolist() for kind in kinds.unique()})
        return inner(encoded, times, kinds)

    monkeypatch.setattr(model, "remember", spy)
    return told


# ---- borders and sizes -----------------------------------------------------------------------------------------------


@given(LENGTHS_S)
def test_borders_cover_all_bars_and_the_latest_chunk_is_whole(bar_s: np.ndarray) -> None:
    borders = backward_borders(bar_s)
    sizes = np.diff(borders)
    assert borders[0] == 0 and borders[-1] == len(bar_s)
    assert (sizes >= 1).all() and (sizes <= MAX_CHUNK_BARS).all()
    assert sizes[-1] == chunk_bars(bar_s[::-1]) or len(sizes) == 1


def test_a_short_chunk_stands_at_the_beginning() -> None:
    assert backward_borders(np.full(10, 2.0)).tolist() == [0, 2, 6, 10]
    assert backward_borders(np.full(1, 2.0)).tolist() == [0, 1]


def test_a_lone_bar_at_the_beginning_joins_the_chunk_after_it() -> None:
    assert backward_borders(np.full(9, 2.0)).tolist() == [0, 5, 9]
    assert backward_borders(np.full(5, 2.0)).tolist() == [0, 5]
    assert backward_borders(np.append(9.0, np.full(16, 0.6))).tolist() == [0, 1, 17]  # together they would be too long


@given(LENGTHS_S, st.integers(1, MAX_CHUNK_BARS))
def test_coming_chunks_are_usual_ones_and_what_is_left(bar_s: np.ndarray, usual: int) -> None:
    sizes = coming_chunks(bar_s, usual)
    assert sum(sizes) == len(bar_s)
    assert all(size == usual for size in sizes[:-2])
    assert all(1 <= size <= MAX_CHUNK_BARS for size in sizes)
    if len(sizes) > 1:
        assert all(usual / 2 <= size <= 1.5 * usual + 0.5 for size in sizes[-2:])


@pytest.mark.parametrize(
    ("bars", "usual", "sizes"),
    [(0, 4, []), (1, 4, [1]), (6, 4, [6]), (7, 4, [4, 3]), (9, 4, [4, 5]), (12, 8, [12]), (13, 8, [8, 5]),
     (17, 16, [9, 8])],
)  # fmt: skip
def test_no_chunk_is_a_scrap(bars: int, usual: int, sizes: list[int]) -> None:
    assert coming_chunks(np.full(bars, 2.0), usual) == sizes


def test_bars_in_positions_and_beats() -> None:
    bars = Bars(np.array([4.0, 3.0, 2.5, 0.01, 9.0]), np.ones(5))
    assert bars.positions.tolist() == [48, 36, 30, 1, 96]
    assert bars.beat_starts.tolist() == pytest.approx([0, 4, 7, 9.5, 9.51, 18.51])


def test_tasks_follow_one_another_to_the_last_bar(model: ChunkTransformer) -> None:
    bars = Bars(np.full(35, 3.0), np.concatenate([np.full(20, 2.0), np.full(15, 2.2)]))
    planner = Planner(model, MemoryConfig(), plan_of(random_rows(np.random.default_rng(0), 60, 20), bars, 20))
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
    planner.remember(planner.chunks[3].rows, CHUNK)
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


@pytest.mark.parametrize("chunks", [(3, 4, 0), (2, 2, 2), (0, 2, 1)])
def test_habits_are_the_songs_own(chunks: tuple[int, int, int], model: ChunkTransformer) -> None:
    """What follows the new music is counted, what is new is only what comes before; echoes are of all notes so far."""
    planner = Planner(model, MemoryConfig(), inside_plan(chunks))
    tasks = 0

    def look(task: Task, _: Memory) -> None:
        nonlocal tasks
        tasks += 1
        heard, habits, later = Listener(), Habits(), Habits()
        for number, chunk in enumerate(planner.chunks):
            for row in moved(chunk.rows, chunk.first_bar):
                heard.hear(row)
                habits.hear(row, count=number < planner.song_chunks)
        for chunk in planner.following:
            for row in moved(chunk.rows, chunk.first_bar):
                later.hear(row)
        habits.add(later)
        assert vars(task.recalled.habits) == vars(habits)
        before = task.heard.before
        assert (before.notes if before else array("i")) + task.heard.notes == heard.notes

    go_on(planner, look)
    assert tasks == chunks[1]


# ---- what follows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1, 5])
@pytest.mark.parametrize("new", [1, 3])
def test_what_follows_is_looked_at_from_the_last_chunk_only(
    before: int, new: int, model: ChunkTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = Planner(model, MemoryConfig(), inside_plan((before, new, 2)))
    told = kinds_told(model, monkeypatch)
    go_on(planner)
    first_alone = 1 if before == 0 else 0  # with nothing else to look at
    assert [AFTER in kinds for kinds in told] == [i < first_alone or i == new - 1 for i in range(new)]
    following = planner.following[0]
    assert following.first_bar == CHUNK * (before + new) and following.encoded is not None
    assert len(told[-1][AFTER]) == len(following.encoded)
    recent = sum(kind >= RECENT for kind in told[-1])
    assert recent <= planner.memory.recent_chunks - 1


def test_nothing_that_follows_is_looked_at_where_the_song_ends(
    model: ChunkTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = planner_of(model, 4, 3)
    told = kinds_told(model, monkeypatch)
    go_on(planner)
    assert planner.following == [] and not any(AFTER in kinds for kinds in told)


def test_only_the_nearest_of_what_follows_is_read(model: ChunkTransformer) -> None:
    planner = Planner(model, MemoryConfig(), inside_plan((2, 1, 3 * MAX_FOLLOWING_CHUNKS)))
    assert len(planner.following) <= 1 + MAX_FOLLOWING_CHUNKS
    firsts = [chunk.first_bar for chunk in planner.following]
    assert firsts == list(range(3 * CHUNK, (3 + len(firsts)) * CHUNK, CHUNK))
    assert planner.song == planner.chunks + planner.following
    go_on(planner)
    assert planner.song_chunks == 2 and len(planner.song) == 2 + len(firsts)


def test_chunks_left_count_what_follows(model: ChunkTransformer) -> None:
    def told_left(end: str, after: int) -> list[int]:
        left: list[int] = []
        plan = inside_plan((3, 3, after), end=end)
        go_on(Planner(model, MemoryConfig(), plan), lambda task, _: left.append(int(task.conditions[LEFT])))
        return left

    def bins(*counts: int) -> list[int]:
        return [conditions.chunks_left_bin(n) for n in counts]

    assert told_left("ending", 0) == bins(3, 2, 1)
    assert told_left("song", 2) == bins(5, 4, 3)
    assert told_left("loop", 2) == bins(99, 99, 99)


def test_sizes_that_are_decided_stand(model: ChunkTransformer) -> None:
    planner = Planner(model, MemoryConfig(), inside_plan((2, 3, 1), sizes=(5, 7)))
    sizes: list[int] = []
    go_on(planner, lambda task, _: sizes.append(len(task.bar_positions)))
    assert sizes == [5, 7] and planner.next_bar == 5 * CHUNK


def test_rows_that_stand_are_told_to_the_task_they_lie_in(model: ChunkTransformer) -> None:
    fixed = random_rows(np.random.default_rng(2), 200, 3 * CHUNK)
    fixed = fixed[fixed[:, BAR] != CHUNK + 1]
    song_fixed = fixed.copy()
    song_fixed[:, BAR] += 2 * CHUNK
    planner = Planner(model, MemoryConfig(), inside_plan((2, 3, 1), rows_fixed=song_fixed))
    told: list[np.ndarray] = []
    go_on(planner, lambda task, _: told.append(task.fixed))
    for index, rows in enumerate(told):
        mine = fixed[fixed[:, BAR] // CHUNK == index].copy()
        mine[:, BAR] -= index * CHUNK
        assert np.array_equal(rows, mine)
    assert sum(map(len, told)) == len(fixed)


def test_at_the_very_beginning_the_song_after_it_says_what_it_is_like(model: ChunkTransformer) -> None:
    plan = inside_plan((0, 2, 3))
    planner = Planner(model, MemoryConfig(), plan)
    assert (planner.held[[DENSITY, LOUDNESS, REGISTER]] > 0).all()
    assert set(np.flatnonzero(planner.programs).tolist()) <= programs_in(plan.rows_after)
    assert planner.usual == CHUNK
    go_on(planner)
    assert planner.song_chunks == 0 and len(planner.chunks) == 2


def test_the_longest_song_read_in_full_has_no_gap(model: ChunkTransformer) -> None:
    for chunks in (MAX_KNOWN_CHUNKS, MAX_KNOWN_CHUNKS + 1):
        planner = planner_of(model, chunks, 1, notes_per_bar=1)
        assert planner.song_chunks == MAX_KNOWN_CHUNKS
        assert max(chunk.bars for chunk in planner.chunks) == CHUNK


def test_overfull_chunks_are_thinned_before_they_are_remembered(model: ChunkTransformer) -> None:
    rows = random_rows(np.random.default_rng(0), 3000, CHUNK)
    planner = Planner(model, MemoryConfig(), plan_of(rows, bars_of_4_4(2 * CHUNK), CHUNK))
    assert len(rows) > 512 == len(planner.chunks[0].rows)


def test_a_song_with_silent_chunks_can_be_planned(model: ChunkTransformer) -> None:
    rows = random_rows(np.random.default_rng(0), 60, 8 * CHUNK)
    rows = rows[(rows[:, BAR] < CHUNK) | (rows[:, BAR] >= 7 * CHUNK)]
    planner = Planner(model, MemoryConfig(), plan_of(rows, bars_of_4_4(12 * CHUNK), 8 * CHUNK))
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
        notes = np.setdiff1d(np.arange(LIKENESS), frame)
        assert (task.conditions[notes] == held[notes]).all() and (held[notes] > 0).all()
        assert not task.conditions[LIKENESS:].any()  # it goes back to nothing
        assert task.conditions[BARS] == CHUNK and task.conditions[METER] == 48
        assert set(np.flatnonzero(task.programs).tolist()) <= played
        assert task.grammar is planner.plan.grammar and len(task.fixed) == 0
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
        held.append(Planner(model, MemoryConfig(), plan_of(song, bars_of_4_4(5 * CHUNK), 4 * CHUNK)).held)
    plain, louder, thin = held
    assert louder[LOUDNESS] > plain[LOUDNESS] and louder[REGISTER] > plain[REGISTER]
    assert thin[DENSITY] < plain[DENSITY] == louder[DENSITY]


def test_instruments_that_have_long_stopped_are_not_told(model: ChunkTransformer) -> None:
    rows = random_rows(np.random.default_rng(0), 300, 8 * CHUNK, voices=1)
    rows[:, PROGRAM] = np.where(rows[:, BAR] < 3 * CHUNK, 40, 8)
    planner = Planner(model, MemoryConfig(), plan_of(rows, bars_of_4_4(9 * CHUNK), 8 * CHUNK))
    assert np.flatnonzero(planner.programs).tolist() == [8]
    assert planner.plan.grammar.pitches[40].any()  # but they may come back


def test_a_larger_memory_is_used(model: ChunkTransformer) -> None:
    sizes = []
    for recent in (1, 3):
        config = replace(tiny_config(), memory=MemoryConfig(recent_chunks=recent, summary_chunks=0))
        _, memory = planner_of(talkative_model(config), 6, 1, config.memory).next_task() or (None, [])
        sizes.append(memory[0][0].shape[2])
    assert sizes[1] > sizes[0] > 0
