"""An aligned source: what it says of a chunk at once is what it says note by note; how alike chunks are told to be."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from midiex import aligned
from midiex.aligned import LIKENESS_BINS, NO_VALUE, AlignedSource, Follower
from midiex.echoes import NOTHING
from midiex.habits import STAYS
from midiex.roles import BASS, CHORDS, DRUMS, LEAD
from midiex.tokens import (
    BAR,
    DRUM_PROGRAM,
    DURATION,
    HEAD_ORDER,
    INSTANCE,
    MICRO,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
    sort_rows,
)


def rows_of(*rows: tuple[int, ...]) -> np.ndarray:
    return sort_rows(np.array(rows, np.int32))


OF_NOTE = (PROGRAM, INSTANCE, PITCH, DURATION, VELOCITY, MICRO)


def by_notes(rows: np.ndarray, source: np.ndarray, bins: np.ndarray, overall: int) -> tuple[np.ndarray, ...]:
    """Share, bucket and echoes as a candidate meets them, note by note."""
    n = len(rows)
    share, bucket = np.zeros((n + 1, 8)), np.zeros((n + 1, 8), np.int64)
    echoes = np.tile(NOTHING, (n + 1, 2, 1))
    follower = AlignedSource(source, bins, overall).follow()
    table = rows.tolist()

    def say(step: int, name: int, said: tuple[int, int], value: int) -> None:
        head = HEAD_ORDER.index(name)
        share[step, head], bucket[step, head] = said[0] == value, said[1]

    for i, row in enumerate(table):
        if i:
            say(i, BAR, follower.stays(table[i - 1][BAR]), STAYS if row[BAR] == table[i - 1][BAR] else 1 - STAYS)
        say(i, POSITION, follower.position(row[BAR]), row[POSITION])
        echoes[i + 1] = follower.expect(row[BAR], row[POSITION])
        for name in OF_NOTE:
            say(i + 1, name, follower.says(name, row), row[name])
        follower.hear(row)
    say(n, BAR, follower.stays(table[-1][BAR]), 1 - STAYS)
    return share, bucket, echoes


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), kept=st.floats(0, 1), moved=st.floats(0, 1))
def test_a_source_says_the_same_at_once_and_note_by_note(seed: int, kept: float, moved: float) -> None:
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, 40, bars=3, voices=3)
    source = rows[rng.random(len(rows)) < kept].copy()
    changed = rng.random(len(source)) < moved
    source[changed, PITCH] = (source[changed, PITCH] + rng.integers(0, 3)).clip(0, 127)
    source = sort_rows(np.concatenate([source, random_rows(rng, 5, bars=3, voices=3)]))
    bins = rng.integers(0, LIKENESS_BINS, len(source))
    told = aligned.evidence(rows, source, bins, 3)
    share, bucket, echoes = by_notes(rows, source, bins, 3)
    assert np.array_equal(told.bucket, bucket)
    assert np.array_equal(told.share * (bucket > 0), share * (bucket > 0))
    assert np.array_equal(told.echoes, echoes)


def test_a_chunk_like_its_source_is_foreseen_whole() -> None:
    rows = random_rows(np.random.default_rng(1), 50, bars=4)
    told = aligned.evidence(rows, rows, np.full(len(rows), 7), 7)
    assert (told.share[told.bucket > 0] == 1).all()
    decided = np.ones((len(rows) + 1, 8), bool)
    decided[0, :-1] = False  # the first step decides only where the first note lies
    decided[-1, HEAD_ORDER.index(POSITION)] = False
    assert np.array_equal(told.bucket > 0, decided)


def test_a_return_that_went_another_way_for_a_note_finds_back() -> None:
    source = rows_of((0, 0, 4, 0, 0, 60, 5, 20), (0, 12, 4, 0, 0, 62, 5, 20), (0, 24, 4, 0, 0, 64, 5, 20))
    follower = AlignedSource(source, np.full(3, 6), 6).follow()
    for pitch, position in ((60, 0), (61, 9)):  # the second note is another, somewhere else
        follower.hear((0, position, 4, 0, 0, pitch, 5, 20))
    assert follower.position(0)[0] == 12
    assert follower.says(PITCH, (0, 12, 0, 0, 0, 0, 0, 0))[0] == 62
    follower.hear((0, 12, 4, 0, 0, 62, 5, 20))
    assert follower.position(0)[0] == 24 and follower.kept


def test_an_empty_source_says_nothing() -> None:
    rows = random_rows(np.random.default_rng(2), 10)
    told = aligned.evidence(rows, rows[:0], np.zeros(0, np.int64), 0)
    assert not told.bucket.any() and (told.echoes == NOTHING).all()
    follower = Follower(AlignedSource(rows[:0], np.zeros(0, np.int64), 0))
    assert follower.says(PROGRAM, rows[0].tolist())[0] == NO_VALUE and follower.position(0)[0] == NO_VALUE


def test_likeness_is_the_share_of_notes_in_common_overall_and_by_role() -> None:
    drums = [(0, 12 * k, 4, DRUM_PROGRAM, 0, 128 + 36, 5, 20) for k in range(4)]
    lead = [(0, 12 * k, 4, 73, 0, 80 + k, 5, 20) for k in range(4)]
    other = [(0, 12 * k, 4, 73, 0, 90 + k, 5, 20) for k in range(4)]
    roles = {(DRUM_PROGRAM, 0): DRUMS, (73, 0): LEAD}
    found = aligned.likenesses(rows_of(*drums, *lead), rows_of(*drums, *other), roles)
    assert found[aligned.OVERALL] == pytest.approx(4 / 12)
    assert found[1 + DRUMS] == 1 and found[1 + LEAD] == 0 and np.isnan(found[1 + BASS]) and np.isnan(found[1 + CHORDS])
    told = aligned.likeness_conditions(found)
    assert told[1 + DRUMS] == LIKENESS_BINS - 1 and told[1 + LEAD] == 1 and told[1 + BASS] == 0


@given(st.integers(0, 2**32 - 1))
def test_likeness_is_that_overall_and_the_same_both_ways(seed: int) -> None:
    rows = random_rows(np.random.default_rng(seed), 40, 2)
    other = rows[::2]
    assert aligned.likeness(rows, rows) == 1 and aligned.likeness(rows, rows[:0]) == 0
    assert aligned.likeness(rows, other) == aligned.likeness(other, rows) == len(other) / len(rows)
    assert aligned.likenesses(rows, other, {})[aligned.OVERALL] == aligned.likeness(rows, other)


@pytest.mark.parametrize("field", [BAR, POSITION, PROGRAM, INSTANCE, PITCH])
def test_a_note_in_common_has_the_same_place_voice_and_pitch(field: int) -> None:
    rows = random_rows(np.random.default_rng(0), 40, 2)
    elsewhere = rows.copy()
    elsewhere[:, field] += 1
    played = rows.copy()
    played[:, [DURATION, VELOCITY, MICRO]] = 0
    assert aligned.likeness(rows[:1], elsewhere[:1]) == 0 and aligned.likeness(rows, played) == 1
