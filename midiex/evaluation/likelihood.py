"""How well a network foresees real music: nats a note (figure 1), and the true next chunk among foils (figure 2).

Teacher-forced over windows of real songs; a chunk's bars, meter, tempo and place before the end are told, nothing that
only the true chunk could tell. Writes no music.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from .. import metrics
from ..chunks import row_times, thin
from ..collate import collate
from ..config import Config
from ..model import Batch, NoteModel
from ..tokens import (
    DRUM_PROGRAM,
    DURATION,
    DURATIONS,
    INSTANCE,
    MICRO_PER_BEAT,
    PITCH,
    PROGRAM,
    sort_rows,
)
from ..windows import Song, Window, WindowChunk, make_window
from .excerpts import Excerpt

WINDOW_NOTES = 4096  # a window of dense music stops after the chunk that passes this many notes
FOILS = 3
MOST_SONGS = 12  # among which foils are looked for
FEWEST_NOTES = 8  # of a chunk that is asked for, and of its foils


def window(music: Excerpt, size: int, seed: int) -> Window:
    """`size` consecutive chunks of a song, always the same for a seed."""
    units = np.round(music.bar_beats * MICRO_PER_BEAT).astype(np.int64)
    return make_window(Song(music.rows, music.bar_s, units), size, WINDOW_NOTES, 0, np.random.default_rng(seed))


def notes_of(window: Window) -> int:
    return sum(len(chunk.rows) for chunk in window.chunks[window.extras :])


@torch.inference_mode()
def nll(network: NoteModel, config: Config, window: Window) -> np.ndarray:
    """Nats by field, summed over a window's chunks, ends included: shape (8,) in HEAD_ORDER."""
    losses = network(collate([window], config.memory, 0.0, None))  # (steps, 8)
    return losses.double().sum(0).numpy()


@dataclass(frozen=True)
class Question:
    """Which of these is the song's next chunk? The first is."""

    window: Window  # what came before; its last chunk is the true one
    options: tuple[WindowChunk, ...]  # (1 + FOILS)


def questions(
    windows: Sequence[Window], songs: Sequence[Excerpt], others: Sequence[Excerpt], each: int, seed: int
) -> list[Question]:
    """Up to `each` questions a window, with foils from other songs: as many bars of the same length.

    `windows` are of the `songs` of one source, one a song; where these have no fitting bars, those of `others` are
    taken. Foils are put into the true chunk's key and given its instruments (drums to drums, the others in order of
    mean pitch); bars that share most instruments with it come first.
    """
    rng = np.random.default_rng(seed)
    asked = []
    for number, own in enumerate(windows):
        places = [i for i in range(own.extras + 1, len(own.chunks)) if len(own.chunks[i].rows) >= FEWEST_NOTES]
        for i in rng.permutation(places)[:each]:
            true = own.chunks[i]
            beats = songs[number].bar_beats[true.first_bar : true.first_bar + true.bars]
            foils = _foils(true, beats, [s for k, s in enumerate(songs) if k != number], rng)
            if len(foils) < FOILS:
                foils += _foils(true, beats, others, rng)[: FOILS - len(foils)]
            if len(foils) == FOILS:
                before = replace(own, chunks=own.chunks[: i + 1])
                asked.append(Question(before, (true, *(_in_place_of(true, beats, rows) for rows in foils))))
    return asked


def _foils(
    true: WindowChunk, beats: np.ndarray, songs: Sequence[Excerpt], rng: np.random.Generator
) -> list[np.ndarray]:
    """Rows of up to FOILS stretches, each of another song, disguised as the true chunk, whose bars have so many
    `beats` (bars,)."""
    found = []
    for k in rng.permutation(len(songs))[:MOST_SONGS]:
        if songs[k].bars < true.bars:
            continue
        stretches = np.lib.stride_tricks.sliding_window_view(songs[k].bar_beats, true.bars)
        fits = (np.abs(stretches - beats) < 0.01).all(1)
        for first in rng.permutation(np.flatnonzero(fits))[:4]:
            rows = thin(songs[k].part(int(first), int(first) + true.bars).rows)
            if len(rows) >= FEWEST_NOTES:
                found.append((_shared_programs(rows, true.rows), rows))
                break
    found.sort(key=lambda f: -f[0])
    return [disguised(rows, true.rows) for _, rows in found[:FOILS]]


@torch.inference_mode()
def choose(network: NoteModel, config: Config, question: Question) -> tuple[np.ndarray, np.ndarray]:
    """NLL a note of each option as the next chunk, (1 + FOILS,), and that less what it is at a song's beginning: the
    first chooses what is likely, simple music above all; the second what the music before makes likely."""
    costs: list[float] = []
    alone: list[float] = []
    for option in question.options:
        for asked, found in (
            (replace(question.window, chunks=[*question.window.chunks[:-1], option]), costs),
            (replace(question.window, chunks=[option], extras=0, before=None), alone),
        ):
            losses = network(last_target(collate([asked], config.memory, 0.0, None)))
            found.append(float(losses.double().sum()) / len(option.rows))
    return np.array(costs), np.array(costs) - np.array(alone)


def disguised(rows: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Rows (n, 8) in the key and with the instruments of others (m, 8)."""
    rows = rows.copy()
    tuned, key = rows[:, PROGRAM] != DRUM_PROGRAM, _key_note(like)
    if tuned.any() and key is not None:
        up = (key - (_key_note(rows) or 0)) % 12
        low, high = rows[tuned, PITCH].min(), rows[tuned, PITCH].max()
        shift = up - 12 if up > 6 and low + up >= 12 or high + up > 127 else up
        pitch = rows[tuned, PITCH] + shift
        rows[tuned, PITCH] = np.where(pitch < 0, pitch + 12, np.where(pitch > 127, pitch - 12, pitch))
    for is_drum in (True, False):
        own, others = _voices(rows, is_drum), _voices(like, is_drum)
        if own and others:
            spread = np.round(np.linspace(0, len(others) - 1, len(own))).astype(int) if len(own) > 1 else [0]
            names = [others[k] for k in spread]
            members = [(rows[:, PROGRAM] == p) & (rows[:, INSTANCE] == i) for p, i in own]
            for member, name in zip(members, names, strict=True):
                rows[np.ix_(member, [PROGRAM, INSTANCE])] = name
    return sort_rows(rows)


def _voices(rows: np.ndarray, is_drum: bool) -> list[tuple[int, int]]:
    """(program, instance) of the voices that play, from low to high."""
    rows = rows[(rows[:, PROGRAM] == DRUM_PROGRAM) == is_drum]
    voices = np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0)
    height = [rows[(rows[:, [PROGRAM, INSTANCE]] == v).all(1), PITCH].mean() for v in voices]
    return [(int(p), int(i)) for p, i in voices[np.argsort(height, kind="stable")]]


def _shared_programs(a: np.ndarray, b: np.ndarray) -> float:
    mine, theirs = set(a[:, PROGRAM].tolist()), set(b[:, PROGRAM].tolist())
    return len(mine & theirs) / len(mine | theirs)


def _key_note(rows: np.ndarray) -> int | None:
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    if not len(tuned):
        return None
    return metrics.key_note(metrics.pitch_class_weights(tuned[:, PITCH], DURATIONS[tuned[:, DURATION]]))


def _in_place_of(true: WindowChunk, beats: np.ndarray, rows: np.ndarray) -> WindowChunk:
    """The true chunk with other rows; `beats` (bars,) of its bars."""
    times = true.start + row_times(rows, np.concatenate([[0.0], np.cumsum(beats)]))
    return replace(true, rows=rows, times=times.astype(np.float32))


def last_target(batch: Batch) -> Batch:
    """Only the last chunk to be written; all are still remembered."""
    per_target = (
        "target", "conditions", "programs", "voices", "full", "full_kind", "summaries", "summary_kind", "source",
    )  # fmt: skip
    per_step = ("echoes", "habit_share", "habit_bucket", "habit_level", "aligned_share", "aligned_bucket")
    steps = int(batch.lengths[batch.target[-1]]) + 1
    known = {name: value for name, value in vars(batch).items() if value is not None}
    last = {name: known[name][-1:] for name in per_target if name in known}
    last |= {name: known[name][-steps:] for name in per_step if name in known}
    return replace(batch, **last)
