"""Does what is asked of a phrase come out? What a plan asks, drawn at random, against what was written (figure 12).

Askings keep to what the song itself does, so that an obedient writer can meet them. Pure functions on plans, excerpts
and rows; knows no files and no models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .. import aligned
from ..form_plan import NEW, VARIED, FormPlan, PlannedPhrase
from ..roles import ROLES, Roles, Voice, of_voices, roles_of, voices_in
from ..tokens import BAR, DRUM_PROGRAM, PITCH, PROGRAM, VELOCITY, VELOCITY_STEP, moved
from .excerpts import Excerpt

AMOUNTS = ("density", "loudness", "register")
LIKENESSES = ("likeness", *(f"likeness of {role}" for role in ROLES))
FEWEST_NOTES = 4  # of a phrase of which anything is told, and of a source
FEWEST_CHUNKS = 4  # of a song whose chunks are ranked
_LOW, _HIGH = 10, 90  # percentiles of the song's own phrases between which is asked
_WITH_SOURCE = 0.5  # of the phrases


# ---- what a phrase is like -------------------------------------------------------------------------------------------


def amounts(rows: np.ndarray, seconds: float) -> dict[str, float]:
    """Density (notes a second), loudness (mean velocity, 0 to 127) and register (mean pitch of what is no drum) of rows
    (n, 8); the last two are NaN without such notes."""
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM, PITCH]
    loud = rows[:, VELOCITY] * VELOCITY_STEP + VELOCITY_STEP / 2
    means = (float(values.mean()) if len(values) else float("nan") for values in (loud, tuned))
    return dict(zip(AMOUNTS, (len(rows) / max(seconds, 1e-3), *means), strict=True))


def likenesses(rows: np.ndarray, source: np.ndarray, roles: Roles) -> dict[str, float]:
    """Share of notes that rows (n, 8) and their source (m, 8), bars counted from the first of each, have in common:
    aligned.likenesses by name, in all and by role; NaN where neither has a note."""
    return dict(zip(LIKENESSES, aligned.likenesses(rows, source, roles).tolist(), strict=True))


# ---- asking ---------------------------------------------------------------------------------------------------------


def ask(plan: FormPlan, song: Excerpt, voices: np.ndarray, roles: Roles, rng: np.random.Generator) -> FormPlan:
    """The plan's phrases with other askings: who plays, how dense, loud and high, and of half of them how like some
    earlier bars of the song.

    `song` is what was there before the new music, from its first bar on, `voices` (k, 2) the program and instance of
    those that the plan names by their index, `roles` theirs. As many voices play as in phrases of the song between
    their 10th and 90th percentile, any of those that the song has; amounts lie between the same percentiles of what
    these voices do in the song's phrases. Likeness is drawn evenly by role, and that of the whole is their mean,
    weighted by the source's notes. Raises nothing; where no source fits, a phrase is to be new.
    """
    phrases = [_asked(phrase, plan, song, voices, roles, rng) for phrase in plan.phrases]
    return replace(plan, phrases=tuple(phrases))


def _asked(
    phrase: PlannedPhrase,
    plan: FormPlan,
    song: Excerpt,
    voices: np.ndarray,
    roles: Roles,
    rng: np.random.Generator,
) -> PlannedPhrase:
    own = _own_phrases(plan, song, phrase.bars)
    names = [(int(program), int(instance)) for program, instance in voices]
    there = sorted({names.index(voice) for voice in voices_in(song.rows) if voice in names})
    counts = [len(voices_in(rows)) for rows, _ in own if len(rows)]
    low, high = np.percentile(counts, [_LOW, _HIGH]).round().astype(int)
    number = int(rng.integers(max(1, low), max(1, low, high) + 1))
    chosen = tuple(sorted(rng.choice(there, min(number, len(there)), replace=False).tolist()))
    who = [names[index] for index in chosen]
    figures = [amounts(part, seconds) for rows, seconds in own if len(part := of_voices(rows, who))]
    asked = {name: _within([figure[name] for figure in figures], rng) for name in AMOUNTS}
    made = replace(
        phrase, kind=NEW, source_bar=None, voices=chosen, density=asked["density"], loudness=asked["loudness"],
        register=asked["register"], likeness=None, likeness_of={}, transition="",
    )  # fmt: skip
    return _with_source(made, plan, song, who, roles, rng) if rng.random() < _WITH_SOURCE else made


def _own_phrases(plan: FormPlan, song: Excerpt, bars: int) -> list[tuple[np.ndarray, float]]:
    """Rows and seconds of the song's own phrases: those the plan names, else stretches of so many bars."""
    spans = [(p.first_bar, p.first_bar + p.bars) for p in plan.song if p.first_bar + p.bars <= song.bars]
    spans = spans or [(first, min(first + bars, song.bars)) for first in range(0, song.bars, bars)]
    parts = [song.part(*span) for span in spans]
    found = [(part.rows, part.seconds) for part in parts if len(part.rows)]
    return found or [(song.rows, song.seconds)]


def _within(values: Sequence[float], rng: np.random.Generator) -> float:
    """Something between the 10th and the 90th percentile; 0 of nothing."""
    known = [value for value in values if np.isfinite(value)]
    return float(rng.uniform(*np.percentile(known, [_LOW, _HIGH]))) if known else 0.0


def _with_source(
    phrase: PlannedPhrase,
    plan: FormPlan,
    song: Excerpt,
    who: Sequence[Voice],
    roles: Roles,
    rng: np.random.Generator,
) -> PlannedPhrase:
    """The phrase with a source among the song's phrases, in which its voices play, and a likeness to it."""
    last = min(song.bars, phrase.first_bar) - phrase.bars
    starts = [p.first_bar for p in plan.song if p.first_bar <= last] or [*range(0, max(0, last + 1), phrase.bars)]
    for first in rng.permutation(starts).tolist():
        source = of_voices(song.part(first, first + phrase.bars).rows, who)
        if len(source) < FEWEST_NOTES:
            continue
        sizes = dict(zip(ROLES, np.bincount(roles_of(source, roles), minlength=len(ROLES)).tolist(), strict=True))
        of = {role: round(float(rng.random()), 3) for role, size in sizes.items() if size}
        if not of:
            continue
        whole = sum(of[role] * sizes[role] for role in of) / sum(sizes[role] for role in of)
        return replace(phrase, kind=VARIED, source_bar=first, likeness=whole, likeness_of=of)
    return phrase


# ---- what came out --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """One chunk: what was asked and what came out, by name (AMOUNTS and LIKENESSES)."""

    asked: Mapping[str, float]
    found: Mapping[str, float]
    voices: tuple[int, int]  # in how many of the song's voices it was obeyed whether they play, and how many these are

    @property
    def is_new(self) -> bool:
        """No source was asked for."""
        return "likeness" not in self.asked


def answer(
    phrase: PlannedPhrase,
    rows: np.ndarray,
    seconds: float,
    song: Excerpt,
    voices: np.ndarray,
    roles: Roles,
) -> Answer:
    """What came out of a phrase: `rows` (n, 8) count bars from its first. `song` is all that stands before it, of which
    the source is taken as far as the phrase's voices play it; `voices` and `roles` as of `ask`."""
    names = [(int(program), int(instance)) for program, instance in voices]
    who = {names[index] for index in phrase.voices}
    there = voices_in(rows)
    of_song = (voices_in(song.rows) | who) & {*names}
    obeyed = sum((voice in who) == (voice in there) for voice in of_song)
    asked = {name: float(getattr(phrase, name)) for name in AMOUNTS}
    if not any(program != DRUM_PROGRAM for program, _ in who):
        del asked["register"]
    found = amounts(rows, seconds)
    if phrase.source_bar is not None and phrase.likeness is not None:
        bars = slice(phrase.source_bar, phrase.source_bar + phrase.bars)
        inside = (song.rows[:, BAR] >= bars.start) & (song.rows[:, BAR] < bars.stop)
        source = moved(of_voices(song.rows[inside], who), -bars.start)
        asked["likeness"] = phrase.likeness
        asked |= {f"likeness of {role}": value for role, value in phrase.likeness_of.items()}
        found |= likenesses(rows, source, roles)
    return Answer(asked, found, (obeyed, len(of_song)))


@dataclass(frozen=True)
class Obedience:
    """How one asking came out over songs."""

    correlation: float  # of ranks, within songs
    error: float  # mean absolute
    chunks: int
    songs: int


def obedience(songs: Sequence[Sequence[Answer]], name: str) -> Obedience:
    """Spearman's rank correlation of what was asked and found, ranked within each song and pooled with equal weight a
    song (those that have the figure of FEWEST_CHUNKS chunks or more), and the mean absolute error, likewise; NaN of
    nothing."""
    above = below_asked = below_found = 0.0
    errors, chunks = [], 0
    for answers in songs:
        pairs = np.array([(a.asked[name], a.found[name]) for a in answers if name in a.asked]).reshape(-1, 2)
        pairs = pairs[np.isfinite(pairs).all(1)]
        if len(pairs) < FEWEST_CHUNKS:
            continue
        ranks = np.stack([_ranks(column) for column in pairs.T], 1)
        ranks = (ranks - ranks.mean(0)) / len(ranks)
        above += float((ranks[:, 0] * ranks[:, 1]).mean())
        below_asked += float((ranks[:, 0] ** 2).mean())
        below_found += float((ranks[:, 1] ** 2).mean())
        errors.append(float(np.abs(pairs[:, 0] - pairs[:, 1]).mean()))
        chunks += len(pairs)
    below = np.sqrt(below_asked * below_found)
    error = float(np.mean(errors)) if errors else float("nan")
    return Obedience(above / below if below else float("nan"), error, chunks, len(errors))


def voices_obeyed(songs: Sequence[Sequence[Answer]]) -> float:
    """Share of voices of chunks that play or are silent as was asked, equal weight a song; NaN of nothing."""
    counts = [np.array([a.voices for a in answers]).sum(0) for answers in songs if answers]
    return float(np.mean([obeyed / of for obeyed, of in counts if of])) if counts else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of values (n,), those of equals being their mean."""
    _, index, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[index]
