"""The song's progression: found where there is one, in step with it, in any key; and new notes follow it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import lively_model, random_rows, tiny_config
from songs import bars_of_4_4

from midiex.config import GenerateConfig
from midiex.constraints import Grammar
from midiex.decoding import write_chunk
from midiex.planner import Plan, Planner
from midiex.progression import HALVES, Progression
from midiex.tokens import BAR, DRUM_PROGRAM, PITCH, PROGRAM, sort_rows

CHORDS = ((0, 4, 7), (9, 0, 4), (5, 9, 0), (7, 11, 2))  # C, Am, F, G


def played(chords: list[tuple[int, ...]], seed: int = 0, wrong: float = 0.1) -> np.ndarray:
    """A bar of eight quarter-long notes on each chord, at random places and octaves, some of them not of it."""
    rng = np.random.default_rng(seed)
    rows = []
    for bar, chord in enumerate(chords):
        for _ in range(8):
            pitch_class = rng.integers(12) if rng.random() < wrong else rng.choice(chord)
            rows.append((bar, rng.integers(48), 4, 0, 0, 48 + 12 * rng.integers(3) + pitch_class, 12, 20))
    return sort_rows(np.array(rows, np.int32))


def progression_of(rows: np.ndarray, bars: int) -> Progression | None:
    return Progression.of(rows, np.full(bars, 48))


@pytest.mark.parametrize("bars", [16, 19, 64, 90])
def test_four_chords_go_round(bars: int) -> None:
    found = progression_of(played([CHORDS[bar % 4] for bar in range(bars)]), bars)
    assert found is not None and found.period == 4 and found.gain > 0.1
    for bar in range(bars, bars + 8):
        wanted = found.of_bars(bar, 1)[0]  # (HALVES, pitches)
        inside = np.isin(np.arange(128) % 12, CHORDS[bar % 4])
        assert (wanted[:, :128][:, inside].mean(1) > wanted[:, :128][:, ~inside].mean(1) + 0.5).all()
        assert not wanted[:, 128:].any()  # drums have no harmony


def test_what_does_not_go_round_guides_nothing() -> None:
    rng = np.random.default_rng(3)
    wild = played([CHORDS[k] for k in rng.integers(4, size=40)])
    assert progression_of(wild, 40) is None
    assert progression_of(played([CHORDS[0]] * 40), 40) is None  # one chord is no progression
    assert progression_of(wild[:0], 40) is None and progression_of(wild[:4], 1) is None
    drums = played([CHORDS[bar % 4] for bar in range(16)])
    drums[:, PROGRAM] = DRUM_PROGRAM
    drums[:, PITCH] += 128
    assert progression_of(drums, 16) is None


def test_the_shortest_period_is_taken() -> None:
    found = progression_of(played([CHORDS[bar % 2] for bar in range(32)]), 32)
    assert found is not None and found.period == 2


def test_another_key_turns_what_is_asked_for() -> None:
    rows = played([CHORDS[bar % 4] for bar in range(16)])
    higher = rows.copy()
    higher[:, PITCH] += 5
    one, other = progression_of(rows, 16), progression_of(higher, 16)
    assert one is not None and other is not None and one.period == other.period
    np.testing.assert_allclose(np.roll(one.bias, 5, 2), other.bias)


def test_clear_harmony_asks_for_more_than_a_blurred_one() -> None:
    chords = [CHORDS[bar % 4] for bar in range(24)]
    clear, blurred = (progression_of(played(chords, wrong=wrong), 24) for wrong in (0.0, 0.5))
    assert clear is not None and blurred is not None
    assert clear.gain > 2 * blurred.gain and np.abs(clear.bias).mean() > np.abs(blurred.bias).mean()


def test_new_notes_follow_the_progression() -> None:
    """By a network that knows nothing of harmony: by far most notes are of the chord of their bar, as strongly as is
    asked for; and a song without one is written as before."""
    config = tiny_config()
    model, rows = lively_model(config), played([CHORDS[bar % 4] for bar in range(16)])
    drums = random_rows(np.random.default_rng(0), 30, 16)
    drums[:, PROGRAM], drums[:, PITCH] = DRUM_PROGRAM, 128 + 40 + np.arange(len(drums)) % 3
    rows = sort_rows(np.concatenate([rows, drums]))
    bars, grammar, none = bars_of_4_4(24), Grammar.of(rows, 16), rows[:0]
    planner = Planner(model, config.memory, Plan(bars, 16, 8, rows, none, none, grammar, "open"))
    step = planner.next_task()
    assert step is not None
    task, memory = step
    assert task.progression is not None and task.progression.shape[:2] == (len(task.bar_positions), HALVES)
    shares = []
    for strength in (0.0, 1.0, 3.0):
        settings = GenerateConfig(candidates=16, progression=strength, habits=0, engine="torch")
        written = write_chunk(model, memory, task, settings, np.random.default_rng(0), 60)
        new = np.concatenate([c.rows for c in written])
        tuned = new[new[:, PROGRAM] != DRUM_PROGRAM]
        fits = [p % 12 in CHORDS[(bar + task.first_bar) % 4] for bar, p in tuned[:, [BAR, PITCH]].tolist()]
        shares.append(np.mean(fits))
        assert len(tuned) > 50
    assert shares[0] + 0.1 < shares[1] < shares[2] and shares[2] > 0.7
    without = write_chunk(model, memory, replace(task, progression=None), settings, np.random.default_rng(0), 60)
    plain = write_chunk(model, memory, task, replace(settings, progression=0.0), np.random.default_rng(0), 60)
    assert [c.rows.tolist() for c in without] == [c.rows.tolist() for c in plain]
