"""Collating what a chunk goes back to, what of it stands already, what was counted before: each as it is by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import random_rows, random_song, song_of

from midiex import aligned, conditions
from midiex.aligned import LIKENESSES, UNTOLD
from midiex.collate import collate
from midiex.conditions import voice_vector
from midiex.config import MemoryConfig
from midiex.echoes import NOTHING as NO_ECHO
from midiex.echoes import echoes
from midiex.habits import CONTEXTS, FIRST_CONTEXT, habits
from midiex.model import NOTHING, RECALLED, SOURCE, STANDING, Batch
from midiex.tokens import BAR, POSITION
from midiex.windows import Song, Window, make_window, with_standing

MEMORY = MemoryConfig(recent_chunks=2, summary_chunks=3)


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def song() -> Song:
    """Five times eight bars, each time with some notes left out."""
    rng = rng_of(0)
    theme = random_rows(rng, 50, 8)
    times = []
    for number in range(5):
        rows = theme[rng.random(len(theme)) < 0.8].copy()
        rows[:, BAR] += 8 * number
        times.append(rows)
    return song_of(np.concatenate(times), 40)


def window_of(song: Song, with_source: float, seed: int = 4) -> Window:
    window = make_window(song, 5, 4096, 0, rng_of(seed), with_source)
    assert len(window.chunks) - window.extras > 3
    return window


def late_window(song: Song, with_source: float = 0.0) -> Window:
    """With some of the song before it."""
    window = next(w for s in range(99) if (w := make_window(song, 3, 4096, 0, rng_of(s), with_source)).chunks[
        w.extras].first_bar >= 12)  # fmt: skip
    assert window.before is not None and len(window.before) > 20
    return window


def own_slots(batch: Batch, target: int) -> dict[int, int]:
    """Chunk of each kind of full memory slot."""
    kinds, index = batch.full_kind[target].tolist(), batch.full[target].tolist()
    return {kind: chunk for kind, chunk in zip(kinds, index, strict=True) if kind != NOTHING}


def steps_of(batch: Batch, name: str) -> list[np.ndarray]:
    """Of each chunk that is written."""
    lengths = (batch.lengths[batch.target] + 1).tolist()
    return [part.numpy() for part in getattr(batch, name).split(lengths)]


def encoded(batch: Batch, chunk: int) -> slice:
    first = int(batch.lengths[:chunk].sum())
    return slice(first, first + int(batch.lengths[chunk]))


# ---- a source --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [False, True])
def test_a_chunk_with_a_source_has_it_in_its_memory_its_echoes_and_its_evidence(song: Song, told: bool) -> None:
    window = window_of(song, 0.6)
    targets = window.chunks[window.extras :]
    assert {chunk.goes_back is None for chunk in targets} == {True, False}
    batch = collate([window], MEMORY, 0.0, None, told=told)
    shares, buckets, heard = (steps_of(batch, name) for name in ("aligned_share", "aligned_bucket", "echoes"))
    for number, chunk in enumerate(targets):
        slots, source = own_slots(batch, number), chunk.goes_back
        bins = batch.conditions[number, conditions.LIKENESS :].numpy()
        if source is None:
            assert SOURCE not in slots and not bins.any() and not buckets[number].any()
            assert (heard[number][:, -2:] == NO_ECHO).all()
            continue
        assert RECALLED not in slots  # what it goes back to is known
        assert batch.window[slots[SOURCE]] == -1
        rows = encoded(batch, slots[SOURCE])
        np.testing.assert_array_equal(batch.rows[rows], source.rows)
        np.testing.assert_array_equal(batch.times[rows], source.times)
        np.testing.assert_array_equal(batch.starts[slots[SOURCE]], source.start)
        expected = aligned.likeness_conditions(source.likeness) if told else np.full(LIKENESSES, UNTOLD)
        np.testing.assert_array_equal(bins, expected)
        of_rows = aligned.told_bins(source.rows, expected, window.roles)
        said = aligned.evidence(chunk.rows, source.rows, of_rows, int(expected[aligned.OVERALL]))
        np.testing.assert_array_equal(shares[number], said.share)
        np.testing.assert_array_equal(buckets[number], said.bucket)
        np.testing.assert_array_equal(heard[number][:, -2:], said.echoes)
        assert said.bucket.any() and (said.echoes != NO_ECHO).any()


def test_two_windows_keep_their_sources_apart(song: Song) -> None:
    both = [window_of(song, 1.0), window_of(song, 1.0, seed=9)]
    batch = collate(both, MEMORY, 0.0, None)
    targets = [chunk for window in both for chunk in window.chunks[window.extras :]]
    found = 0
    for number, chunk in enumerate(targets):
        source = own_slots(batch, number).get(SOURCE)
        assert (source is None) == (chunk.goes_back is None)
        if source is not None and chunk.goes_back is not None:
            np.testing.assert_array_equal(batch.rows[encoded(batch, source)], chunk.goes_back.rows)
            found += 1
    assert found == int((batch.window == -1).sum()) > 3


def test_told_voices_are_those_that_play(song: Song) -> None:
    window = window_of(song, 0.0)
    batch = collate([window], MEMORY, 0.0, None, told=True)
    expected = [voice_vector(chunk.rows) for chunk in window.chunks[window.extras :]]
    np.testing.assert_array_equal(batch.voices, np.stack(expected))


def test_without_its_past_a_chunk_knows_only_its_source(song: Song) -> None:
    window = with_standing(window_of(song, 0.6), 0.5, rng_of(0))
    targets = window.chunks[window.extras :]
    batch = collate([window], MEMORY, 0.2, rng_of(1), without_past=1.0)
    assert (batch.summaries == -1).all() and not batch.habit_bucket.any()
    for number, (chunk, heard) in enumerate(zip(targets, steps_of(batch, "echoes"), strict=True)):
        expected = {SOURCE} if chunk.goes_back is not None else set()
        assert set(own_slots(batch, number)) == expected | ({STANDING} if chunk.standing is not None else set())
        assert (heard[:, :-2] == NO_ECHO).all()
        assert (heard[:, -2:] != NO_ECHO).any() == (chunk.goes_back is not None)
    buckets = steps_of(batch, "aligned_bucket")
    assert [part.any() for part in buckets] == [chunk.goes_back is not None for chunk in targets]


def test_most_chunks_know_their_past(song: Song) -> None:
    window = late_window(song)
    batches = [collate([window], MEMORY, 0.2, rng_of(seed), without_past=0.3) for seed in range(60)]
    known = torch.cat([(batch.summaries >= 0).any(1) | (batch.full >= 0).any(1) for batch in batches])
    assert 0.6 < known.float().mean() < 0.8
    counted = np.mean([part.any() for batch in batches for part in steps_of(batch, "habit_bucket")])
    assert 0.5 < counted < float(known.float().mean())  # and now and then nothing is counted


# ---- voices that stand -----------------------------------------------------------------------------------------------


def test_the_slot_of_standing_voices_holds_their_rows_and_no_others(song: Song) -> None:
    window = with_standing(window_of(song, 0.5), 0.7, rng_of(2))
    targets = window.chunks[window.extras :]
    assert {chunk.standing is None for chunk in targets} == {True, False}
    batch = collate([window], MEMORY, 0.0, None)
    for number, chunk in enumerate(targets):
        slot = own_slots(batch, number).get(STANDING)
        assert (slot is None) == (chunk.standing is None)
        if slot is None or chunk.standing is None:
            continue
        assert batch.window[slot] == -1
        rows = encoded(batch, slot)
        np.testing.assert_array_equal(batch.rows[rows], chunk.rows[chunk.standing])
        np.testing.assert_array_equal(batch.times[rows], chunk.times[chunk.standing])
        np.testing.assert_array_equal(batch.starts[slot], chunk.start)
    own = batch.rows[encoded(batch, int(batch.target[0]))]
    np.testing.assert_array_equal(own, targets[0].rows)  # all of the chunk is still to be written


# ---- what is counted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_source", [0.0, 1.0])
def test_habits_and_echoes_count_the_whole_song_before(song: Song, with_source: float) -> None:
    window = late_window(song, with_source)
    batch = collate([window], MEMORY, 0.0, None)
    whole, heard = habits(song.rows), echoes(song.rows)
    ahead = slice(FIRST_CONTEXT[POSITION], CONTEXTS)
    parts = [steps_of(batch, name) for name in ("habit_share", "habit_bucket", "habit_level", "echoes")]
    for number, chunk in enumerate(window.chunks[window.extras :]):
        inside = (song.rows[:, BAR] >= chunk.first_bar) & (song.rows[:, BAR] < chunk.first_bar + chunk.bars)
        share, bucket, level, echo = (part[number] for part in parts)
        for found, expected in ((share, whole.share), (bucket, whole.bucket), (level, whole.level)):
            of_chunk = expected[inside]
            np.testing.assert_array_equal(found[1:, : ahead.start], of_chunk[:, : ahead.start])
            np.testing.assert_array_equal(found[:-1, ahead], of_chunk[:, ahead])
        assert (echo[0, :-2] == NO_ECHO).all()
        np.testing.assert_array_equal(echo[1:, :-2], heard[inside][:, :-2])
        assert bucket.any() and (echo[1:, :-2] != NO_ECHO).any()


def test_chunks_that_are_only_remembered_are_not_counted_twice() -> None:
    song = random_song(rng_of(3), 60, 4)
    window = next(w for s in range(99) if (w := make_window(song, 3, 4096, 0, rng_of(s))).extras == 2)
    with_them = collate([window], MEMORY, 0.0, None)
    without = collate([replace(window, chunks=window.chunks[2:], extras=0)], MEMORY, 0.0, None)
    for name in ("echoes", "habit_share", "habit_bucket", "habit_level"):
        assert torch.equal(getattr(with_them, name), getattr(without, name)), name
