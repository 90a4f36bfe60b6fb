"""Ranking: a term is zero for more of the same and grows with its difference; faults are what the song never does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from songs import EXAMPLES, rows_of, talkative_model

from midiex import ranking, score, tokens
from midiex.config import MemoryConfig
from midiex.constraints import Grammar
from midiex.planner import Bars, Plan, Planner
from midiex.ranking import ASKED, WEIGHTS, Asked, Before, Fit, Style
from midiex.roles import of_voices, voices_in
from midiex.tokens import BAR, DRUM_PROGRAM, DURATION, PITCH, POSITION, PROGRAM, VELOCITY

BARS, SECONDS = 4, 8.0
USUAL = set(WEIGHTS) - {"ending", *ASKED}  # the terms of every chunk but the last, where nothing is planned
PITCHES = (60, 64, 67, 65, 62, 71, 69, 72)


def phrase(*, pitches: tuple[int, ...] = PITCHES, velocity: int = 16) -> np.ndarray:
    """Four bars of eighths over a bass note a bar and a drum a beat; no bar like another."""
    rows = [
        (bar, 6 * i, 0, pitches[(i * (bar + 1) + bar) % len(pitches)] + bar % 2, 11, velocity)
        for bar in range(BARS)
        for i in range(8)
    ]
    rows += [(bar, 0, 32, 36 + 2 * bar, 30, velocity) for bar in range(BARS)]
    drums = (36, 42, 38, 46)
    rows += [(bar, 12 * i, DRUM_PROGRAM, drums[(i + bar) % 4], 3, velocity) for bar in range(BARS) for i in range(4)]
    return rows_of(*rows)


ROWS = phrase()
OTHER = rows_of(*[(bar, 6 * i + 3, 0, 50 + 3 * bar + i, 11, 16) for bar in range(BARS) for i in range(8)])


def style_of(*chunks: np.ndarray) -> Style:
    return Style.of([(rows, BARS, SECONDS) for rows in chunks], 48)


def before(rows: np.ndarray = ROWS) -> Before:
    return Before(rows, BARS, 48)


def fit(style: Style, last: Before | None = None, seconds: float = SECONDS, lands: bool = False) -> Fit:
    return Fit(style, before() if last is None else last, BARS, seconds, lands)


def terms(rows: np.ndarray, style: Style, last: Before | None = None, seconds: float = SECONDS) -> dict[str, float]:
    return fit(style, last, seconds).terms(rows)


def faults(rows: np.ndarray, style: Style, last: Before | None = None, lands: bool = False) -> list[str]:
    return fit(style, last, lands=lands).faults(rows)


# ---- terms -----------------------------------------------------------------------------------------------------------


def test_more_of_the_same_costs_nothing() -> None:
    found = terms(ROWS, style_of(ROWS, ROWS))
    step = found.pop("step")
    assert found == pytest.approx(dict.fromkeys(USUAL - {"step"}, 0.0), abs=1e-9)
    assert ranking.score(found) == pytest.approx(0, abs=1e-9)
    assert step < 1  # its first bar is not its last, but no further from it than its bars are from each other


def test_a_step_at_the_border_is_measured_in_the_songs_own() -> None:
    level = rows_of(*((bar, 12 * beat, 0, 60 + beat, 7, 20) for bar in range(4) for beat in range(4)))
    lively = rows_of(*((bar, 12 * beat, 0, 60 + beat, 7, 15 + 5 * (bar % 2)) for bar in range(4) for beat in range(4)))
    louder = level.copy()
    louder[:, VELOCITY] += 5
    assert terms(level, style_of(level, level), before(level))["step"] == 0
    assert terms(louder, style_of(level, level), before(level))["step"] == pytest.approx(
        4
    )  # five times what is audible
    assert terms(louder, style_of(lively, lively), before(level))["step"] < 0.2  # such steps are usual here
    higher = level.copy()
    higher[:, PITCH] += 12
    busier = tokens.sort_rows(np.concatenate([level, level + (np.arange(8) == POSITION) * 6]))
    for other in (higher, busier):
        assert terms(other, style_of(level, level), before(level))["step"] >= 3


def thinned(step: float) -> np.ndarray:
    return ROWS[np.random.default_rng(0).random(len(ROWS)) < 1 - step / 5]


def transposed(step: float) -> np.ndarray:  # more and more of the notes stand a semitone higher
    rows = ROWS.copy()
    rows[: int(8 * step), PITCH] += 1
    return tokens.sort_rows(rows)


def louder(step: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[:, VELOCITY] += int(3 * step)
    return rows


def tuned_up_octaves(step: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[rows[:, PITCH] < 128, PITCH] += int(12 * step)
    return rows


def played_by_another(step: float) -> np.ndarray:  # more and more of the piano's notes go to the bass
    rows = ROWS.copy()
    piano = np.flatnonzero(rows[:, PROGRAM] == 0)
    rows[piano[: int(5 * step)], PROGRAM] = 32
    return tokens.sort_rows(rows)


def off_beat(step: float) -> np.ndarray:
    rows = ROWS.copy()
    rows[: int(9 * step), POSITION] += 1
    return tokens.sort_rows(rows)


def late(step: float) -> np.ndarray:
    """Nothing begins before so many beats."""
    return ROWS[ROWS[:, BAR] * 48 + ROWS[:, POSITION] >= 12 * step]


@pytest.mark.parametrize(
    ("name", "make", "only"),
    [
        ("density", thinned, False),
        ("voices", played_by_another, False),
        ("harmony", transposed, False),
        ("register", tuned_up_octaves, False),
        ("loudness", louder, True),
        ("rhythm", off_beat, False),
        ("seam", late, False),
    ],
)
def test_each_term_grows_with_its_difference(name: str, make: Callable[[float], np.ndarray], only: bool) -> None:
    found = [terms(make(step), style_of(ROWS, ROWS)) for step in (0, 1, 2, 3)]
    values = [f[name] for f in found]
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert all(a < b for a, b in zip(values, values[1:], strict=False)), values
    if only:
        assert all(found[-1][other] == pytest.approx(0, abs=1e-9) for other in USUAL - {name, "step"})
    assert [ranking.score(f) for f in found] == sorted(ranking.score(f) for f in found)


def test_octaves_and_drums_do_not_touch_harmony() -> None:
    style = style_of(ROWS, ROWS)
    assert terms(tuned_up_octaves(1), style)["harmony"] == pytest.approx(0, abs=1e-9)
    assert terms(tuned_up_octaves(1), style)["register"] == pytest.approx(1)
    drums = ROWS.copy()
    drums[drums[:, PITCH] >= 128, PITCH] += 1
    found = terms(drums, style)
    assert found["harmony"] == pytest.approx(0, abs=1e-9) and found["register"] == 0


def test_density_counts_octaves_either_way() -> None:
    style = style_of(ROWS)
    assert terms(ROWS, style, seconds=2 * SECONDS)["density"] == pytest.approx(1)
    assert terms(ROWS, style, seconds=SECONDS / 4)["density"] == pytest.approx(2)


def test_repetition_is_measured_against_the_songs_own() -> None:
    repeating, changing = style_of(ROWS, ROWS, ROWS), style_of(ROWS, OTHER, ROWS)
    assert repeating.neighbour_likeness == 1 and changing.neighbour_likeness == 0
    half = np.concatenate([ROWS[ROWS[:, BAR] < 2], OTHER[OTHER[:, BAR] >= 2]])
    values = [terms(rows, repeating)["repetition"] for rows in (ROWS, half, OTHER)]
    assert values == sorted(values) and values[0] == 0 and values[2] == 1
    values = [terms(rows, changing)["repetition"] for rows in (OTHER, half, ROWS)]
    assert values == sorted(values) and values[0] == 0 and values[2] == 1


def test_style_is_measured_over_what_is_played() -> None:
    empty = ROWS[:0]
    style = Style.of([(empty, BARS, SECONDS), (ROWS, BARS, SECONDS), (ROWS[::2], BARS, SECONDS)], 48)
    assert style.thinnest == pytest.approx(len(ROWS[::2]) / SECONDS)
    assert style.thinnest < style.density < len(ROWS) / SECONDS
    assert style.rhythm.sum() == pytest.approx(1) and style.rhythm.shape == (96,)
    assert style.loudness == 16
    assert style_of(ROWS).neighbour_likeness == 0.3  # one chunk has no neighbour


def test_drums_alone_have_a_style() -> None:
    drums = ROWS[ROWS[:, PITCH] >= 128]
    found = terms(drums, style_of(drums, drums), before(drums))
    assert found == pytest.approx(dict.fromkeys(USUAL, 0.0), abs=1e-9)


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_a_good_chunk_has_no_fault() -> None:
    assert faults(OTHER, style_of(ROWS, OTHER)) == []


@pytest.mark.parametrize(
    "rows",
    [
        ROWS[:0],
        ROWS[ROWS[:, PROGRAM] == 32],  # too thin
        ROWS[ROWS[:, BAR] != 1],  # a bar left empty
        ROWS[ROWS[:, BAR] != 0],  # the first
        ROWS[ROWS[:, BAR] != BARS - 1],  # the last
        ROWS[(ROWS[:, BAR] > 0) | (ROWS[:, POSITION] >= 40)],  # a hole at the seam
    ],
)
def test_silence_is_a_fault(rows: np.ndarray) -> None:
    found = faults(rows, style_of(OTHER, ROWS), before(OTHER))
    assert {"silent", "hole"} & set(found)
    assert "silent" not in faults(ROWS, style_of(OTHER, ROWS), before(OTHER))


def test_silence_that_nobody_can_avoid_is_none() -> None:
    """Where the chunk before falls silent early, a chunk that begins at once is not to blame."""
    early = ROWS[ROWS[:, BAR] == 0]
    style = style_of(ROWS, OTHER)
    assert faults(OTHER, style, before(early)) == ["hole"]  # begins an eighth of a beat late
    downbeat = np.concatenate([rows_of((0, 0, 0, 50)), OTHER])
    assert faults(downbeat, style, before(early)) == []


def test_rests_of_the_song_are_no_fault() -> None:
    rests = [ROWS[ROWS[:, BAR] != bar] for bar in range(BARS)]
    for rest in rests:
        style = style_of(OTHER, rest, ROWS)
        assert "silent" not in faults(rest, style, before(OTHER))
        assert "silent" in faults(rest[rest[:, BAR] == rest[0, BAR]], style, before(OTHER))


def test_one_note_over_and_over_is_stuck() -> None:
    style = style_of(ROWS, OTHER)
    hammered = rows_of(*[(bar, 6 * i, 0, 60) for bar in range(BARS) for i in range(8)])
    assert "stuck" in faults(hammered, style)
    assert ranking.is_stuck(hammered, style) and not ranking.is_stuck(ROWS, style)
    two = rows_of(*[(bar, 6 * i, 0, 60 + i % 2) for bar in range(BARS) for i in range(8)])
    assert not ranking.is_stuck(two, style)
    drummed = hammered.copy()
    drummed[:, 3], drummed[:, PITCH] = DRUM_PROGRAM, 164
    assert not ranking.is_stuck(drummed, style)  # a drum may


def test_a_songs_own_repeated_notes_are_not_stuck() -> None:
    hammered = rows_of(*[(bar, 6 * i, 0, 60) for bar in range(BARS) for i in range(8)])
    style = style_of(hammered, OTHER)
    assert not ranking.is_stuck(hammered, style)
    longer = rows_of(*[(bar, 3 * i, 0, 60) for bar in range(BARS) for i in range(16)])
    assert ranking.is_stuck(longer, style)


def test_the_chunk_before_again_is_looping() -> None:
    style = style_of(ROWS, OTHER)
    assert faults(ROWS, style, before(ROWS)) == ["looping"]
    played = louder(1)
    played[:, DURATION] += 1
    assert faults(played, style, before(ROWS)) == ["looping"]  # the same notes however they are played
    assert faults(ROWS, style, before(OTHER)) == []
    assert faults(ROWS, style_of(ROWS, ROWS, ROWS), before(ROWS)) == []  # as the song does


def test_one_bar_over_and_over_is_looping() -> None:
    bar = ROWS[ROWS[:, BAR] == 1]
    same = np.concatenate([bar + np.eye(8, dtype=np.int32)[BAR] * (i - 1) for i in range(BARS)])
    assert faults(same, style_of(ROWS, OTHER), before(OTHER)) == ["looping"]
    assert faults(same, style_of(ROWS, same, OTHER), before(OTHER)) == []  # as the song does
    pair = np.concatenate([ROWS[ROWS[:, BAR] < 2], ROWS[ROWS[:, BAR] < 2] + np.eye(8, dtype=np.int32)[BAR] * 2])
    assert faults(pair, style_of(ROWS, OTHER), before(OTHER)) == []  # two bars in turn are music


def test_a_chunk_that_the_song_once_repeats_may_be_repeated() -> None:
    style = style_of(ROWS, ROWS, OTHER, phrase(pitches=(50, 53, 57, 60)), OTHER)
    assert faults(ROWS, style, before(ROWS)) == []


@pytest.mark.parametrize("name", ["piano_nocturne", "band_groove", "small_orchestra", "chiptune_loop"])
def test_the_examples_own_chunks_have_no_fault(name: str) -> None:
    song = score.read(EXAMPLES / f"{name}.mid")
    rows = tokens.encode(tokens.notes_of(song.score), tokens.voice_ids(song.score), song.grid)
    bars = Bars(song.grid.bar_beats, song.grid.bar_s)
    count = int(rows[-1, BAR]) + 1
    plan = Plan(bars, count, 0, rows, rows[:0], rows[:0], Grammar.of(rows, count), "ending")
    chunks = Planner(talkative_model(), MemoryConfig(), plan).chunks
    lengths_s = [float(bars.seconds[c.first_bar : c.first_bar + c.bars].sum()) for c in chunks]
    positions = int(bars.positions[0])
    style = Style.of([(c.rows, c.bars, s) for c, s in zip(chunks, lengths_s, strict=True)], positions)
    for earlier, chunk, length_s in zip(chunks, chunks[1:], lengths_s[1:], strict=False):
        last = Before(earlier.rows, earlier.bars, positions)
        judge = Fit(style, last, chunk.bars, length_s)
        assert judge.faults(chunk.rows) == []
        other = chunk.rows.copy()
        other[other[:, PITCH] < 128, PITCH] += 6
        other[:, POSITION] += 1
        good, poor = (ranking.score(judge.terms(rows)) for rows in (chunk.rows, other))
        assert good < poor
        assert Fit(style, last, chunk.bars, 20 * length_s).faults(chunk.rows) == ["silent"]


def test_scores_are_sums_by_weight() -> None:
    found = dict.fromkeys(WEIGHTS, 0.0)
    assert ranking.score(found) == 0
    for name, weight in WEIGHTS.items():
        assert weight > 0
        assert ranking.score(found | {name: 2.0}) == pytest.approx(2 * weight)


# ---- the last chunk, and the first -----------------------------------------------------------------------------------


def ending_on(position: int, *pitches: int) -> np.ndarray:
    """The phrase's first bars, and in the last one only these tuned notes."""
    last = rows_of(*[(BARS - 1, position, 0, pitch, 30) for pitch in pitches], (BARS - 1, position, DRUM_PROGRAM, 36))
    return tokens.sort_rows(np.concatenate([ROWS[ROWS[:, BAR] < BARS - 1], last]))


def test_a_last_chunk_lands_on_the_key_note_early_in_its_last_bar() -> None:
    scale = rows_of(*[(bar, 0, 0, pitch) for bar, pitch in enumerate((60, 64, 67, 65, 71, 72, 60))])
    in_c = style_of(scale)  # one note on every downbeat
    cost = {
        name: fit(in_c, lands=True).terms(rows)["ending"]
        for name, rows in {
            "home": ending_on(0, 48, 64, 67),
            "in the middle": ending_on(24, 48),
            "late": ending_on(36, 48),
            "last": ending_on(47, 48),
            "on the fifth": ending_on(0, 43, 60),
            "drums": ending_on(0),
        }.items()
    }
    assert cost["home"] == cost["in the middle"] == 0
    assert 0 < cost["late"] < cost["last"] < cost["on the fifth"] == cost["drums"] == 1
    in_chords = style_of(rows_of(*[(bar, 0, 0, pitch) for bar in range(4) for pitch in (48, 52, 55, 60)]))
    thin, full = (fit(in_chords, lands=True).terms(ending_on(0, *p))["ending"] for p in ((48,), (48, 52, 55, 60)))
    assert (thin, full) == (pytest.approx(0.75), 0)
    assert "ending" not in fit(in_c).terms(ROWS)
    found = fit(in_c, lands=True).terms(ROWS)
    assert set(found) == USUAL | {"ending"}
    plain = ranking.score(fit(in_c).terms(ROWS))
    assert ranking.score(found) == pytest.approx(plain + WEIGHTS["ending"] * found["ending"])


def test_a_last_chunk_may_ring_out_and_no_other() -> None:
    rings = ending_on(0, 48)
    style = replace(style_of(ROWS, OTHER), reach=40)
    assert faults(rings, style, before(OTHER)) == ["hole"]
    assert faults(rings, style, before(OTHER), lands=True) == []
    empty = ROWS[ROWS[:, BAR] < BARS - 1]
    assert "silent" in faults(empty, style, before(OTHER), lands=True)


def test_a_rest_inside_that_the_song_never_takes_is_a_hole() -> None:
    style = style_of(ROWS, OTHER)
    at = ROWS[:, BAR] * 48 + ROWS[:, POSITION]
    assert faults(ROWS[(at <= 60) | (at >= 120)], style, before(OTHER)) == ["hole"]
    assert faults(ROWS[(at <= 60) | (at >= 84)], style, before(OTHER)) == []  # half a bar nobody minds


def test_without_a_chunk_before_nothing_is_repeated() -> None:
    style, nothing = style_of(ROWS, OTHER), Before(ROWS[:0], 0, 48)
    assert terms(ROWS, style, nothing)["repetition"] == 0
    assert faults(ROWS, style, nothing) == []
    late_by_a_bar = ROWS[ROWS[:, BAR] > 0]
    assert terms(late_by_a_bar, style, nothing)["seam"] > 0


# ---- what a plan asks ------------------------------------------------------------------------------------------------


NOTHING_ASKED = Asked(0.0, 0.0, 0.0, frozenset(voices_in(ROWS)), ROWS[:0])


def asked_fit(*chunks: np.ndarray, **asked: Any) -> Fit:
    """Fit of a chunk after ROWS in a song of `chunks`, for which this is asked."""
    wanted, song = replace(NOTHING_ASKED, **asked), [(rows, BARS, SECONDS) for rows in chunks or (ROWS, ROWS)]
    style = wanted.style(song, 48, BARS, SECONDS, Style.of(song, 48))
    return replace(fit(style), asked=wanted)


def test_voices_that_are_asked_and_do_not_play_cost() -> None:
    there = voices_in(ROWS)
    one = min(there)
    judge = asked_fit()
    assert judge.terms(ROWS)["missing"] == 0
    assert judge.terms(of_voices(ROWS, there - {one}))["missing"] == pytest.approx(1 / len(there))
    assert set(judge.terms(ROWS)) == USUAL | set(ASKED)


def test_candidates_are_judged_by_what_is_asked() -> None:
    for asked, term in (
        ({"density": 2.0}, "density"),
        ({"loudness": 5.0}, "loudness"),
        ({"register": 40.0}, "register"),
    ):
        usual, wanted = asked_fit(), asked_fit(**asked)
        assert usual.terms(ROWS)[term] < wanted.terms(ROWS)[term]
    quiet = ROWS.copy()
    quiet[:, VELOCITY] = 5
    assert asked_fit(loudness=5.0).terms(quiet)["loudness"] == 0


def test_likeness_to_the_source_is_judged_against_what_is_asked() -> None:
    for like, best in ((1.0, ROWS), (0.0, OTHER)):
        judge = asked_fit(source=ROWS, likeness=like)
        costs = [judge.terms(rows)["source"] for rows in (ROWS, OTHER)]
        assert min(costs) == judge.terms(best)["source"] < max(costs)
    assert asked_fit().terms(OTHER)["source"] == 0


def test_going_back_to_the_chunk_before_is_no_loop() -> None:
    assert "looping" in faults(ROWS, style_of(OTHER, ROWS))
    assert "looping" in asked_fit(OTHER, ROWS).faults(ROWS)
    assert "looping" not in asked_fit(OTHER, ROWS, source=ROWS, likeness=1.0).faults(ROWS)


def test_where_a_section_begins_a_change_costs_nothing() -> None:
    louder = ROWS.copy()
    louder[:, VELOCITY] = 31
    goes_on, begins = asked_fit(), asked_fit(begins=True)
    assert goes_on.terms(louder)["step"] > begins.terms(louder)["step"] == 0
