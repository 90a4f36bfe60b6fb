"""What may be written: every walk through the masks gets to the end and keeps the song's voices, ranges and gaps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of

from midiex.constraints import CHORD_MARGIN, END, RANGE_MARGIN, Grammar, State, longest_empty_run
from midiex.tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    INSTANCE,
    MICRO_CENTER,
    PITCH,
    POSITION,
    PROGRAM,
    row_key,
    sort_rows,
)

POLICIES = ("any", "lowest", "highest", "fullest")


@dataclass(frozen=True)
class Case:
    grammar: Grammar
    bar_positions: np.ndarray
    policy: str
    rng: np.random.Generator


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """The grammar of a random small song, bars of any length to write, and a way to choose."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bars = draw(st.integers(1, 5))
    rows = random_rows(rng, draw(st.integers(1, 40)), bars, draw(st.integers(1, 3)))
    rows[:, POSITION] //= draw(st.sampled_from((1, 12, 48)))  # more chords the fewer places there are
    rows[:, PITCH] = rows[:, PITCH] // 128 * 128 + 60 + rows[:, PITCH] % draw(st.integers(1, 8))
    bar_positions = draw(st.lists(st.sampled_from((1, 2, 5, 12)), min_size=1, max_size=5))
    grammar = Grammar.of(sort_rows(rows), bars)
    return Case(grammar, np.array(bar_positions), draw(st.sampled_from(POLICIES)), rng)


def choose(mask: np.ndarray, case: Case, stay: np.ndarray | None = None) -> np.ndarray:
    """One allowed option in each row of mask (K, n). The fullest walk stays where it is for as long as it may."""
    if case.policy == "highest":
        return mask.shape[1] - 1 - mask[:, ::-1].argmax(1)
    if case.policy == "any":
        return (mask * case.rng.random(mask.shape)).argmax(1)
    lowest = mask.argmax(1)
    if case.policy == "lowest" and stay is not None:  # leave the bar whenever possible
        beyond = mask & (np.arange(mask.shape[1])[None] > stay[:, None])
        return np.where(beyond.any(1), beyond.argmax(1), lowest)
    return lowest


def walk(case: Case, candidates: int = 3) -> list[np.ndarray]:
    """Rows of each candidate. Fails where a running candidate has no choice, or may end before the last bar."""
    state = State(case.grammar, case.bar_positions, candidates)
    done = np.zeros(candidates, bool)
    rows: list[list[list[int]]] = [[] for _ in range(candidates)]

    def allowed(mask: np.ndarray) -> np.ndarray:
        assert mask[~done].any(1).all(), "a running candidate has no choice"
        mask[done, 0] = True
        return mask

    for _ in range(10_000):
        mask = allowed(state.bars())
        at_end = state.bar == len(case.bar_positions) - 1
        assert (mask[~done, END] == at_end[~done]).all()
        bar = choose(mask, case, state.bar)
        done |= bar == END
        if done.all():
            return [np.array(r, np.int64).reshape(-1, 8) for r in rows]
        bar = np.where(done, 0, bar)
        position = choose(allowed(state.positions(bar)), case)
        state.move(bar, position)
        program = choose(allowed(state.programs()), case)
        instance = choose(allowed(state.instances(program)), case)
        pitch = choose(allowed(state.pitches(program, instance)), case)
        state.write(program, instance, pitch)
        for k in np.flatnonzero(~done):
            rows[k].append([bar[k], position[k], MICRO_CENTER, program[k], instance[k], pitch[k], 0, 0])
    raise AssertionError("the walk never ends")


@given(cases())
@settings(max_examples=60)
def test_every_walk_ends_well(case: Case) -> None:
    bars = len(case.bar_positions)
    for rows in walk(case):
        bar, position = rows[:, BAR], rows[:, POSITION]
        assert (np.diff(row_key(rows)) > 0).all()  # sorted, and no two agree
        assert (position < case.bar_positions[bar]).all()
        assert bar[-1] == bars - 1
        assert case.grammar.pitches[rows[:, PROGRAM], rows[:, INSTANCE], rows[:, PITCH]].all()
        struck = Counter(map(tuple, rows[:, [BAR, POSITION, PROGRAM, INSTANCE]].tolist()))
        for (_, _, program, instance), notes in struck.items():
            assert notes <= case.grammar.chord[program, instance]
        empty = np.diff(np.concatenate([[-1], np.unique(bar)])) - 1
        assert empty.max() <= case.grammar.most_empty_bars


@given(cases())
@settings(max_examples=20)
def test_the_fullest_walk_leaves_out_nothing(case: Case) -> None:
    """Whoever always takes the first choice strikes every chord at every place."""
    grammar = case.grammar
    (rows, *_) = walk(Case(grammar, case.bar_positions, "fullest", case.rng))
    notes_an_onset = np.minimum(grammar.chord, grammar.pitches.sum(2)).sum()
    assert len(rows) == notes_an_onset * case.bar_positions.sum()


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 30))
@settings(max_examples=40)
def test_the_song_itself_may_be_written_again(seed: int, bars: int, notes: int) -> None:
    rows = random_rows(np.random.default_rng(seed), notes, bars).astype(np.int64)
    rows[:, BAR] -= rows[0, BAR]
    bars = int(rows[-1, BAR]) + 1
    state = State(Grammar.of(rows, bars), np.full(bars, 48), 1)
    for row in rows:
        bar, position, program, instance, pitch = (row[[f]] for f in (BAR, POSITION, PROGRAM, INSTANCE, PITCH))
        assert state.bars()[0, bar] and state.positions(bar)[0, position]
        state.move(bar, position)
        assert state.programs()[0, program] and state.instances(program)[0, instance]
        assert state.pitches(program, instance)[0, pitch]
        state.write(program, instance, pitch)
    assert state.bars()[0, END]


def test_candidates_do_not_disturb_each_other() -> None:
    grammar = Grammar.of(rows_of((0, 0, 0, 60), (0, 0, 0, 64), (0, 24, 32, 40)), 1)
    state, alone = State(grammar, np.array([48, 48]), 2), State(grammar, np.array([48, 48]), 1)
    state.move(np.array([0, 0]), np.array([0, 47]))
    state.write(np.array([0, 32]), np.array([0, 0]), np.array([60, 45]))
    alone.move(np.array([0]), np.array([47]))
    alone.write(np.array([32]), np.array([0]), np.array([45]))
    first, second = state.bars()
    assert first[:2].tolist() == [True, True]
    assert second[:2].tolist() == [False, True]  # the last program has struck the one note it may at the last place
    assert (alone.bars()[0] == second).all()


def test_voices_keep_to_their_ranges() -> None:
    rows = rows_of((0, 0, 0, 60), (0, 12, 0, 72), (1, 0, 40, 3), (2, 0, 41, 125), (0, 0, DRUM_PROGRAM, 36))
    grammar = Grammar.of(rows, 3)
    assert np.flatnonzero(grammar.pitches[0, 0]).tolist() == list(range(60 - RANGE_MARGIN, 72 + RANGE_MARGIN + 1))
    assert np.flatnonzero(grammar.pitches[40, 0]).tolist() == list(range(0, 3 + RANGE_MARGIN + 1))
    assert np.flatnonzero(grammar.pitches[41, 0]).tolist() == list(range(125 - RANGE_MARGIN, 128))
    assert np.flatnonzero(grammar.pitches[DRUM_PROGRAM, 0]).tolist() == [DRUM_PITCH_OFFSET + 36]
    assert sorted(map(tuple, np.argwhere(grammar.pitches.any(2)).tolist())) == [
        (0, 0), (40, 0), (41, 0), (DRUM_PROGRAM, 0),
    ]  # fmt: skip


def test_chords_may_grow_by_a_note_but_a_melody_stays_one() -> None:
    chord = [(0, 0, 0, pitch) for pitch in (60, 64, 67)]
    drums = [(0, 0, DRUM_PROGRAM, pitch) for pitch in (36, 42)]
    grammar = Grammar.of(rows_of(*chord, *drums, (0, 0, 73, 80), (0, 1, 73, 81)), 1)
    assert grammar.chord[0, 0] == 3 + CHORD_MARGIN
    assert grammar.chord[DRUM_PROGRAM, 0] == 2
    assert grammar.chord[73, 0] == 1
    assert grammar.chord.sum() == 3 + CHORD_MARGIN + 2 + 1


@pytest.mark.parametrize(
    ("bars", "longest"), [((0,), 0), ((0, 1, 2), 0), ((0, 3), 2), ((2, 3, 7), 3), ((5, 5, 5), 0), ((), 0)]
)
def test_longest_empty_run(bars: tuple[int, ...], longest: int) -> None:
    rows = rows_of(*((bar, 12 * i, 0, 60) for i, bar in enumerate(bars)))
    assert longest_empty_run(rows, 20) == longest


def test_without_takes_voices_away_and_leaves_the_original() -> None:
    rows = rows_of((0, 0, 0, 60), (0, 0, 0, 62, 7, 20, 1), (0, 0, 32, 40), (0, 0, DRUM_PROGRAM, 36))
    grammar = Grammar.of(rows, 1)
    less = grammar.without({(0, 1), (DRUM_PROGRAM, 0)})
    assert sorted(map(tuple, np.argwhere(less.pitches.any(2)).tolist())) == [(0, 0), (32, 0)]
    assert len(np.argwhere(grammar.pitches.any(2))) == 4
    for voice in ((0, 0), (32, 0)):
        assert (less.pitches[voice] == grammar.pitches[voice]).all()
    assert (less.chord == grammar.chord).all() and less.most_empty_bars == grammar.most_empty_bars
    for rows in walk(Case(less, np.array([3, 3]), "fullest", np.random.default_rng(0))):
        assert set(zip(rows[:, PROGRAM].tolist(), rows[:, INSTANCE].tolist(), strict=True)) == {(0, 0), (32, 0)}
