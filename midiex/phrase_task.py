"""A planned phrase made ready to be written: what of its source stands, who plays beside it, what the network is told.

Also what a phrase that is written came to, beside what was asked. Knows rows and phrases of a plan; knows no network,
no files and no candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from . import aligned, conditions, metrics
from .aligned import AlignedSource
from .chunks import thin
from .form_plan import HARMONY, NEW, NEW_LEAD, SAME, VARIED, PlannedPhrase
from .roles import BASS, CHORDS, LEAD, ROLES, Roles, Voice, of_voices, voices_in
from .steering import Asked
from .tokens import (
    BAR,
    DRUM_PROGRAM,
    DURATION,
    DURATIONS,
    DURATIONS_PER_BEAT,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
    VELOCITY_STEP,
)

STANDS = 0.9  # a role that is to be at least so like its source stands as it was there
_HALF_POSITION = DURATIONS_PER_BEAT // 12  # of a duration's units in a position


@dataclass(frozen=True)
class Ready:
    """What is to be done for one phrase. Rows (n, 8) count bars from the phrase's first."""

    phrase: PlannedPhrase
    kind: str  # what it is written as: "varied" where a copy was planned but the meter is another
    source: np.ndarray  # of the bars it goes back to, what the phrase's voices play there; may be empty
    standing: np.ndarray  # of those, what stands as it is
    voices: frozenset[Voice]  # who plays in it
    free: frozenset[Voice]  # for whom notes are written

    @property
    def is_copy(self) -> bool:
        return self.kind == SAME


def ready(
    phrase: PlannedPhrase,
    source: np.ndarray,
    asked: frozenset[Voice],
    roles: Roles,
    fits: bool,
    lands: bool,
) -> Ready:
    """`source` (n, 8) are all rows of the bars it goes back to, `asked` the voices that are to play and can.

    Where the meter does not fit (`fits` is False) or the music is to end in the phrase (`lands`), nothing of the source
    can stand: it is written anew, with the source to go by.
    """
    source = of_voices(source, asked)
    if phrase.source_bar is None or not len(source):
        return Ready(phrase, NEW, source[:0], source[:0], asked, asked)
    there = voices_in(source)
    stay: set[Voice] = set()
    kind = phrase.kind
    if not fits or lands:
        kind = VARIED if kind == SAME else kind
    elif kind == SAME:
        stay = there
    elif kind == NEW_LEAD:
        stay = there - leads(source, roles)
    elif kind == HARMONY:
        stay = {voice for voice in there if roles.get(voice) == BASS}
    elif kind == VARIED:
        stay = _standing(phrase, source, roles)
    free = asked - stay
    if stay and not free:  # there is nobody to write for: the song has one texture only
        free, stay = (frozenset(), stay) if kind == SAME else (asked, set())
    return Ready(phrase, kind, source, of_voices(source, stay), asked, frozenset(free))


def leads(source: np.ndarray, roles: Roles) -> set[Voice]:
    """The voices of rows (n, 8) that carry the tune: those of that role, else the highest tuned one, else the drums."""
    there = voices_in(source)
    found = {voice for voice in there if roles.get(voice) == LEAD}
    tuned = {voice for voice in there if voice[0] != DRUM_PROGRAM}
    if found or not tuned:
        return found or there
    return {max(sorted(tuned), key=lambda voice: float(of_voices(source, [voice])[:, PITCH].mean()))}


def _standing(phrase: PlannedPhrase, source: np.ndarray, roles: Roles) -> set[Voice]:
    """Voices that stand in a varied phrase: those of roles that are to be all but the same. One at least is written:
    what is to be less like its source follows it note by note."""
    there = voices_in(source)
    wanted = [phrase.likeness_of.get(role, 0.0) for role in ROLES]
    stay = {voice for voice in there if wanted[roles.get(voice, CHORDS)] >= STANDS}
    return stay - leads(source, roles) if stay == there else stay


def joined(rows: np.ndarray, bar_positions: np.ndarray) -> np.ndarray:
    """Rows (n, 8) of a chunk in bars of `bar_positions` (bars,) with no note ringing over its end."""
    starts = np.concatenate([[0], np.cumsum(bar_positions)])
    left = (starts[-1] - starts[rows[:, BAR]] - rows[:, POSITION]) * _HALF_POSITION
    longest = np.searchsorted(DURATIONS, left, side="right") - 1
    rows = rows.copy()
    tuned = rows[:, PROGRAM] != DRUM_PROGRAM
    rows[tuned, DURATION] = np.minimum(rows[:, DURATION], longest.clip(0))[tuned]
    return rows


def told(ready: Ready, usual: Mapping[str, float], beats: float, seconds: float) -> np.ndarray:
    """Conditions (conditions,) of notes for a phrase, 0 where nothing is known: the density, loudness and register
    asked, and mode and mood as they are in its source or, without one, `usual` (figures as of
    `conditions.features`)."""
    phrase = ready.phrase
    figures = dict(conditions.features(ready.source, beats, seconds) if len(ready.source) else usual)
    if not figures:
        return np.zeros(len(conditions.CONDITIONS), np.int64)
    asked = {"density": phrase.density, "velocity": phrase.loudness, "register": phrase.register}
    asked = {name: value or figures[name] for name, value in asked.items()}
    figures["arousal"] += _arousal(asked) - _arousal(figures)
    tuned = any(program != DRUM_PROGRAM for program, _ in ready.voices)
    return conditions.note_conditions(figures | asked | {"tuned": float(tuned)})


def aligned_source(ready: Ready, told: np.ndarray, roles: Roles) -> AlignedSource | None:
    """The phrase's source for the network to follow, as like as is asked overall and by role, which is put into the
    conditions `told`; None: it has none."""
    if not len(ready.source):
        return None
    rows, phrase = thin(ready.source), ready.phrase
    asked = [phrase.likeness, *(phrase.likeness_of.get(name) for name in ROLES)]
    told[conditions.LIKENESS :] = [aligned.UNTOLD if a is None else aligned.likeness_bin(a) for a in asked]
    bins = aligned.told_bins(rows, told[conditions.LIKENESS :], roles)
    return AlignedSource(rows, bins, int(told[conditions.LIKENESS]))


def asked_of(phrase: PlannedPhrase, seconds: float) -> Asked:
    """What the phrase is to come to; 0 asks for nothing."""
    velocity = (phrase.loudness - VELOCITY_STEP / 2) / VELOCITY_STEP
    return Asked(
        phrase.density * seconds if phrase.density else None,
        velocity if phrase.loudness else None,
        phrase.register if phrase.register else None,
    )


def _arousal(figures: Mapping[str, float]) -> float:
    """As far as density and loudness make it."""
    return metrics.arousal(figures["density"], 0.3, figures["velocity"])


def figures_of(rows: np.ndarray, seconds: float) -> dict[str, float]:
    """Density (notes a second), loudness (mean velocity) and register (mean pitch of what is no drum; 0: nothing is) of
    rows (n, 8): what a plan asks for."""
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM, PITCH]
    velocity = rows[:, VELOCITY] * VELOCITY_STEP + VELOCITY_STEP / 2
    return {
        "density": len(rows) / max(seconds, 1e-3),
        "loudness": float(velocity.mean()) if len(rows) else 0.0,
        "register": float(tuned.mean()) if len(tuned) else 0.0,
    }
