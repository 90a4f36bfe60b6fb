"""How does the new music join on? Silence, jumps and dissonance at the seam, beside the prompt's own bar lines
(figure 7).

Pure functions on excerpts; knows no songs, files or models. Truncated notes are no matter of excerpts: they are read
off written files.
"""

from __future__ import annotations

import numpy as np

from ..tokens import BAR, DRUM_PROGRAM, PITCH, PROGRAM, VELOCITY, VELOCITY_STEP, moved
from .excerpts import STEPS_PER_BEAT, Excerpt
from .staying import to_seconds

AUDIBLE = (0.5, 2.0, 1.0)  # onsets a second, velocity, semitones: spreads smaller than this count as this
ROUGH = (1, 6, 11)  # intervals in semitones modulo the octave: semitone, tritone, major seventh
_OVERLAP = 1  # steps; notes that overlap by no more are not heard together
_SILENCE_PERCENTILE = 95


def joined(prompt: Excerpt, continuation: Excerpt) -> Excerpt:
    """One excerpt of the two, one after the other."""
    return Excerpt(
        np.concatenate([prompt.rows, moved(continuation.rows, prompt.bars)]),
        np.concatenate([prompt.bar_beats, continuation.bar_beats]),
        np.concatenate([prompt.bar_s, continuation.bar_s]),
    )


def bar_figures(excerpt: Excerpt) -> np.ndarray:
    """Onsets a second, mean velocity and mean pitch of tuned notes of each bar, (bars, 3); NaN for means of nothing."""
    bar, tuned = excerpt.rows[:, BAR], excerpt.rows[:, PROGRAM] != DRUM_PROGRAM
    onsets = np.unique(np.stack([bar, excerpt.onset], 1), axis=0)[:, 0]
    velocity = excerpt.rows[:, VELOCITY] * VELOCITY_STEP + VELOCITY_STEP / 2
    return np.stack([
        np.bincount(onsets, minlength=excerpt.bars) / np.maximum(excerpt.bar_s, 1e-3),
        _means(bar, velocity, excerpt.bars),
        _means(bar[tuned], excerpt.rows[tuned, PITCH], excerpt.bars),
    ], 1)  # fmt: skip


def _means(bar: np.ndarray, values: np.ndarray, bars: int) -> np.ndarray:
    counts = np.bincount(bar, minlength=bars)
    return np.bincount(bar, values, minlength=bars) / np.where(counts > 0, counts, np.nan)


def silences_s(excerpt: Excerpt) -> np.ndarray:
    """Silence that holds each bar line inside the excerpt, (bars - 1,): 0 when a note rings across it or none has been
    played before; up to the excerpt's end when none follows."""
    rows = excerpt.rows
    start_s, end_s = (to_seconds(excerpt, steps) for steps in (excerpt.onset, excerpt.onset + excerpt.length))
    first_after = np.searchsorted(rows[:, BAR], np.arange(1, excerpt.bars))
    next_s = np.append(np.minimum.accumulate(start_s[::-1])[::-1], excerpt.seconds)[first_after]
    until_s = np.append(np.inf, np.maximum.accumulate(end_s))[first_after]
    return np.where(np.isinf(until_s), 0.0, np.maximum(next_s - until_s, 0.0))


def roughness(excerpt: Excerpt, bar: int) -> float:
    """Share of rough intervals (ROUGH) among pairs of a tuned note that rings across the beginning of `bar` and one
    that begins in the beat after it, as far as they sound together; NaN without such pairs."""
    tuned = excerpt.rows[:, PROGRAM] != DRUM_PROGRAM
    before, line = excerpt.rows[:, BAR] < bar, excerpt.bar_starts[bar]
    end = excerpt.onset + excerpt.length
    ringing = tuned & before & (end > line + _OVERLAP)
    new = tuned & ~before & (excerpt.onset < line + STEPS_PER_BEAT)
    together = end[ringing][:, None] > excerpt.onset[new] + _OVERLAP
    if not together.any():
        return float("nan")
    pitch = excerpt.rows[:, PITCH]
    interval = np.abs(pitch[ringing][:, None] - pitch[new]) % 12
    return float(np.isin(interval, ROUGH)[together].mean())


def seam(prompt: Excerpt, continuation: Excerpt) -> dict[str, float]:
    """Figures of the bar line between the two, beside the same at the prompt's own. Both have at least one bar.

    - gap_s: silence at the seam; own_gap_s: 95th percentile of that at the prompt's bar lines;
    - density_jump, level_jump, register_jump: change from the prompt's last bar to the first new one, in standard
      deviations of the prompt's changes from bar to bar (of at least AUDIBLE); NaN when a bar has nothing to compare;
    - rough: dissonance of notes that ring across the seam with the first new ones; own_rough: mean over the prompt's
      bar lines; NaN where nothing rings across.
    """
    whole = joined(prompt, continuation)
    own_lines = range(1, prompt.bars)
    changes = np.diff(bar_figures(whole), axis=0)
    own_changes = [column[~np.isnan(column)] for column in changes[: prompt.bars - 1].T]
    spread = np.maximum([column.std() if len(column) else 0.0 for column in own_changes], AUDIBLE)
    jumps = np.abs(changes[prompt.bars - 1]) / spread
    own_rough = [share for bar in own_lines if not np.isnan(share := roughness(prompt, bar))]
    own_gaps = silences_s(prompt)
    return {
        "gap_s": float(silences_s(whole)[prompt.bars - 1]),
        "own_gap_s": float(np.percentile(own_gaps, _SILENCE_PERCENTILE)) if len(own_gaps) else 0.0,
        "density_jump": float(jumps[0]),
        "level_jump": float(jumps[1]),
        "register_jump": float(jumps[2]),
        "rough": roughness(whole, prompt.bars),
        "own_rough": float(np.mean(own_rough)) if own_rough else float("nan"),
    }
