"""What speed.py measures, each function in a process of its own: midiex's parts, the samplers it stands beside, memory.

Run as a script it waits for first chunks (first_chunks). midiex is used through `start`, `load` and its passages. The
other samplers are shapes with random weights that draw plainly from the softmax, without top-p, which would cost them a
sort of the vocabulary; of midigpt its own sampler runs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

MIDIGPT_RESOLUTION = 12  # positions a beat
LAST_BARS = 8


def begin(threads: int | None, seed: int) -> None:
    """Before anything is measured in a process."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)


# ---- midiex's own parts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Decoding:
    """What the decoder alone wrote. A step writes a note of every candidate that is not complete yet."""

    notes: int  # of all candidates
    steps: int
    wall_s: float
    cpu_s: float  # less than the wall time where others have the core

    @property
    def notes_per_s(self) -> float:
        return self.notes / self.wall_s

    @property
    def step_s(self) -> float:
        return self.wall_s / self.steps


def decoding(song: Path, engine: str, candidates: int, chunks: int, model: str | None, seed: int) -> Decoding:
    """Times midiex.decoding.write_chunk, as extending calls it, over so many chunks after the first."""
    from midiex import extend

    written: list[tuple[list[int], float, float]] = []  # notes of each candidate, seconds, of which on a core
    inner = extend.write_chunk

    def timed(*args: Any, **options: Any) -> Any:
        begun, cpu = time.perf_counter(), time.process_time()
        found = inner(*args, **options)
        lengths = [len(candidate.rows) for candidate in found]
        written.append((lengths, time.perf_counter() - begun, time.process_time() - cpu))
        return found

    passage = extend.start(song, 3600.0, open_end=True, model=model, seed=seed, form="flat")
    passage.generate = replace(passage.generate, candidates=candidates, returns=0.0, max_attempts=1, engine=engine)
    extend.write_chunk = timed
    try:
        list(islice(_shown(passage.chunks(), chunks + 1), chunks + 1))
    finally:
        extend.write_chunk = inner
    lengths, wall_s, cpu_s = zip(*written[1:], strict=True)
    return Decoding(sum(map(sum, lengths)), sum(max(of_chunk) + 1 for of_chunk in lengths), sum(wall_s), sum(cpu_s))


def has_onnx() -> bool:
    from midiex.onnx_stepper import is_installed

    return is_installed()


@dataclass(frozen=True)
class LongRun:
    """A passage written to its end and saved."""

    ends: tuple[float, ...]  # seconds of new music at the end of each chunk
    at: tuple[float, ...]  # seconds since the first chunk was begun at which each was there
    wall_s: float  # in all, loading included
    peak_mb: float

    def first_and_last(self, span_s: float) -> tuple[float, float]:
        """Wall seconds of the first and of the last `span_s` of new music, chunks that straddle cut in proportion."""
        first, before_last = np.interp([span_s, self.ends[-1] - span_s], [0.0, *self.ends], [0.0, *self.at])
        return float(first), float(self.at[-1] - before_last)


def long_run(song: Path, seconds: float, model: str | None, seed: int) -> LongRun:
    from midiex import extend
    from midiex.process import settle

    settle()  # as the command does
    begun = time.perf_counter()
    passage = extend.start(song, seconds, model=model, seed=seed)
    ends, at, first = [], [], time.perf_counter()
    for chunk in _shown(passage.chunks()):
        ends.append(chunk.end_s - passage.start_s)
        at.append(time.perf_counter() - first)
    with tempfile.TemporaryDirectory() as folder:
        passage.save(Path(folder, "long.mid"))
    return LongRun(tuple(ends), tuple(at), time.perf_counter() - begun, peak_mb())


def peak_mb() -> float:
    """Largest resident memory of this process. Linux: since it began its own program; what the operating system tells
    of a child (ru_maxrss) may be its parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def tokenizing(files: Sequence[Path]) -> tuple[list[dict[str, Any]], int]:
    import tokenizer_speed

    return tokenizer_speed.measure(tqdm(files, unit=" files", leave=False))


@dataclass(frozen=True)
class Rendering:
    music_s: float
    open_s: float  # of the soundfont
    play_s: float
    stems: int
    stems_s: float  # the same with a file for every stem besides
    soundfont: Path


def rendering(song: Path, out: Path) -> Rendering | str:
    """Renders a file as midiex.render does, or says why it cannot."""
    import mido

    from midiex.errors import MissingPart
    from midiex.render import Renderer

    begun = time.perf_counter()
    try:
        renderer = Renderer()
    except MissingPart as error:
        return str(error)
    opened = time.perf_counter()
    with renderer:
        renderer.render(song, out)
        done = time.perf_counter()
        stems = renderer.render(song, out, stems=True).stems
        stems_s = time.perf_counter() - done
        soundfont = Path(renderer.soundfont)
        return Rendering(mido.MidiFile(song).length, opened - begun, done - opened, len(stems), stems_s, soundfont)


@dataclass(frozen=True)
class Playing:
    """A passage composed while it was played, in time."""

    played: Any  # midiex.play.Played
    events: int
    late: int  # handed to the synthesizer after the time at which they should sound
    spare_s: float  # the least time before that at which one was handed over
    ahead_s: float  # the least that was composed and not yet played when a bar of new music began
    cpu_s: float


def playing(song: Path, seconds: float, model: str | None, seed: int) -> Playing | str:
    """Plays a song and what goes on from it through FluidSynth's driver that writes a file at the pace of the music, or
    says why it cannot."""
    from midiex import extend
    from midiex.errors import MissingPart
    from midiex.play import Player, composing
    from midiex.play.speakers import Speakers
    from midiex.process import settle

    settle()
    spare_s: list[float] = []
    ahead_s: list[float] = []

    class Watched(Speakers):
        def send(self, at_s: float, message: Any) -> None:
            spare_s.append(at_s - self.now())
            super().send(at_s, message)

    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where that driver writes
        try:
            sink = Watched(driver="file")
        except MissingPart as error:
            return str(error)
        finally:
            os.chdir(here)
        with contextlib.closing(sink):
            passage = extend.start(song, seconds, model=model, seed=seed)
            cpu = time.process_time()
            with composing(passage) as ahead:
                bar = passage.line.before
                player = Player(sink, ahead, on_bar=lambda at: ahead_s.append(at.ahead_s) if at.number > bar else None)
                played = player.play()
            cpu_s = time.process_time() - cpu
    late = sum(spare < 0 for spare in spare_s)
    # the last bars have nothing left to be composed
    return Playing(played, len(spare_s), late, min(spare_s), min(ahead_s[:-LAST_BARS]), cpu_s)


@dataclass(frozen=True)
class Training:
    config: str
    notes: int
    wall_s: float
    threads: int


def training(data: Path, is_shards: bool, steps: int, model: str | None) -> Training:
    """Trains a fresh network of the model's config for about so many steps, batches made on the way as ever; what came
    before the first report (train.LOG_EVERY steps) is not timed. `data` holds shards, or else MIDI."""
    from midiex.extend import load
    from midiex.prepare import prepare
    from midiex.train import LOG_EVERY, train

    config = load(model).config
    notes = max(steps, 2 * LOG_EVERY) * config.train.notes_per_batch
    reports: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder, tqdm(total=notes, unit=" notes", leave=False) as bar:

        def told(progress: Any) -> None:
            reports.append((time.perf_counter(), progress.notes))
            bar.update(progress.notes - bar.n)

        shards = data if is_shards else Path(folder, "shards")
        if not is_shards:
            prepare([data], shards, jobs=1)
        short = replace(config, train=replace(config.train, max_notes=notes))
        train(shards, Path(folder, "model"), short, valid_every_s=math.inf, save_every_s=math.inf, on_progress=told)
    (begun, before), (ended, after) = reports[0], reports[-1]
    return Training(config.model.name, after - before, ended - begun, torch.get_num_threads())


def widths(model: str | None) -> tuple[int, tuple[int, ...]]:
    """How wide the model's note rows are, and how many values each of its heads chooses among."""
    from midiex.extend import load
    from midiex.layers import HEAD_SIZES

    return load(model).config.model.d_model, HEAD_SIZES


def weights_read(model: str | None) -> int:
    """How many weights a step of the decoder reads: its layers, the echoes' matrix and the heads; not the tables, of
    which it reads a few rows, nor what is applied to the memory once a chunk."""
    from midiex.extend import load

    network, count = load(model).network, 0
    for part in (network.decoder, network.echoes, network.heads):
        for name, module in part.named_modules():
            if not isinstance(module, nn.Embedding | nn.EmbeddingBag) and not name.endswith(
                ("cross.kv", "memory_norm")
            ):
                count += sum(parameter.numel() for parameter in module.parameters(recurse=False))
    return count


def first_chunks(song: str, again: str, seed: str, model: str | None = None) -> None:
    """Prints a line when the first chunk is there, then how many seconds each further first one took."""
    import midiex

    torch.set_num_threads(1)
    next(midiex.start(song, model=model, seed=int(seed), form="flat").chunks())
    print("there", flush=True)
    loaded = midiex.load(model)
    for i in range(int(again) + 1):
        begun = time.perf_counter()
        next(midiex.start(song, model=loaded, seed=int(seed) + i, form="flat").chunks())
        if i:  # the first one of a model may build what the others find
            print(time.perf_counter() - begun)


def _shown(things: Iterable[Any], total: int | None = None) -> Any:
    return tqdm(things, total=total, unit=" chunks", leave=False)


# ---- other samplers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GptSize:
    """GPT-2 small (Radford et al. 2019), with the vocabulary of the Anticipatory Music Transformer (Thickstun et al.,
    arXiv 2306.08620), which spends three tokens on a note."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    vocabulary: int = 55_028
    context: int = 1024
    tokens_a_note: int = 3


class _Block(nn.Module):
    def __init__(self, size: GptSize):
        super().__init__()
        self.heads = size.heads
        self.norm, self.second_norm = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.qkv, self.out = nn.Linear(size.width, 3 * size.width), nn.Linear(size.width, size.width)
        self.inner, self.outer = nn.Linear(size.width, 4 * size.width), nn.Linear(4 * size.width, size.width)

    def forward(self, x: Tensor, cache: Tensor | None, at: int) -> Tensor:
        """x (T, D); cache (2, H, context, E) is written from row `at` on, None: there is none."""
        q, k, v = self.qkv(self.norm(x)).view(len(x), 3, self.heads, -1).permute(1, 2, 0, 3)  # each (H, T, E)
        if cache is not None:
            cache[0, :, at : at + len(x)], cache[1, :, at : at + len(x)] = k, v
            k, v = cache[:, :, : at + len(x)]
        y = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=len(x) > 1)[0]
        x = x + self.out(y.transpose(0, 1).flatten(1))
        return x + self.outer(F.gelu(self.inner(self.second_norm(x)), approximate="tanh"))


class Gpt(nn.Module):
    """A decoder-only transformer whose last matrix is its embedding."""

    def __init__(self, size: GptSize):
        super().__init__()
        self.size = size
        self.token, self.place = nn.Embedding(size.vocabulary, size.width), nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(_Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        nn.init.normal_(self.token.weight, std=0.02)

    def new_cache(self) -> Tensor:
        size = self.size
        return torch.zeros(size.layers, 2, size.heads, size.context, size.width // size.heads)

    def forward(self, tokens: Tensor, cache: Tensor | None = None, at: int = 0) -> Tensor:
        """Logits (V,) after the last of tokens (T,); with a cache, those before row `at` are in it. What would come
        after the earlier tokens is not asked."""
        x = self.token(tokens) + self.place.weight[at : at + len(tokens)]
        for i, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache[i], at)
        return F.linear(self.norm(x[-1]), self.token.weight)

    def draw(self, tokens: Tensor, cache: Tensor | None = None, at: int = 0) -> Tensor:
        """The next token, (1,)."""
        return torch.multinomial(self(tokens, cache, at).softmax(-1), 1)


@torch.inference_mode()
def gpt_cacheless(size: GptSize, lengths: Sequence[int], steps: int) -> list[float]:
    """Seconds a token with all before it read anew, at each number of tokens read: median of `steps`."""
    model = Gpt(size).eval()
    tokens = torch.randint(size.vocabulary, (size.context,))
    model.draw(tokens[:2])  # the first one is slower
    return [_median_s(lambda n=n: model.draw(tokens[:n]), steps) for n in lengths]


@torch.inference_mode()
def gpt_cached(size: GptSize, befores: Sequence[int], steps: int) -> list[float]:
    """Seconds a token with keys and values kept, after `befores` tokens each: mean of the `steps` that follow, as many
    as fit into the window."""
    model = Gpt(size).eval()
    tokens = torch.randint(size.vocabulary, (size.context,))
    found = []
    for before in befores:
        cache = model.new_cache()
        token = model.draw(tokens[:before], cache)
        token = model.draw(token, cache, before)
        ends = min(size.context, before + 1 + steps)
        begun = time.perf_counter()
        for at in range(before + 1, ends):
            token = model.draw(token, cache, at)
        found.append((time.perf_counter() - begun) / (ends - before - 1))
    return found


def mean_token_s(lengths: Sequence[int], token_s: Sequence[float]) -> float:
    """Mean over all lengths from the first to the last, straight lines between those measured."""
    spans = zip(pairwise(lengths), pairwise(token_s), strict=True)
    return sum((b - a) * (first + last) / 2 for (a, b), (first, last) in spans) / (lengths[-1] - lengths[0])


@torch.inference_mode()
def lstm(width: int, sizes: Sequence[int], streams: int, steps: int) -> float:
    """Steps a second of two LSTM layers between rows of fields and heads of these sizes, all fields of a row drawn from
    one state. A step is a note of every stream."""
    tables = nn.ModuleList(nn.Embedding(n, width) for n in sizes)
    cells = nn.ModuleList(nn.LSTMCell(width, width) for _ in range(2))
    heads = nn.ModuleList(nn.Linear(width, n) for n in sizes)
    state = [(torch.zeros(streams, width), torch.zeros(streams, width)) for _ in cells]
    row = [torch.zeros(streams, dtype=torch.int64) for _ in sizes]

    def step() -> None:
        x = sum(table(value) for table, value in zip(tables, row, strict=True))
        for i, cell in enumerate(cells):
            state[i] = cell(x, state[i])
            x = state[i][0]
        row[:] = [torch.multinomial(head(x).softmax(-1), 1)[:, 0] for head in heads]

    for _ in range(min(10, steps)):
        step()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    return steps / (time.perf_counter() - begun)


def has_midigpt() -> bool:
    return importlib.util.find_spec("midigpt") is not None


def midigpt(bars: int, seed: int) -> dict[str, float]:
    """Tokens, notes and seconds of midigpt's own sampler: its smallest architecture (6 layers, 512 wide, 2,048 tokens),
    random weights, one track from nothing, as many bars at once. A random model's bars are fuller than music's, and its
    notes take their own share of tokens; the rate of tokens is the firmer figure."""
    import midigpt._core as core
    from midigpt import Bar, Score, Track
    from midigpt.attributes.base import AttributeAnalyzer
    from midigpt.inference import GenerationRequest, InferenceConfig, InferenceEngine, TrackPrompt
    from midigpt.inference.model import GPT2Config, GPT2LMHeadModel
    from midigpt.tokenizer.tokenizer import Tokenizer

    about = {
        "resolution": MIDIGPT_RESOLUTION, "decode_resolution": 480, "velocity_levels": 32, "num_bars_map": [bars],
        "time_signatures": ["4/4"], "supports_infill": True,
    }  # fmt: skip
    encoding = core.EncoderConfig.from_json(json.dumps(about))
    encoding.derive_token_domains()
    analyzer = AttributeAnalyzer.from_config(encoding)
    tokenizer = Tokenizer(encoding, analyzer)
    torch.manual_seed(seed)
    size = GPT2Config(vocab_size=tokenizer.vocab_size(), n_layer=6, n_embd=512, n_head=8, n_positions=2048)
    engine = InferenceEngine(GPT2LMHeadModel(size).eval(), tokenizer, analyzer)
    engine.warmup()
    config = InferenceConfig(
        seed=seed, model_dim=bars, bars_per_step=bars, max_attempts=1, novelty_check=False, silence_check=False
    )
    wanted = TrackPrompt(id=0, bars=list(range(bars)), autoregressive=True)
    empty = Score(tracks=[Track(bars=[Bar() for _ in range(bars)])])
    session = engine.session(empty, GenerationRequest(tracks=[wanted], config=config))
    begun = time.perf_counter()
    written = session.run()
    wall_s = time.perf_counter() - begun
    notes = sum(len(bar.notes) for track in written.tracks for bar in track.bars)
    return {"tokens": session.gen_count, "notes": notes, "wall_s": wall_s}


def bandwidth(nbytes: int, rounds: int = 5) -> float:
    """Bytes a second that a copy of so many reads and writes, the best of some rounds."""
    source = np.ones(nbytes // 8)
    target = np.empty_like(source)
    np.copyto(target, source)  # the pages are there
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(repeats := max(1, (1 << 26) // nbytes)):
            np.copyto(target, source)
        times.append((time.perf_counter() - begun) / repeats)
    return 2 * source.nbytes / min(times)


def _median_s(function: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


if __name__ == "__main__":
    first_chunks(*sys.argv[1:])
