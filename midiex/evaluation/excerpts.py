"""Stretches of music to be compared: note rows on bars whose lengths are known, and what a song gives of them.

Knows rows and bars; knows no models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .. import tokens
from ..score import Song
from ..tokens import BAR, DURATION, DURATIONS, DURATIONS_PER_BEAT, MICRO, MICRO_CENTER, MICRO_PER_BEAT, POSITION

STEPS_PER_BEAT = 24  # time as the figures see it: fine enough for triplets of sixteenths, too coarse for feel
PROMPT_S, CONTINUATION_S = 30.0, 60.0
# Of form: prompts, how long a song must be, and up to where it is gone on with.
FORM_PROMPTS_S, LONG_S, MOST_S = (62.0, 30.0), 130.0, 240.0


@dataclass(frozen=True)
class Excerpt:
    """Some bars of music."""

    rows: np.ndarray  # (n, 8) int32 as in tokens.py, sorted; bars count from the excerpt's first
    bar_beats: np.ndarray  # (bars,) length of each in quarter notes
    bar_s: np.ndarray  # (bars,)

    @property
    def bars(self) -> int:
        return len(self.bar_beats)

    @property
    def seconds(self) -> float:
        return float(self.bar_s.sum())

    @cached_property
    def bar_starts(self) -> np.ndarray:
        """Steps before each bar and after the last, shape (bars + 1,), rounded to whole steps."""
        return np.round(np.concatenate([[0.0], np.cumsum(self.bar_beats)]) * STEPS_PER_BEAT).astype(np.int64)

    @cached_property
    def onset(self) -> np.ndarray:
        """Onset of each note in steps since the excerpt's beginning, shape (n,)."""
        unit = self.rows[:, POSITION] * tokens.MICROS_PER_POSITION + self.rows[:, MICRO] - MICRO_CENTER  # 1/96 beat
        late = np.round(unit * STEPS_PER_BEAT / MICRO_PER_BEAT).astype(np.int64)
        return np.maximum(self.bar_starts[self.rows[:, BAR]] + late, 0)

    @cached_property
    def length(self) -> np.ndarray:
        """Length of each note in steps, at least one, shape (n,)."""
        return np.maximum(np.round(DURATIONS[self.rows[:, DURATION]] * STEPS_PER_BEAT / DURATIONS_PER_BEAT), 1).astype(
            np.int64
        )

    def part(self, first_bar: int, last_bar: int) -> Excerpt:
        """Bars [first_bar, last_bar) as an excerpt of their own; notes that ring on keep their length."""
        low, high = np.searchsorted(self.rows[:, BAR], (first_bar, last_bar))
        rows = tokens.moved(self.rows[low:high], -first_bar)
        return Excerpt(rows, self.bar_beats[first_bar:last_bar], self.bar_s[first_bar:last_bar])

    def bar_at(self, second: float) -> int:
        """The bar line nearest to a moment, 0 to bars."""
        lines = np.concatenate([[0.0], np.cumsum(self.bar_s)])
        return int(np.abs(lines - second).argmin())


def whole(song: Song) -> Excerpt:
    """A whole song, up to its last bar with notes."""
    rows = tokens.encode(tokens.notes_of(song.score), tokens.voice_ids(song.score), song.grid)
    bars = int(rows[-1, BAR]) + 1 if len(rows) else 0
    return Excerpt(rows, song.grid.bar_beats[:bars], song.grid.bar_s[:bars])


@dataclass(frozen=True)
class Example:
    """A song cut for comparison: what is given, what follows, and what follows that."""

    source: str
    name: str
    song: Song
    prompt: Excerpt
    truth: Excerpt  # the song's own continuation
    beyond: Excerpt | None  # the same length after that, where the song goes on so long: how a song differs from itself
    first_bar: int  # of the prompt in the song

    @property
    def seam_bar(self) -> int:
        """Bar of the song at which the prompt ends."""
        return self.first_bar + self.prompt.bars

    def after(self, seconds: float) -> Excerpt:
        """About the first `seconds` of what the song has after the prompt, or all there is."""
        music = whole(self.song)
        end = music.bar_at(float(music.bar_s[: self.seam_bar].sum()) + seconds)
        return music.part(self.seam_bar, max(end, self.seam_bar + 1))


def example(source: str, song: Song, prompt_s: float = PROMPT_S, next_s: float = CONTINUATION_S) -> Example | None:
    """The song's beginning, about `prompt_s`, and what follows, about `next_s`, on bar lines; None when the song is
    too short or either part has fewer than eight notes."""
    music = whole(song)
    first = int(music.rows[0, BAR]) if len(music.rows) else 0
    begin_s = float(music.bar_s[:first].sum())
    if music.seconds - begin_s < prompt_s + 0.75 * next_s:
        return None
    borders = [first, *(music.bar_at(begin_s + prompt_s + k * next_s) for k in range(3))]
    parts = [music.part(a, b) for a, b in zip(borders, borders[1:], strict=False)]
    if min(len(parts[0].rows), len(parts[1].rows)) < 8:
        return None
    has_beyond = len(parts[2].rows) >= 8 and parts[2].seconds >= 0.75 * next_s
    return Example(source, song.path.stem, song, parts[0], parts[1], parts[2] if has_beyond else None, first)
