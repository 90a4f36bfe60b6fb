"""Notes to rows and back: exact on the grid, stable off it, and what a pedal holds is held."""

from __future__ import annotations

import numpy as np
import pytest
import symusic
from helpers import DRUMS, random_rows, score_of
from hypothesis import given, settings
from hypothesis import strategies as st

from midiex import tokens
from midiex.grid import BarGrid, TempoMap, bar_grid
from midiex.tokens import BAR, DURATION, DURATIONS, INSTANCE, MICRO, PITCH, POSITION, PROGRAM, VELOCITY, Notes

TPQ = 480
FIGURE = [(0, TPQ, 60, 82)]


def grid_of(meters: list[tuple[int, int, int]], tpq: int, end_tick: int) -> BarGrid:
    return bar_grid(meters, TempoMap.build(tpq, np.zeros(1), np.array([500_000])), end_tick)


def rows_of(score: symusic.core.ScoreTick, spare_bars: int = 1) -> tuple[np.ndarray, np.ndarray, BarGrid]:
    """Rows, voices and the grid they count on, which goes `spare_bars` bars beyond the end."""
    meters = [(m.time, m.numerator, m.denominator) for m in score.time_signatures]
    grid = grid_of(meters, score.tpq, score.end() + spare_bars * 16 * score.tpq)
    voices = tokens.voice_ids(score)
    return tokens.encode(tokens.notes_of(score), voices, grid), voices, grid


def as_set(notes: Notes) -> set[tuple[int, ...]]:
    columns = (notes.track, notes.start_ticks, notes.duration_ticks, notes.pitch, notes.velocity)
    return set(zip(*(c.tolist() for c in columns), strict=True))


def notes_from(*rows: tuple[int, int, int, int, int]) -> Notes:
    """Rows (track, start, duration, pitch, velocity)."""
    return Notes(*np.array(rows, np.int64).reshape(-1, 5).T)


# ---- single rows ----------------------------------------------------------------------------------------------------


def test_a_row_field_by_field() -> None:
    score = score_of([(0, FIGURE), (0, [(TPQ * 5 + 45, TPQ // 2, 64, 101)]), (DRUMS, [(TPQ * 3 - 5, 20, 36, 127)])])
    rows, voices, _ = rows_of(score)
    assert voices.tolist() == [[0, 0], [0, 1], [128, 0]]
    beat, eighth = DURATIONS.tolist().index(24), DURATIONS.tolist().index(12)
    assert rows.tolist() == [
        [0, 0, 4, 0, 0, 60, beat, 20],
        [0, 36, 3, 128, 0, 128 + 36, 0, 31],  # a 96th early
        [1, 13, 5, 0, 1, 64, eighth, 25],  # 9/96 after the beat: one position and one micro
    ]
    assert rows.dtype == np.int32


def test_a_note_just_before_a_bar_belongs_to_it() -> None:
    rows, voices, grid = rows_of(score_of([(0, [(4 * TPQ - 20, TPQ, 60, 82)])]))
    assert rows[:, [BAR, POSITION, MICRO]].tolist() == [[1, 0, 0]]
    assert tokens.decode(rows, voices, grid).start_ticks.tolist() == [4 * TPQ - 20]


def test_a_note_at_the_very_end_of_the_last_bar_stays_in_it() -> None:
    score = score_of([(0, [(4 * TPQ - 20, 20, 60, 82)])])
    rows, voices, grid = rows_of(score, spare_bars=0)
    assert len(grid) == 1
    assert rows[:, [BAR, POSITION]].tolist() == [[0, 47]]
    assert abs(tokens.decode(rows, voices, grid).start_ticks[0] - (4 * TPQ - 20)) <= TPQ * 4 / 96


def test_durations_go_to_the_nearest_and_end_at_eight_bars() -> None:
    wanted = [1, 10, 20, 250, 260, 10**6]  # ticks; a 24th of a beat is 20
    rows, voices, grid = rows_of(score_of([(0, [(i * TPQ, d, 60, 80) for i, d in enumerate(wanted)])]))
    assert DURATIONS[rows[:, DURATION]].tolist() == [1, 1, 1, 12, 14, 768]  # 260 ticks are 13: nearer to 14 as a ratio
    assert tokens.decode(rows, voices, grid).duration_ticks.min() > 0


def test_velocities_keep_within_two() -> None:
    score = score_of([(0, [(i * 480, 100, 60, i) for i in range(1, 128)])])
    rows, voices, grid = rows_of(score)
    back = tokens.decode(rows, voices, grid)
    assert np.abs(back.velocity - np.arange(1, 128)).max() <= 2
    assert back.velocity.min() >= 1 and rows[:, VELOCITY].max() == 31


def test_of_equal_notes_the_longest_stays() -> None:
    score = score_of([(0, [(0, 100, 60, 80), (5, 480, 60, 40), (5, 240, 60, 90), (0, 100, 61, 80)])])
    rows, _, _ = rows_of(score)
    assert rows[:, [PITCH, MICRO, VELOCITY]].tolist() == [[60, 5, 10], [61, 4, 20]]
    assert DURATIONS[rows[0, DURATION]] == 24


@pytest.mark.parametrize("program", [5, DRUMS])
def test_instances_tell_tracks_of_one_program_apart_up_to_the_sixty_fourth(program: int) -> None:
    score = score_of([(program, [(0, 100, 20 + i, 82)]) for i in range(66)] + [(7, FIGURE), (6, FIGURE)])
    rows, voices, grid = rows_of(score)
    assert voices[:, 1].tolist() == [*range(64), 63, 63, 0, 0]
    back = tokens.decode(rows, voices, grid)
    track_of = {(p, t < 66): t for p, t in zip(back.pitch.tolist(), back.track.tolist(), strict=True)}
    assert [track_of[20 + i, True] for i in range(64)] == list(range(64))
    assert track_of[84, True] == track_of[85, True] == 63  # the first that shares it


def test_sixty_four_tracks_that_play_the_same_stay_apart_and_a_sixty_fifth_joins_the_last() -> None:
    score = score_of([(5, [(i % 2 * TPQ, 240, 60, 82), (4 * TPQ, 480, 64, 50)]) for i in range(65)])
    rows, voices, grid = rows_of(score)
    assert len(rows) == 2 * 64 + 1  # the last chord's 64th and 65th notes are one
    back = tokens.decode(rows, voices, grid)
    expected = {(i, i % 2 * TPQ, 240, 60, 82) for i in range(64)} | {(i, 4 * TPQ, 480, 64, 50) for i in range(64)}
    assert as_set(back) == expected | {(63, 0, 240, 60, 82)}


def test_drum_and_tuned_notes_of_one_number_differ() -> None:
    rows, voices, grid = rows_of(score_of([(0, FIGURE), (DRUMS, FIGURE)]))
    assert rows[:, PITCH].tolist() == [60, 188]
    assert as_set(tokens.decode(rows, voices, grid)) == {(0, 0, TPQ, 60, 82), (1, 0, TPQ, 60, 82)}


def test_rows_of_a_voice_no_track_has_are_left_out() -> None:
    rows, _, grid = rows_of(score_of([(0, FIGURE), (7, FIGURE), (7, FIGURE)]))
    back = tokens.decode(rows, np.array([[7, 1], [7, 0]]), grid)
    assert sorted(back.track.tolist()) == [0, 1]


def test_decoding_from_a_later_bar_shifts_by_the_grid() -> None:
    grid = grid_of([(0, 3, 4), (3 * TPQ, 4, 4)], TPQ, 20 * TPQ)
    row = np.array([[0, 12, 4, 0, 0, 60, 5, 20]])
    assert tokens.decode(row, np.zeros((1, 2), int), grid, first_bar=2).start_ticks.tolist() == [7 * TPQ + TPQ]


def test_nothing_gives_nothing() -> None:
    score = symusic.Score(TPQ)
    score.tracks.append(symusic.Track(program=3))
    notes = tokens.notes_of(score)
    assert len(notes) == 0 and len(tokens.notes_of(symusic.Score(TPQ))) == 0
    assert tokens.voice_ids(symusic.Score(TPQ)).shape == (0, 2)
    rows = tokens.encode(notes, tokens.voice_ids(score), tokens.score_grid(score))
    assert rows.shape == (0, 8) and tokens.sort_rows(rows).shape == (0, 8)
    assert len(tokens.decode(rows, tokens.voice_ids(score), tokens.score_grid(score))) == 0


def test_field_sizes_bound_what_can_be_said() -> None:
    assert len(tokens.FIELDS) == len(tokens.FIELD_SIZES) == 8
    assert (np.diff(DURATIONS) > 0).all() and tokens.FIELD_SIZES[DURATION] == len(DURATIONS)
    assert DURATIONS[-1] == 8 * 4 * 24


def test_sort_rows_keeps_the_longest_and_sorts_by_time_then_voice() -> None:
    shuffled = random_rows(np.random.default_rng(1), 200)
    order = np.random.default_rng(2).permutation(len(shuffled))
    shorter = shuffled.copy()
    shorter[:, DURATION] = 0
    assert (tokens.sort_rows(np.concatenate([shorter, shuffled[order]])) == shuffled).all()
    keys = [tuple(row) for row in shuffled[:, [BAR, POSITION, PROGRAM, INSTANCE, PITCH]].tolist()]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)


# ---- the pedal ------------------------------------------------------------------------------------------------------


def held(notes: list[tuple[int, int, int]], pedals: list[tuple[int, int]], program: int = 0) -> list[int]:
    """Release ticks of notes (start, end, pitch) under pedals (down, up)."""
    score = score_of([(program, [(start, end - start, pitch, 80) for start, end, pitch in notes])])
    score.tracks[0].pedals.extend([symusic.Pedal(down, up - down) for down, up in pedals])
    found = tokens.notes_of(score)
    return (found.start_ticks + found.duration_ticks).tolist()


def test_a_pedal_holds_notes_until_it_goes_up() -> None:
    assert held([(0, 100, 60), (50, 1000, 62)], [(0, 500)]) == [500, 1000]
    assert held([(0, 100, 60)], [(90, 500)]) == [500]  # caught while the key was down
    assert held([(0, 100, 60)], [(101, 500)]) == [100]  # too late
    assert held([(0, 100, 60)], [(0, 100)]) == [100]
    assert held([(0, 100, 60), (600, 700, 60)], [(0, 50), (80, 300), (650, 900)]) == [300, 900]


def test_a_held_note_ends_where_its_key_is_struck_again() -> None:
    assert held([(0, 100, 60), (300, 400, 60), (200, 250, 61)], [(0, 500)]) == [300, 500, 500]
    assert held([(0, 400, 60), (300, 450, 60)], [(0, 500)]) == [400, 500]  # no note gets shorter


def test_a_pedal_does_nothing_for_drums() -> None:
    assert held([(0, 100, 36)], [(0, 500)], DRUMS) == [100]


# ---- round trips ----------------------------------------------------------------------------------------------------

METERS = [(4, 4), (3, 4), (2, 4), (6, 8), (7, 8), (5, 4), (12, 8), (2, 2), (9, 16), (8, 4), (12, 4)]
PROGRAMS = st.lists(st.sampled_from([0, 0, 25, 127, DRUMS]), min_size=1, max_size=7)


@st.composite
def meter_maps(draw: st.DrawFn, tpq: int) -> list[tuple[int, int, int]]:
    """One or two meters, the second on a border of the first's bars."""
    first, second = draw(st.sampled_from(METERS)), draw(st.sampled_from(METERS))
    bar_ticks = 4 * tpq * first[0] // first[1]
    return [(0, *first), (draw(st.integers(1, 5)) * bar_ticks, *second)][: draw(st.integers(1, 2))]


@st.composite
def grid_scores(draw: st.DrawFn) -> symusic.core.ScoreTick:
    """Notes whose every figure a row can hold: starts on 1/96 beat, no two of one voice and pitch at one position."""
    tpq = draw(st.sampled_from([96, 192, 480]))
    unit, step = tpq // 96, tpq // 24
    voices = []
    note = st.tuples(
        st.integers(0, 24 * 96), st.sampled_from(DURATIONS.tolist()), st.integers(0, 127), st.integers(0, 31)
    )
    for program in draw(PROGRAMS):
        notes = draw(st.lists(note, max_size=12, unique_by=lambda n: ((n[0] + 4) // 8, n[2])))
        voices.append((program, [(s * unit, d * step, pitch, v * 4 + 2) for s, d, pitch, v in notes]))
    return score_of(voices, tpq, draw(meter_maps(tpq)))


@given(score=grid_scores())
def test_notes_on_the_grid_come_back_exactly(score: symusic.core.ScoreTick) -> None:
    rows, voices, grid = rows_of(score)
    assert (np.diff(tokens.row_key(rows)) > 0).all()
    assert (rows >= 0).all() and (rows[:, BAR] < len(grid)).all()
    assert (rows[:, 1:] < np.array(tokens.FIELD_SIZES[1:])).all()
    back = tokens.decode(rows, voices, grid)
    assert as_set(back) == as_set(tokens.notes_of(score)) and len(back) == score.note_num()
    again = tokens.encode(back, voices, grid)
    assert (again == rows).all() and again.shape == rows.shape


@st.composite
def loose_scores(draw: st.DrawFn) -> symusic.core.ScoreTick:
    """Notes of any time, length, pitch and velocity."""
    tpq = draw(st.sampled_from([96, 192, 480, 960]))
    note = st.tuples(
        st.integers(0, 20 * tpq), st.integers(1, 20 * tpq), st.sampled_from([40, 60, 61, 127]), st.integers(1, 127)
    )
    voices = [(program, draw(st.lists(note, max_size=15))) for program in draw(PROGRAMS)]
    return score_of(voices, tpq, draw(meter_maps(tpq)))


@given(score=loose_scores())
@settings(max_examples=60)
def test_any_notes_are_rounded_once_and_then_stay(score: symusic.core.ScoreTick) -> None:
    rows, voices, grid = rows_of(score)
    assert (np.diff(tokens.row_key(rows)) > 0).all()
    back = tokens.decode(rows, voices, grid)
    again = tokens.encode(back, voices, grid)
    assert again.shape == rows.shape and (again == rows).all()
    starts = tokens.notes_of(score).start_ticks
    if len(starts):
        nearest = np.abs(back.start_ticks[:, None] - starts[None, :]).min(1)
        assert nearest.max() <= score.tpq / 192 + 1


@given(seed=st.integers(0, 2**32 - 1), tpq=st.sampled_from([96, 192, 480]))
@settings(max_examples=40)
def test_any_sorted_rows_of_a_chunk_survive_notes(seed: int, tpq: int) -> None:
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, int(rng.integers(0, 300)), bars=8)
    voices = np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0)
    grid = grid_of([(0, 4, 4)], tpq, 9 * 4 * tpq)
    again = tokens.encode(tokens.decode(rows, voices, grid), voices, grid)
    assert again.shape == rows.shape and (again == rows).all()


@pytest.mark.parametrize("tpq", [24, 120, 384, 1024, 10_080])
def test_other_divisions_lose_no_note(tpq: int) -> None:
    score = score_of([(0, [(i * tpq // 4, tpq // 4, 60 + i % 5, 82) for i in range(64)])], tpq)
    rows, voices, grid = rows_of(score)
    back = tokens.decode(rows, voices, grid)
    assert len(back) == 64
    assert np.abs(back.start_ticks - np.arange(64) * tpq / 4).max() <= tpq / 96 + 1
