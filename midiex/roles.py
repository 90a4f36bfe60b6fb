"""The voices of note rows, and which part each plays: drums, bass, chords or lead. Knows no network and no plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from .tokens import BAR, DRUM_PROGRAM, FIELD_SIZES, INSTANCE, MAX_INSTANCES, PITCH, POSITION, PROGRAM

ROLES = ("drums", "bass", "chords", "lead")  # names, in the order of their numbers
DRUMS, BASS, CHORDS, LEAD = range(len(ROLES))
LEAD_ABOVE = 55  # median pitch of a lead, at least
_BASS_BELOW = 55  # median pitch of a bass
_BASS_PROGRAMS = range(32, 40)  # General MIDI's basses
_MONOPHONIC = 1.3  # notes an onset, of a voice that plays one at a time but for slips and rolls
_HANDS_APART = 7  # semitones, at least, between two hands
_TURNS = 0.3  # share of its bars in which a lead that takes turns may play together with the others, at most

Voice = tuple[int, int]  # program, instance
Roles = Mapping[Voice, int]


def voices_in(rows: np.ndarray) -> set[Voice]:
    """The voices that have notes in rows (n, 8)."""
    return {(int(program), int(instance)) for program, instance in np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0)}


def played_by(rows: np.ndarray, voices: Collection[Voice]) -> np.ndarray:
    """Which rows (n, 8) these voices play, (n,) bool."""
    wanted = np.array([program * MAX_INSTANCES + instance for program, instance in voices], np.int64)
    return np.isin(rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE], wanted)


def of_voices(rows: np.ndarray, voices: Collection[Voice]) -> np.ndarray:
    """The rows (n, 8) that these voices play."""
    return rows[played_by(rows, voices)]


# ---- roles ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """What a tuned voice plays, as far as it tells its role."""

    notes_an_onset: float
    pitch: float  # median
    bars: frozenset[int]  # in which it plays


def voice_roles(rows: np.ndarray) -> dict[Voice, int]:
    """Role of each voice (program, instance) that plays in rows (n, 8): DRUMS, BASS, CHORDS or LEAD.

    Drums are those of program 128. Bass: nearly monophonic and low, with a bass's program or the lowest of several
    tuned voices. Lead: of the rest the nearly monophonic voice that lies highest and plays most, and any that takes
    turns with it; in music for two hands the upper one. All else are chords. A tuned voice alone is the lead when it
    is monophonic, and chords otherwise.
    """
    if not len(rows):
        return {}
    number = rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE]
    voices, first = np.unique(number[order := np.argsort(number, kind="stable")], return_index=True)
    roles: dict[Voice, int] = {}
    parts: dict[Voice, _Part] = {}
    for voice, own in zip(voices.tolist(), np.split(rows[order], first[1:]), strict=True):
        name = divmod(voice, MAX_INSTANCES)
        roles[name] = DRUMS if name[0] == DRUM_PROGRAM else CHORDS
        if name[0] != DRUM_PROGRAM:
            onsets = len(np.unique(own[:, BAR].astype(np.int64) * FIELD_SIZES[POSITION] + own[:, POSITION]))
            parts[name] = _Part(len(own) / onsets, float(np.median(own[:, PITCH])), frozenset(own[:, BAR].tolist()))
    if len(parts) == 1:
        name, part = next(iter(parts.items()))
        return roles | {name: LEAD if part.notes_an_onset < _MONOPHONIC else CHORDS}
    lowest = min(parts, key=lambda name: parts[name].pitch, default=None)
    for name, part in parts.items():
        low = part.pitch < _BASS_BELOW and (name == lowest or name[0] in _BASS_PROGRAMS)
        if part.notes_an_onset < _MONOPHONIC and low:
            roles[name] = BASS
    leads = _leads({name: part for name, part in parts.items() if roles[name] != BASS})
    return roles | dict.fromkeys(leads, LEAD)


def _leads(parts: Mapping[Voice, _Part]) -> Collection[Voice]:
    """Which of these voices carry the tune."""
    if not parts:
        return []
    most = max(len(part.bars) for part in parts.values())
    worth = {
        name: part.pitch / 12 + 3 * len(part.bars) / most
        for name, part in parts.items()
        if part.notes_an_onset < _MONOPHONIC and part.pitch >= LEAD_ABOVE
    }
    if not worth:
        upper = sorted(parts, key=lambda name: -parts[name].pitch)[:2]
        hands = len(upper) == 2 and parts[upper[0]].pitch - parts[upper[1]].pitch >= _HANDS_APART
        return upper[:1] if hands and parts[upper[0]].notes_an_onset < 2 else []
    first = max(worth, key=lambda name: (worth[name], name))
    leads, taken = [first], set(parts[first].bars)
    for name in sorted(worth, key=lambda name: (-worth[name], name)):
        bars = parts[name].bars
        if name != first and len(bars & taken) < _TURNS * len(bars):
            leads.append(name)
            taken |= bars
    return leads


def roles_of(rows: np.ndarray, roles: Roles) -> np.ndarray:
    """The role of each row's voice, (n,) int64; CHORDS for a voice that has none."""
    table = np.full((FIELD_SIZES[PROGRAM], MAX_INSTANCES), CHORDS, np.int64)
    for voice, role in roles.items():
        table[voice] = role
    return table[rows[:, PROGRAM], rows[:, INSTANCE]]
