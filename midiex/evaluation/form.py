"""Has the music form? Contrast, change and return of its sections (figure 11).

The figures of a stretch of a song, over blocks of four bars from the stretch's first bar on; for returns everything
before it counts too. Pure functions on excerpts; knows no songs, files or models.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .. import metrics
from ..tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    INSTANCE,
    MAX_INSTANCES,
    MICRO,
    MICRO_CENTER,
    MICRO_PER_BEAT,
    MICROS_PER_POSITION,
    PITCH,
    POSITION,
    PROGRAM,
)
from .excerpts import Excerpt

BLOCK_BARS = 4  # of a block, and of a phrase that may come back
FEWEST_BLOCKS = 4  # of which anything is told
FIGURES = (
    "dens_cv", "contrast", "adj_mean", "adj_sd", "track_cv", "sets", "phrase_best", "returns_5", "returns_8",
)  # fmt: skip
JUDGED = (
    "dens_cv",
    "contrast",
    "adj_sd",
    "track_cv",
    "sets",
    "returns_5",
    "returns_8",
)  # by which writers are compared
BAND_VOICES = 3  # at least, drums among them
RIVALS = ("loop", "repeat")  # to which ours is to be preferred

Figures = Mapping[str, Mapping[str, float]]  # by writer and figure

_SLOTS = 4  # of a bar in which a voice's onsets are counted
_GRID = 48  # places of a bar at which a note is the same
_HALF, _MOST = 0.5, 0.8  # of a phrase's notes, from which it has come back
_SILENT_NOTES_S = 0.05  # a voice of no more notes a second takes no part
_EARLY_S, _LATE_S = 0.1, 0.5  # bars may begin so much before a stretch and end so much after it


def figures(song: Excerpt, first_bar: int, last_bar: int) -> dict[str, float]:
    """Form of bars [first_bar, last_bar) of a song, given from its beginning; FIGURES by name.

    Over blocks of BLOCK_BARS bars (what is left over at the end does not count):

    - dens_cv: coefficient of variation (standard deviation by mean) of their notes a second;
    - contrast: 1 less the 5th percentile of the likeness of two blocks, which is the cosine of what they hold: pitch
      classes, drums by pitch, and each voice's onsets by quarter of the bar;
    - adj_mean, adj_sd: mean and standard deviation of the likeness of neighbouring blocks;
    - track_cv: mean over voices of the coefficient of variation of a voice's notes a second;
    - sets: how many different sets of voices play in a block;
    - phrase_best: mean over blocks of how much of each came back: the highest mean over its bars of the share of notes
      in common (Jaccard of voice, pitch and onset in 48ths of the bar) with any four bars of the song, side by side,
      that end before it begins;
    - returns_5, returns_8: shares of the blocks of which this is at least .5 and .8.

    All are NaN with fewer than FEWEST_BLOCKS blocks. Raises nothing; a stretch without notes is all alike.
    """
    starts = np.arange(first_bar, last_bar - BLOCK_BARS + 1, BLOCK_BARS)
    if len(starts) < FEWEST_BLOCKS:
        return dict.fromkeys(FIGURES, float("nan"))
    stretch = song.part(first_bar, int(starts[-1]) + BLOCK_BARS)
    block = stretch.rows[:, BAR] // BLOCK_BARS
    voice, voices = _voices(stretch.rows)
    per_s = np.zeros((voices, len(starts)))
    np.add.at(per_s, (voice, block), 1.0)
    playing = per_s > 0
    per_s /= np.maximum(stretch.bar_s.reshape(-1, BLOCK_BARS).sum(1), 1e-3)
    density = per_s.sum(0)
    heard = per_s[per_s.mean(1) > _SILENT_NOTES_S]
    alike = _likeness(stretch, block, voice, voices, len(starts))
    neighbours = np.diagonal(alike, 1)
    best = best_returns(song, starts)
    return {
        "dens_cv": float(density.std() / max(density.mean(), 1e-9)),
        "contrast": float(alike.max() - np.percentile(alike[np.triu_indices(len(alike), 1)], 5)),
        "adj_mean": float(neighbours.mean()),
        "adj_sd": float(neighbours.std()),
        "track_cv": float((heard.std(1) / heard.mean(1)).mean()) if len(heard) else 0.0,
        "sets": float(len(np.unique(playing, axis=1).T)),
        "phrase_best": float(best.mean()),
        "returns_5": float((best >= _HALF).mean()),
        "returns_8": float((best >= _MOST).mean()),
    }


def best_returns(song: Excerpt, starts: np.ndarray) -> np.ndarray:
    """How much of the BLOCK_BARS bars from each of `starts` (n,) on stood somewhere before them, (n,): 0 to 1."""
    rows = song.rows[song.rows[:, BAR] < starts.max(initial=-BLOCK_BARS) + BLOCK_BARS]
    bars = int(starts.max(initial=-BLOCK_BARS)) + BLOCK_BARS
    place = np.round(_part_of_bar(song, rows) * _GRID).astype(np.int64)
    voice, _ = _voices(rows)
    shared = metrics.in_common((voice * (_GRID + 1) + place) * 256 + rows[:, PITCH], rows[:, BAR], bars).astype(float)
    counts = np.diagonal(shared)
    likeness = shared / np.maximum(counts[:, None] + counts - shared, 1)  # of each two bars
    best = np.zeros(len(starts))
    for k, start in enumerate(starts):
        earlier = start - BLOCK_BARS + 1  # places at which four bars may begin
        if earlier > 0:
            along = [likeness[start + i, i : i + earlier] for i in range(BLOCK_BARS)]
            best[k] = np.mean(along, 0).max()
    return best


def bars_within(music: Excerpt, from_s: float, to_s: float) -> tuple[int, int]:
    """Bars [first, last) that lie between two moments; they may begin a tenth of a second early and end half a second
    late, since bar lines of two versions of a song seldom agree to the millisecond."""
    lines = np.concatenate([[0.0], np.cumsum(music.bar_s)])
    first = int(np.searchsorted(lines[:-1], from_s - _EARLY_S))
    last = int(np.searchsorted(lines[1:], to_s + _LATE_S, side="right"))
    return first, max(first, last)


def is_band(song: Excerpt) -> bool:
    """Has the song drums and at least BAND_VOICES voices, the drums among them?"""
    return bool((song.rows[:, PROGRAM] == DRUM_PROGRAM).any()) and _voices(song.rows)[1] >= BAND_VOICES


# ---- beside the real one --------------------------------------------------------------------------------------------


def distances(means: Figures) -> dict[str, dict[str, float]]:
    """How far each writer's mean lies from the real one, as a part of it: -.5 is half, 1 twice as much."""
    real = means["real"]
    return {
        writer: {name: (value - real[name]) / real[name] if real[name] else float("nan") for name, value in own.items()}
        for writer, own in means.items()
        if writer != "real"
    }


def nearer(means: Figures, writer: str = "ours") -> dict[str, int]:
    """On how many of JUDGED the writer's mean is nearer to the real one than each of RIVALS."""
    if writer not in means:
        return {}
    nan = float("nan")  # which is nearer to nothing
    off = {
        name: {figure: abs(own.get(figure, nan) - means["real"].get(figure, nan)) for figure in JUDGED}
        for name, own in means.items()
    }
    rivals = [rival for rival in RIVALS if rival in means]
    return {rival: sum(off[writer][figure] < off[rival][figure] for figure in JUDGED) for rival in rivals}


# ---- parts -----------------------------------------------------------------------------------------------------------


def _voices(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Each row's voice (n,), counted from 0, and how many there are."""
    names, voice = np.unique(rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE], return_inverse=True)
    return voice.reshape(-1), len(names)


def _part_of_bar(music: Excerpt, rows: np.ndarray) -> np.ndarray:
    """Onset of rows (n, 8) as a part of their bar, 0 to less than 1, (n,)."""
    unit = rows[:, POSITION] * MICROS_PER_POSITION + rows[:, MICRO] - MICRO_CENTER
    return (unit / np.maximum(music.bar_beats[rows[:, BAR]] * MICRO_PER_BEAT, 1)).clip(0, 1 - 1e-6)


def _likeness(stretch: Excerpt, block: np.ndarray, voice: np.ndarray, voices: int, blocks: int) -> np.ndarray:
    """Cosine of what blocks hold, (blocks, blocks); 0 with a block without notes."""
    rows = stretch.rows
    pitch = rows[:, PITCH].astype(np.int64)
    drum = pitch >= DRUM_PITCH_OFFSET
    sound = np.where(drum, 12 + pitch - DRUM_PITCH_OFFSET, pitch % 12)
    slot = ((rows[:, BAR] % BLOCK_BARS + _part_of_bar(stretch, rows)) * _SLOTS).astype(np.int64)
    kinds, slots = 12 + DRUM_PITCH_OFFSET, BLOCK_BARS * _SLOTS
    held = np.zeros((blocks, kinds + voices * slots))
    np.add.at(held, (block, sound), 1.0)
    np.add.at(held, (block, kinds + voice * slots + slot), 1.0)
    held /= np.maximum(np.linalg.norm(held, axis=1, keepdims=True), 1e-9)
    return held @ held.T
