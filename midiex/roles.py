"""Which part each voice of a song plays: drums, bass, chords or lead. Knows rows; knows no network and no plan."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .tokens import BAR, DRUM_PROGRAM, INSTANCE, PITCH, POSITION, PROGRAM

DRUMS, BASS, CHORDS, LEAD = range(4)
ROLE_NAMES = ("drums", "bass", "chords", "lead")
ONE_AT_A_TIME = 1.3  # notes an onset: a voice with fewer plays lines, one with more plays chords
BASS_PROGRAMS = range(32, 40)  # General MIDI's basses
BASS_BELOW = 52  # mean pitch of a bass that is no bass by its program
LEAD_SHARE = 0.02  # of the tuned notes, which a lead has at least

Voice = tuple[int, int]  # program, instance


def voice_roles(rows: np.ndarray) -> dict[Voice, int]:
    """The role of each voice (program, instance) of a song's rows (n, 8).

    Drums are drums; a line on a bass program, or the lowest line of several voices where it is low, is the bass; the
    highest of the other lines the lead; all else are chords.
    """
    roles: dict[Voice, int] = {}
    lines: list[tuple[float, Voice]] = []
    voices, which = np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0, return_inverse=True)
    which = which.reshape(-1)
    tuned = [number for number, (program, _) in enumerate(voices.tolist()) if program != DRUM_PROGRAM]
    notes = int(np.isin(which, tuned).sum())
    for number, (program, instance) in enumerate(voices.tolist()):
        mine = rows[which == number]
        roles[program, instance] = DRUMS if program == DRUM_PROGRAM else CHORDS
        onsets = len(np.unique(mine[:, BAR].astype(np.int64) * 128 + mine[:, POSITION]))
        if program != DRUM_PROGRAM and len(mine) < ONE_AT_A_TIME * onsets and len(mine) >= LEAD_SHARE * notes:
            lines.append((float(mine[:, PITCH].mean()), (program, instance)))
    lines.sort()
    basses = [voice for _, voice in lines if voice[0] in BASS_PROGRAMS]
    if not basses and lines and len(tuned) > 1 and lines[0][0] < BASS_BELOW:
        basses = [lines[0][1]]
    roles |= dict.fromkeys(basses, BASS)
    upper = [voice for _, voice in lines if voice not in basses]
    if upper:
        roles[upper[-1]] = LEAD
    return roles


def roles_of(rows: np.ndarray, roles: Mapping[Voice, int]) -> np.ndarray:
    """The role of each row's voice, (n,); CHORDS for a voice that has none."""
    return np.array([roles.get(voice, CHORDS) for voice in map(tuple, rows[:, [PROGRAM, INSTANCE]].tolist())], np.int64)
