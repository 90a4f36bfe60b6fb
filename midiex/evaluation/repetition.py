"""Does the music come back, and how much? Likeness of bars by distance, compression, longest exact repeat (figure 5).

Pure functions on excerpts; knows no songs, files or models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .. import metrics, structure
from ..tokens import BAR, DRUM_PITCH_OFFSET, PITCH
from .excerpts import STEPS_PER_BEAT, Excerpt

LAGS = (1, 2, 4, 8, 16, 32)
FEWEST_IN_PATTERN = 3  # notes; pairs recur by chance everywhere, and cost most of the time
MOST_POINTS = 1200  # encoded at once: pairs of notes grow with the square
_BEAT = 4  # sixteenths
_OCTAVES_KEPT = 128  # semitones; drums lie farther than this from any pitch, so no drum is a transposed note
_ROW = 1024  # codes of one sixteenth: every pitch, and room for its transpositions

Similarity = Mapping[int, float]


def similarity_by_lag(excerpt: Excerpt, lags: Sequence[int] = LAGS) -> dict[int, float]:
    """Mean likeness (0 to 1) of bars `lag` bars apart; NaN where fewer than structure.FEWEST_PAIRS pairs lie so far
    apart. Likeness is the share of both bars' notes that they have in common, as in Museformer (Yu et al., NeurIPS
    2022), but a note is the same when sixteenth, instrument and pitch agree, whatever its length."""
    likeness = metrics.bar_likeness(excerpt.rows, excerpt.bars)
    means = structure.likeness_by_lag(likeness, np.ones(excerpt.bars, bool), max(lags))
    return {lag: float(means[lag - 1]) for lag in lags}


def similarity_error(ours: Sequence[Similarity], real: Sequence[Similarity]) -> dict[int, float]:
    """Absolute difference of two corpora's mean similarity, by lag, after Museformer's similarity error (theirs is the
    mean of these over lags). `ours` and `real` are what `similarity_by_lag` gave of each song; NaN at lags that no song
    of one side has."""
    found = {}
    for lag in _lags(ours, real):
        means = [_mean(np.array([song[lag] for song in songs])) for songs in (ours, real)]
        found[lag] = abs(means[0] - means[1])
    return found


def paired_similarity_error(ours: Sequence[Similarity], real: Sequence[Similarity]) -> dict[int, float]:
    """Mean absolute difference, by lag, of each song's similarity from its own real one's: songs that repeat too much
    do not make up for others that repeat too little. `ours[i]` and `real[i]` continue the same song; songs that lack a
    lag on either side do not count for it."""
    found = {}
    for lag in _lags(ours, real):
        found[lag] = _mean(np.array([abs(a[lag] - b[lag]) for a, b in zip(ours, real, strict=True)]))
    return found


def longest_repeat_bars(excerpt: Excerpt) -> int:
    """Most bars in a row that come back exactly later, after the first time has ended; notes count as in
    `similarity_by_lag`, and empty bars never come back."""
    same = metrics.bar_likeness(excerpt.rows, excerpt.bars) == 1
    longest = 0
    for lag in range(1, excerpt.bars):
        if lag > longest:
            longest = max(longest, min(lag, longest_run(np.diagonal(same, lag))))
    return longest


def longest_run(flags: np.ndarray) -> int:
    """Most True in a row, flags of shape (n,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))


# ---- compression ----------------------------------------------------------------------------------------------------


def compression_ratio(excerpt: Excerpt) -> float:
    """How many times shorter the notes get when patterns that recur, transposed too, are written once; 1: not at all.

    Compression factor of COSIATEC (Meredith, Lemström and Wiggins 2003; Meredith 2013) on points (onset in sixteenths,
    pitch): of all largest patterns that some shift maps onto other notes, the one whose occurrences cover most notes
    for its price (its notes and the shifts to its other occurrences) is taken, the notes it covers are removed, and so
    on; the ratio is all points by the sum of the prices, with one for each point left over. Unlike Meredith we keep to
    shifts by whole beats (whole eighths where bars are no whole beats) and to patterns of FEWEST_IN_PATTERN notes or
    more, and music of more than MOST_POINTS points is encoded in equal stretches of bars, one by one. The ratio grows
    with the length of the music: compare like lengths only. NaN without notes.
    """
    sixteenths = STEPS_PER_BEAT // _BEAT
    onset = (excerpt.onset + sixteenths // 2) // sixteenths
    pitch = excerpt.rows[:, PITCH].astype(np.int64)
    pitch = np.where(pitch >= DRUM_PITCH_OFFSET, pitch + 2 * _OCTAVES_KEPT, pitch)
    bar_sixteenths = int(np.median(np.diff(excerpt.bar_starts))) // sixteenths if excerpt.bars else _BEAT
    grid = int(np.gcd(_BEAT, bar_sixteenths))
    stretches = -(-len(onset) // MOST_POINTS)
    points, price = 0, 0
    for stretch in np.array_split(np.arange(excerpt.bars), max(1, stretches)):
        inside = np.isin(excerpt.rows[:, BAR], stretch)
        codes = np.unique(onset[inside] * _ROW + pitch[inside])
        points, price = points + len(codes), price + _encoding_length(codes, grid)
    return points / price if price else float("nan")


def _encoding_length(codes: np.ndarray, grid: int) -> int:
    """Summed price of COSIATEC's patterns and of the points they leave; `codes` (n,) sorted, `grid` in sixteenths."""
    length, bounds = 0, dict[tuple[int, bytes], float]()
    codes = codes - codes.min(initial=0) // _ROW * _ROW
    while (found := _best_pattern(codes, grid, bounds)) is not None:
        covered, price = found
        codes = np.delete(codes, covered)
        length += price
    return length + len(codes)


def _best_pattern(
    codes: np.ndarray, grid: int, bounds: dict[tuple[int, bytes], float]
) -> tuple[np.ndarray, int] | None:
    """Indices of the points that the best pattern's occurrences cover, and its price; None when none saves anything.

    `bounds` holds, by pattern, a ratio it cannot surpass, now or when points have been removed; it is added to.
    """
    if len(codes) < FEWEST_IN_PATTERN:
        return None
    pattern_of, edges = _translatable(codes, grid)
    size = np.diff(edges)
    at = np.full(2 * int(codes[-1]) + 1, -1, np.int32)  # index of the point with a code
    at[codes] = np.arange(len(codes))
    phase = codes // _ROW % grid
    in_phase = [codes[phase == k] for k in range(grid)]
    best, found, seen = (1.0, 0), None, set()
    for k in np.argsort(-size, kind="stable").tolist():
        if size[k] <= max(best[0], FEWEST_IN_PATTERN - 1):
            break  # a pattern of m notes saves less than m to one
        members = pattern_of[edges[k] : edges[k + 1]]
        steps = codes[members] - codes[members[0]]
        key = (int(phase[members[0]]), steps.tobytes())
        if key in seen or bounds.get(key, np.inf) < best[0]:
            continue
        seen.add(key)
        places = in_phase[key[0]]
        for step in (steps[-1], steps[len(steps) // 2]):  # these decide for most
            places = places[at[places + step] >= 0]
        bounds[key] = _ratio(len(steps), len(places))
        if bounds[key] < best[0]:
            continue
        occurrences = at[places[:, None] + steps]
        occurrences = occurrences[(occurrences >= 0).all(1)]
        bounds[key] = _ratio(*occurrences.shape)
        if bounds[key] < best[0]:
            continue
        price = sum(occurrences.shape) - 1
        covered = np.unique(occurrences)
        worth = (len(covered) / price, len(covered))
        if worth > best:
            best, found = worth, (covered, price)
    return found


def _ratio(notes: int, occurrences: int) -> float:
    """What a pattern saves when no two occurrences share a note."""
    return notes * occurrences / (notes + occurrences - 1)


def _translatable(codes: np.ndarray, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """All maximal translatable patterns (SIA): for each shift the points it maps onto points, as indices in order, one
    shift after another, and where each begins, (shifts + 1,)."""
    first, second = np.triu_indices(len(codes), 1)
    later = codes[second] // _ROW - codes[first] // _ROW
    higher = codes[second] % _ROW - codes[first] % _ROW
    kept = (later > 0) & (later % grid == 0) & (np.abs(higher) < _OCTAVES_KEPT)
    first, shift = first[kept], (later * _ROW + higher)[kept]
    order = np.argsort(shift, kind="stable")
    shift = shift[order]
    return first[order], np.concatenate([[0], np.flatnonzero(np.diff(shift)) + 1, [len(shift)]])


def _lags(*corpora: Sequence[Similarity]) -> list[int]:
    """The lags that every song of every corpus has been asked for."""
    return sorted(set.intersection(*(set(song) for songs in corpora for song in songs))) if all(corpora) else []


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
