"""Describes the form of a song phrase by phrase in small numbers: what comes back, who plays, how intense it is.

The same description of real songs makes the shelf of forms, and that of the song to be continued is matched with them.
Knows phrases and sections; knows no shelf, no plan and no files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from . import phrases
from .form_plan import TRANSITIONS
from .phrases import BarMatches, Phrase
from .roles import CHORDS, DRUMS, LEAD_ABOVE, ROLES, Roles, roles_of, voice_roles
from .sections import SongSections, find_sections
from .tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    INSTANCE,
    MICROS_PER_POSITION,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
    VELOCITY_STEP,
)

CRASHES = (49, 52, 55, 57)  # General MIDI's crash, Chinese and splash cymbals
_LEAST_DENSITY = 0.05  # notes a second, of a phrase that is as good as silent


@dataclass(frozen=True)
class Form:
    """One song's form. Arrays have a row a phrase; nan stands for what there is not."""

    bars: np.ndarray  # (p,) of each phrase
    section: np.ndarray  # (p,) number of its section, from 0 in order of appearance
    border: np.ndarray  # (p,) bool: a section begins here
    source: np.ndarray  # (p,) number of the earlier phrase in which its likest earlier bars begin; -1: none
    shift: np.ndarray  # (p,) at which bar of that phrase
    likeness: np.ndarray  # (p,) share of notes in common with the source
    of_role: np.ndarray  # (p, 4) the same by role
    harmony: np.ndarray  # (p,) correlation of the harmony with the source's
    shares: np.ndarray  # (p, 4) of each role's voices which play
    density: np.ndarray  # (p,) log2 of notes a second, less the song's mean
    loudness: np.ndarray  # (p,) mean velocity less the song's
    register: np.ndarray  # (p,) mean pitch of tuned notes less the song's
    transition: np.ndarray  # (p,) index in form_plan.TRANSITIONS
    voices: np.ndarray = field(default_factory=lambda: np.zeros(4))  # (4,) number of voices by role
    phrase_bars: int = 4
    phrase_s: float = 10.0
    beats: float = 4.0  # of its usual bar, in quarter notes

    def __len__(self) -> int:
        return len(self.bars)


_HEADER = ("voices", "phrase_bars", "phrase_s", "beats")
PHRASE_FIELDS = tuple(f.name for f in fields(Form) if f.name not in _HEADER)
_WHOLE = ("bars", "section", "source", "shift", "transition")


def empty_fields(phrase_count: int) -> dict[str, Any]:
    """Each of a form's PHRASE_FIELDS with room for so many phrases, zero or false."""
    shapes = {name: (phrase_count, len(ROLES)) for name in ("of_role", "shares")}
    kinds = {"border": bool} | dict.fromkeys(_WHOLE, np.int64)
    return {name: np.zeros(shapes.get(name, phrase_count), kinds.get(name, float)) for name in PHRASE_FIELDS}


@dataclass(frozen=True)
class SongForm:
    """A song's form, and what lies behind it: the plan needs both."""

    form: Form
    phrases: tuple[Phrase, ...]
    plays: np.ndarray  # (p, voices) bool
    notes_a_second: np.ndarray  # (p,)
    velocity: np.ndarray  # (p,) mean; the song's where nothing plays
    pitch: np.ndarray  # (p,) mean of tuned notes; the song's where there are none
    roles: np.ndarray  # (voices,) index in ROLES
    sections: SongSections
    matches: BarMatches


def song_form(rows: np.ndarray, voices: np.ndarray, beats: np.ndarray, seconds: np.ndarray) -> SongForm:
    """The form of a song's rows (n, 8) on bars of `beats` quarter notes and `seconds` (bars,) each, at most
    `phrases.MOST_BARS` of them; `voices` (v, 2) are its voices' programs and instances, some of which may be silent."""
    known = voice_roles(rows)
    role = roles_of(rows, known)
    matches = BarMatches.of(rows, role, phrases.bar_units(beats))
    sections = find_sections(matches, rows, phrases.cut_phrases(matches, rows, seconds))
    cut = sections.phrases
    roles = np.array([_role_of(int(program), int(instance), known) for program, instance in voices], np.int64)
    length_s = np.array([max(1e-3, float(seconds[p.first_bar : p.end].sum())) for p in cut])
    edges = np.searchsorted(rows[:, BAR], [p.first_bar for p in cut] + [len(seconds)])
    plays = np.zeros((len(cut), len(voices)), bool)
    number = {(int(program), int(instance)): i for i, (program, instance) in reversed(list(enumerate(voices)))}
    velocity, pitch = np.full(len(cut), np.nan), np.full(len(cut), np.nan)
    transition = np.zeros(len(cut), np.int64)
    for i in range(len(cut)):
        part = rows[edges[i] : edges[i + 1]]
        for program, instance in np.unique(part[:, [PROGRAM, INSTANCE]], axis=0).tolist():
            if (program, instance) in number:
                plays[i, number[program, instance]] = True
        if len(part):
            velocity[i] = part[:, VELOCITY].mean() * VELOCITY_STEP + VELOCITY_STEP / 2
        tuned = part[:, PITCH][role[edges[i] : edges[i + 1]] != DRUMS]
        if len(tuned):
            pitch[i] = tuned.mean()
        transition[i] = _transition(part, cut[i], matches)
    velocity, pitch = _filled(velocity, 80.0), _filled(pitch, 60.0)
    density = np.diff(edges) / length_s
    usual_s = max(1e-3, float(np.median(seconds))) if len(seconds) else 2.0
    size = phrases.phrase_bars(seconds)
    form = replace(
        _form(matches, sections, plays, roles, (density, velocity, pitch), transition),
        voices=np.bincount(roles, minlength=len(ROLES)).astype(float),
        phrase_bars=size,
        phrase_s=size * usual_s,
        beats=float(np.median(beats)) if len(beats) else 4.0,
    )
    return SongForm(form, tuple(cut), plays, density, velocity, pitch, roles, sections, matches)


def _role_of(program: int, instance: int, known: Roles) -> int:
    return known.get((program, instance), DRUMS if program == DRUM_PROGRAM else CHORDS)


def _filled(values: np.ndarray, otherwise: float) -> np.ndarray:
    """The mean in place of what is missing."""
    known = values[~np.isnan(values)]
    return np.where(np.isnan(values), known.mean() if len(known) else otherwise, values)


def _form(
    matches: BarMatches,
    sections: SongSections,
    plays: np.ndarray,
    roles: np.ndarray,
    intensity: tuple[np.ndarray, np.ndarray, np.ndarray],
    transition: np.ndarray,
) -> Form:
    cut, count = sections.phrases, len(sections.phrases)
    density, velocity, pitch = intensity
    source, shift = np.full(count, -1), np.zeros(count, np.int64)
    likeness, harmony, of_role = np.zeros(count), np.zeros(count), np.full((count, len(ROLES)), np.nan)
    starts = np.array([p.first_bar for p in cut], np.int64)
    goes_on = None
    for p, phrase in enumerate(cut):
        found = matches.best_source(phrase, frozenset(starts[:p].tolist()), goes_on)
        goes_on = None
        if found is None:
            continue
        source[p] = int(np.searchsorted(starts, found.bar, "right")) - 1
        shift[p] = found.bar - starts[source[p]]
        likeness[p], harmony[p], of_role[p] = found.likeness, found.harmony, found.of_role
        goes_on = found.bar + phrase.bars
    of_role = np.where(np.isin(np.arange(len(ROLES)), roles)[None], of_role, np.nan)
    shares = np.zeros((count, len(ROLES)))
    for role in range(len(ROLES)):
        if (roles == role).any():
            shares[:, role] = plays[:, roles == role].mean(1)
    load = np.log2(density.clip(_LEAST_DENSITY))
    typical = float(np.log2(max(density.mean(), _LEAST_DENSITY))) if count else 0.0
    return Form(
        bars=np.array([p.bars for p in cut], np.int64),
        section=sections.section,
        border=sections.border,
        source=source,
        shift=shift,
        likeness=likeness,
        of_role=of_role,
        harmony=harmony,
        shares=shares,
        density=load - typical,
        loudness=velocity - velocity.mean() if count else velocity,
        register=pitch - pitch.mean() if count else pitch,
        transition=transition,
    )


def _transition(part: np.ndarray, phrase: Phrase, matches: BarMatches) -> int:
    """What happens at the phrase's end (or, a crash, at its beginning), as an index in TRANSITIONS. Rows (n, 8)."""
    name = ""
    last = phrase.end - 1
    positions = float(matches.units[last]) / MICROS_PER_POSITION
    is_last = part[:, BAR] == last
    late = part[:, POSITION] >= positions / 2
    drums = part[:, PROGRAM] == DRUM_PROGRAM
    if phrase.bars >= 2 and len(part):
        usual = (late & ~is_last).sum() / (phrase.bars - 1)  # notes in the second half of an earlier bar
        usual_drums = (late & drums & ~is_last).sum() / (phrase.bars - 1)
        final, final_drums = (late & is_last).sum(), (late & is_last & drums).sum()
        fresh = len(set(part[late & is_last & drums, PITCH].tolist()) - set(part[drums & ~is_last, PITCH].tolist()))
        lead = ~drums & (part[:, PITCH] >= LEAD_ABOVE)
        lead_waits = not (lead & is_last & ~late).any() and (lead & is_last & late).any()
        if final_drums >= 4 and (final_drums >= 1.5 * usual_drums or fresh >= 2):
            name = "fill"
        elif usual >= 3 and final <= 0.25 * usual:
            name = "break"
        elif lead_waits and phrase.bars >= 2:
            name = "pickup"
    opening = (part[:, BAR] == phrase.first_bar) & (part[:, POSITION] <= 1) & drums
    if not name and np.isin(part[opening, PITCH] - DRUM_PITCH_OFFSET, CRASHES).any():
        name = "crash"
    return TRANSITIONS.index(name)
