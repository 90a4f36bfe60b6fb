"""Changes a window of training music without making it worse music. Rows in, rows out; knows no model and no files.

Every change is drawn once a window, so that a song's chunks stay one song.
"""

from __future__ import annotations

import numpy as np

from .tokens import (
    BAR,
    DRUM_PROGRAM,
    FIELD_SIZES,
    INSTANCE,
    MAX_INSTANCES,
    PITCH,
    PROGRAM,
    VELOCITY,
    sort_rows,
)

FLAT_VELOCITY_SPREAD = 0.75  # in velocity bins; below it a score simply had no dynamics


def transpose(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All tuned notes by the same -5..6 semitones, as far as all stay on the keyboard; drums stay."""
    tuned = rows[:, PROGRAM] != DRUM_PROGRAM
    if not tuned.any():
        return rows
    lowest, highest = rows[tuned, PITCH].min(), rows[tuned, PITCH].max()
    shift = int(np.clip(rng.integers(-5, 7), -lowest, 127 - highest))
    out = rows.copy()
    out[tuned, PITCH] += shift
    return out


def swap_instruments(rows: np.ndarray, rng: np.random.Generator, chance: float) -> np.ndarray:
    """Each program becomes, with `chance`, another of its General MIDI family of eight not yet in use."""
    out = rows.copy()
    used = set(np.unique(rows[:, PROGRAM]).tolist())
    for program in sorted(used - {DRUM_PROGRAM}):
        if rng.random() < chance:
            free = [p for p in range(program // 8 * 8, program // 8 * 8 + 8) if p not in used]
            if free:
                new = int(rng.choice(free))
                used.add(new)
                out[rows[:, PROGRAM] == program, PROGRAM] = new
    return out


def drop_voice(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Without one of at least three voices, never the one with most notes."""
    voice = rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE]
    voices, counts = np.unique(voice, return_counts=True)
    if len(voices) < 3:
        return rows
    gone = rng.choice(np.delete(voices, counts.argmax()))
    return rows[voice != gone]


def level_velocity(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Louder or softer as a whole; a score without dynamics gets a level of its own for each voice, so that one flat
    velocity never becomes a habit."""
    out = rows.copy()
    top = FIELD_SIZES[VELOCITY] - 1
    if rows[:, VELOCITY].std() < FLAT_VELOCITY_SPREAD:
        voice = rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE]
        base = rng.integers(13, 27)
        for v in np.unique(voice):
            out[voice == v, VELOCITY] = np.clip(base + rng.integers(-3, 4), 1, top)
    else:
        out[:, VELOCITY] = np.clip(rows[:, VELOCITY] + rng.integers(-2, 3), 1, top)
    return out


def overlay_drums(
    rows: np.ndarray, pattern: np.ndarray, pattern_bars: int, first_bar: int, last_bar: int
) -> np.ndarray:
    """Rows with a drum pattern (rows over `pattern_bars` bars) repeated under bars [first_bar, last_bar)."""
    copies = []
    for start in range(first_bar, last_bar, pattern_bars):
        part = pattern.copy()
        part[:, BAR] += start
        copies.append(part[part[:, BAR] < last_bar])
    return sort_rows(np.concatenate([rows, *copies]))


def spread_instances(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The instances of each program under other numbers, in the same order, so that songs with many tracks of one
    program, which are rare, meet numbers that are known."""
    out = rows.copy()
    for program in np.unique(rows[:, PROGRAM]):
        mine = rows[:, PROGRAM] == program
        instances, which = np.unique(rows[mine, INSTANCE], return_inverse=True)
        out[mine, INSTANCE] = np.sort(rng.permutation(MAX_INSTANCES)[: len(instances)])[which.reshape(-1)]
    return out
