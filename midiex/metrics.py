"""Figures of a passage of music: key, mood, likeness. Pure functions on note arrays; knows no files and no model."""

from __future__ import annotations

import numpy as np

from .grid import POSITIONS_PER_BEAT
from .tokens import BAR, PITCH, POSITION, PROGRAM

# Key profiles of Krumhansl and Kessler (Psychological Review 89, 1982), as probe-tone ratings from the tonic up.
MAJOR_PROFILE = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR_PROFILE = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
KEY_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_SIXTEENTH = POSITIONS_PER_BEAT // 4
_BLOCK = 1024  # distinct notes counted at once
BASS_BELOW = 55  # notes under G3 count as bass


def _standardised(profile: np.ndarray) -> np.ndarray:
    rolled = np.stack([np.roll(profile, k) for k in range(12)])  # (12, 12), row k is the key on pitch class k
    rolled = rolled - rolled.mean(1, keepdims=True)
    return rolled / np.linalg.norm(rolled, axis=1, keepdims=True)


_MAJOR, _MINOR = _standardised(MAJOR_PROFILE), _standardised(MINOR_PROFILE)


def pitch_class_weights(pitch: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """How much of each pitch class sounds, shape (12,); `weight` (n,) is usually the notes' lengths."""
    return np.bincount(np.asarray(pitch, np.int64) % 12, weights=weight, minlength=12).astype(np.float64)


def key_fit(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of pitch class weights (12,) with each major and each minor key, two arrays of shape (12,)."""
    centred = weights - weights.mean()
    norm = np.linalg.norm(centred)
    if norm == 0:
        return np.zeros(12), np.zeros(12)
    return _MAJOR @ centred / norm, _MINOR @ centred / norm


def key_of(weights: np.ndarray) -> tuple[str, float]:
    """Best fitting key such as "F# minor" and its correlation (0: no key)."""
    major, minor = key_fit(weights)
    tonic = key_note(weights)
    name = f"{KEY_NAMES[tonic]} {'major' if major[tonic] >= minor[tonic] else 'minor'}"
    return name, float(max(major[tonic], minor[tonic]))


def key_note(weights: np.ndarray) -> int:
    """Pitch class (0-11) of the key note of the best fitting key."""
    return int(np.argmax(np.maximum(*key_fit(weights))))


def tonic_triad(weights: np.ndarray) -> np.ndarray:
    """Pitch classes of the best fitting key's triad, shape (12,) bool."""
    major, minor = key_fit(weights)
    tonic = key_note(weights)
    triad = np.zeros(12, bool)
    triad[[tonic, (tonic + (4 if major[tonic] >= minor[tonic] else 3)) % 12, (tonic + 7) % 12]] = True
    return triad


def mode_and_clarity(weights: np.ndarray) -> tuple[float, float]:
    """How much better the best major key fits than the best minor one (-1..1), and how well the best key fits."""
    major, minor = key_fit(weights)
    return float(major.max() - minor.max()), float(max(major.max(), minor.max(), 0.0))


def arousal(onsets_per_s: float, median_duration_s: float, mean_velocity: float) -> float:
    """Calm to excited, about -3..3, around 0 for ordinary music.

    A linear proxy from onset density, note length and loudness, with the signs and rough sizes of the weights that a
    regression on listeners' labels of game piano music gives (there: AUC .87). Means and spreads are round numbers
    near those of the training music.
    """
    density = (np.log2(max(onsets_per_s, 0.25)) - 2.0) / 1.0
    length = (np.log2(max(median_duration_s, 0.02)) + 1.6) / 1.2
    return float(0.6 * density - 0.5 * length + 0.4 * (mean_velocity - 78) / 20)


def valence(mode: float, clarity: float, bass_share: float) -> float:
    """Dark to bright, about -3..3. A weak proxy (AUC .74 on the same labels): mode, clarity, bass share."""
    return float(2.5 * mode + 2.0 * (clarity - 0.75) - 0.5 * (bass_share - 0.3) / 0.2)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard likeness of two sets of integers (0: nothing shared, 1: equal)."""
    if len(a) == 0 or len(b) == 0:
        return 0.0
    shared = len(np.intersect1d(a, b))
    return shared / (len(np.unique(a)) + len(np.unique(b)) - shared)


def bar_likeness(rows: np.ndarray, bars: int, bars_per_cell: int = 1) -> np.ndarray:
    """How alike each two bars are, shape (cells, cells) float32: the share of their notes that they have in common.

    `rows` (n, 8) are a song's. A note is the same in two bars when sixteenth, instrument and pitch agree; the share is
    that of both bars' notes together (Jaccard: 1 equal, 0 nothing shared or no notes). With `bars_per_cell` k, k bars
    at a time are compared as if one.
    """
    cells = -(-bars // bars_per_cell)
    rows = rows[rows[:, BAR] < bars].astype(np.int64)
    sixteenth = (rows[:, POSITION] + _SIXTEENTH // 2) // _SIXTEENTH + 64 * (rows[:, BAR] % bars_per_cell)
    note = (sixteenth * 256 + rows[:, PROGRAM]) * 256 + rows[:, PITCH]
    shared = in_common(note, rows[:, BAR] // bars_per_cell, cells)
    counts = np.diagonal(shared)
    together = counts[:, None] + counts[None, :] - shared
    return np.divide(shared, np.maximum(together, 1, out=together), out=shared)


def in_common(note: np.ndarray, cell: np.ndarray, cells: int) -> np.ndarray:
    """How many different notes each two cells share, shape (cells, cells) float32 of whole numbers; on the diagonal
    how many a cell has. `note` (n,) are integers that tell notes apart, `cell` (n,) where each stands, from 0."""
    note = np.unique(note, return_inverse=True)[1]
    pairs = np.unique(note * cells + cell)  # each note once a cell
    note, cell = pairs // max(cells, 1), pairs % max(cells, 1)
    counts = np.bincount(cell, minlength=cells).astype(np.float32)
    often = np.bincount(note)[note] > 1 if len(note) else np.zeros(0, bool)  # the others are shared with no cell
    note, cell = np.unique(note[often], return_inverse=True)[1], cell[often]
    shared = np.zeros((cells, cells), np.float32)
    for first in range(0, int(note.max(initial=-1)) + 1, _BLOCK):
        block = slice(*np.searchsorted(note, (first, first + _BLOCK)))
        present = np.zeros((cells, _BLOCK), np.float32)
        present[cell[block], note[block] - first] = 1
        shared += present @ present.T
    np.fill_diagonal(shared, counts)
    return shared
