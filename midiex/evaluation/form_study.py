"""Has what is written the form of songs? Songs are cut, continued for minutes and held beside their own (figure 11).

A song of LONG_S seconds or more is cut at the bar line nearest to a moment, and continued up to MOST_S or its end.
Knows songs, writers and figures; knows no pages and no processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..extend import Model, Passage
from ..score import Song
from ..tokens import BAR
from . import form, writers
from .bootstrap import by_source, pooled
from .excerpts import LONG_S, MOST_S, Excerpt, whole
from .seam import joined

FEWEST_NOTES = 8  # of the prompt, and of what follows


@dataclass(frozen=True)
class Cut:
    """A song cut for comparison."""

    source: str
    song: Song
    music: Excerpt  # all of it
    seam_bar: int
    last_bar: int  # where the stretch that is compared ends
    end_s: float

    @property
    def before(self) -> Excerpt:
        """The song up to the seam."""
        return self.music.part(0, self.seam_bar)

    @property
    def prompt(self) -> Excerpt:
        """The same from its first note's bar on."""
        return self.music.part(int(self.music.rows[0, BAR]), self.seam_bar)

    @property
    def truth(self) -> Excerpt:
        """What the song itself does after the seam."""
        return self.music.part(self.seam_bar, self.last_bar)

    @property
    def is_band(self) -> bool:
        return form.is_band(self.music)


def cut(source: str, song: Song, prompt_s: float, most_s: float = MOST_S) -> Cut | None:
    """The song cut after about `prompt_s`, to be gone on with up to `most_s` or its end; None where it is too short, in
    seconds or in blocks of bars, or has too few notes on either side."""
    music = whole(song)
    if music.seconds < LONG_S:
        return None
    seam_bar, end_s = music.bar_at(prompt_s), min(most_s, music.seconds)
    last_bar = form.bars_within(music, 0.0, end_s)[1]
    notes = [np.count_nonzero(music.rows[:, BAR] < bar) for bar in (seam_bar, last_bar)]
    blocks = (last_bar - seam_bar) // form.BLOCK_BARS
    if blocks < form.FEWEST_BLOCKS or min(notes[0], notes[1] - notes[0]) < FEWEST_NOTES:
        return None
    return Cut(source, song, music, seam_bar, last_bar, end_s)


def ours(one: Cut, model: Model, seed: int, **options: Any) -> Passage:
    """The song's beginning, and nothing else of it, continued to where its own stretch ends; all is written. `options`
    as of `midiex.extend`. Raises BadInput where that does."""
    passage = writers.begun(one.song, one.seam_bar, one.end_s, model, seed, **options)
    for _ in passage.chunks():
        pass
    return passage


def songs(one: Cut, written: Passage | None, others: Mapping[str, Excerpt] | None = None) -> dict[str, Excerpt]:
    """Whole songs up to `end_s` by writer: the real one, ours, looped, repeated, and `others`' continuations."""
    before, truth = one.before, one.truth
    found = {"real": joined(before, truth)}
    if written is not None:
        found["ours"] = writers.so_far(written)
    found["loop"] = joined(before, writers.loop(one.prompt, truth))
    found["repeat"] = joined(before, writers.repeat(one.prompt, truth))
    return found | {name: joined(before, music) for name, music in (others or {}).items()}


def stretch(one: Cut, song: Excerpt) -> tuple[int, int]:
    """Bars [first, last) of a song of `songs` that are compared: the same seconds in all."""
    begin_s = float(one.music.bar_s[: one.seam_bar].sum())
    return form.bars_within(song, begin_s, one.end_s)


def figures(one: Cut, music: Mapping[str, Excerpt]) -> dict[str, dict[str, float]]:
    """form.FIGURES of each writer's stretch."""
    return {writer: form.figures(song, *stretch(one, song)) for writer, song in music.items()}


# ---- many songs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """Form of one song's continuations."""

    source: str
    is_band: bool
    figures: form.Figures


def pooled_figures(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Means of each writer's figures over songs, every source weighing the same."""
    return {
        writer: {figure: pooled(values).mean for figure, values in table.items()}
        for writer, table in tables(judged).items()
    }


def figures_by_source(judged: Sequence[Judged]) -> dict[str, dict[str, dict[str, float]]]:
    """The same by source, writer and figure."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for writer, table in tables(judged).items():
        for figure, values in table.items():
            for source, mean in by_source(values).items():
                found.setdefault(source, {}).setdefault(writer, {})[figure] = mean
    return found


def tables(judged: Sequence[Judged]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Each song's value by writer, figure and source."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for song in judged:
        for writer, values in song.figures.items():
            for figure, value in values.items():
                found.setdefault(writer, {}).setdefault(figure, {}).setdefault(song.source, []).append(value)
    return found
