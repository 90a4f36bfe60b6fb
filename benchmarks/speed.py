"""How fast midiex is on this machine, in one table, beside other samplers measured in the same run.

python benchmarks/speed.py [--only decode floor …] [--quick] [--midi FOLDER] [--song MIDI] [--data SHARDS]

decode      notes a second of the decoder alone (write_chunk) with the shipped weights, one stream and eight candidates,
            in torch and in ONNX Runtime; no ranking, no second attempt, nothing brought back; the first chunk warms up
end_to_end  seconds of new music a second of `midiex extend`, start-up and load included, and with audio; the time to
            the first chunk from starting Python, and from a loaded model
memory      largest resident memory (VmHWM) at several lengths, and the wall time of the first part of the longest
            beside its last part
tokenizer   files a second read and encoded, beside MidiTok's (tokenizer_speed.py)
render      seconds of music a second of midiex.render, alone and with stems, beside the `fluidsynth` command with the
            same soundfont
play        `midiex play` in time, through FluidSynth's driver that writes a file as fast as it sounds: events that come
            after their time, waits, how far ahead composing is
training    notes a second of the shipped config's training, after its first steps, all threads
references  samplers of random weights: GPT-2 small at three tokens a note, with and without kept keys and values,
            midigpt's own where it is installed, two LSTM layers at a note a step; and midiex's ratio to each
floor       weights a step reads over the rate at which memory is copied, beside the time a step takes

Every figure comes from a process of its own, of one thread unless it says otherwise. What cannot be measured here has
a row that says why. A run of all sections is saved as speed.json, any other as speed_part.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import extend_speed
import speed_references as references
from common import report
from speed_references import GptSize
from tqdm import tqdm

EXAMPLES = extend_speed.EXAMPLE.parent
SONGS = tuple(EXAMPLES / f"{name}.mid" for name in ("band_groove", "piano_nocturne", "small_orchestra"))
ENGINES = ("torch", "onnx")
CANDIDATES = (1, 8)


@dataclass(frozen=True)
class Sizes:
    """How much of everything is measured."""

    chunks: int = 12  # timed, of the decoder
    songs: tuple[Path, ...] = SONGS
    extend_s: float = 300.0
    first_chunks: int = 3
    lengths_s: tuple[float, ...] = (60.0, 300.0, 1200.0, 3600.0)
    play_s: float = 120.0
    span_s: float = 600.0  # of music, at the beginning and at the end of the longest
    files: int = 200
    train_steps: int = 60
    gpt: GptSize = field(default_factory=GptSize)
    cacheless_lengths: tuple[int, ...] = (16, 128, 512, 1024)
    cacheless_steps: int = 3
    cached_steps: int = 48
    lstm_steps: int = 1000
    midigpt_bars: int = 4
    copy_bytes: int = 512 << 20


QUICK = Sizes(
    chunks=2, songs=SONGS[:1], extend_s=120.0, first_chunks=1, lengths_s=(60.0, 300.0), play_s=60.0, span_s=60.0,
    files=20, train_steps=24, cacheless_lengths=(16, 1024), cacheless_steps=1, cached_steps=12, lstm_steps=200,
    midigpt_bars=1,
)  # fmt: skip


@dataclass
class Bench:
    """Measures each thing once, and gathers rows."""

    sizes: Sizes
    folder: Path  # for what is written on the way
    model: str | None = None  # the shipped one
    seed: int = 0
    midi: Path = EXAMPLES
    song: Path | None = None
    data: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    known: dict[tuple, Any] = field(default_factory=dict)

    def add(self, section: str, what: str, value: float | str, unit: str = "", beside: str = "") -> None:
        row = {"section": section, "what": what, "value": value, "unit": unit, "beside": beside}
        self.rows.append(row | {"load": round(os.getloadavg()[0], 1)})

    def measure(self, what: str, function: Callable, *args: Any, threads: int | None = 1) -> Any:
        """What the function gives in a process of its own; asked again, what it gave before."""
        key = (function.__name__, *map(repr, args))
        if key not in self.known:
            tqdm.write(f"{what} …", file=sys.stderr)
            self.known[key] = alone(function, *args, threads=threads, seed=self.seed)
        return self.known[key]

    def decoding(self, engine: str, candidates: int) -> references.Decoding | None:
        """None where the engine is not installed."""
        if engine == "onnx" and not references.has_onnx():
            return None
        what = f"decoder in {engine}, {candidates} at a time"
        song, chunks = extend_speed.EXAMPLE, self.sizes.chunks
        return self.measure(what, references.decoding, song, engine, candidates, chunks, self.model, self.seed)

    def _files(self) -> list[Path]:
        """The files of --midi, over and over."""
        found = sorted(self.midi.rglob("*.mid"))
        return (found * (self.sizes.files // len(found) + 1))[: self.sizes.files] if found else []

    def own(self) -> list[str]:
        """Options of `midiex extend`."""
        return ["--seed", str(self.seed)] + (["--model", self.model] if self.model else [])

    # ---- sections ------------------------------------------------------------------------------------------------

    def decode(self) -> None:
        for engine in ENGINES:
            for count in CANDIDATES:
                what = f"{engine}, one stream" if count == 1 else f"{engine}, {count} candidates"
                found = self.decoding(engine, count)
                if found is None:
                    self.add("decode", what, "skipped", beside="ONNX Runtime is not installed")
                else:
                    share = f"{100 * found.cpu_s / found.wall_s:.0f} % of it on a core"
                    beside = (
                        f"{found.notes} notes in {found.wall_s:.1f} s, {share}; {1000 * found.step_s:.2f} ms a step"
                    )
                    unit = "notes/s" if count == 1 else "candidate-notes/s"
                    self.add("decode", what, found.notes_per_s, unit, beside)

    def end_to_end(self) -> None:
        sizes, unit = self.sizes, "s of music/s"
        for i, song in enumerate((*sizes.songs, sizes.songs[0])):
            audio = i == len(sizes.songs)
            options = ["--audio", str(self.folder / "long.ogg")] if audio else []
            what = f"midiex extend {song.name} -s {sizes.extend_s:g}{' --audio OGG' * audio}"
            tqdm.write(f"{what} …", file=sys.stderr)
            made = extend_speed.run(song, sizes.extend_s, self.folder / "long.mid", *self.own(), *options)
            beside = f"{made['wall s']:.1f} s, {made['new notes']} new notes, {made['peak MB']:.0f} MB"
            self.add("end_to_end", what, made["music s per wall s"], unit, beside)
        cold_s, loaded_s = first_chunk_s(sizes.songs[0], sizes.first_chunks, self.model, self.seed)
        self.add("end_to_end", "first new chunk, from starting Python", cold_s, "s", sizes.songs[0].name)
        self.add("end_to_end", "first new chunk, model loaded", loaded_s, "s", f"median of {sizes.first_chunks}")

    def memory(self) -> None:
        song, lengths = extend_speed.EXAMPLE, self.sizes.lengths_s
        for length in lengths:
            what = f"{length / 60:g} min of output"
            found = self.measure(what, references.long_run, song, length, self.model, self.seed)
            self.add("memory", what, found.peak_mb, "MB at most", f"{found.wall_s:.1f} s")
        span = min(self.sizes.span_s, found.ends[-1] / 2)
        first, last = found.first_and_last(span)
        minutes = f"{span / 60:.3g} min of the {lengths[-1] / 60:g}"
        self.add("memory", f"wall time of the first {minutes}", first, "s")
        self.add("memory", f"wall time of the last {minutes}", last, "s")
        self.add("memory", "last to first", last / first, "times", "1: time is linear in length")

    def tokenizer(self) -> None:
        if not (files := self._files()):
            return self.add("tokenizer", "encode", "skipped", beside=f"{self.midi.name} holds no .mid file")
        rows, notes = self.measure(f"{len(files)} files, three tokenizers", references.tokenizing, files)
        for row in rows:
            beside = f"{row['steps a note']:.2f} steps a note, {len(files)} readings, {notes} notes"
            self.add("tokenizer", f"{row['tokenizer']}, read and encode", row["encode files/s"], "files/s", beside)
        ours, *others = rows
        for other in others:
            ratio = ours["encode files/s"] / other["encode files/s"]
            self.add("tokenizer", f"midiex to {other['tokenizer']}", ratio, "times")

    def render(self) -> None:
        song = self.song or self.folder / "to_render.mid"
        if self.song is None:
            tqdm.write("a song to render …", file=sys.stderr)
            extend_speed.run(extend_speed.EXAMPLE, self.sizes.extend_s, song, *self.own())
        found = self.measure(f"rendering {song.name}", references.rendering, song, self.folder / "ours.wav")
        if isinstance(found, str):
            return self.add("render", "midiex.render", "skipped", beside=found)
        unit, ours_s = "s of music/s", found.open_s + found.play_s
        beside = (
            f"{found.music_s:.0f} s, of which opening {found.soundfont.name} took {found.open_s:.1f} s of {ours_s:.1f}"
        )
        self.add("render", "midiex.render, to WAV, levelled", found.music_s / ours_s, unit, beside)
        self.add("render", "the same with the soundfont open", found.music_s / found.play_s, unit)
        beside = f"{found.stems} stems and the mix, {found.stems_s:.1f} s"
        self.add("render", "with a file for every stem", found.music_s / found.stems_s, unit, beside)
        theirs_s = fluidsynth_s(song, found.soundfont, self.folder / "theirs.wav")
        if theirs_s is None:
            return self.add("render", "fluidsynth command", "skipped", beside="there is no fluidsynth command here")
        self.add(
            "render",
            "fluidsynth command, to WAV",
            found.music_s / theirs_s,
            unit,
            f"{theirs_s:.1f} s, its start included",
        )
        self.add("render", "midiex to fluidsynth", theirs_s / ours_s, "times")

    def play(self) -> None:
        song = extend_speed.EXAMPLE
        args = song, self.sizes.play_s, self.model, self.seed
        found = self.measure(f"playing {self.sizes.play_s:g} s, which take so long", references.playing, *args)
        if isinstance(found, str):
            return self.add("play", "midiex play", "skipped", beside=found)
        what = f"of {found.events} events of {song.name}, played while it was composed, too late"
        self.add("play", what, found.late, "events", f"{found.played.seconds:.0f} s through FluidSynth's file driver")
        self.add("play", "before its time came an event at least", 1000 * found.spare_s, "ms")
        self.add("play", "waits for music not composed yet", found.played.waits, "")
        self.add("play", "composed ahead, from the first new bar on", found.ahead_s, "s at least")
        busy = f"{found.cpu_s:.1f} s on a core, synthesizer included"
        self.add("play", "time on a core", 100 * found.cpu_s / found.played.seconds, "%", busy)

    def training(self) -> None:
        args = self.data or EXAMPLES, self.data is not None, self.sizes.train_steps, self.model
        found = self.measure("training", references.training, *args, threads=None)
        on = self.data.name if self.data else "the examples as shards"
        beside = f"{found.notes} notes in {found.wall_s:.1f} s on {on}, {found.threads} threads"
        self.add("training", f"config {found.config}", found.notes / found.wall_s, "notes/s", beside)

    def references(self) -> None:
        for what, rate, how, count in self._reference_rates():
            self.add("references", what, rate, "notes/s", how)
            for engine in ENGINES:
                found = self.decoding(engine, count)
                if found and not isinstance(rate, str):
                    ratio = found.notes_per_s / rate
                    self.add(
                        "references",
                        f"midiex in {engine} to {what}",
                        ratio,
                        "times",
                        f"{found.notes_per_s:.1f} notes/s",
                    )

    def _reference_rates(self) -> list[tuple[str, float | str, str, int]]:
        """(name, notes a second or "skipped", how it came, streams) of each."""
        sizes, size = self.sizes, self.sizes.gpt
        lengths, per_note = sizes.cacheless_lengths, size.tokens_a_note
        slow = self.measure(
            "GPT-2 small without a cache", references.gpt_cacheless, size, lengths, sizes.cacheless_steps
        )
        befores = (per_note, size.context - sizes.cached_steps - 1)
        fast = self.measure("GPT-2 small with a cache", references.gpt_cached, size, befores, sizes.cached_steps)
        mean = references.mean_token_s(lengths, slow)
        timed = f"median of {sizes.cacheless_steps}, {per_note} tokens a note"
        over = f"{sizes.cached_steps} tokens timed"
        rates: list[tuple[str, float | str, str, int]] = [
            ("GPT-2 small, no cache, start", 1 / per_note / slow[0], f"{lengths[0]} tokens read; {timed}", 1),
            ("GPT-2 small, no cache, window full", 1 / per_note / slow[-1], f"{lengths[-1]} tokens read; {timed}", 1),
            (f"GPT-2 small, no cache, first {size.context // per_note} notes", 1 / per_note / mean,
             f"mean of straight lines between lengths {', '.join(map(str, lengths))}", 1),
            ("GPT-2 small, cache, start", 1 / per_note / fast[0], over, 1),
            ("GPT-2 small, cache, window full", 1 / per_note / fast[1],
             f"{over}, the last that fit; to go on, its window would have to be read anew", 1),
        ]  # fmt: skip
        if references.has_midigpt():
            own = self.measure("midigpt's own sampler", references.midigpt, sizes.midigpt_bars, self.seed)
            how = f"{own['tokens']} tokens, {own['tokens'] / own['wall_s']:.1f} a second, {own['notes']} notes"
            rates.append(("midigpt, 6 layers, own sampler", own["notes"] / own["wall_s"], how, 1))
        else:
            rates.append(("midigpt, own sampler", "skipped", "midigpt[inference] is not installed", 1))
        width, fields = self.measure("sizes of the shipped model", references.widths, self.model)
        for streams in CANDIDATES:
            what = f"two LSTM layers, {width} wide, {streams} at a time"
            steps = self.measure(what, references.lstm, width, fields, streams, sizes.lstm_steps)
            rates.append((what, streams * steps, f"{1000 / steps:.2f} ms a step, {sizes.lstm_steps} steps", streams))
        return rates

    def floor(self) -> None:
        weights = self.measure("weights a step reads", references.weights_read, self.model)
        big = self.measure("memory", references.bandwidth, self.sizes.copy_bytes)
        self.add("floor", f"memory, copy of {self.sizes.copy_bytes >> 20} MB", big / 1e9, "GB/s", "read and written")
        for engine, kind, nbytes in (("torch", "float32", 4 * weights), ("onnx", "int8", weights)):
            near = self.measure("caches", references.bandwidth, nbytes)
            least_s, near_s = nbytes / big, nbytes / near
            beside = (
                f"{nbytes / 1e6:.1f} MB; {1000 * near_s:.3f} ms at the {near / 1e9:.1f} GB/s of a copy of its own size"
            )
            self.add("floor", f"weights in {kind} read from memory", 1000 * least_s, "ms a step", beside)
            for count in CANDIDATES:
                if found := self.decoding(engine, count):
                    what = f"a step in {engine}, {count} at a time"
                    beside = f"{found.step_s / least_s:.1f} times the floor"
                    self.add("floor", what, 1000 * found.step_s, "ms a step", beside)
                    self.add("floor", f"{what}, to the floor", found.step_s / least_s, "times")


SECTIONS = ("decode", "end_to_end", "memory", "tokenizer", "render", "play", "training", "references", "floor")


def alone(function: Callable, *args: Any, threads: int | None, seed: int) -> Any:
    """The function's result in a fresh process of so many threads, None: as many as torch takes."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({} if threads is None else dict.fromkeys(names, str(threads)))
    try:
        with ProcessPoolExecutor(1, get_context("spawn"), references.begin, (threads, seed)) as pool:
            return pool.submit(function, *args).result()
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def first_chunk_s(song: Path, again: int, model: str | None, seed: int) -> tuple[float, float]:
    """Seconds to the first chunk: of a whole process, and, median of some, with the model loaded."""
    command = [sys.executable, references.__file__, str(song), str(again), str(seed), *([model] if model else [])]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = iter(process.stdout or ())
        next(lines, None)
        cold_s = time.perf_counter() - begun
        loaded = sorted(map(float, lines))
    if process.returncode or not loaded:
        raise RuntimeError("the first chunk did not come")
    return cold_s, loaded[len(loaded) // 2]


def fluidsynth_s(song: Path, soundfont: Path, out: Path) -> float | None:
    """Wall time of the `fluidsynth` command, None where there is none."""
    if (command := shutil.which("fluidsynth")) is None:
        return None
    begun = time.perf_counter()
    options = ["-ni", "-F", str(out), "-r", "44100", str(soundfont), str(song)]
    subprocess.run([command, *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="less of everything, a few minutes")
    parser.add_argument("--midi", type=Path, default=EXAMPLES, help="folder of MIDI to tokenize")
    parser.add_argument("--song", type=Path, help="MIDI to render; else one is made")
    parser.add_argument("--data", type=Path, help="shards to train on; else the examples are prepared")
    parser.add_argument("--model", help="folder of a model; else the one that ships")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    load, begun, failed = os.getloadavg()[0], time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        sizes = QUICK if args.quick else Sizes()
        bench = Bench(sizes, Path(folder), args.model, args.seed, args.midi, args.song, args.data)
        for section in tqdm([name for name in SECTIONS if name in args.only], unit=" sections"):
            try:
                getattr(bench, section)()
            except (Exception, SystemExit) as error:  # the other sections' hours are not lost
                failed.append(section)
                bench.add(section, "stopped", "failed", beside=f"{type(error).__name__}: {error}")
            except KeyboardInterrupt:
                break
    whole = not args.quick and {row["section"] for row in bench.rows} == set(SECTIONS)
    facts = {"seed": args.seed, "quick": args.quick, "load_at_start": load, "wall_s": time.perf_counter() - begun}
    if bench.rows:
        report("speed" if whole else "speed_part", bench.rows, **facts)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
