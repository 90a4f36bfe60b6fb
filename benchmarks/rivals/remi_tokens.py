"""midiex's training windows as tokens of MidiTok's REMI, plain or with byte pairs merged.

A window's chunks are told to MidiTok as a score whose bars are the shards' bars. Programs stand before each note, so
that tokens can begin at any bar, and meters behind bars; there are no tempi. Knows rows and tokens; knows no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import miditok
import numpy as np
import symusic
import torch
from torch import Tensor

from midiex.config import Config
from midiex.dataset import WINDOW_NOTES, Dataset, Songs, load_split, validation_windows
from midiex.tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    DURATIONS,
    DURATIONS_PER_BEAT,
    MICRO_PER_BEAT,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
    VELOCITY_STEP,
    moved,
)
from midiex.train import VALID_WINDOWS
from midiex.windows import Window, WindowChunk, make_window

from . import sizes

MERGES_FILE = "remi_bpe.json"
MERGED_VOCABULARY = 2000
MERGE_WINDOWS = 1500  # from which the merges are learned: about a million notes
POSITIONS_PER_EIGHTH = 6


def remi() -> miditok.REMI:
    """Without merges."""
    return miditok.REMI(
        miditok.TokenizerConfig(
            pitch_range=(0, 127),
            drums_pitch_range=(0, 127),
            beat_res={(0, 4): 12, (4, 12): 4, (12, 32): 1},
            num_velocities=32,
            use_programs=True,
            one_token_stream_for_programs=True,
            use_time_signatures=True,
            time_signature_range={4: list(range(1, 9)), 8: list(range(1, 16, 2))},
        )
    )


def prepare(shards: str | Path, out: str | Path, windows: int = MERGE_WINDOWS) -> Path:
    """Learn merges from windows of the train split as training draws them; returns their file in the folder `out`."""
    tokenizer = remi()
    config = sizes.config("decoder_only", "3M")
    dataset = TokenDataset(load_split(shards, "train"), config, tokenizer)
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(windows):
        window, bar_units = dataset.draw_music(rng)
        for stretch in stretches(window):
            if any(len(chunk.rows) for chunk in stretch):
                sequence = tokenizer.encode(score_of(stretch, bar_units), encode_ids=False)
                bars = [bar.ids for bar in sequence.split_per_bars() if len(bar)]
                texts.append(tokenizer._ids_to_bytes(bars, as_one_str=True))
    tokenizer.train(MERGED_VOCABULARY, model="BPE", iterator=texts)
    Path(out).mkdir(parents=True, exist_ok=True)
    tokenizer.save(Path(out) / MERGES_FILE)
    return Path(out) / MERGES_FILE


def stretches(window: Window) -> list[list[WindowChunk]]:
    """What of a window is heard without a gap: each chunk from earlier in the song, then all chunks to be written."""
    return [*([chunk] for chunk in window.chunks[: window.extras]), window.chunks[window.extras :]]


def score_of(chunks: list[WindowChunk], bar_units: np.ndarray) -> symusic.core.ScoreTick:
    """Consecutive chunks as a score in 1/24 beat that begins with the first one's first bar: a track a program, and
    meters as the song's `bar_units` (bars,), in 1/96 beat, have it."""
    first, last = chunks[0].first_bar, chunks[-1].first_bar + chunks[-1].bars
    rows = np.concatenate([moved(chunk.rows, chunk.first_bar - first) for chunk in chunks])
    eighths = np.ceil(bar_units[first:last] * 2 / MICRO_PER_BEAT).astype(np.int64).clip(1)
    np.maximum.at(eighths, rows[:, BAR], rows[:, POSITION] // POSITIONS_PER_EIGHTH + 1)  # a note may stand past its bar
    starts = np.concatenate([[0], np.cumsum(eighths)]) * DURATIONS_PER_BEAT // 2
    score = symusic.Score(DURATIONS_PER_BEAT)
    changes = np.flatnonzero(np.append(True, eighths[1:] != eighths[:-1]))
    for start, count in zip(starts[changes].tolist(), eighths[changes].tolist(), strict=True):
        score.time_signatures.append(symusic.TimeSignature(start, *((count, 8) if count % 2 else (count // 2, 4))))
    onset = starts[rows[:, BAR]] + 2 * rows[:, POSITION]
    pitch = rows[:, PITCH] % DRUM_PITCH_OFFSET
    velocity = np.clip(rows[:, VELOCITY] * VELOCITY_STEP + VELOCITY_STEP // 2, 1, 127)
    for program in np.unique(rows[:, PROGRAM]).tolist():
        own = np.flatnonzero(rows[:, PROGRAM] == program)
        own = own[np.lexsort((DURATIONS[rows[own, DURATION]], pitch[own], onset[own]))]
        is_drum = program == DRUM_PROGRAM
        track = symusic.Track(program=0 if is_drum else program, is_drum=is_drum)
        track.notes = symusic.Note.from_numpy(
            onset[own].astype(np.int32), DURATIONS[rows[own, DURATION]].astype(np.int32),
            pitch[own].astype(np.int8), velocity[own].astype(np.int8),
        )  # fmt: skip
        score.tracks.append(track)
    return score


@dataclass(frozen=True, kw_only=True)
class TokenWindow(Window):
    """A window and its tokens, each stretch behind a token of its own that opens it."""

    tokens: np.ndarray  # (t,) int64
    read: int  # so many of them are only read

    @classmethod
    def of(cls, window: Window, bar_units: np.ndarray, tokenizer: miditok.REMI) -> TokenWindow:
        opening, parts = tokenizer["BOS_None"], []
        for chunks in stretches(window):
            heard = any(len(chunk.rows) for chunk in chunks)  # MidiTok knows no silence
            parts.append([opening, *(tokenizer(score_of(chunks, bar_units)).ids if heard else [])])
        read = 1 + sum(map(len, parts[:-1]))
        return cls(**vars(window), tokens=np.concatenate(parts), read=read)


@dataclass(frozen=True)
class TokenBatch:
    """Sequences of tokens one after another, no padding. midiex.train.Run asks for `rows`, and for `lengths` and
    `target` to count the notes."""

    rows: Tensor  # (N,) int64
    following: Tensor  # (N,) the token after each that is to be foreseen, or -1
    sizes: Tensor  # (W,) tokens of each sequence
    lengths: Tensor  # (W,) notes to be written in each
    target: Tensor  # (W,) all of them

    @classmethod
    def of(cls, windows: list[Any]) -> TokenBatch:
        following = []
        for window in windows:
            after = np.append(window.tokens[1:], -1)
            after[: window.read - 1] = -1
            following.append(after)
        return cls(
            torch.from_numpy(np.concatenate([window.tokens for window in windows])),
            torch.from_numpy(np.concatenate(following)),
            torch.tensor([len(window.tokens) for window in windows]),
            torch.tensor([sum(len(chunk.rows) for chunk in window.chunks[window.extras :]) for window in windows]),
            torch.arange(len(windows)),
        )


class TokenDataset(Dataset):
    """The windows that midiex's own training draws, as tokens."""

    def __init__(self, sources: list[Songs], config: Config, tokenizer: miditok.REMI):
        super().__init__(sources, config.train, config.memory)
        self.tokenizer = tokenizer

    def batches(self, pool: int = 0, skip: int = 0) -> Iterator[tuple[list[Any], int, int]]:
        while True:
            for number, parts in enumerate(self._pool(pool)):
                if number >= skip:
                    yield [TokenBatch.of(part) for part in parts], pool, number
            pool, skip = pool + 1, 0

    def draw(self, rng: np.random.Generator) -> TokenWindow:
        return TokenWindow.of(*self.draw_music(rng), self.tokenizer)

    def draw_music(self, rng: np.random.Generator) -> tuple[Window, np.ndarray]:
        """As Dataset.draw by a config of `sizes`, with the length of each of the song's bars."""
        source = int(rng.choice(len(self.sources), p=self.source_chance))
        songs = self.sources[source]
        song = self._augmented(songs.song(int(rng.choice(len(songs), p=self.song_chance[source]))), rng)
        return make_window(song, self.train.window_chunks, WINDOW_NOTES, source, rng), song.bar_units


def validation(sources: list[Songs], size: int, tokenizer: miditok.REMI) -> list[TokenWindow]:
    """The windows of midiex.train.validate."""
    songs = [own.song(index) for own in sources for index in range(min(len(own), VALID_WINDOWS))]
    windows = validation_windows(sources, size, VALID_WINDOWS)
    return [TokenWindow.of(w, song.bar_units, tokenizer) for w, song in zip(windows, songs, strict=True)]
