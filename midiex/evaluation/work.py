"""What a worker process does for one song: continue it, judge what was written, foresee what is real.

Each process loads the model and the n-gram once (`begin`). Returns plain excerpts and numbers; pools nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import score
from ..collate import before_of
from ..errors import MidiexError
from ..extend import Model, load
from ..tokens import FIELDS, HEAD_ORDER
from . import distance, form_study, likelihood, mood, repetition, seam, staying, writers
from .excerpts import CONTINUATION_S, Example, Excerpt, example, whole
from .ngram import NGram
from .ngram.decisions import chunks_of

FIELD_NAMES = [FIELDS[f] for f in HEAD_ORDER]
FEWEST_CHUNKS = 2  # of a window in which anything is foreseen
QUESTIONS = 2  # a song
WRITERS = ("ours", "ngram", "loop", "repeat")  # of a minute after a prompt
MOOD_S = 300.0  # of long music over which its mood is to hold


@dataclass(frozen=True)
class _Tools:
    model: Model
    ngram: NGram | None


_tools: list[_Tools] = []  # one, once a process has begun


def begin(model: str | None, ngram: Path | None, generate: dict[str, Any]) -> None:
    """Prepare this process: the model with other settings `generate`, and the n-gram."""
    torch.set_num_threads(1)
    loaded = load(model)
    config = replace(loaded.config, generate=replace(loaded.config.generate, **generate))
    _tools[:] = [_Tools(replace(loaded, config=config), NGram.load(ngram) if ngram else None)]


# ---- continuing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    source: str
    path: Path
    seed: int
    long_s: float | None  # instead of a minute beside its rivals', so much alone


@dataclass(frozen=True)
class Heard:
    """A song's prompt, what followed, and what was written instead."""

    source: str
    path: Path
    seed: int
    prompt: Excerpt
    truth: Excerpt
    beyond: Excerpt | None
    ours: writers.Written
    ngram: Excerpt | None
    loop: Excerpt
    repeat: Excerpt
    rest: Excerpt | None = None  # of the song, where ours is long

    def music(self, writer: str) -> Excerpt | None:
        """The minute of a writer; "real" is the song's own a minute later."""
        written = {"ours": self.ours.music, "ngram": self.ngram, "loop": self.loop, "repeat": self.repeat}
        return (written | {"real": self.beyond})[writer]

    def before(self, writer: str) -> Excerpt:
        """What stands before the minute of a writer."""
        return seam.joined(self.prompt, self.truth) if writer == "real" else self.prompt


def is_usable(job: Job) -> bool:
    """Can the song be read, and is it long enough?"""
    return _example(job.source, job.path) is not None


def continue_song(job: Job) -> Heard | None:
    """None for a song that cannot be read or is too short."""
    tools = _tools[0]
    cut = _example(job.source, job.path)
    if cut is None:
        return None
    seconds = job.long_s or CONTINUATION_S
    try:
        ours = writers.ours(cut, seconds, tools.model, job.seed)
    except MidiexError:
        return None
    truth, ngram = cut.truth, None
    if tools.ngram is not None and job.long_s is None:
        ngram = tools.ngram.continue_(cut.prompt, truth.bar_beats, truth.bar_s, job.seed)
    return Heard(
        job.source, job.path, job.seed, cut.prompt, truth, cut.beyond, ours, ngram,
        writers.loop(cut.prompt, truth), writers.repeat(cut.prompt, truth),
        rest=cut.after(MOOD_S) if job.long_s else None,
    )  # fmt: skip


def _example(source: str, path: Path) -> Example | None:
    try:
        return example(source, score.read(path))
    except MidiexError:
        return None


# ---- judging --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    source: str
    figures: dict[tuple[str, str], float]  # by (figure, writer)
    overlaps: dict[str, dict[str, float]]  # by writer: overlapped area with the true continuation, by feature


def judge(heard: Heard) -> Judged:
    """Figures 3, 5, 7 and 8 of one song's minutes."""
    found: dict[tuple[str, str], float] = {}
    overlaps: dict[str, dict[str, float]] = {}
    real_form = repetition.similarity_by_lag(heard.truth)
    for writer in (*WRITERS, "real"):
        music = heard.music(writer)
        if music is None or not len(music.rows):
            continue
        overlaps[writer] = distance.overlap(heard.truth, music)
        found["overlap", writer] = float(np.mean(list(overlaps[writer].values())))
        for lag, likeness in repetition.similarity_by_lag(music).items():
            found[f"similarity_{lag}", writer] = likeness
            found[f"similarity_error_{lag}", writer] = abs(likeness - real_form[lag])
    if ("overlap", "real") in found:  # the song's own likeness to itself is the ceiling
        for writer in overlaps:
            found["overlap_share", writer] = found["overlap", writer] / found["overlap", "real"]
    for writer, music in [*((w, heard.music(w)) for w in WRITERS), ("real", heard.truth)]:
        if music is None or not len(music.rows):
            continue
        found["compression", writer] = repetition.compression_ratio(music)
        found["longest_repeat_bars", writer] = repetition.longest_repeat_bars(music)
        for name, value in seam.seam(heard.prompt, music).items():
            found[f"seam_{name}", writer] = value
        for name, value in mood.drift(heard.prompt, music).items():
            found[f"mood_{name}", writer] = value
    for lag, likeness in real_form.items():
        found[f"similarity_{lag}", "truth"] = likeness
    found["resampled", "ours"] = heard.ours.resampled / max(1, heard.ours.chunks)
    found["fallback", "ours"] = heard.ours.fallback / max(1, heard.ours.chunks)
    return Judged(heard.source, found, overlaps)


@dataclass(frozen=True)
class JudgedLong:
    source: str
    figures: dict[str, float]
    by_minute: dict[str, list[float]]
    real: dict[str, float] = field(default_factory=dict)  # figures of the song itself


def judge_long(heard: Heard) -> JudgedLong:
    """Figures 6 and 8 of a long continuation."""
    music = heard.ours.music
    minutes = staying.by_minute(music)
    song = seam.joined(heard.prompt, heard.truth)
    faults = staying.faults(music, song)
    by_minute = {
        "overlap": [_overlap(heard.truth, minute) for minute in minutes],
        "notes_per_s": [len(minute.rows) / max(minute.seconds, 1e-3) for minute in minutes],
        "compression": [repetition.compression_ratio(minute) for minute in minutes],
        "similarity_8": [repetition.similarity_by_lag(minute)[8] for minute in minutes],
        "silence_s": [staying.longest_silence_s(minute) for minute in minutes],
    }
    figures = {name: float(value) for name, value in faults.items()}
    five = music.part(0, max(1, music.bar_at(MOOD_S)))
    figures |= {f"mood_{name}": value for name, value in mood.drift(heard.prompt, five).items()}
    figures["resampled"] = heard.ours.resampled / max(1, heard.ours.chunks)
    figures["fallback"] = heard.ours.fallback / max(1, heard.ours.chunks)
    figures["silent"] = float(faults["silence_s"] > max(2.0, 1.5 * faults["own_silence_s"]))
    real = mood.drift(heard.prompt, heard.rest) if heard.rest else {}
    return JudgedLong(heard.source, figures, by_minute, {f"mood_{name}": value for name, value in real.items()})


def _overlap(truth: Excerpt, music: Excerpt) -> float:
    return float(np.mean(list(distance.overlap(truth, music).values()))) if len(music.rows) else 0.0


# ---- form -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FormJob:
    source: str
    path: Path
    seed: int
    prompt_s: float


def has_form(job: FormJob) -> bool:
    """Can the song be read, and is it long enough for its form to be told?"""
    return _cut(job) is not None


def judge_form(job: FormJob) -> form_study.Judged | None:
    """Figure 11 of a song cut after so long; None for one that cannot be used."""
    one, tools = _cut(job), _tools[0]
    if one is None:
        return None
    try:
        passage = form_study.ours(one, tools.model, job.seed)
    except MidiexError:
        return None
    others = {}
    if tools.ngram is not None:
        truth = one.truth
        others["ngram"] = tools.ngram.continue_(one.prompt, truth.bar_beats, truth.bar_s, job.seed)
    music = form_study.songs(one, passage, others)
    return form_study.Judged(job.source, one.is_band, form_study.figures(one, music))


def _cut(job: FormJob) -> form_study.Cut | None:
    try:
        return form_study.cut(job.source, score.read(job.path), job.prompt_s)
    except MidiexError:
        return None


# ---- foreseeing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Foreseen:
    """Of one source: nats by field (8,) a song for each writer, its notes, and of each question whether the true chunk
    was found likeliest, and whether it was the one that the music before made likelier by most."""

    source: str
    nats: dict[str, list[np.ndarray]]
    notes: list[int]
    chosen: list[float]
    recognised: list[float]


def foresee(task: tuple[str, Sequence[Path], Sequence[Path], int]) -> Foreseen:
    """Figures 1 and 2 over a source's songs; `task` is its name, its files, files of others for foils, and a seed."""
    source, paths, other_paths, seed = task
    model, ngram = _tools[0].model, _tools[0].ngram
    size = model.config.train.window_chunks
    songs = [music for path in paths if (music := _whole(path)) is not None]
    cut = [(music, likelihood.window(music, size, seed + k)) for k, music in enumerate(songs)]
    cut = [(music, w) for music, w in cut if likelihood.notes_of(w)]
    nats: dict[str, list[np.ndarray]] = {"ours": []}
    for music, window in cut:
        nats["ours"].append(likelihood.nll(model.network, model.config, window))
        if ngram:
            own = window.chunks[window.extras :]
            before = [rows for rows, _ in chunks_of(before_of(window), music.bar_s[: own[0].first_bar])]
            for name, counter in (("ngram", ngram.as_static()), ("ngram with song", ngram)):
                told = counter.nll([c.rows for c in own], [c.bars for c in own], before)
                nats.setdefault(name, []).append(told.sum(0))
    others = [music for path in other_paths if (music := _whole(path)) is not None]
    windows = [w for _, w in cut]
    asked = likelihood.questions(windows, [music for music, _ in cut], others, QUESTIONS, seed)
    found = [likelihood.choose(model.network, model.config, q) for q in asked]
    chosen, recognised = ([float(both[k].argmin() == 0) for both in found] for k in (0, 1))
    return Foreseen(source, nats, [likelihood.notes_of(w) for w in windows], chosen, recognised)


def _whole(path: Path) -> Excerpt | None:
    try:
        music = whole(score.read(path))
    except MidiexError:
        return None
    return music if len(music.rows) else None
