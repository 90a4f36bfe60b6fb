"""What may be written: every walk through the masks gets to the end and keeps the song's voices, ranges, gaps and
groove, whatever fixed rows come between."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of

from midiex.constraints import (
    CHORD_MARGIN,
    END,
    FEWEST_GROOVE_NOTES,
    RANGE_MARGIN,
    Grammar,
    Runs,
    State,
    grooves_of,
    longest_empty_run,
    longest_run,
    of_one_pitch,
)
from midiex.grid import POSITIONS_PER_BEAT
from midiex.tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    DURATIONS,
    DURATIONS_PER_BEAT,
    FIELD_SIZES,
    INSTANCE,
    MICRO,
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
    final: np.ndarray | None = None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """The grammar of a random small song, its own groove or any other, bars of any length to write, and a way to
    choose."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bars = draw(st.integers(1, 5))
    rows = random_rows(rng, draw(st.integers(1, 40)), bars, draw(st.integers(1, 3)))
    rows[:, POSITION] //= draw(st.sampled_from((1, 12, 48)))  # more chords the fewer places there are
    rows[:, PITCH] = rows[:, PITCH] // 128 * 128 + 60 + rows[:, PITCH] % draw(st.integers(1, 8))
    bar_positions = draw(st.lists(st.sampled_from((1, 2, 5, 12)), min_size=1, max_size=5))
    grammar = Grammar.of(sort_rows(rows), bars)
    openness = draw(st.sampled_from((None, 0.0, 0.02, 0.3)))
    if openness is not None:
        grammar = replace(grammar, grooves=rng.random(grammar.grooves.shape) < openness)
    if draw(st.booleans()):
        grammar = replace(grammar, reach=draw(st.integers(1, 20)), most_strikes=draw(st.integers(1, 4)))
    final = rng.random(12) < 0.4 if draw(st.booleans()) else None
    return Case(grammar, np.array(bar_positions), draw(st.sampled_from(POLICIES)), rng, final)


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


def walk(case: Case, candidates: int = 3, fixed_share: float = 0) -> list[np.ndarray]:
    """Rows of each candidate. Fails where a running candidate has no choice, or may end before the last bar. A share
    of the notes are fixed rows, of any place and voice that follow the last note; theirs is velocity 1."""
    state = State(case.grammar, case.bar_positions, candidates, case.final)
    done, fixed = np.zeros(candidates, bool), np.zeros(candidates, bool)
    rows: list[list[list[int]]] = [[] for _ in range(candidates)]

    def allowed(mask: np.ndarray) -> np.ndarray:
        assert mask[~done & ~fixed].any(1).all(), "a running candidate has no choice"
        mask[done | fixed, 0] = True
        return mask

    for _ in range(10_000):
        mask = allowed(state.bars())
        at_end = state.bar == len(case.bar_positions) - 1
        assert not mask[~done & ~at_end, END].any()
        bar = choose(mask, case, state.bar)
        fixed = ~done & (case.rng.random(candidates) < fixed_share)
        notes = [foreign_note(case, state, k) if fixed[k] else None for k in range(candidates)]
        fixed = np.array([note is not None for note in notes])
        given = np.array([note or [0] * 5 for note in notes])
        done |= ~fixed & (bar == END)
        if done.all():
            return [np.array(r, np.int64).reshape(-1, 8) for r in rows]
        bar = np.where(fixed, given[:, 0], np.where(done, 0, bar))
        position = np.where(fixed, given[:, 1], choose(allowed(state.positions(bar)), case))
        state.move(bar, position)
        program = np.where(fixed, given[:, 2], choose(allowed(state.programs()), case))
        instance = np.where(fixed, given[:, 3], choose(allowed(state.instances(program)), case))
        pitch = np.where(fixed, given[:, 4], choose(allowed(state.pitches(program, instance)), case))
        micro = choose(allowed(state.micros(program)), case)
        duration = choose(allowed(state.durations(program)), case)
        state.write(program, instance, pitch)
        for k in np.flatnonzero(~done):
            note = [bar[k], position[k], micro[k], program[k], instance[k], pitch[k], duration[k], int(fixed[k])]
            rows[k].append([int(value) for value in note])
        fixed[:] = False
    raise AssertionError("the walk never ends")


def foreign_note(case: Case, state: State, k: int) -> list[int] | None:
    """(bar, position, program, instance, pitch) after the k-th candidate's last note, of a voice the grammar does not
    hold; None when there is nothing left."""
    bar, position = int(state.bar[k]), int(state.position[k])
    foreign = np.argwhere(~case.grammar.pitches.any(2))
    program, instance = foreign[case.rng.integers(len(foreign))].tolist()
    later = (program, instance) > (int(state.program[k]), int(state.instance[k]))
    if bar < 0 or not later or case.rng.random() < 0.5:  # a later onset
        position += 1
        if bar < 0 or position >= case.bar_positions[bar]:
            bar, position = bar + 1, 0
    if bar >= len(case.bar_positions):
        return None
    return [bar, position, program, instance, 60 + 128 * (program == DRUM_PROGRAM)]


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
        state = State(case.grammar, case.bar_positions, 1, case.final)
        onsets = np.concatenate([[0], np.cumsum(case.bar_positions)[bar] - case.bar_positions[bar] + position])
        assert state.reach == case.grammar.reach or state.reach <= 2 * case.bar_positions.max()
        assert np.diff(onsets).max() <= state.reach
        check_runs(case, rows)
        in_groove = case.grammar.grooves[kind_of(rows), position % POSITIONS_PER_BEAT, rows[:, MICRO]]
        nowhere = ~case.grammar.grooves[kind_of(rows), 0].any(1)  # for who has no micro on the beat, all are open there
        assert (in_groove | nowhere & (position % POSITIONS_PER_BEAT == 0)).all()
        if case.final is not None:
            check_landing(case, case.final, rows[bar == bars - 1])


def check_runs(case: Case, rows: np.ndarray) -> None:
    """No voice strikes a pitch too often in a row that could have struck another."""
    for program, instance in np.unique(rows[rows[:, PROGRAM] != DRUM_PROGRAM][:, [PROGRAM, INSTANCE]], axis=0):
        mine = rows[(rows[:, PROGRAM] == program) & (rows[:, INSTANCE] == instance)]
        playable = case.grammar.pitches[program, instance]
        if case.final is not None:  # in whose last bar there may be but one pitch to choose
            mine = mine[mine[:, BAR] < len(case.bar_positions) - 1]
        assert playable.sum() == 1 or longest_run(mine) <= case.grammar.most_strikes


def check_landing(case: Case, final: np.ndarray, last: np.ndarray) -> None:
    """The last bar's rows are one chord on its first beat, of the wanted pitch classes, that rings to its end."""
    assert (last[:, POSITION] == 0).all()
    assert last[0, PROGRAM] != DRUM_PROGRAM or not case.grammar.pitches[:DRUM_PROGRAM].any()  # not drums alone
    drums_alone = not case.grammar.pitches[:DRUM_PROGRAM].any()
    for program, instance, pitch, duration in last[:, [PROGRAM, INSTANCE, PITCH, DURATION]].tolist():
        if program != DRUM_PROGRAM or drums_alone:
            playable = np.flatnonzero(case.grammar.pitches[program, instance])
            assert drums_alone or final[pitch % 12] or not final[playable % 12].any()
            assert DURATIONS[duration] / DURATIONS_PER_BEAT >= case.bar_positions[-1] / POSITIONS_PER_BEAT


def kind_of(rows: np.ndarray) -> np.ndarray:
    return (rows[:, PROGRAM] == DRUM_PROGRAM).astype(int)


@given(cases(), st.sampled_from((0.2, 0.5, 0.9)))
@settings(max_examples=60)
def test_every_walk_among_fixed_rows_ends_well(case: Case, share: float) -> None:
    for rows in walk(case, fixed_share=share):
        assert (np.diff(row_key(rows)) > 0).all()
        assert rows[-1, BAR] == len(case.bar_positions) - 1
        empty = np.diff(np.concatenate([[-1], np.unique(rows[:, BAR])])) - 1
        assert empty.max() <= case.grammar.most_empty_bars
        free = rows[rows[:, -1] == 0]
        assert case.grammar.pitches[free[:, PROGRAM], free[:, INSTANCE], free[:, PITCH]].all()
        struck = Counter(map(tuple, free[:, [BAR, POSITION, PROGRAM, INSTANCE]].tolist()))
        for (_, _, program, instance), notes in struck.items():
            assert notes <= case.grammar.chord[program, instance]


@given(cases())
@settings(max_examples=20)
def test_the_fullest_walk_leaves_out_nothing(case: Case) -> None:
    """Whoever always takes the first choice strikes every chord at every place."""
    grammar = replace(case.grammar, most_strikes=10_000)
    (rows, *_) = walk(Case(grammar, case.bar_positions, "fullest", case.rng))
    of_voice = np.minimum(grammar.chord, grammar.pitches.sum(2)).sum(1)  # (129,)
    an_onset = np.array([of_voice[:DRUM_PROGRAM].sum(), of_voice[DRUM_PROGRAM]])
    phases = grammar.grooves.any(2)
    phases[:, 0] = True
    places = sum(
        np.bincount(np.arange(n) % POSITIONS_PER_BEAT, minlength=POSITIONS_PER_BEAT) for n in case.bar_positions
    )
    assert len(rows) == (an_onset[:, None] * phases * places).sum()


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
        assert state.pitches(program, instance)[0, pitch] and state.micros(program)[0, row[MICRO]]
        state.write(program, instance, pitch)
    assert state.bars()[0, END]


def at(cells: dict[tuple[int, int], int], program: int = 0) -> np.ndarray:
    """Rows with so many notes at each (position, micro), spread over bars."""
    notes = [(position, micro) for (position, micro), n in cells.items() for _ in range(n)]
    rows = np.zeros((len(notes), len(FIELD_SIZES)), np.int64)
    rows[:, BAR] = np.arange(len(notes)) % 16
    rows[:, [POSITION, MICRO]] = notes
    rows[:, PROGRAM] = program
    return rows


def used(grooves: np.ndarray) -> list[tuple[int, int]]:
    return [tuple(cell) for cell in np.argwhere(grooves).tolist()]


def test_the_groove_is_where_the_song_places_notes() -> None:
    swung = at({(0, 4): 20, (12, 5): 20, (8, 3): 19, (20, 4): 1})
    straight = at({(0, 4): 30, (6, 4): 30}, DRUM_PROGRAM)
    tuned, drums = grooves_of(np.concatenate([swung, straight]))
    assert used(tuned) == [(0, 4), (0, 5), (8, 3), (8, 4)]
    assert used(drums) == [(0, 4), (6, 4)]


def test_a_stray_opens_no_place_in_the_beat() -> None:
    assert used(grooves_of(at({(0, 4): 100, (6, 4): 99, (7, 0): 1}))[0]) == [(0, 4), (6, 4), (7, 0)]  # 0.5 %
    assert used(grooves_of(at({(0, 4): 100, (6, 4): 100, (7, 0): 1}))[0]) == [(0, 4), (6, 4)]
    assert (7, 0) in used(grooves_of(at({(6, 4): 250, (7, 0): 1, (7, 3): 1}))[0])  # two at one place are none


def test_the_beat_is_always_open() -> None:
    assert used(grooves_of(at({(6, 4): 250, (0, 2): 1}))[0]) == [(0, MICRO_CENTER), (6, 4)]
    assert used(grooves_of(at({(6, 4): 25, (0, 2): 9}))[0]) == [(0, 2), (6, 4)]


def test_a_few_notes_tell_no_groove() -> None:
    few = grooves_of(at({(0, 4): FEWEST_GROOVE_NOTES - 1}))
    assert few.all()
    enough = grooves_of(at({(0, 4): FEWEST_GROOVE_NOTES}))
    assert used(enough[0]) == [(0, 4)] and enough[1].all()


def test_drums_and_tuned_voices_keep_each_to_their_own_groove() -> None:
    rows = np.concatenate([at({(0, 4): 30, (8, 2): 30}, 24), at({(0, 4): 30, (6, 4): 30}, DRUM_PROGRAM)])
    grammar = Grammar.of(sort_rows(rows), 16)
    state = State(grammar, np.array([12]), 1)
    here = np.zeros(1, np.int64)
    assert np.flatnonzero(state.positions(here)[0]).tolist() == [0, 6, 8]
    for position, programs, program, micros in ((6, [DRUM_PROGRAM], DRUM_PROGRAM, [4]), (8, [24], 24, [2])):
        state.move(here, np.array([position]))
        assert np.flatnonzero(state.programs()[0]).tolist() == programs
        assert np.flatnonzero(state.micros(np.array([program]))[0]).tolist() == micros
    without_drums = State(grammar.without({(DRUM_PROGRAM, 0)}), np.array([12]), 1)
    assert np.flatnonzero(without_drums.positions(here)[0]).tolist() == [0, 8]


def test_a_bar_is_left_when_its_last_place_in_the_groove_is_taken() -> None:
    state = State(Grammar.of(sort_rows(at({(0, 4): 30, (6, 4): 30})), 16), np.array([12, 12]), 1)
    for position, stays in ((0, True), (6, False)):
        state.move(np.array([0]), np.array([position]))
        state.write(*(np.array([value]) for value in (0, 0, 0)))
        assert state.bars()[0, :2].tolist() == [stays, True]


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
    assert (less.grooves == grammar.grooves).all()
    assert (less.chord == grammar.chord).all() and less.most_empty_bars == grammar.most_empty_bars
    for rows in walk(Case(less, np.array([3, 3]), "fullest", np.random.default_rng(0))):
        assert set(zip(rows[:, PROGRAM].tolist(), rows[:, INSTANCE].tolist(), strict=True)) == {(0, 0), (32, 0)}


# ---- as long, as often ----------------------------------------------------------------------------------------------


def test_a_voice_of_one_pitch_keeps_to_it_and_may_strike_it_for_ever() -> None:
    bell = rows_of(*[(bar, 12 * beat, 9, 72) for bar in range(4) for beat in range(4)])
    tune = rows_of(*[(bar, 12 * beat, 0, 60 + (bar + beat) % 5) for bar in range(4) for beat in range(4)])
    rows = sort_rows(np.concatenate([bell, tune]))
    assert of_one_pitch(rows) == {(9, 0)} and of_one_pitch(bell[:11]) == set()
    grammar = Grammar.of(rows, 4)
    assert np.flatnonzero(grammar.pitches[9, 0]).tolist() == [72] and grammar.pitches[0, 0].sum() > 5
    assert longest_run(rows) == 16 and longest_run(rows, of_one_pitch(rows)) < 5


def test_notes_last_little_longer_than_the_songs_longest() -> None:
    rows = rows_of((0, 0, 0, 60), (0, 12, 0, 62), (0, 24, DRUM_PROGRAM, 36))
    rows[:, DURATION] = 8
    grammar = Grammar.of(rows, 1)
    assert DURATIONS[grammar.longest] <= 1.25 * DURATIONS[8] and grammar.longest >= 8
    state = State(grammar, np.array([48]), 2)
    allowed = state.durations(np.array([0, DRUM_PROGRAM]))
    assert allowed[0].sum() == grammar.longest + 1 and allowed[1].all()
    assert Grammar.of(rows[2:], 1).longest == len(DURATIONS) - 1  # drums tell nothing of it


def test_runs_go_on_from_chunk_to_chunk() -> None:
    one, two = rows_of((0, 0, 0, 60), (0, 12, 0, 62), (0, 24, 0, 62)), rows_of((0, 0, 0, 62), (0, 12, 0, 62))
    runs = Runs().after(one)
    assert (runs.pitch[0, 0], runs.times[0, 0]) == (62, 2) and runs.times.sum() == 2
    runs = runs.after(two)
    assert (runs.pitch[0, 0], runs.times[0, 0]) == (62, 4)
    grammar = replace(Grammar.of(np.concatenate([one, two]), 1), most_strikes=4)
    state = State(grammar, np.array([48]), 1, runs=runs)
    state.move(np.array([0]), np.array([0]))
    playable = state.pitches(np.array([0]), np.array([0]))[0]
    assert not playable[62] and playable[60]
    assert State(grammar, np.array([48]), 1).pitches(np.array([0]), np.array([0]))[0, 62]
    assert runs.after(one[:1]).times[0, 0] == 1


def test_what_leaves_no_choice_is_told_beforehand() -> None:
    """One instance a program, one program, one micro-offset at each place: where there are two, nothing is told."""
    one = rows_of(*[(bar, 12 * beat, 40, 60 + beat) for bar in range(4) for beat in range(4)])
    other = one.copy()
    other[:, PROGRAM], other[:, MICRO] = 50, MICRO_CENTER + 1
    second = one.copy()
    second[:, INSTANCE] = 1
    program = np.array([40, 50])

    def told(*songs: np.ndarray) -> list[list[int] | None]:
        state = State(Grammar.of(sort_rows(np.concatenate(songs)), 8), np.full(4, 48), 2)
        state.move(np.zeros(2, np.int64), np.array([0, 12]))
        return [None if (v := state.only(name, program)) is None else v.tolist() for name in (PROGRAM, INSTANCE, MICRO)]

    micro = [int(one[0, MICRO])] * 2
    again = one + 4 * (np.arange(8) == BAR)  # enough notes to tell a groove
    assert told(one, again) == [[40, 40], [0, 0], micro]
    assert told(one, again, other) == [None, [0, 0], None]
    assert told(one, again, second) == [[40, 40], None, micro]
