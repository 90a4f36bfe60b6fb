"""What comes back: as often as the song's habit says, from where it left off, in bars of the same length only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import song_in_bars
from hypothesis import given
from hypothesis import strategies as st
from songs import EXAMPLES, rows_of, save_talkative

import midiex
from midiex.form_plan import NEW, SAME, VARIED, FormPlan, PlannedPhrase
from midiex.returns import OWN_SHARE, Span, chance_of_return, readily, what_returns
from midiex.tokens import BAR

BARS = 4


def melody(first_bar: int, seed: int) -> np.ndarray:
    """Four bars of eight notes each."""
    pitches = np.random.default_rng(seed).integers(40, 90, 32)
    return rows_of(*[(first_bar + i // 8, 6 * (i % 8), 0, int(p)) for i, p in enumerate(pitches)])


def spans(count: int, of_song: int = 99) -> list[Span]:
    return [Span(BARS * k, BARS, k < of_song) for k in range(count)]


def chance(*seeds: int) -> float:
    rows = np.concatenate([melody(BARS * k, seed) for k, seed in enumerate(seeds)])
    return chance_of_return(rows, spans(len(seeds)))


def test_songs_that_repeat_themselves_go_on_doing_so() -> None:
    never, once = chance(1, 2, 3), chance(1, 2, 1)
    assert 0 < never < 0.05 < 0.15 < once < 0.5
    assert chance(1) == pytest.approx(never)  # one chunk tells nothing
    assert chance(*range(20)) < never  # a long song that never did
    assert chance(*([1, 2] * 10)) > 0.5  # and one that always does


def test_a_song_that_begins_late_is_measured_from_its_first_chunk() -> None:
    rows = np.concatenate([melody(BARS * k + 7, seed) for k, seed in enumerate((1, 2, 1))])
    late = [Span(BARS * k + 7, BARS, True) for k in range(3)]
    assert chance_of_return(rows, late) == chance(1, 2, 1)


@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 6), st.one_of(st.none(), st.integers(0, 40)),
       st.floats(0, 1), st.integers(0, 2**31))  # fmt: skip
def test_what_returns_stands_before_and_has_the_same_meter(
    count: int, of_song: int, bars: int, left_off: int | None, likely: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    positions = rng.choice([36, 48], BARS * count + bars)
    bar = what_returns(spans(count, of_song), bars, positions, left_off, likely, rng)
    if bar is not None:
        now = BARS * count
        assert bar >= 0 and bar + bars <= now
        assert (positions[bar : bar + bars] == positions[now : now + bars]).all()
        assert bar == left_off if left_off is not None else bar % BARS == 0 and bar != now - BARS


def draws(count: int, of_song: int, left_off: int | None, likely: float) -> list[int | None]:
    positions = np.full(BARS * (count + 1), 48)
    rng = np.random.default_rng(0)
    return [what_returns(spans(count, of_song), BARS, positions, left_off, likely, rng) for _ in range(2000)]


def test_how_often() -> None:
    assert draws(4, 4, None, 0.0) == [None] * 2000
    assert np.mean([bar is not None for bar in draws(3, 3, None, 0.2)]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([bar is not None for bar in draws(13, 3, None, 0.2)]) == pytest.approx(0.56, abs=0.04)
    assert np.mean([bar == 4 for bar in draws(3, 3, 4, 0.0)]) == pytest.approx(0.6, abs=0.04)
    own = [bar < 3 * BARS for bar in draws(13, 3, None, 1.0) if bar is not None]
    assert np.mean(own) == pytest.approx(OWN_SHARE, abs=0.04)


def test_music_comes_back_note_for_note(tmp_path: Path) -> None:
    model = midiex.load(save_talkative(tmp_path / "model"))
    source = song_in_bars(tmp_path / "song.mid", [(4, 4)] * 16)
    passage = midiex.extend(source, 150, out=tmp_path / "out.mid", model=model, seed=3, returns=5, form="flat")
    back = [chunk for chunk in passage.written if chunk.came_back is not None]
    assert back and len(back) < len(passage.written) and passage.written[-1].came_back is None
    for chunk in back:
        assert chunk.came_back is not None and chunk.came_back + chunk.bars <= chunk.first_bar
        earlier = [c for c in passage.written if c.first_bar == chunk.came_back and c.bars == chunk.bars]
        for one in earlier:
            assert (one.rows == chunk.rows).all()
    told = passage.report()["chunks"]
    assert [c["bars_that_came_back"] is not None for c in told] == [c.came_back is not None for c in passage.written]
    never = midiex.extend(source, 150, model=model, seed=3, returns=0, form="flat")
    assert all(chunk.came_back is None for chunk in never.written)


def test_own_bars_come_back_with_all_their_notes() -> None:
    passage = midiex.extend(EXAMPLES / "chiptune_loop.mid", 120, seed=1, returns=25, form="flat")
    before = passage.line.before
    own = [c for c in passage.written if c.came_back is not None and c.came_back + c.bars <= before]
    assert own
    plan = passage._plan()
    for chunk in own:
        assert chunk.came_back is not None
        rows = plan.rows_before
        there = rows[(rows[:, BAR] >= chunk.came_back) & (rows[:, BAR] < chunk.came_back + chunk.bars)]
        assert len(there) == len(chunk.rows) and (there[:, 1:] == chunk.rows[:, 1:]).all()


# ---- of what is planned ----------------------------------------------------------------------------------------------


def plan_of(kinds: list[str], seed: int = 0) -> FormPlan:
    phrases = [
        PlannedPhrase(BARS * (i + 4), BARS, "A", kind, None if kind == NEW else BARS * (i % 4), (0,), 5.0, 80.0, 60.0)
        for i, kind in enumerate(kinds)
    ]
    return FormPlan((), tuple(phrases), seed)


def share_of_same(kinds: list[str], readiness: float) -> float:
    plans = [readily(plan_of(kinds, seed), readiness) for seed in range(40)]
    return float(np.mean([phrase.kind == SAME for plan in plans for phrase in plan.phrases]))


def test_readiness_scales_what_is_planned_to_come_back() -> None:
    kinds = [SAME, VARIED, NEW, VARIED] * 25
    assert readily(plan_of(kinds), 1) == plan_of(kinds)
    shares = [share_of_same(kinds, readiness) for readiness in (0, 0.5, 1, 2, 10)]
    assert shares == pytest.approx([0, 0.125, 0.25, 0.5, 0.75], abs=0.02)  # what is new has nothing to come back
    assert 0 < share_of_same([VARIED] * 100, 3) < 0.3 and share_of_same([VARIED] * 100, 1) == 0


def test_what_no_longer_comes_back_is_varied_and_may_differ() -> None:
    for phrase, was in zip(readily(plan_of([SAME] * 9), 0).phrases, plan_of([SAME] * 9).phrases, strict=True):
        assert (phrase.kind, phrase.source_bar) == (VARIED, was.source_bar)
        assert phrase.likeness is not None and 0 < phrase.likeness < 1
