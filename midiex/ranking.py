"""Which of several candidate chunks fits the song best, and which are no good at all. Pure functions on rows.

Few terms, each zero for a candidate that is just like the song:

    surprise    how far the model's nats a note lie above the song's own, or more than one nat below (too easy)
    density     difference in notes a second, in octaves
    voices      one minus the overlap of how many notes each voice has
    length      difference of typical note length, in octaves
    harmony     one minus the cosine of the pitch class weights
    register    difference of mean pitch, in octaves
    loudness    difference of mean velocity, in fifths of its range
    rhythm      one minus the overlap of where in the bar notes begin
    repetition  difference of likeness to the chunk before, against the song's usual likeness of neighbours
    seam        silence before the first note beyond the song's longest silence at a bar line, in bars
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import metrics
from .chunks import likeness_set
from .constraints import longest_empty_run
from .tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    DURATIONS,
    FIELD_SIZES,
    INSTANCE,
    MAX_INSTANCES,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
)

WEIGHTS = {
    "surprise": 0.3, "density": 1.0, "voices": 2.0, "length": 0.5, "harmony": 2.0, "register": 1.0, "loudness": 0.5,
    "rhythm": 1.0, "repetition": 1.0, "seam": 1.0,
}  # fmt: skip
SILENT_SHARE = 0.2  # of the song's thinnest chunk's density: below it a chunk is silent
STUCK_RUN = 1.75  # a note may be struck this many times as often in a row as the song ever does
GAP_MARGIN = 1.25  # onsets may lie this much further apart than the song's ever do
LOOP_MARGIN = 0.25  # likeness of bars or chunks beyond the most the song shows


@dataclass(frozen=True)
class Style:
    """What the song is like, measured over its own chunks."""

    density: float  # notes a second, mean of chunks that have any
    thinnest: float  # the least
    voices: np.ndarray  # (129 * 8,) share of notes of each (program, instance)
    length: float  # mean of log2 of the tuned notes' lengths
    pitch_classes: np.ndarray  # (12,)
    register: float
    loudness: float
    rhythm: np.ndarray  # (96,) share of notes at each position of the bar
    neighbour_likeness: float  # usual likeness of a chunk to the one before
    most_neighbour_likeness: float  # the most
    most_bar_likeness: float  # the most a chunk's bars are alike, on average
    longest_run: int  # most times one voice strikes the same pitch in a row, and nothing else
    longest_gap: int  # longest time between onsets, in positions
    longest_silence: float  # longest silence at a bar line, in positions
    empty_run: int  # most bars in a row without an onset
    nll: float | None = None  # nats a note of the song under the model

    @classmethod
    def of(cls, chunks: list[tuple[np.ndarray, int, float]], bar_positions: int, nll: float | None = None) -> Style:
        """`chunks`: (rows, bars, seconds) of the song's chunks, in order; `bar_positions` of its usual bar."""
        played = [(rows, bars, seconds) for rows, bars, seconds in chunks if len(rows)]
        density = np.array([len(rows) / max(seconds, 1e-3) for rows, _, seconds in played])
        rows = np.concatenate([rows for rows, _, _ in played])
        neighbours = [
            metrics.likeness(likeness_set(a[0]), likeness_set(b[0])) for a, b in zip(played, played[1:], strict=False)
        ]
        return cls(
            density=float(np.median(density)),
            thinnest=float(density.min()),
            voices=_voices(rows),
            length=_length(rows),
            pitch_classes=_pitch_classes(rows),
            register=_register(rows),
            loudness=float(rows[:, VELOCITY].mean()),
            rhythm=_rhythm(rows),
            neighbour_likeness=float(np.mean(neighbours)) if neighbours else 0.3,
            most_neighbour_likeness=max(neighbours, default=0.3),
            most_bar_likeness=max(_bar_likeness(rows, bars) for rows, bars, _ in played),
            longest_run=max(_longest_run(rows) for rows, _, _ in played),
            longest_gap=int(np.diff(_onsets(chunks, bar_positions)).max(initial=bar_positions // 2)),
            longest_silence=_longest_silence(chunks, bar_positions),
            empty_run=max(_empty_run(rows, bars) for rows, bars, _ in played),
            nll=nll,
        )


@dataclass(frozen=True)
class Before:
    """The chunk before the candidates."""

    rows: np.ndarray
    bars: int
    bar_positions: int  # of the usual bar


def terms(rows: np.ndarray, nll: float, seconds: float, style: Style, before: Before) -> dict[str, float]:
    """The terms of a candidate (rows must not be empty)."""
    surprise = 0.0
    if style.nll is not None:
        surprise = max(0.0, nll - style.nll) + max(0.0, style.nll - 1.0 - nll)
    return {
        "surprise": surprise,
        "density": abs(float(np.log2(len(rows) / max(seconds, 1e-3) / style.density))),
        "voices": 1 - float(np.minimum(_voices(rows), style.voices).sum()),
        "length": abs(_length(rows) - style.length),
        "harmony": 1 - _cosine(_pitch_classes(rows), style.pitch_classes),
        "register": abs(_register(rows) - style.register) / 12,
        "loudness": abs(float(rows[:, VELOCITY].mean()) - style.loudness) * 5 / 32,
        "rhythm": 1 - float(np.minimum(_rhythm(rows), style.rhythm).sum()),
        "repetition": abs(metrics.likeness(likeness_set(rows), likeness_set(before.rows)) - style.neighbour_likeness),
        "seam": max(0.0, silence_before(rows, before) - style.longest_silence) / before.bar_positions,
    }


def score(found: dict[str, float]) -> float:
    """Weighted sum of the terms; lower is better."""
    return sum(WEIGHTS[name] * value for name, value in found.items())


def faults(rows: np.ndarray, bars: int, seconds: float, style: Style, before: Before) -> list[str]:
    """Why a chunk must not be used: "silent" (too thin, bars left empty), "hole" (a rest, at the seam or inside, longer
    than the song's), "stuck" or "looping"; an empty list when it may be. What the song itself does is never a fault."""
    if len(rows) == 0 or len(rows) / max(seconds, 1e-3) < SILENT_SHARE * style.thinnest:
        return ["silent"]
    found = []
    unavoidable = silence_before(np.zeros((1, rows.shape[1]), rows.dtype), before)  # with a note on the very downbeat
    hole = silence_before(rows, before) > max(style.longest_silence, unavoidable)
    stretched = _longest_gap(rows, bars, before.bar_positions) > GAP_MARGIN * style.longest_gap
    if _empty_run(rows, bars) > style.empty_run:
        found.append("silent")
    if hole or stretched:
        found.append("hole")
    if is_stuck(rows, style):
        found.append("stuck")
    again = metrics.likeness(likeness_set(rows), likeness_set(before.rows))
    if (
        again > max(0.75, style.most_neighbour_likeness + LOOP_MARGIN)
        or bars > 2
        and _bar_likeness(rows, bars) > max(0.75, style.most_bar_likeness + LOOP_MARGIN)
    ):
        found.append("looping")
    return found


def _voices(rows: np.ndarray) -> np.ndarray:
    voice = rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE]
    return np.bincount(voice, minlength=FIELD_SIZES[PROGRAM] * MAX_INSTANCES) / max(1, len(rows))


def _length(rows: np.ndarray) -> float:
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    return float(np.log2(DURATIONS[tuned[:, DURATION]]).mean()) if len(tuned) else 0.0


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


def _empty_run(rows: np.ndarray, bars: int) -> int:
    """Most bars in a row without an onset, those at the chunk's edges too."""
    return max(longest_empty_run(rows, bars), int(rows[0, BAR]), bars - 1 - int(rows[-1, BAR]))


def is_stuck(rows: np.ndarray, style: Style) -> bool:
    """Does a voice strike one pitch over and over, far more often in a row than the song does?"""
    return _longest_run(rows) > max(12, STUCK_RUN * style.longest_run)


def silence_before(rows: np.ndarray, before: Before) -> float:
    """Positions from the last release of the chunk before to the first onset of this one; 0 when notes ring across."""
    first = int(rows[0, BAR]) * before.bar_positions + int(rows[0, POSITION])
    if len(before.rows) == 0:
        return float(first)
    onset = (before.rows[:, BAR] - before.bars) * before.bar_positions + before.rows[:, POSITION]
    return max(0.0, first - float((onset + DURATIONS[before.rows[:, DURATION]] / 2).max()))


def _onsets(chunks: list[tuple[np.ndarray, int, float]], bar_positions: int) -> np.ndarray:
    """All onsets of consecutive chunks, in positions since their beginning."""
    first_bars = np.cumsum([0] + [bars for _, bars, _ in chunks])
    parts = [
        (rows[:, BAR] + first) * bar_positions + rows[:, POSITION]
        for (rows, _, _), first in zip(chunks, first_bars, strict=False)
    ]
    return np.unique(np.concatenate(parts))


def _longest_gap(rows: np.ndarray, bars: int, bar_positions: int) -> int:
    """Longest time without an onset in a chunk, its beginning and end included, in positions."""
    onsets = rows[:, BAR] * bar_positions + rows[:, POSITION]
    return int(np.diff(np.unique(np.concatenate([[0], onsets, [bars * bar_positions]]))).max())


def _longest_silence(chunks: list[tuple[np.ndarray, int, float]], bar_positions: int) -> float:
    """The longest silence that holds a bar line, in positions, over consecutive chunks."""
    starts, ends, first_bar = [], [], 0
    for rows, bars, _ in chunks:
        start = (rows[:, BAR] + first_bar) * bar_positions + rows[:, POSITION]
        starts.append(start)
        ends.append(start + DURATIONS[rows[:, DURATION]] / 2)
        first_bar += bars
    start, end = np.concatenate(starts), np.concatenate(ends)
    sounding_until = np.maximum.accumulate(end)
    silence = start[1:] - sounding_until[:-1]
    holds_line = start[1:] // bar_positions > start[:-1] // bar_positions
    return float(silence[holds_line].max(initial=0.0))


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
