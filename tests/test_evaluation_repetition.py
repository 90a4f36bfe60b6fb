"""Repetition, staying power, seams and mood of hand-made music whose figures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of

from midiex.evaluation import mood, repetition, seam, staying
from midiex.evaluation.excerpts import Excerpt
from midiex.tokens import BAR, DRUM_PROGRAM, PITCH, PROGRAM, VELOCITY, sort_rows

QUARTER, WHOLE = 20, 36  # duration indices
TUNE = (60, 64, 67, 72, 62, 65, 69, 74, 64, 67, 71, 76, 57, 60, 64, 69)  # four bars of quarters


def excerpt(rows: np.ndarray, bars: int, bar_s: float = 2.0) -> Excerpt:
    return Excerpt(rows, np.full(bars, 4.0), np.full(bars, bar_s))


def quarters(pitches: list[int] | tuple[int, ...], program: int = 0, duration: int = QUARTER) -> Excerpt:
    """Bars of four quarters; a pitch of 0 is a rest."""
    notes = [(i // 4, 12 * (i % 4), program, p, duration) for i, p in enumerate(pitches) if p]
    return excerpt(rows_of(*notes), len(pitches) // 4)


def loop(times: int) -> Excerpt:
    return quarters(TUNE * times)


def wild(bars: int, notes_per_bar: int = 6, seed: int = 0) -> Excerpt:
    """Nothing but chance."""
    return excerpt(random_rows(np.random.default_rng(seed), notes_per_bar * bars, bars), bars)


# ---- repetition -----------------------------------------------------------------------------------------------------


def test_similarity_of_a_loop_is_one_at_its_period_and_its_multiples() -> None:
    found = repetition.similarity_by_lag(loop(10))
    assert list(found) == [1, 2, 4, 8, 16, 32]
    assert [found[lag] for lag in (4, 8, 16, 32)] == [1, 1, 1, 1]
    assert found[1] == found[2] == 0
    assert math.isnan(repetition.similarity_by_lag(loop(2))[8])


def test_similarity_error_is_of_means_and_the_paired_one_of_songs() -> None:
    ours, real = [{1: 0.2, 4: 0.9}, {1: 0.8, 4: 0.9}], [{1: 0.8, 4: 0.5}, {1: 0.2, 4: math.nan}]
    assert repetition.similarity_error(ours, real) == pytest.approx({1: 0.0, 4: 0.4})
    assert repetition.paired_similarity_error(ours, real) == pytest.approx({1: 0.6, 4: 0.4})
    assert math.isnan(repetition.similarity_error([{8: math.nan}], [{8: 0.5}])[8])
    assert repetition.similarity_error([], real) == {}


def test_longest_repeat_ends_before_it_comes_back() -> None:
    assert repetition.longest_repeat_bars(loop(8)) == 16
    assert repetition.longest_repeat_bars(loop(3)) == 4  # eight bars later only half as many are left
    assert repetition.longest_repeat_bars(loop(1)) == 0
    assert repetition.longest_repeat_bars(quarters([60, 0, 0, 0] + [0] * 24)) == 0  # rests are no music that comes back
    assert repetition.longest_repeat_bars(quarters(TUNE + (50, 51, 53, 58) + TUNE[:12])) == 3
    assert repetition.longest_repeat_bars(quarters(TUNE + tuple(p + 1 for p in TUNE))) == 0


def test_a_loop_compresses_to_its_pattern_and_the_shifts() -> None:
    # COSIATEC on eight times four bars can do no worse than the four bars once and seven shifts
    assert repetition.compression_ratio(loop(8)) >= 128 / (16 + 7)
    assert repetition.compression_ratio(loop(8)) > repetition.compression_ratio(loop(2)) > 1


def test_compression_sees_transposed_copies_and_not_chance() -> None:
    sequence = [p + 12 * k for k in range(2) for p in TUNE]
    shuffled = np.random.default_rng(0).permutation(np.arange(36, 68)).tolist()
    assert repetition.compression_ratio(quarters(sequence)) >= 32 / 17
    assert repetition.compression_ratio(quarters(sequence)) > 1.2 * repetition.compression_ratio(quarters(shuffled))


def test_compression_of_what_never_recurs_is_one() -> None:
    assert repetition.compression_ratio(quarters([60, 0, 0, 0])) == 1
    assert math.isnan(repetition.compression_ratio(quarters([0] * 4)))
    assert math.isnan(repetition.compression_ratio(excerpt(rows_of(), 0)))
    drums = rows_of((0, 0, DRUM_PROGRAM, 36), (0, 12, DRUM_PROGRAM, 38), (0, 24, DRUM_PROGRAM, 42))
    tuned = rows_of((1, 0, 0, 100), (1, 12, 0, 102), (1, 24, 0, 106))  # the drums' shape, but drums are no notes
    assert repetition.compression_ratio(excerpt(sort_rows(np.concatenate([drums, tuned])), 2)) == 1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6))
def test_compression_is_never_below_one_nor_moved_by_the_key(seed: int, bars: int, up: int) -> None:
    rows = random_rows(np.random.default_rng(seed), 8 * bars, bars)
    rows[:, PITCH] = np.where(rows[:, PROGRAM] == DRUM_PROGRAM, rows[:, PITCH], rows[:, PITCH] % 100)
    rows = sort_rows(rows)
    higher = rows.copy()
    higher[higher[:, PROGRAM] != DRUM_PROGRAM, PITCH] += up
    ratio = repetition.compression_ratio(excerpt(rows, bars))
    assert ratio >= 1
    assert repetition.compression_ratio(excerpt(higher, bars)) == ratio


def test_dense_music_is_encoded_stretch_by_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = [repetition.compression_ratio(loop(8).part(a, a + 16)) for a in (0, 16)]
    monkeypatch.setattr(repetition, "MOST_POINTS", 64)
    assert repetition.compression_ratio(loop(8)) == pytest.approx(halves[0]) == pytest.approx(halves[1])


# ---- staying power --------------------------------------------------------------------------------------------------


def test_minutes_lie_on_bar_lines_and_a_short_rest_is_left_out() -> None:
    def lengths(bars: int) -> list[int]:
        return [part.bars for part in staying.by_minute(wild(bars))]

    assert lengths(90) == [30, 30, 30]
    assert lengths(100) == [30, 30, 30]
    assert lengths(110) == [30, 30, 30, 20]
    assert lengths(5) == [5]
    third = staying.by_minute(wild(90))[2]
    assert third.rows[:, BAR].min() == 0 and third.seconds == 60
    assert sum(len(part.rows) for part in staying.by_minute(wild(90))) == len(wild(90).rows)


def test_silence_is_found_wherever_it_is() -> None:
    assert staying.longest_silence_s(quarters([60] * 8)) == 0
    inside = quarters([60] * 5 + [0] * 6 + [60])
    assert staying.longest_silence_s(inside) == pytest.approx(3.0)
    assert staying.longest_silence_s(quarters([0] * 7 + [60])) == pytest.approx(3.5)
    assert staying.longest_silence_s(quarters([60] + [0] * 7)) == pytest.approx(3.5)
    assert staying.longest_silence_s(quarters([0] * 8)) == 4
    rung_over = quarters([60] + [0] * 3 + [62] * 4, duration=WHOLE)
    assert staying.longest_silence_s(rung_over) == 0


def test_seconds_follow_the_bars_tempo_and_go_on_after_the_end() -> None:
    music = Excerpt(rows_of((0, 0, 0, 60)), np.array([4.0, 4.0]), np.array([2.0, 4.0]))
    assert staying.to_seconds(music, np.array([0, 48, 96, 144, 192, 240])).tolist() == [0, 1, 2, 4, 6, 8]


def test_music_that_goes_on_as_the_song_does_has_no_faults() -> None:
    found = staying.faults(loop(2), loop(2))
    assert found["held_notes"] == found["stuck"] == found["looped_bars"] == 0
    assert found["repeats"] == found["own_repeats"] == 2


def test_stuck_notes_are_long_ones_and_endless_strikes() -> None:
    song = loop(2)
    held = quarters(TUNE[:12] + (60, 0, 0, 0), duration=WHOLE)
    found = staying.faults(held, song)
    assert found["held_notes"] == 13 and found["stuck"] == 1
    struck = staying.faults(quarters([60] * 25 + [62] * 3), song)
    assert struck["strikes"] == 25 and struck["own_strikes"] == 1 and struck["stuck"] == 1
    assert staying.faults(quarters([60] * 24 + [62] * 4), song)["stuck"] == 0
    assert staying.faults(quarters([60] * 35 + [62] * 1), quarters([60] * 20 + [62] * 4))["stuck"] == 0
    drummed = quarters([36] * 32, program=DRUM_PROGRAM)
    assert staying.longest_strikes(drummed, drummed) == 0
    two_voices = np.concatenate([quarters([60] * 4).rows, quarters([60] * 4, program=40).rows])
    both = excerpt(sort_rows(two_voices), 1)
    assert staying.longest_strikes(both, both) == 4
    bell = quarters([60] * 16)  # it has no other pitch
    assert staying.longest_strikes(quarters([60] * 400), bell) == 0 and staying.faults(bell, bell)["stuck"] == 0


def test_loops_are_bars_repeated_more_often_than_the_song_does() -> None:
    assert staying.repeats(loop(3), 4).tolist() == [3] * 12
    assert staying.repeats(loop(3), 8).tolist() == [1] * 12
    assert staying.repeats(quarters(TUNE + TUNE[12:] * 3), 1).tolist() == [1, 1, 1, 4, 4, 4, 4]
    found = staying.faults(loop(3), loop(2))
    assert found["repeats"] == 3 and found["looped_bars"] == 12
    assert staying.faults(loop(2), loop(1))["looped_bars"] == 0  # twice is a repetition, not a loop
    assert staying.faults(quarters([0] * 40), loop(1))["looped_bars"] == 0
    assert staying.faults(quarters([0] * 40), loop(1))["silence_s"] == 20


# ---- seams ----------------------------------------------------------------------------------------------------------


def test_a_seam_like_any_other_bar_line_shows_nothing() -> None:
    found = seam.seam(loop(2), loop(1))
    assert found["gap_s"] == pytest.approx(found["own_gap_s"])
    assert max(found[name] for name in ("density_jump", "level_jump")) == 0
    assert found["register_jump"] < 2
    assert math.isnan(found["rough"]) and math.isnan(found["own_rough"])


def test_a_hole_at_the_seam_is_silence() -> None:
    late = quarters([0] * 6 + [60, 62])
    found = seam.seam(quarters(TUNE), late)
    assert found["gap_s"] == pytest.approx(3.0) and found["own_gap_s"] == 0
    assert seam.seam(quarters(TUNE), quarters([0] * 8))["gap_s"] == pytest.approx(4.0)
    ringing = seam.seam(quarters(TUNE[:12] + (0, 0, 0, 60), duration=WHOLE), quarters([0, 62, 62, 62]))
    assert ringing["gap_s"] == 0


def test_jumps_are_in_units_of_the_prompts_own_changes() -> None:
    prompt = quarters([60, 60, 60, 60, 62, 62, 62, 62] * 4)  # up and down two semitones: spread 2
    found = seam.seam(prompt, quarters([74] * 4))
    assert found["register_jump"] == pytest.approx(12 / np.std([2, -2, 2, -2, 2, -2, 2]))
    assert found["density_jump"] == 0
    denser = rows_of(*((0, 6 * i, 0, 62) for i in range(8)))
    assert seam.seam(prompt, excerpt(denser, 1))["density_jump"] == pytest.approx(2 / 0.5)
    louder = quarters([62] * 4)
    louder.rows[:, VELOCITY] += 5
    assert seam.seam(prompt, louder)["level_jump"] == pytest.approx(5 * 4 / 2)
    drums = seam.seam(prompt, quarters([36] * 4, program=DRUM_PROGRAM))
    assert math.isnan(drums["register_jump"]) and drums["level_jump"] == 0


def test_roughness_is_the_share_of_rough_intervals_with_ringing_notes() -> None:
    held = quarters(TUNE[:12] + (0, 0, 0, 60), duration=WHOLE)

    def rough(*pitches: int, program: int = 0) -> float:
        after = rows_of(*((0, 0, program, p) for p in pitches), (0, 24, 0, 61))  # the second beat does not count
        return seam.seam(held, excerpt(after, 1))["rough"]

    assert rough(64, 67) == 0
    assert rough(61) == rough(66) == rough(71) == rough(49) == 1
    assert rough(64, 61) == 0.5
    assert math.isnan(rough(61, program=DRUM_PROGRAM))
    own = seam.seam(quarters([60, 0, 0, 60, 61, 0, 0, 0], duration=WHOLE), quarters([64] * 4))["own_rough"]
    assert own == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8))
def test_a_seam_of_any_music_can_be_measured(seed: int, before: int, after: int) -> None:
    prompt, continuation = wild(before, seed=seed), wild(after, seed=seed + 1)
    found = seam.seam(prompt, continuation)
    assert all(math.isnan(value) or value >= 0 for value in found.values())
    both = seam.joined(prompt, continuation)
    assert both.bars == before + after and len(both.rows) == len(prompt.rows) + len(continuation.rows)
    assert np.array_equal(both.part(before, both.bars).rows, continuation.rows)


# ---- mood -----------------------------------------------------------------------------------------------------------


def test_music_that_goes_on_has_no_drift() -> None:
    found = mood.drift(loop(4), loop(8))
    assert len(found) == 6
    assert all(abs(value) < 0.35 for value in found.values())
    assert abs(found["arousal_distance"]) < 0.05 and abs(found["arousal_slope"]) < 0.05


def test_drift_is_seen_in_the_mean_and_in_the_slope() -> None:
    fading = loop(8)
    fading.rows[:, VELOCITY] = 25 - fading.rows[:, BAR] // 2
    found = mood.drift(loop(4), fading)
    # a bar lowers velocity by 2 and arousal by 0.4 * 2 / 20 = 0.04, and a minute has 30 bars
    assert found["arousal_slope"] == pytest.approx(-1.2, abs=0.15)
    assert found["arousal_distance"] > 0.3 and found["arousal_own_distance"] < 0.05
    assert abs(found["valence_slope"]) < 0.5


def test_major_turned_minor_is_darker() -> None:
    major = quarters([60, 64, 67, 72, 65, 69, 72, 60, 67, 71, 74, 62, 60, 64, 67, 72] * 4)
    minor = quarters([60, 63, 67, 72, 65, 68, 72, 60, 67, 71, 74, 62, 60, 63, 67, 72] * 4)
    found = mood.drift(major, minor)
    assert found["valence_distance"] > found["valence_own_distance"] + 0.2
    assert found["arousal_distance"] == pytest.approx(0, abs=0.02)


def test_drums_have_arousal_but_no_valence() -> None:
    found = mood.drift(loop(2), quarters([36, 42, 38, 42] * 8, program=DRUM_PROGRAM))
    assert not math.isnan(found["arousal_distance"])
    assert math.isnan(found["valence_distance"]) and math.isnan(found["valence_slope"])
    assert math.isnan(mood.drift(loop(2), quarters([60, 62, 64, 65]))["arousal_slope"])
