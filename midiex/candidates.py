"""Chooses among candidates for a chunk: rounds of writing and judging, and by what they are judged where a plan asks.

Knows rows, what judges them and who writes them; knows no network and no song.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import ranking
from .config import GenerateConfig
from .decoding import Candidate
from .phrase_task import Ready
from .ranking import Fit
from .tokens import VELOCITY_STEP

RETRY_TEMPERATURE = {"silent": 1.1, "hole": 1.05, "stuck": 1.15, "looping": 1.2}  # hotter each time a fault shows
_FEWER = 2 / 3  # of the candidates, which are not needed where a phrase stands already

Write = Callable[[GenerateConfig, np.random.Generator], Sequence[Candidate]]  # a round of candidates


@dataclass(frozen=True)
class Chosen:
    """What became of all rounds."""

    rows: np.ndarray | None  # (n, 8), None: nothing usable
    attempts: int
    terms: dict[str, float]  # of ranking


def as_asked(
    fit: Fit, asked: Ready, begins: bool, chunks: list[tuple[np.ndarray, int, float]], bar_positions: int
) -> Fit:
    """Judges by what the plan asks instead of the song's mean. `begins`: a section; `chunks` of the song and
    `bar_positions` of its usual bar are as of ranking.Style.of."""
    phrase = asked.phrase
    loudness = (phrase.loudness - VELOCITY_STEP / 2) / VELOCITY_STEP
    wanted = ranking.Asked(
        phrase.density, loudness, phrase.register, asked.voices, asked.source, phrase.likeness, begins
    )
    return replace(fit, style=wanted.style(chunks, bar_positions, fit.bars, fit.seconds, fit.style), asked=wanted)


def fewer_where_it_stands(config: GenerateConfig, fit: Fit, notes: int) -> GenerateConfig:
    """The more of a planned phrase stands, or is to be like its source, the less there is to choose between; `notes` of
    it do."""
    if fit.asked is None or not len(fit.asked.source):
        return config
    stands = min(1.0, notes / len(fit.asked.source))
    given = stands + (1 - stands) * (fit.asked.likeness or 0.0)
    return replace(config, candidates=max(1, round(config.candidates * (1 - _FEWER * given))))


def best(
    write: Write, config: GenerateConfig, fit: Fit, new: Callable[[np.ndarray], np.ndarray], seed: tuple[int, ...]
) -> Chosen:
    """The best candidate; a round in which all are faulty is followed by a hotter one, config.max_attempts in all, and
    then the least faulty that sounds is chosen.

    `new` leaves out the rows that nobody wrote; `seed` and a round's number seed its random numbers.
    """
    most, poor = config.max_attempts, list[tuple[int, float, Candidate, dict[str, float]]]()
    for attempt in range(most):
        good: list[tuple[float, Candidate, dict[str, float]]] = []
        seen: list[str] = []
        for candidate in write(config, np.random.default_rng((*seed, attempt))):
            rows = new(candidate.rows)
            found = fit.faults(rows)
            seen += found
            if "silent" in found and len(rows) == 0:
                continue
            terms = fit.terms(rows)
            if not found and candidate.finished:
                good.append((ranking.score(terms), candidate, terms))
            elif "silent" not in found:
                poor.append((len(found), ranking.score(terms), candidate, terms))
        if good:
            _, candidate, terms = min(good, key=lambda g: g[0])
            return Chosen(candidate.rows, attempt + 1, terms)
        redraws = min(1, config.redraws) if "silent" in seen else config.redraws  # too little was written
        hotter = max([RETRY_TEMPERATURE[name] for name in seen], default=1.1)
        config = replace(config, temperature=config.temperature * hotter, redraws=redraws)
    if poor:
        _, _, candidate, terms = min(poor, key=lambda p: p[:2])
        return Chosen(candidate.rows, most, terms)
    return Chosen(None, most, {})
