"""Batches: reproducible from any point on, true to their songs, and never telling a chunk what it is to write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import BAND, DRUMS, random_song, song_of, tiny_config, window_chunks, write_song
from hypothesis import given, settings
from hypothesis import strategies as st

from midiex import conditions, dataset, tokens, windows
from midiex.aligned import LIKENESSES
from midiex.chunks import MAX_CHUNK_NOTES
from midiex.collate import collate, memory_slots
from midiex.config import MemoryConfig
from midiex.dataset import Dataset, load_split
from midiex.errors import BadInput
from midiex.model import AFTER, NOTHING, OPENING, RECALLED, RECENT, SOURCE, STANDING, SUMMARY, Batch
from midiex.prepare import prepare
from midiex.sources import Source
from midiex.tokens import BAR, DRUM_PROGRAM, MAX_CHUNK_BARS, PROGRAM
from midiex.windows import WindowChunk, make_chunk, make_window

MEMORY = MemoryConfig(recent_chunks=2, summary_chunks=3)
seeds = st.integers(0, 2**32 - 1)
Step = tuple[list[Batch], int, int]  # a batch in its parts, pool, number in the pool


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources to train on and one to validate on; valid and test songs play pitches of their own."""
    folder = tmp_path_factory.mktemp("shards")
    lines = ["source,file,split"]
    for source, programs in (("bands", BAND), ("pianos", (0,))):
        for i in range(6):
            split = "valid" if i == 4 else "test" if i == 5 else "train"
            write_song(folder / source / f"{i}.mid", bars=24 + 8 * i, programs=programs, seed=i)
            lines.append(f"{source},{i}.mid,{split}")
    (folder / "splits.csv").write_text("\n".join(lines))
    prepare([folder / "bands", folder / "pianos"], folder / "out", folder / "splits.csv", jobs=1)
    return folder / "out"


def make(shards: Path, rank: int = 0, **train: object) -> Dataset:
    config = tiny_config(**train)
    return Dataset(load_split(shards, "train"), config.train, config.memory, rank)


def take(batches: Iterator[Step], n: int) -> list[Step]:
    return list(islice(batches, n))


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(value, vars(b)[name]) for name, value in vars(a).items())


def same(a: Step, b: Step) -> bool:
    """Whether two steps have equal batches, whatever their places."""
    return len(a[0]) == len(b[0]) and all(equal(x, y) for x, y in zip(a[0], b[0], strict=True))


# ---- reproducible ---------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_batches(shards: Path) -> None:
    ours, again = take(make(shards).batches(), 12), take(make(shards).batches(), 12)
    assert all(same(a, b) and a[1:] == b[1:] for a, b in zip(ours, again, strict=True))


def test_another_seed_or_rank_gives_others(shards: Path) -> None:
    ours, seed, rank = (next(d.batches()) for d in (make(shards), make(shards, seed=9), make(shards, rank=1)))
    assert not same(ours, seed) and not same(ours, rank) and not same(seed, rank)


def test_batches_go_on_from_any_point(shards: Path) -> None:
    all_of_them = take(make(shards).batches(), 40)
    assert {pool for _, pool, _ in all_of_them} >= {0, 1}
    for at in (0, 1, 7, 39):
        _, pool, number = all_of_them[at]
        resumed = take(make(shards).batches(pool, number), 40 - at)
        assert all(same(a, b) and a[1:] == b[1:] for a, b in zip(all_of_them[at:], resumed, strict=True))


def test_resuming_behind_a_pools_last_batch_begins_the_next(shards: Path) -> None:
    whole = take(make(shards).batches(), 60)
    last = max(number for _, pool, number in whole if pool == 0)
    following = next(make(shards).batches(0, last + 1))
    assert following[1:] == (1, 0) and same(following, whole[last + 1])


def test_drawing_does_not_depend_on_what_was_drawn_before(shards: Path) -> None:
    one = make(shards)
    take(one.batches(), 5)
    assert same(next(one.batches()), next(make(shards).batches()))


# ---- what is in a batch ---------------------------------------------------------------------------------------------


def test_batches_are_sound(shards: Path) -> None:
    data = make(shards)
    sizes, kinds = [], set()
    for batch in (part for parts, _, _ in take(data.batches(), 30) for part in parts):
        n_chunks, n_targets = len(batch.lengths), len(batch.target)
        assert batch.rows.shape == (batch.lengths.sum(), 8) and batch.times.shape == (len(batch.rows), 2)
        assert batch.starts.shape == (n_chunks, 2) and batch.lengths.max() <= MAX_CHUNK_NOTES
        assert (batch.rows >= 0).all() and (batch.rows < torch.tensor(tokens.FIELD_SIZES)).all()
        assert batch.conditions.shape == (n_targets, len(conditions.CONDITIONS))
        assert (batch.conditions >= 0).all() and (batch.conditions < torch.tensor(conditions.CONDITION_SIZES)).all()
        assert len(batch.target.unique()) == n_targets and batch.target.max() < n_chunks
        assert (batch.full == -1).equal(batch.full_kind == NOTHING)
        assert (batch.summaries == -1).equal(batch.summary_kind == NOTHING)
        assert batch.full.max() < n_chunks and batch.summaries.max() < n_chunks
        assert batch.full_kind.max() < RECENT + data.memory.recent_chunks
        assert not (batch.full == batch.target[:, None]).any() and not (batch.summaries == batch.target[:, None]).any()
        aside = torch.cat([batch.full[batch.full_kind == kind] for kind in (SOURCE, STANDING)])
        assert aside.sort().values.equal((batch.window == -1).nonzero()[:, 0])  # nobody else looks at these
        assert batch.voices.shape == (n_targets, conditions.VOICE_SLOTS)
        assert len(batch.aligned_share) == len(batch.aligned_bucket) == len(batch.echoes) == len(batch.habit_level)
        first = torch.cumsum(batch.lengths, 0) - batch.lengths
        for i in range(n_chunks):
            rows = batch.rows[first[i] : first[i] + batch.lengths[i]].numpy()
            assert (np.diff(tokens.row_key(rows)) > 0).all()
        sizes.append(int(batch.lengths[batch.target].sum()))
        kinds |= set(batch.full_kind.unique().tolist()) | set(batch.summary_kind.unique().tolist())
    every_kind = {NOTHING, SUMMARY, OPENING, RECALLED, AFTER, SOURCE, STANDING, RECENT, RECENT + 1}
    assert kinds == every_kind  # every layout is trained
    assert np.mean(sizes) * dataset.MICRO_BATCHES > 0.4 * data.train.notes_per_batch


def test_batches_keep_near_the_wanted_size(shards: Path) -> None:
    data = make(shards, notes_per_batch=2000)
    for parts, _, _ in take(data.batches(), 15):
        assert len(parts) == dataset.MICRO_BATCHES
        longest = [int(part.lengths.max()) for part in parts]
        assert longest == sorted(longest)  # from thin to dense
        for part in parts:
            assert int(part.lengths[part.target].sum()) <= 1.15 * 2000 / dataset.MICRO_BATCHES + 1


def test_only_the_songs_of_the_split_are_drawn(shards: Path) -> None:
    assert [len(s) for s in load_split(shards, "train")] == [4, 4]
    assert [len(s) for s in load_split(shards, "valid")] == [len(s) for s in load_split(shards, "test")] == [1, 1]
    for split, bars in (("train", [24, 32, 40, 48]), ("valid", [56]), ("test", [64])):
        assert [np.diff(s.song_bars).tolist() for s in load_split(shards, split)] == [bars, bars]
    assert load_split(shards, "nonsense") == []


def test_no_song_held_out_reaches_a_batch(tmp_path: Path) -> None:
    """Train songs play drums only, held-out ones a piano only: no tuned note may ever appear."""
    lines = ["source,file,split"]
    for i, split in enumerate(["train", "train", "valid", "test"]):
        write_song(tmp_path / "a" / f"{i}.mid", programs=(DRUMS,) if split == "train" else (0,), seed=i)
        lines.append(f"a,{i}.mid,{split}")
    (tmp_path / "splits.csv").write_text("\n".join(lines))
    prepare([tmp_path / "a"], tmp_path / "out", tmp_path / "splits.csv", jobs=1)
    for parts, _, _ in take(make(tmp_path / "out").batches(), 10):
        assert all((part.rows[:, PROGRAM] == DRUM_PROGRAM).all() for part in parts)


def test_songs_come_back_from_shards_as_they_went_in(shards: Path) -> None:
    songs = load_split(shards, "valid")[0]
    assert songs.source == "bands"
    song = songs.song(0)
    assert song.rows.shape[1] == 8 and (np.diff(tokens.row_key(song.rows)) > 0).all()
    assert song.rows[-1, BAR] == 55 and len(song.bar_s) == len(song.bar_units) == 56
    assert song.bar_s.tolist() == [2.0] * 56 and set(song.bar_units.tolist()) == {384}


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.safetensors").write_bytes(b"no such thing")
    with pytest.raises(BadInput, match="not a shard"):
        load_split(tmp_path, "train")
    with pytest.raises(BadInput, match="no shards"):
        Dataset([], tiny_config().train, MEMORY)


def test_named_sources_are_drawn_by_their_weight(shards: Path) -> None:
    few, many = load_split(shards, "train")
    config = tiny_config()
    data = Dataset([replace(few, source="pianobooster"), replace(many, source="polish_scores")], config.train, MEMORY)
    assert data.source_chance.tolist() == pytest.approx([0.5 / 20.5, 20 / 20.5])
    assert (np.diff(data.song_chance[0]) > 0).all()  # these songs grow longer one by one
    rng = np.random.default_rng(0)
    assert sum(data.draw(rng).source for _ in range(60)) > 45


# ---- chunks and windows ---------------------------------------------------------------------------------------------


def test_a_chunk_of_a_song() -> None:
    song = random_song(np.random.default_rng(0), 12)
    chunk = make_chunk(song, 4, 4, np.arange(13) * 4.0, left=2)
    inside = song.rows[(song.rows[:, BAR] >= 4) & (song.rows[:, BAR] < 8)]
    np.testing.assert_array_equal(chunk.rows[:, 1:], inside[:, 1:])
    np.testing.assert_array_equal(chunk.rows[:, BAR], inside[:, BAR] - 4)
    beats = inside[:, BAR] * 4 + inside[:, tokens.POSITION] / 12
    np.testing.assert_allclose(chunk.times, np.stack([beats, beats / 4], 1), rtol=1e-6)
    assert chunk.start.tolist() == [16, 4]
    assert (chunk.seconds, chunk.beats, chunk.bars, chunk.first_bar) == (8, 16, 4, 4)
    assert chunk.conditions[conditions.BARS] == 4 and chunk.conditions[conditions.LEFT] == 2
    assert (chunk.conditions[conditions.DENSITY : conditions.LEFT] > 0).all()


def test_a_chunk_too_full_is_thinned_and_keeps_each_notes_time() -> None:
    song = random_song(np.random.default_rng(0), 4, notes_per_bar=800)
    chunk = make_chunk(song, 0, 4, np.arange(5) * 4.0, left=1)
    assert len(chunk.rows) == len(chunk.times) == MAX_CHUNK_NOTES
    beats = chunk.rows[:, BAR] * 4 + chunk.rows[:, tokens.POSITION] / 12
    np.testing.assert_allclose(chunk.times[:, 0], beats, rtol=1e-6)


def test_a_silent_chunk_is_a_chunk() -> None:
    chunk = make_chunk(song_of(np.zeros((0, 8), np.int32), 8), 0, 4, np.arange(9) * 4.0, left=1)
    assert chunk.rows.shape == (0, 8) and chunk.times.shape == (0, 2)
    assert not chunk.conditions[conditions.DENSITY : conditions.LEFT].any()


@given(seed=seeds, bars=st.integers(1, 120), size=st.integers(1, 6), bar_s=st.floats(0.3, 12))
@settings(max_examples=60)
def test_windows_are_consecutive_and_count_down_to_the_end(seed: int, bars: int, size: int, bar_s: float) -> None:
    rng = np.random.default_rng(seed)
    song = replace(random_song(rng, bars, 2), bar_s=np.full(bars, bar_s))
    window = make_window(song, size, 4096, 7, rng)
    targets, extras = window.chunks[window.extras :], window.chunks[: window.extras]
    assert 1 <= len(targets) <= size and len(extras) <= 2 and window.source == 7
    for chunk in window.chunks:
        assert 1 <= chunk.bars <= MAX_CHUNK_BARS and chunk.first_bar + chunk.bars <= bars
    for a, b in zip(targets, targets[1:], strict=False):
        assert b.first_bar == a.first_bar + a.bars
    for extra in extras:
        assert extra.first_bar + extra.bars <= targets[0].first_bar  # what is remembered lies before what is written
    if extras:
        assert extras[0].first_bar == 0  # the opening
    ends = targets[-1].first_bar + targets[-1].bars == bars
    assert (targets[-1].conditions[conditions.LEFT] == 1) == ends
    left = [int(chunk.conditions[conditions.LEFT]) for chunk in targets]
    assert left == sorted(left, reverse=True) and 0 not in left
    assert window.notes == sum(len(c.rows) + 1 for c in targets)


def test_remembered_chunks_end_before_the_window_where_bars_grow_shorter() -> None:
    song = replace(random_song(np.random.default_rng(0), 60, 2), bar_s=np.repeat([5.0, 0.6], [2, 58]))
    for seed in range(100):
        window = make_window(song, 2, 4096, 0, np.random.default_rng(seed))
        for extra in window.chunks[: window.extras]:
            assert extra.first_bar + extra.bars <= window.chunks[window.extras].first_bar


def test_a_window_ends_early_when_it_is_full() -> None:
    song = random_song(np.random.default_rng(0), 80, 20)
    window = make_window(song, 6, 100, 0, np.random.default_rng(0))
    assert len(window.chunks) - window.extras == 2 and sum(len(c.rows) for c in window.chunks[window.extras :]) > 100


def test_a_very_long_song_is_cut_to_a_stretch_that_knows_what_follows(shards: Path) -> None:
    rng = np.random.default_rng(0)
    data = make(shards)
    song = random_song(rng, 4000, 12)
    stretch = data._augmented(song, rng)
    assert 5_000 < len(stretch.rows) <= 21_000
    assert len(stretch.bar_s) == len(stretch.bar_units) and stretch.rows[-1, BAR] < len(stretch.bar_s)
    assert 0 < stretch.bars_after < 4000 - len(stretch.bar_s)


# ---- memory ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def line() -> list[WindowChunk]:
    return window_chunks(np.random.default_rng(3), 12)


@given(seed=st.none() | seeds, target=st.integers(0, 11), extras=st.integers(0, 2), recent=st.integers(1, 4))
def test_memory_never_holds_what_is_to_be_written(
    line: list[WindowChunk], seed: int | None, target: int, extras: int, recent: int
) -> None:
    extras = min(extras, target)
    memory = replace(MEMORY, recent_chunks=recent)
    rng = None if seed is None else np.random.default_rng(seed)
    full, summaries = memory_slots(line, target, extras, memory, rng)
    for index, kind in full:
        assert index != target and (index < target or (index == target + 1 and kind == AFTER))
        if kind >= RECENT:
            assert index == target - 1 - (kind - RECENT) >= extras
    for index, kind in summaries:
        assert index < target and kind == (OPENING if index == 0 else SUMMARY)
    shown = [index for index, _ in (*full, *summaries)]
    assert len(shown) == len(set(shown))
    assert len(full) <= recent + 1 and len(summaries) <= memory.summary_chunks
    assert sum(kind == RECALLED for _, kind in full) <= 1 and sum(kind == AFTER for _, kind in full) <= 1
    assert rng is not None or all(kind != AFTER for _, kind in full)
    if target:
        assert 0 in shown  # the opening, in full or as a summary


def test_the_layout_of_extending(line: list[WindowChunk]) -> None:
    assert memory_slots(line, 0, 0, MEMORY, None) == ([], [])
    assert memory_slots(line, 1, 0, MEMORY, None) == ([(0, RECENT)], [])
    assert memory_slots(line, 2, 0, MEMORY, None) == ([(1, RECENT), (0, RECENT + 1)], [])
    full, summaries = memory_slots(line, 11, 0, MEMORY, None)
    assert full[:2] == [(10, RECENT), (9, RECENT + 1)] and full[2][1] == RECALLED
    expected = [i for i in range(9) if i != full[2][0]]
    assert [i for i, _ in summaries] == [expected[0], *expected[-2:]]


def test_without_summary_slots_there_are_no_summaries(line: list[WindowChunk]) -> None:
    _, summaries = memory_slots(line, 11, 0, replace(MEMORY, summary_chunks=0), None)
    assert summaries == []


def test_the_theme_that_comes_back_is_recalled_in_training() -> None:
    rng = np.random.default_rng(0)
    chunks = window_chunks(rng, 10)
    chunks[9] = replace(chunks[9], likeness_set=chunks[4].likeness_set)
    recalled = [i for _ in range(300) for i, kind in memory_slots(chunks, 9, 0, MEMORY, rng)[0] if kind == RECALLED]
    assert recalled.count(4) > 0.5 * len(recalled) and set(recalled) > {0, 4, 6}


def test_recall_never_looks_at_the_chunk_to_come(line: list[WindowChunk]) -> None:
    before = memory_slots(line, 8, 0, MEMORY, None)
    other = window_chunks(np.random.default_rng(8), 12)
    assert memory_slots([*line[:8], *other[8:]], 8, 0, MEMORY, None) == before


# ---- collate --------------------------------------------------------------------------------------------------------


def test_validation_tells_nothing_that_only_the_true_chunk_knows(line: list[WindowChunk]) -> None:
    window = windows.Window(line[:5], 1, 3, 0)
    batch = collate([window, window], MEMORY, 0.5, None)
    assert not batch.conditions[:, conditions.DENSITY : conditions.LEFT].any()
    assert not batch.programs.any() and not batch.voices.any()
    for name in ("bars", "meter", "tempo", "left"):
        assert (batch.conditions[:, conditions.CONDITIONS.index(name)] > 0).all(), name
    assert batch.target.tolist() == [1, 2, 3, 4, 6, 7, 8, 9] and batch.source.tolist() == [3] * 8
    assert equal(batch, collate([window, window], MEMORY, 0.5, None))
    own = (batch.full >= 0) & ((batch.full >= 5) != (batch.target >= 5)[:, None])
    assert not own.any()  # no window looks at another's chunks


def test_training_hides_conditions_now_and_then(line: list[WindowChunk]) -> None:
    source = Source(0, line[0].rows, line[0].times, line[0].start, np.full(LIKENESSES, 0.4))
    window = windows.Window([replace(chunk, goes_back=source) for chunk in line], 0, 0, 0)
    rng = np.random.default_rng(0)
    batches = [collate([window], MEMORY, 0.2, rng) for _ in range(40)]
    told = torch.cat([b.conditions for b in batches])
    hidden = (told == 0).float().mean(0)
    of_source = hidden[conditions.LIKENESS :]  # which are hidden together, too
    hidden = hidden[: conditions.LIKENESS]
    assert (hidden > 0.15).all() and (hidden < 0.45).all() and (of_source > 0.3).all() and (of_source < 0.55).all()
    for name in ("programs", "voices"):
        nothing = (torch.cat([getattr(b, name) for b in batches]).sum(1) == 0).float().mean()
        assert 0.15 < nothing < 0.45, name
    never = torch.cat([collate([window], MEMORY, 0.0, rng).conditions for _ in range(40)])
    everything = (never == 0).all(1)
    assert 0.03 < everything.float().mean() < 0.2 and (never[~everything] > 0).all()


def test_collating_keeps_rows_and_times(line: list[WindowChunk]) -> None:
    batch = collate([windows.Window(line[:3], 0, 0, 0), windows.Window(line[3:5], 1, 0, 0)], MEMORY, 0.1, None)
    np.testing.assert_array_equal(batch.rows, np.concatenate([c.rows for c in line[:5]]))
    np.testing.assert_array_equal(batch.times, np.concatenate([c.times for c in line[:5]]))
    np.testing.assert_array_equal(batch.starts, np.stack([c.start for c in line[:5]]))
    assert batch.lengths.tolist() == [len(c.rows) for c in line[:5]] and batch.target.tolist() == [0, 1, 2, 4]


# ---- validation -----------------------------------------------------------------------------------------------------


def test_validation_windows_are_the_same_every_time(shards: Path) -> None:
    sources = load_split(shards, "train")
    first, second = (dataset.validation_windows(sources, 4, 2) for _ in range(2))
    assert [w.source for w in first] == [0, 0, 1, 1]
    assert equal(collate(first, MEMORY, 0.0, None), collate(second, MEMORY, 0.0, None))


def test_validation_windows_are_not_augmented(shards: Path) -> None:
    sources = load_split(shards, "valid")
    (window, _) = dataset.validation_windows(sources, 4, 1)
    chunk = window.chunks[-1]
    song = sources[0].song(0)
    inside = (song.rows[:, BAR] >= chunk.first_bar) & (song.rows[:, BAR] < chunk.first_bar + chunk.bars)
    np.testing.assert_array_equal(chunk.rows[:, 1:], song.rows[inside, 1:])
