"""Which of several candidate chunks fits the song best, and which are no good at all. Pure functions on rows.

Few terms, each zero for a candidate that is just like the song:

    surprise    how far the model's nats a note lie above the song's own, or more than one nat below (too easy)
    density     difference in notes a second, in octaves
    harmony     one minus the cosine of the pitch class weights
    register    difference of mean pitch, in octaves
    loudness    difference of mean velocity, in fifths of its range
    rhythm      one minus the overlap of where in the bar notes begin
    repetition  difference of likeness to the chunk before, against the song's usual likeness of neighbours
    seam        silence before the first note beyond the song's own longest, in bars
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import metrics
from .chunks import likeness_set
from .constraints import longest_empty_run
from .tokens import BAR, DRUM_PITCH_OFFSET, DRUM_PROGRAM, DURATION, DURATIONS, INSTANCE, PITCH, POSITION, PROGRAM, VELOCITY

WEIGHTS = {
    "surprise": 0.3, "density": 1.0, "harmony": 2.0, "register": 1.0, "loudness": 0.5, "rhythm": 1.0, "repetition": 1.0,
    "seam": 1.0,
}  # fmt: skip
SILENT_SHARE = 0.2  # of the song's thinnest chunk's density: below it a chunk is silent
STUCK_RUN = 1.75  # a note may be struck this many times as often in a row as the song ever does
LOOP_MARGIN = 0.25  # likeness of bars or chunks beyond the most the song shows


@dataclass(frozen=True)
class Style:
    """What the song is like, measured over its own chunks."""

    density: float  # notes a second, mean of chunks that have any
    thinnest: float  # the least
    pitch_classes: np.ndarray  # (12,)
    register: float
    loudness: float
    rhythm: np.ndarray  # (96,) share of notes at each position of the bar
    neighbour_likeness: float  # usual likeness of a chunk to the one before
    most_bar_likeness: float  # the most a chunk's bars are alike, on average
    longest_run: int  # most times one voice strikes the same pitch in a row, and nothing else
    longest_gap: float  # longest stretch without an onset, in bars
    empty_run: int  # most bars in a row without an onset
    nll: float | None = None  # nats a note of the song under the model

    @classmethod
    def of(cls, chunks: list[tuple[np.ndarray, int, float]], nll: float | None = None) -> Style:
        """`chunks`: (rows, bars, seconds) of the song's chunks, in order."""
        played = [(rows, bars, seconds) for rows, bars, seconds in chunks if len(rows)]
        density = np.array([len(rows) / max(seconds, 1e-3) for rows, _, seconds in played])
        rows = np.concatenate([rows for rows, _, _ in played])
        neighbours = [
            metrics.likeness(likeness_set(a[0]), likeness_set(b[0])) for a, b in zip(played, played[1:], strict=False)
        ]
        return cls(
            density=float(np.median(density)),
            thinnest=float(density.min()),
            pitch_classes=_pitch_classes(rows),
            register=_register(rows),
            loudness=float(rows[:, VELOCITY].mean()),
            rhythm=_rhythm(rows),
            neighbour_likeness=float(np.mean(neighbours)) if neighbours else 0.3,
            most_bar_likeness=max(_bar_likeness(rows, bars) for rows, bars, _ in played),
            longest_run=max(_longest_run(rows) for rows, _, _ in played),
            longest_gap=max(_gap(rows) for rows, _, _ in played),
            empty_run=max(longest_empty_run(rows, bars) for rows, bars, _ in played),
            nll=nll,
        )


def terms(rows: np.ndarray, nll: float, seconds: float, style: Style, before: np.ndarray) -> dict[str, float]:
    """The terms of a candidate (rows must not be empty); `before` are the rows of the chunk before it."""
    surprise = 0.0
    if style.nll is not None:
        surprise = max(0.0, nll - style.nll) + max(0.0, style.nll - 1.0 - nll)
    return {
        "surprise": surprise,
        "density": abs(float(np.log2(len(rows) / max(seconds, 1e-3) / style.density))),
        "harmony": 1 - _cosine(_pitch_classes(rows), style.pitch_classes),
        "register": abs(_register(rows) - style.register) / 12,
        "loudness": abs(float(rows[:, VELOCITY].mean()) - style.loudness) * 5 / 32,
        "rhythm": 1 - float(np.minimum(_rhythm(rows), style.rhythm).sum()),
        "repetition": abs(metrics.likeness(likeness_set(rows), likeness_set(before)) - style.neighbour_likeness),
        "seam": max(0.0, _bars_before(rows) - style.longest_gap),
    }


def score(found: dict[str, float]) -> float:
    """Weighted sum of the terms; lower is better."""
    return sum(WEIGHTS[name] * value for name, value in found.items())


def faults(rows: np.ndarray, bars: int, seconds: float, style: Style, before: np.ndarray) -> list[str]:
    """Why a chunk must not be used: "silent", "stuck" or "looping"; empty when it may be. What the song itself does is
    never a fault."""
    if len(rows) == 0 or len(rows) / max(seconds, 1e-3) < SILENT_SHARE * style.thinnest:
        return ["silent"]
    found = []
    if max(longest_empty_run(rows, bars), int(rows[0, BAR]), bars - 1 - int(rows[-1, BAR])) > style.empty_run:
        found.append("silent")
    if _longest_run(rows) > max(12, STUCK_RUN * style.longest_run):
        found.append("stuck")
    again = metrics.likeness(likeness_set(rows), likeness_set(before))
    if again > max(0.75, style.neighbour_likeness + LOOP_MARGIN):
        found.append("looping")
    elif bars > 2 and _bar_likeness(rows, bars) > max(0.75, style.most_bar_likeness + LOOP_MARGIN):
        found.append("looping")
    return found


def _pitch_classes(rows: np.ndarray) -> np.ndarray:
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    return metrics.pitch_class_weights(tuned[:, PITCH], DURATIONS[tuned[:, DURATION]])


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 0 else 1.0


def _register(rows: np.ndarray) -> float:
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM, PITCH]
    return float(tuned.mean()) if len(tuned) else 60.0


def _rhythm(rows: np.ndarray) -> np.ndarray:
    return np.bincount(rows[:, POSITION], minlength=96) / max(1, len(rows))


def _bars_before(rows: np.ndarray) -> float:
    return float(rows[0, BAR]) + float(rows[0, POSITION]) / 48


def _gap(rows: np.ndarray) -> float:
    onset = np.unique(rows[:, BAR] + rows[:, POSITION] / 48)
    return max(float(np.diff(onset).max()) if len(onset) > 1 else 0.0, _bars_before(rows))


def _longest_run(rows: np.ndarray) -> int:
    """Most strikes in a row in which a tuned voice plays one pitch only."""
    longest = 1 if len(rows) else 0
    voice = rows[:, PROGRAM].astype(np.int64) * 8 + rows[:, INSTANCE]
    for v in np.unique(voice[rows[:, PROGRAM] != DRUM_PROGRAM]):
        pitch = rows[voice == v, PITCH]
        changes = np.flatnonzero(np.diff(pitch) != 0)
        runs = np.diff(np.concatenate([[-1], changes, [len(pitch) - 1]]))
        longest = max(longest, int(runs.max()))
    return longest


def _bar_likeness(rows: np.ndarray, bars: int) -> float:
    """Mean likeness of each bar to the one before (0 with fewer than two bars)."""
    sets = []
    for bar in range(bars):
        r = rows[rows[:, BAR] == bar].astype(np.int64)
        sets.append((r[:, POSITION] * 256 + r[:, PROGRAM]) * 512 + r[:, PITCH] % (2 * DRUM_PITCH_OFFSET))
    return float(np.mean([metrics.likeness(a, b) for a, b in zip(sets, sets[1:], strict=False)])) if bars > 1 else 0.0
