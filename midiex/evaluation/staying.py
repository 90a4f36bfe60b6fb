"""Does the music keep going? Silence, stuck notes and loops, beside what the song itself does (figure 6).

Pure functions on excerpts; knows no songs, files or models.
"""

from __future__ import annotations

import numpy as np

from .. import constraints, metrics
from ..tokens import DRUM_PROGRAM, PROGRAM
from .excerpts import Excerpt

MINUTE_S = 60.0
PERIODS = (1, 2, 4, 8)  # bars of a loop
FEWEST_REPEATS = 2  # in a row: no more is never a fault


def by_minute(excerpt: Excerpt, minute_s: float = MINUTE_S) -> list[Excerpt]:
    """The music in parts of about `minute_s` on bar lines; a last one of less than half of it is left out, unless it
    is all there is."""
    count = max(1, int(excerpt.seconds / minute_s + 0.5))
    borders = [excerpt.bar_at(k * minute_s) for k in range(count + 1)]
    return [excerpt.part(a, b) for a, b in zip(borders, borders[1:], strict=False)]


def to_seconds(excerpt: Excerpt, steps: np.ndarray) -> np.ndarray:
    """Seconds since the excerpt's beginning of moments in steps (any shape); past its end its last bar's tempo holds.
    The excerpt has at least one bar."""
    lines_s = np.concatenate([[0.0], np.cumsum(excerpt.bar_s)])
    step_s = excerpt.bar_s[-1] / max(1, excerpt.bar_starts[-1] - excerpt.bar_starts[-2])
    beyond = np.maximum(steps - excerpt.bar_starts[-1], 0)
    return np.interp(steps, excerpt.bar_starts, lines_s) + beyond * step_s


def longest_silence_s(excerpt: Excerpt) -> float:
    """The longest time in which no note sounds, the beginning and the end included."""
    if len(excerpt.rows) == 0:
        return excerpt.seconds
    order = np.argsort(excerpt.onset, kind="stable")
    start_s = to_seconds(excerpt, excerpt.onset[order])
    end_s = to_seconds(excerpt, (excerpt.onset + excerpt.length)[order])
    sounding_until = np.maximum.accumulate(end_s)
    silences = np.append(start_s, excerpt.seconds) - np.append(0.0, sounding_until)
    return max(0.0, float(silences.max()))


def longest_strikes(excerpt: Excerpt, song: Excerpt) -> int:
    """Most notes in a row, in one tuned voice, that are all of one pitch; but in voices that have no other in the
    song."""
    return constraints.longest_run(excerpt.rows, constraints.of_one_pitch(song.rows))


def repeats(excerpt: Excerpt, period: int) -> np.ndarray:
    """How often in a row, at most, each bar is played in a verbatim loop of `period` bars, shape (bars,): 1 where
    nothing is repeated. Bars are equal when sixteenths, instruments and pitches are; empty bars never are."""
    return _repeats(metrics.bar_likeness(excerpt.rows, excerpt.bars) == 1, period)


def _repeats(same: np.ndarray, period: int) -> np.ndarray:
    found = np.ones(len(same), np.int64)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.diagonal(same, period), [False]]).astype(np.int8)))
    for start, end in zip(edges[::2], edges[1::2], strict=True):  # bars [start, end) are those `period` later
        stretch = slice(start, end + period)
        found[stretch] = np.maximum(found[stretch], 1 + (end - start) // period)
    return found


def faults(excerpt: Excerpt, song: Excerpt) -> dict[str, float]:
    """What goes wrong in an excerpt, measured by the song it continues; give as much of the song as there is, since a
    short prompt has no long loops. Both have at least one bar.

    - silence_s, own_silence_s: longest time without a sounding note, in the excerpt and in the song;
    - held_notes: tuned notes that last more than constraints.HELD_MARGIN times as long, in beats, as the song's longest
      (in any voice);
    - strikes, own_strikes: most notes in a row of one pitch in one voice; stuck: 1 when there are held notes or more
      strikes than `constraints.most_strikes` takes real songs to have, else 0;
    - repeats, own_repeats: most times in a row that a loop of 1, 2, 4 or 8 bars is played verbatim; looped_bars: bars
      in loops of more repeats than the song has of loops of that length (and than FEWEST_REPEATS).
    """
    tuned, own_tuned = (e.rows[:, PROGRAM] != DRUM_PROGRAM for e in (excerpt, song))
    own_longest = song.length[own_tuned].max(initial=0)
    held = int((excerpt.length[tuned] > constraints.HELD_MARGIN * own_longest).sum()) if own_longest else 0
    strikes, own_strikes = longest_strikes(excerpt, song), longest_strikes(song, song)
    same, own_same = (metrics.bar_likeness(e.rows, e.bars) == 1 for e in (excerpt, song))
    loops = np.array([_repeats(same, period) for period in PERIODS])
    own_loops = np.array([_repeats(own_same, period).max() for period in PERIODS])
    looped = (loops > np.maximum(own_loops, FEWEST_REPEATS)[:, None]).any(0)
    return {
        "silence_s": longest_silence_s(excerpt),
        "own_silence_s": longest_silence_s(song),
        "held_notes": held,
        "strikes": strikes,
        "own_strikes": own_strikes,
        "stuck": int(held > 0 or strikes > constraints.most_strikes(own_strikes)),
        "repeats": int(loops.max()),
        "own_repeats": int(own_loops.max()),
        "looped_bars": int(looped.sum()),
    }
