"""Builders shared by the tests: small songs as MIDI files and as note rows, small models, and batches for them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import symusic
import torch

from midiex import aligned, collate, tokens, windows
from midiex.chunks import row_times
from midiex.conditions import CONDITIONS, VOICE_INSTANCES, VOICE_SLOTS
from midiex.config import Config, load_config
from midiex.errors import MissingPart
from midiex.layers import TRUST_SCALE
from midiex.model import NOTHING, Batch, ChunkTransformer
from midiex.score import Song
from midiex.stepper import Memory
from midiex.synth import fluidsynth_version
from midiex.tokens import BAR, FIELD_SIZES, INSTANCE, MICRO, PITCH, POSITION, PROGRAM
from midiex.windows import WindowChunk


def _has_fluidsynth() -> bool:
    try:
        return bool(fluidsynth_version())
    except MissingPart:
        return False


needs_fluidsynth = pytest.mark.skipif(not _has_fluidsynth(), reason="libfluidsynth is not installed")
DRUMS = -1  # in place of a program
BAND = (0, 32, DRUMS)
SCALE = (0, 2, 4, 5, 7, 9, 11)
NOTE_TYPES = (np.int32, np.int32, np.int8, np.int8)

Note = tuple[int, int, int, int, int, int, int]  # track, channel, program, start, end, pitch, velocity


# ---- music ----------------------------------------------------------------------------------------------------------


def score_of(
    voices: Iterable[tuple[int, Sequence[tuple[int, int, int, int]]]],
    tpq: int = 480,
    meters: Sequence[tuple[int, int, int]] = ((0, 4, 4),),
    bpm: float = 120.0,
) -> symusic.core.ScoreTick:
    """A score with one track for each (program or DRUMS, rows of (start, duration, pitch, velocity) in ticks)."""
    score = symusic.Score(tpq)
    score.tempos.append(symusic.Tempo(0, qpm=bpm))
    score.time_signatures.extend([symusic.TimeSignature(*meter) for meter in meters])
    for program, rows in voices:
        track = symusic.Track(program=max(program, 0), is_drum=program == DRUMS)
        columns = np.array(rows, np.int64).reshape(-1, 4).T
        arrays = (np.ascontiguousarray(c.astype(t)) for c, t in zip(columns, NOTE_TYPES, strict=True))
        track.notes = symusic.Note.from_numpy(*arrays)
        score.tracks.append(track)
    return score


def write_song(
    path: Path, *, bars: int = 16, programs: Sequence[int] = BAND, seed: int = 0, tpq: int = 480, bpm: float = 120.0
) -> Path:
    """A MIDI file in 4/4: each voice repeats a figure of two bars and ten notes, leaving some out."""
    rng = np.random.default_rng(seed)
    voices = []
    for program in programs:
        figure = sorted(rng.choice(32, 10, replace=False).tolist())  # sixteenths of two bars
        pitches = [36 + int(rng.integers(0, 12)) if program == DRUMS else 48 + int(rng.choice(SCALE)) for _ in figure]
        rows = []
        for pair in range(0, bars, 2):
            for at, pitch in zip(figure, pitches, strict=True):
                if rng.random() < 0.9 and pair * 16 + at < bars * 16:
                    start = (pair * 16 + at) * tpq // 4
                    rows.append((start, tpq // 4, pitch, int(rng.integers(60, 100))))
        rows.append(((bars - 1) * 4 * tpq, 4 * tpq, 47 if program != DRUMS else 35, 80))  # the last bar is full
        voices.append((program, rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    score_of(voices, tpq, bpm=bpm).dump_midi(path)
    return path


def song_in_bars(
    path: Path,
    signatures: Sequence[tuple[int, int]],
    tempi: Sequence[tuple[int, int]] = ((0, 500_000),),
    tpq: int = 480,
    programs: Sequence[int] = (0,),
) -> Path:
    """A MIDI file with one bar for each signature, filled with eighths in every voice, the downbeats low and loud.
    `tempi` are (tick, microseconds a beat)."""
    starts = bar_ticks(signatures, tpq)
    eighth = tpq // 2
    rows = [
        (tick, eighth, 48 if tick == start else 60 + SCALE[(i + 3 * bar) % 7], 100 if tick == start else 70)
        for bar, (start, end) in enumerate(itertools.pairwise(starts))
        for i, tick in enumerate(range(start, end, eighth))
    ]
    changes = [bar for bar in range(len(signatures)) if bar == 0 or signatures[bar] != signatures[bar - 1]]
    score = score_of([(program, rows) for program in programs], tpq, [(starts[b], *signatures[b]) for b in changes])
    score.tempos = symusic.core.TempoTickList([symusic.Tempo(tick, mspq=us) for tick, us in tempi])
    score.dump_midi(path)
    return path


def bar_ticks(signatures: Iterable[tuple[int, int]], tpq: int = 480) -> list[int]:
    """Where each bar begins, and where the last one ends."""
    return list(itertools.accumulate((4 * tpq * n // d for n, d in signatures), initial=0))


def notes_in(song: Song) -> Counter[Note]:
    """All notes of a song."""
    found: Counter[Note] = Counter()
    for voice, track in zip(song.voices, song.score.tracks, strict=True):
        for n in track.notes:
            found[voice.track, voice.channel, voice.program, n.time, n.time + n.duration, n.pitch, n.velocity] += 1
    return found


def kinds_seen(network: ChunkTransformer, monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """Will hold which kinds of memory rows each chunk is written with."""
    seen: list[set[int]] = []
    inner = network.remember

    def spy(encoded: torch.Tensor, times: torch.Tensor, kinds: torch.Tensor) -> Memory:
        seen.append(set(kinds.tolist()))
        return inner(encoded, times, kinds)

    monkeypatch.setattr(network, "remember", spy)
    return seen


def random_rows(rng: np.random.Generator, n: int, bars: int = 4, voices: int = 3) -> np.ndarray:
    """About `n` sorted rows (doublings go) of a few voices, one of them drums, over bars of 4/4."""
    rows = np.stack([rng.integers(0, size, n) for size in FIELD_SIZES], 1).astype(np.int32)
    rows[:, BAR] = rng.integers(0, bars, n)
    rows[:, POSITION] %= 48
    rows[rows[:, POSITION] == 0, MICRO] = tokens.MICRO_CENTER
    rows[:, INSTANCE] %= 2
    rows[:, PROGRAM] = np.array([*range(0, 40 * (voices - 1), 40), tokens.DRUM_PROGRAM])[rows[:, PROGRAM] % voices]
    is_drum = rows[:, PROGRAM] == tokens.DRUM_PROGRAM
    rows[:, PITCH] = rows[:, PITCH] % 128 + np.where(is_drum, tokens.DRUM_PITCH_OFFSET, 0)
    return tokens.sort_rows(rows)


def song_of(rows: np.ndarray, bars: int, bar_s: float = 2.0) -> windows.Song:
    """Song rows on bars of 4/4 that last `bar_s` each."""
    return windows.Song(rows, np.full(bars, bar_s), np.full(bars, 4 * tokens.MICRO_PER_BEAT))


def random_song(rng: np.random.Generator, bars: int, notes_per_bar: int = 6) -> windows.Song:
    return song_of(random_rows(rng, notes_per_bar * bars, bars), bars)


def window_chunks(rng: np.random.Generator, count: int, bars: int = 4, notes_per_bar: int = 4) -> list[WindowChunk]:
    """Consecutive chunks of one random song."""
    song = random_song(rng, count * bars, notes_per_bar)
    beat_starts = np.arange(count * bars + 1) * 4.0
    return [windows.make_chunk(song, i * bars, bars, beat_starts, count - i) for i in range(count)]


# ---- models and batches ---------------------------------------------------------------------------------------------


def tiny_config(**train: object) -> Config:
    """A config whose model trains a step in a few milliseconds; keywords replace values of its train section."""
    config = load_config("tiny")
    model = replace(config.model, d_model=32, d_ff=32, d_head_hidden=16, summary_rows=2)
    return replace(config, model=model, train=replace(config.train, **train))  # type: ignore[arg-type]


def lively_model(config: Config, seed: int = 0) -> ChunkTransformer:
    """A random model in which every path matters: in a fresh one the branches of attention and feed-forward layers
    are next to nothing, which would hide what they see, and nearly even logits would hide what the heads see."""
    generator = torch.Generator().manual_seed(seed)
    model = ChunkTransformer(config)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            owner = model.get_submodule(name.rpartition(".")[0])
            noise = torch.randn(weight.shape, generator=generator)
            if name.startswith(("heads.bucket.", "heads.level.")):
                noise /= TRUST_SCALE  # network and habits alike have a say
            if name.startswith("voices."):
                noise *= 8  # few of a thousand slots are ever filled
            if isinstance(owner, torch.nn.RMSNorm):
                weight.copy_(1 + 0.2 * noise)
            elif isinstance(owner, torch.nn.Linear):
                weight.copy_(noise * (weight.shape[-1] ** -0.5 if weight.ndim == 2 else 0.1))
            else:
                weight.copy_(noise * 0.5)
    return model.eval()


def model_batch(
    chunks: Sequence[np.ndarray],
    target: Sequence[int],
    full: Sequence[Sequence[tuple[int, int]]],
    summaries: Sequence[Sequence[tuple[int, int]]],
    bars: int = 4,
    goes_back: Mapping[int, int] | None = None,
) -> Batch:
    """A batch of chunks of 4/4 that stand one after another, with (chunk, kind) memory slots for each target.
    `goes_back`: to which chunk a target chunk does, where it does."""
    beat_starts = np.arange(bars * len(chunks) + 1) * 4.0
    times = []
    for i, rows in enumerate(chunks):
        moved = rows.copy()
        moved[:, BAR] += i * bars
        times.append(row_times(moved, beat_starts))
    rng = np.random.default_rng(0)
    told = rng.integers(0, 6, (len(target), len(CONDITIONS)))
    voices = np.zeros((len(target), VOICE_SLOTS), np.float32)
    voices[:, [0, 1, 40 * VOICE_INSTANCES]] = 1
    programs = np.zeros((len(target), FIELD_SIZES[PROGRAM]), np.float32)
    programs[:, [0, 40]] = 1
    full_index, full_kind = _slots(full)
    summary_index, summary_kind = _slots(summaries)
    first_bars = [i * bars for i in range(len(chunks))]
    echoes = collate.step_echoes(list(chunks), first_bars)
    habits = collate.step_habits(list(chunks), first_bars)
    sources = [chunks[goes_back[i]] if goes_back and i in goes_back else chunks[i][:0] for i in target]
    said = [
        aligned.evidence(chunks[i], rows, np.full(len(rows), 6), 4) for i, rows in zip(target, sources, strict=True)
    ]
    for i, own in zip(target, said, strict=True):
        echoes[i][:, -2:] = own.echoes
    return Batch(
        rows=torch.from_numpy(np.concatenate(list(chunks)).astype(np.int64)),
        lengths=torch.tensor([len(rows) for rows in chunks]),
        times=torch.from_numpy(np.concatenate(times)),
        starts=torch.tensor([[i * bars * 4.0, i * bars] for i in range(len(chunks))]),
        window=torch.zeros(len(chunks), dtype=torch.int64),
        target=torch.tensor(list(target)),
        conditions=torch.from_numpy(told),
        programs=torch.from_numpy(programs),
        full=full_index,
        full_kind=full_kind,
        summaries=summary_index,
        summary_kind=summary_kind,
        echoes=torch.from_numpy(np.concatenate([echoes[i] for i in target])),
        habit_share=torch.from_numpy(np.concatenate([habits[i].share for i in target])),
        habit_bucket=torch.from_numpy(np.concatenate([habits[i].bucket for i in target])),
        habit_level=torch.from_numpy(np.concatenate([habits[i].level for i in target])),
        source=torch.zeros(len(target), dtype=torch.int64),
        voices=torch.from_numpy(voices),
        aligned_share=torch.from_numpy(np.concatenate([own.share for own in said])),
        aligned_bucket=torch.from_numpy(np.concatenate([own.bucket for own in said])),
    )


def _slots(lists: Sequence[Sequence[tuple[int, int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    most = max(1, *(len(slots) for slots in lists))
    padded = torch.tensor([[*slots, *[(-1, NOTHING)] * (most - len(slots))] for slots in lists])
    return padded[..., 0].contiguous(), padded[..., 1].contiguous()
