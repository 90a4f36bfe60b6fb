"""When earlier music comes back as it was, and which: themes return in a song as often as the song's habits let expect.

Measured over 15 minutes and more of each of 900 songs of 19 kinds of training music, cut into chunks: a chunk that is
much like (COMES_BACK) as many bars earlier in its song follows a new chunk in 6 of 100 cases, and another such chunk in
62 of 100, most of which go on where that one left off. Songs whose first three chunks are alike do it most, and all the
more the longer they are: the fourteenth chunk in 27 of 100, the fourth in 12.

A plan (form_plan.py) says itself what comes back; then only how readily is decided here. Knows rows, bars and plans;
knows no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import metrics
from .form_plan import SAME, VARIED, FormPlan, PlannedPhrase
from .tokens import BAR, moved

COMES_BACK = 0.8  # mean likeness of bars from which music is held to have come back
GOES_ON = 0.6  # chance that what has come back goes on for another chunk
# Chance that earlier music comes back after a new chunk, by the greatest likeness of any chunk of the song's last three
# to earlier bars.
_LIKENESS, _CHANCE = (0.1, 0.3, 0.5, 0.7, 0.9), (0.022, 0.041, 0.059, 0.11, 0.22)
HABIT_CHUNKS = 3
_TRUST = 6  # chunks seen that weigh as much as what songs in general do
_GROWTH, _MOST_CHUNKS = 0.18, 15  # of that chance with every chunk from the fourth on, as far as was measured
STILL_TO_ADD = 0.4  # of these chances, set on validation songs: new music repeats much without being made to
OWN_SHARE = 0.5  # of what comes back is the song's own, however much new music there is: it is what the listener knows

VARIED_LIKENESS = 0.6  # to its source, of a phrase that was planned to come back as it was and must not
LEAST_SAME = 0.05  # of phrases that go back to others are taken to come back as they were where fewer are planned to
PLANNED = 2_000  # names a plan's random numbers, apart from those of its making


@dataclass(frozen=True)
class Span:
    """Bars [first_bar, first_bar + bars) of what stands so far."""

    first_bar: int
    bars: int
    of_song: bool


def chance_of_return(rows: np.ndarray, spans: Sequence[Span]) -> float:
    """How likely it is after new music that earlier music comes back, 0 to 1, by the song's own habit.

    `rows` (n, 8) are the song's, `spans` its chunks in order. Every chunk but the first is compared with all bars
    before it that are far enough back to hold as much.
    """
    if len(spans) < 2:
        return _CHANCE[0]
    first, end = spans[0].first_bar, spans[-1].first_bar + spans[-1].bars
    inside = rows[(rows[:, BAR] >= first) & (rows[:, BAR] < end)]
    likeness = metrics.bar_likeness(moved(inside, -first), end - first)
    best = [_best_match(likeness, span.first_bar - first, span.bars) for span in spans[1:]]
    usual = float(np.interp(max(best[-HABIT_CHUNKS:]), _LIKENESS, _CHANCE))
    older = best[:-HABIT_CHUNKS]
    return (usual * _TRUST + sum(b > COMES_BACK for b in older)) / (_TRUST + len(older))


def _best_match(likeness: np.ndarray, bar: int, bars: int) -> float:
    """Greatest mean likeness of bars [bar, bar + bars) to as many bars that end before them."""
    means = [float(np.diagonal(likeness, -lag)[bar - lag : bar - lag + bars].mean()) for lag in range(bars, bar + 1)]
    return max(means, default=0.0)


def what_returns(
    spans: Sequence[Span],
    bars: int,
    positions: np.ndarray,
    left_off: int | None,
    chance: float,
    rng: np.random.Generator,
) -> int | None:
    """Bar at which the music begins that comes back in the next `bars` bars, or None: something new.

    `spans` are the chunks so far, one after another; `left_off` is the bar after what came back in the latest one, None
    when that was new; `positions` of all bars, those to come too, tells meters apart: music comes back in bars of the
    same length. What has come back goes on where it left off; else any chunk but the latest may begin to, with a
    `chance` that grows with what there is to come back.
    """
    now = spans[-1].first_bar + spans[-1].bars

    def fits(bar: int) -> bool:
        there = spans[0].first_bar <= bar and bar + bars <= now
        return there and np.array_equal(positions[bar : bar + bars], positions[now : now + bars])

    if left_off is not None:
        return left_off if fits(left_off) and rng.random() < GOES_ON else None
    if rng.random() >= chance * (1 + _GROWTH * (min(len(spans), _MOST_CHUNKS) - HABIT_CHUNKS)):
        return None
    possible = [span for span in spans[:-1] if fits(span.first_bar)]
    if not possible:
        return None
    if 0 < sum(span.of_song for span in possible) < len(possible):
        own = rng.random() < OWN_SHARE
        possible = [span for span in possible if span.of_song == own]
    return possible[int(rng.integers(len(possible)))].first_bar


def readily(plan: FormPlan, readiness: float) -> FormPlan:
    """The plan with `readiness` times as many phrases that come back as they were: 0 none, 1 as planned; those that no
    longer do are varied, and those that do now went back to the same bars before. Decided by the plan's seed."""
    same = sum(phrase.kind == SAME for phrase in plan.phrases)
    others = sum(phrase.kind != SAME and phrase.source_bar is not None for phrase in plan.phrases)
    more = min(1.0, (readiness - 1) * max(same / max(1, others), LEAST_SAME))
    drawn = np.random.default_rng((plan.seed, PLANNED)).random(len(plan.phrases))
    phrases = []
    for phrase, u in zip(plan.phrases, drawn.tolist(), strict=True):
        if phrase.kind == SAME and u >= readiness:
            phrase = varied(phrase)
        elif phrase.kind != SAME and phrase.source_bar is not None and u < more:
            phrase = replace(phrase, kind=SAME, likeness=1.0, likeness_of={})
        phrases.append(phrase)
    return replace(plan, phrases=tuple(phrases))


def varied(phrase: PlannedPhrase) -> PlannedPhrase:
    """The phrase, planned to come back as it was, varied instead."""
    return replace(phrase, kind=VARIED, likeness=VARIED_LIKENESS, likeness_of={})
