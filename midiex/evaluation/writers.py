"""Who goes on from a prompt: our model, a loop of its last bars, all of it again; the n-gram is in ngram/, the truth in
the song.

Every writer makes an excerpt that begins at the seam. Knows how to compose; judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..config import GenerateConfig
from ..extend import Model, Passage, start
from ..score import Song
from ..tokens import BAR, POSITION, moved, sort_rows
from .excerpts import Example, Excerpt, whole
from .prompts import save_prompt
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
    passage = begun(example.song, example.seam_bar, begin_s + seconds + float(example.prompt.bar_s.max()), model, seed)
    if generate is not None:
        passage.generate = generate
    for _ in passage.chunks():
        pass
    song, chunks = so_far(passage), passage.written
    music = song.part(example.seam_bar, song.bars)
    return Written(
        music.part(0, max(1, music.bar_at(seconds))), len(chunks),
        sum(c.attempts > 1 for c in chunks), sum(c.fallback for c in chunks),
    )  # fmt: skip


def begun(song: Song, seam_bar: int, to_s: float, model: Model, seed: int, **options: Any) -> Passage:
    """A continuation of the song's beginning up to a bar, to `to_s` or up to a bar longer; `options` as of
    `extend.start`. It is given a file of that beginning alone, so that nothing of the rest can be looked at. Where the
    last bars before the seam are empty, new music begins with them. Raises BadInput where `start` does."""
    longest_bar_s = float(song.grid.bar_s[:seam_bar].max())
    with TemporaryDirectory() as folder:
        prompt = save_prompt(song, seam_bar, Path(folder) / f"{song.path.stem}.mid")
        return start(
            prompt, to_s + longest_bar_s, begin=f"bar:{seam_bar + 1}", open_end=True, model=model, seed=seed, **options
        )


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
