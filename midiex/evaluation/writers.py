"""Who goes on from a prompt: our model, a loop of its last bars, all of it again; the n-gram is in ngram/, the truth in
the song.

Every writer makes an excerpt that begins at the seam. Knows how to compose; judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..config import GenerateConfig
from ..extend import Model, Passage, start
from ..tokens import BAR, POSITION, moved, sort_rows
from .excerpts import Example, Excerpt, whole
from .seam import joined

LOOP_BARS = 8


@dataclass(frozen=True)
class Written:
    """A continuation and how it came about."""

    music: Excerpt
    chunks: int
    resampled: int  # of them, because all candidates of the first round were faulty
    fallback: int  # of them, the song's own chunk stands there


def ours(example: Example, seconds: float, model: Model, seed: int, generate: GenerateConfig | None = None) -> Written:
    """About `seconds` of new music after the prompt, which does not come to an end; `generate` is other settings than
    the model's own."""
    begin_s = float(example.song.grid.seconds[example.seam_bar])
    longest_bar_s = float(example.prompt.bar_s.max())
    passage = start(
        example.song.path, begin_s + seconds + 2 * longest_bar_s, begin=f"bar:{example.seam_bar + 1}",
        open_end=True, model=model, seed=seed,
    )  # fmt: skip
    if generate is not None:
        passage.generate = generate
    for _ in passage.chunks():
        pass
    music = new_music(passage)
    chunks = passage.written
    return Written(
        music.part(0, max(1, music.bar_at(seconds))), len(chunks),
        sum(c.attempts > 1 for c in chunks), sum(c.fallback for c in chunks),
    )  # fmt: skip


def new_music(passage: Passage) -> Excerpt:
    """What a passage has written, as an excerpt."""
    line = passage.line
    parts = [moved(chunk.rows, chunk.first_bar - line.before) for chunk in passage.written]
    bars = slice(line.before, line.before + line.new)
    return Excerpt(np.concatenate(parts), line.grid.bar_beats[bars], line.grid.bar_s[bars])


def so_far(passage: Passage) -> Excerpt:
    """The song up to the new music, from its first bar on, and what a passage has written."""
    return joined(whole(passage.song).part(0, passage.line.before), new_music(passage))


def loop(prompt: Excerpt, like: Excerpt) -> Excerpt:
    """The prompt's last LOOP_BARS bars over and over, on the bars of `like`."""
    return _over_and_over(prompt.part(max(0, prompt.bars - LOOP_BARS), prompt.bars), like)


def repeat(prompt: Excerpt, like: Excerpt) -> Excerpt:
    """The whole prompt again from its beginning, over and over, on the bars of `like`: it has the song's form."""
    return _over_and_over(prompt, like)


def _over_and_over(music: Excerpt, like: Excerpt) -> Excerpt:
    rows = np.concatenate([moved(music.rows, first) for first in range(0, like.bars, music.bars)])
    rows = rows[rows[:, BAR] < like.bars]
    fits = rows[:, POSITION] < np.ceil(like.bar_beats * 12)[rows[:, BAR]]  # a bar of another meter
    return replace(like, rows=sort_rows(rows[fits]))
