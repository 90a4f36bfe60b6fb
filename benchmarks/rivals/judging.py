"""What trained networks are worth: how well they foresee music, how near their own comes to songs, what it costs.

`judge` is for a process of its own (speed.alone), `generation` begins some itself; both give plain dictionaries. The
figures are those of midiex.evaluation, each a mean and the interval of its bootstrap.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from speed import EXAMPLES, alone
from speed_references import peak_mb

from midiex import score
from midiex.config import Config
from midiex.dataset import Songs, load_split, validation_windows
from midiex.errors import MidiexError
from midiex.evaluation import likelihood
from midiex.evaluation.bootstrap import pooled
from midiex.evaluation.distance import overlap
from midiex.evaluation.excerpts import CONTINUATION_S, Example, Excerpt, example
from midiex.evaluation.run import songs_of
from midiex.evaluation.work import FIELD_NAMES, QUESTIONS
from midiex.model import NoteModel
from midiex.process import settle
from midiex.tokens import MICRO_PER_BEAT
from midiex.windows import Song

from .sizes import load
from .writing import continue_song, deafen, long_song

FOR_FOILS = 2  # songs of each other source


def judge(
    folder: str | Path,
    is_alone: bool,
    shards: str | Path,
    midi: Sequence[str | Path],
    splits: str | Path,
    *,
    split: str = "valid",
    windows: int = 8,
    songs: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of the network that was trained into a folder, by name: mean, low, high, songs, by_source, and `each`
    song's value by source, to be paired with that of another network.

    `windows` a source of the shards' split are foreseen; `songs` of the folders `midi`, each named as its source, of
    the same split by the table `splits`, are continued.
    """
    network, config = ready(folder, is_alone)
    return foreseen(network, config, load_split(shards, split), windows, seed) | continued(
        network, config, examples(midi, splits, split, songs), seed
    )


def ready(folder: str | Path, is_alone: bool) -> tuple[NoteModel, Config]:
    """The network, to be judged as it was trained: with echoes and habits, or alone."""
    network, config = load(folder, is_alone)
    return deafen(network) if is_alone else network, config


# ---- foreseeing ------------------------------------------------------------------------------------------------------


def foreseen(network: NoteModel, config: Config, sources: list[Songs], each: int, seed: int) -> dict[str, Any]:
    """Nats a note, of all fields (`nll`) and of each (`nll_pitch` …), in one window of each of the first songs of every
    source; how often the true next chunk is found likeliest among foils (`choice`), and how often it is the one that
    the music before makes likelier by most (`recognised`). Every source weighs the same."""
    values: dict[str, dict[str, list[Any]]] = {}
    for songs in sources:
        pairs = [
            (_music(songs.song(i)), window)
            for i, window in enumerate(validation_windows([songs], config.train.window_chunks, each))
            if likelihood.notes_of(window)
        ]
        for _, window in pairs:
            notes, nats = likelihood.notes_of(window), likelihood.nll(network, config, window)
            for name, own in (("nll", nats.sum()), *((f"nll_{n}", v) for n, v in zip(FIELD_NAMES, nats, strict=True))):
                values.setdefault(name, {}).setdefault(songs.source, []).append((own / notes, notes))
        others = [_music(s.song(i)) for s in sources if s is not songs for i in range(min(len(s), FOR_FOILS))]
        music, asked_of = [m for m, _ in pairs], [w for _, w in pairs]
        for question in likelihood.questions(asked_of, music, others, QUESTIONS, seed):
            costs = likelihood.choose(network, config, question)
            for name, cost in zip(("choice", "recognised"), costs, strict=True):
                values.setdefault(name, {}).setdefault(songs.source, []).append(float(cost.argmin() == 0))
    return {name: asdict(pooled(found)) for name, found in values.items()}


def _music(song: Song) -> Excerpt:
    return Excerpt(song.rows, song.bar_units / MICRO_PER_BEAT, song.bar_s)


# ---- continuing ------------------------------------------------------------------------------------------------------


def examples(midi: Sequence[str | Path], splits: str | Path, split: str, most: int) -> list[Example]:
    """Songs that go on for two minutes after the prompt, one of each source after another, always the same."""
    found: list[Example] = []
    queues = [(source, iter(paths)) for source, paths in songs_of(midi, splits, split).items()]
    while queues and len(found) < most:
        left = []
        for source, paths in queues:
            cut = next((cut for path in paths if (cut := _cut(source, path)) is not None), None)
            if cut is not None:
                found.append(cut)
                left.append((source, paths))
        queues = left
    return found[:most]


def _cut(source: str, path: Path) -> Example | None:
    try:
        cut = example(source, score.read(path))
    except MidiexError:
        return None
    return cut if cut is not None and cut.beyond is not None else None


def continued(network: NoteModel, config: Config, cuts: Sequence[Example], seed: int) -> dict[str, Any]:
    """How much of what the network writes overlaps with a song's own next minute (`overlap`), how much of the song's
    minute after that does (`overlap_real`), and the ratio of both, song by song (`overlap_share`); notes a second of
    both. Every song weighs the same: few sources have more than one."""
    values: dict[str, dict[str, list[float]]] = {}
    for cut in cuts:
        music = continue_song(network, config, cut, CONTINUATION_S, seed)
        own, real = (float(np.mean(list(overlap(cut.truth, other).values()))) for other in (music, cut.beyond))
        density = {f"notes_per_s{name}": len(m.rows) / m.seconds for name, m in (("", music), ("_real", cut.truth))}
        for name, value in {"overlap": own, "overlap_real": real, "overlap_share": own / real, **density}.items():
            values.setdefault(name, {}).setdefault(cut.source, []).append(value)
    return {name: asdict(pooled({"all": sum(found.values(), [])})) for name, found in values.items()}


# ---- what it costs ---------------------------------------------------------------------------------------------------


def generation(
    folder: str | Path,
    minutes: Sequence[float] = (1, 5, 20),
    song: Path = EXAMPLES / "band_groove.mid",
    seed: int = 0,
) -> list[dict[str, float]]:
    """What so many minutes of new music after a song cost, each length in a process of its own and on one thread:
    `minutes`, `notes`, `notes_per_s` of writing chunks after the first, `notes_per_cpu_s` where others have the core as
    well, and `peak_mb` of memory above what the loaded network takes."""
    return [alone(generated, folder, length, song, seed, threads=1, seed=seed) for length in minutes]


def generated(folder: str | Path, minutes: float, song: Path, seed: int) -> dict[str, float]:
    """One length, in this process."""
    settle()
    network, config = load(folder)
    with contextlib.suppress(OSError):  # Linux: the peak is counted from now on
        Path("/proc/self/clear_refs").write_text("5")
    loaded_mb = peak_mb()
    chunks = list(long_song(network, config, song, 60 * minutes, seed))
    notes = sum(len(chunk.rows) for chunk in chunks[1:])
    return {
        "minutes": minutes,
        "notes": notes + len(chunks[0].rows),
        "notes_per_s": notes / sum(chunk.wall_s for chunk in chunks[1:]),
        "notes_per_cpu_s": notes / sum(chunk.cpu_s for chunk in chunks[1:]),
        "peak_mb": peak_mb() - loaded_mb,
    }
