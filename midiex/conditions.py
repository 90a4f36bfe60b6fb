"""What a chunk is like, in a few small integers: the conditions the model is told before it writes one.

Computed from the notes in training; in use the song's own are held, so that its mood holds. 0 is "unknown" in each.
Knows rows; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import metrics
from .aligned import LIKENESS_BINS, LIKENESSES
from .roles import ROLES, Voice
from .tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    DURATIONS,
    DURATIONS_PER_BEAT,
    FIELD_SIZES,
    INSTANCE,
    MICROS_PER_POSITION,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
    VELOCITY_STEP,
)

CONDITIONS = (
    "bars",
    "meter",
    "tempo",
    "density",
    "velocity",
    "register",
    "mode",
    "clarity",
    "arousal",
    "valence",
    "left",
    "likeness",  # to the source, overall and by role (aligned.py)
    *(f"likeness_{name}" for name in ROLES),
)
CONDITION_SIZES = (17, 97, 25, 17, 9, 17, 6, 6, 11, 11, 7, *[LIKENESS_BINS] * LIKENESSES)
BARS, METER, TEMPO, DENSITY, LOUDNESS, REGISTER, MODE, CLARITY, AROUSAL, VALENCE, LEFT, LIKENESS = range(12)
VOICE_INSTANCES = 8  # of each program that are told apart; later ones count as the last
VOICE_SLOTS = FIELD_SIZES[PROGRAM] * VOICE_INSTANCES


def _bin(value: float, low: float, high: float, size: int) -> int:
    """1..size - 1 for low..high, clipped."""
    return 1 + int(np.clip((value - low) / (high - low) * (size - 1), 0, size - 2))


def chunks_left_bin(left: int) -> int:
    """`left` counts the chunks from this one to the end, itself included; 0 or less is unknown."""
    return 0 if left <= 0 else left if left <= 3 else 4 if left <= 5 else 5 if left <= 9 else 6


def frame_conditions(bars: int, bar_units: float, beats: float, seconds: float, left: int) -> np.ndarray:
    """The conditions that do not depend on notes, shape (conditions,); `bar_units` is the usual bar's length in 1/96
    beat."""
    out = np.zeros(len(CONDITIONS), np.int64)
    out[BARS] = min(bars, CONDITION_SIZES[BARS] - 1)
    out[METER] = int(np.clip(round(bar_units / MICROS_PER_POSITION), 1, CONDITION_SIZES[METER] - 1))
    bpm = 60 * beats / max(seconds, 1e-3)
    out[TEMPO] = _bin(np.log2(max(bpm, 1.0)), np.log2(30), np.log2(300), CONDITION_SIZES[TEMPO])
    out[LEFT] = chunks_left_bin(left)
    return out


def features(rows: np.ndarray, beats: float, seconds: float) -> dict[str, float]:
    """Continuous figures of a chunk's rows (n, 8): density, velocity, register, mode, clarity, arousal, valence."""
    beat_s = seconds / max(beats, 1e-6)
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    lengths_s = DURATIONS[tuned[:, DURATION]] / DURATIONS_PER_BEAT * beat_s
    pitch = tuned[:, PITCH] % DRUM_PITCH_OFFSET
    mode, clarity = metrics.mode_and_clarity(metrics.pitch_class_weights(pitch, lengths_s))
    velocity = float(rows[:, VELOCITY].mean() * VELOCITY_STEP + VELOCITY_STEP / 2) if len(rows) else 0.0
    onsets = len(np.unique(rows[:, BAR].astype(np.int64) * 128 + rows[:, POSITION]))
    return {
        "density": len(rows) / max(seconds, 1e-3),
        "velocity": velocity,
        "register": float(pitch.mean()) if len(pitch) else 60.0,
        "mode": mode,
        "clarity": clarity,
        "arousal": metrics.arousal(
            onsets / max(seconds, 1e-3), float(np.median(lengths_s)) if len(tuned) else 0.3, velocity
        ),
        "valence": metrics.valence(mode, clarity, float((pitch < metrics.BASS_BELOW).mean()) if len(pitch) else 0.3),
        "tuned": float(len(tuned)),
    }


def note_conditions(figures: dict[str, float]) -> np.ndarray:
    """The conditions that come from notes, shape (conditions,), 0 at the others."""
    out = np.zeros(len(CONDITIONS), np.int64)
    out[DENSITY] = _bin(np.log2(max(figures["density"], 0.1)), -2, 6, CONDITION_SIZES[DENSITY])
    if figures["velocity"] > 0:
        out[LOUDNESS] = _bin(figures["velocity"], 30, 125, CONDITION_SIZES[LOUDNESS])
        out[AROUSAL] = _bin(figures["arousal"], -2.5, 2.5, CONDITION_SIZES[AROUSAL])
    if figures["tuned"] > 0:
        out[REGISTER] = _bin(figures["register"], 36, 90, CONDITION_SIZES[REGISTER])
        out[MODE] = _bin(figures["mode"], -0.3, 0.3, CONDITION_SIZES[MODE])
        out[CLARITY] = _bin(figures["clarity"], 0.4, 1.0, CONDITION_SIZES[CLARITY])
        out[VALENCE] = _bin(figures["valence"], -2.5, 2.5, CONDITION_SIZES[VALENCE])
    return out


def program_vector(rows: np.ndarray) -> np.ndarray:
    """1.0 for every program that plays in rows, shape (129,) float32."""
    out = np.zeros(FIELD_SIZES[PROGRAM], np.float32)
    out[np.unique(rows[:, PROGRAM])] = 1.0
    return out


def voice_vector(rows: np.ndarray) -> np.ndarray:
    """1.0 for every voice (program, instance) that plays in rows, shape (VOICE_SLOTS,) float32."""
    return vector_of_voices(rows[:, [PROGRAM, INSTANCE]])


def vector_of_voices(voices: Sequence[Voice] | np.ndarray) -> np.ndarray:
    """1.0 for each of the voices (program, instance), shape (VOICE_SLOTS,) float32."""
    program, instance = np.asarray(voices, np.int64).reshape(-1, 2).T
    out = np.zeros(VOICE_SLOTS, np.float32)
    out[program * VOICE_INSTANCES + np.minimum(instance, VOICE_INSTANCES - 1)] = 1.0
    return out
