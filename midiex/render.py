"""MIDI file -> audio file, with even loudness and complete release tails; and one audio file a track.

Brings the synth (synth.py), the loudness meter and audio files together. Must not know tokens, models or torch, nor
what is old and what is new in the song: it plays the joined file as any other.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TypeVar

import numpy as np

from .audiofile import FORMATS, Audio, peak_of, write
from .callable_module import make_callable
from .errors import BadInput
from .loudness import LoudnessMeter
from .smf import unwrapped
from .stems import only, stems_of
from .synth import (
    DEFAULT,
    RenderConfig,
    check_samples,
    find_soundfont,
    fluid_error,
    fluidsynth,
    fluidsynth_version,
    new_synth,
    played,
)

__all__ = [
    "DEFAULT",
    "FORMATS",
    "RenderConfig",
    "RenderInfo",
    "Renderer",
    "find_soundfont",
    "fluid_error",
    "fluidsynth",
    "fluidsynth_version",
    "new_synth",
    "render",
    "stems_folder",
]

_SILENCE = 1e-4  # -80 dBFS: below this nothing is heard
_END_S = 0.5  # kept after the last audible sample, and faded out
MARGIN = 0.99  # 0.1 dB, by which stems may become louder than expected before they are played once more


@dataclass(frozen=True)
class RenderInfo:
    """What came out: length, integrated loudness (-inf for silence), largest sample (0 to 1) and time taken."""

    path: Path
    seconds: float
    loudness_lufs: float
    peak: float
    wall_s: float
    stems: tuple[Path, ...] = ()


class Renderer:
    """Renders any number of files with one soundfont. Not for several threads at a time."""

    def __init__(self, soundfont: str | Path | None = None, config: RenderConfig = DEFAULT) -> None:
        """Opens the soundfont, so that what is missing shows before any work is done.

        Raises MissingPart (no FluidSynth, no or damaged soundfont) and BadInput (sample rate).
        """
        if not 8000 <= config.sample_rate <= 96000:
            raise BadInput(f"The sample rate {config.sample_rate} is out of reach; choose one from 8000 to 96000 Hz.")
        self.config = config
        self.soundfont = find_soundfont(soundfont)
        # Reverb and chorus remember what they played, so each file gets a fresh synth, or its sound would depend on
        # what was rendered earlier. The synth before is kept until then: it holds the samples that both need.
        self._latest = self._new_synth()

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the soundfont; the renderer cannot be used afterwards."""
        if self._latest is not None:
            self._latest.delete()
            self._latest = None

    def render(
        self,
        midi_path: str | Path,
        audio_path: str | Path,
        progress: Callable[[float], None] | None = None,
        stems: bool = False,
        jobs: int = 1,
    ) -> RenderInfo:
        """Plays `midi_path` into `audio_path`, whose extension (.wav .flac .ogg .mp3) chooses the format.

        With `stems` each track is then played by itself, `jobs` of them at a time, into files in
        `stems_folder(audio_path)`, all of the same length and gain, and the mix is their sum.

        `progress` is called with the seconds of audio played so far, in stems as well. Files appear only when complete.
        Memory does not grow with the song; the disk beside `audio_path` briefly holds 8 bytes a frame.

        Raises BadInput for an unreadable MIDI file, an unknown extension or a place that cannot be written.
        """
        start_s = time.perf_counter()
        source, target = Path(midi_path), Path(audio_path)
        midi = _read(source, target)
        parts = stems_of(midi) if stems else []
        folder = stems_folder(target)
        paths = [folder / (part.name + target.suffix) for part in parts]
        check_stems(paths)
        clock, rate = _Clock(progress, self.config.sample_rate), self.config.sample_rate
        try:
            with contextlib.ExitStack() as stack:
                spool = _Spool(stack.enter_context(tempfile.TemporaryFile(dir=target.parent)), self.config)
                frames, loudness_lufs, peak = self._spool(midi, source, spool, clock)
                gain = self._levelling(loudness_lufs, peak / MARGIN if parts else peak)
                if parts:
                    hidden = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".", dir=target.parent)))
                    files = [hidden / path.name for path in paths]
                    alone = [only(midi, part, parts) for part in parts]
                    gain, peak = self._write_stems(alone, files, source, spool, frames, gain, clock, jobs)
                self._write(target, spool.blocks(), frames, gain)
                if parts:
                    folder.mkdir(exist_ok=True)
                    for file, path in zip(files, paths, strict=True):
                        os.replace(file, path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadInput(f"{target} cannot be written ({reason}); choose an existing folder with room.") from error
        loudness_lufs += 20 * math.log10(gain)
        wall_s = time.perf_counter() - start_s
        return RenderInfo(target, frames / rate, loudness_lufs, peak * gain, wall_s, tuple(paths))

    def _new_synth(self) -> Any:
        return new_synth(self.soundfont, self.config, live=False)

    def _spool(self, midi: bytes, source: Path, spool: _Spool, clock: _Clock) -> tuple[int, float, float]:
        """Plays the song into `spool`; returns how many frames count, their loudness and their peak."""
        meter = LoudnessMeter(self.config.sample_rate)
        frames = audible = 0
        peak = 0.0
        before, self._latest = self._latest, self._new_synth()
        before.delete()
        with contextlib.closing(played(self._latest, midi, source, self.config)) as blocks:
            for block, song_over in blocks:
                loud = np.flatnonzero(np.abs(block).max(axis=1) > _SILENCE) if song_over else [len(block) - 1]
                if len(loud):
                    audible = frames + int(loud[-1]) + 1
                spool.add(frames, block)
                frames += len(block)
                peak = max(peak, peak_of(block))
                meter.add(block)
                clock.tell(len(block))
        check_samples(self.soundfont)
        return min(frames, audible + self._fade_frames), meter.integrated_lufs(), peak

    def _write_stems(
        self,
        midis: Sequence[bytes],
        files: Sequence[Path],
        source: Path,
        spool: _Spool,
        frames: int,
        gain: float,
        clock: _Clock,
        jobs: int,
    ) -> tuple[float, float]:
        """Plays each of `midis` into its file, `jobs` at a time, and all of them into `spool`; returns the gain they
        have and the peak of their sum.

        The sum is not to the last bit what FluidSynth makes of all tracks at once: how a note's first 64 samples are
        filtered depends on the note its voice played before, and how the chorus swings on where events fall (together
        -33 dB at most in what was measured). The gain is `gain`, or less where more would be too loud.
        """

        def play(midi: bytes, file: Path) -> float:
            synth = self._new_synth()
            try:
                with contextlib.closing(played(synth, midi, source, self.config, frames)) as blocks:
                    return self._write(file, spool.adding(clock.telling(block for block, _ in blocks)), frames, gain)
            finally:
                synth.delete()

        while True:
            spool.clear()
            with ThreadPoolExecutor(jobs) as pool:
                try:
                    loudest = max(pool.map(play, midis, files))
                except BaseException:
                    clock.stop()
                    raise
            peak = max(map(peak_of, spool.blocks()))
            loudest = max(loudest, peak * gain)
            if loudest <= self._ceiling:
                return gain, peak
            gain *= MARGIN * self._ceiling / loudest

    @property
    def _ceiling(self) -> float:
        return float(10 ** (self.config.peak_dbfs / 20))

    @property
    def _fade_frames(self) -> int:
        return round(_END_S * self.config.sample_rate)

    def _levelling(self, loudness_lufs: float, peak: float) -> float:
        """The factor that brings the song to the wished loudness, or as near as the peak allows."""
        gain = 1.0
        if self.config.loudness_lufs is not None and math.isfinite(loudness_lufs):
            gain = 10 ** ((self.config.loudness_lufs - loudness_lufs) / 20)
        return min(gain, self._ceiling / peak) if peak > 0 else gain

    def _write(self, target: Path, blocks: Iterator[Audio], frames: int, gain: float) -> float:
        return write(target, blocks, frames, self.config.sample_rate, gain, self._fade_frames)


class _Spool:
    """The sum of what is added to it, in a file. Held as whole numbers, so that the order of adding does not matter."""

    def __init__(self, file: BinaryIO, config: RenderConfig) -> None:
        self._file, self._block_frames = file, config.block_frames
        self._unit = np.float32(config.gain * 2.0**-25)  # 150 dB below full scale; 64 times that fits
        self._lock = threading.Lock()

    def clear(self) -> None:
        self._file.seek(0)
        self._file.truncate()

    def add(self, first: int, block: Audio) -> None:
        """Adds samples (n, 2) from frame `first` on."""
        whole = np.rint(block / self._unit).astype(np.int32)
        with self._lock:
            self._file.seek(8 * first)
            there = np.frombuffer(self._file.read(whole.nbytes), np.int32).reshape(-1, 2)
            whole[: len(there)] += there
            self._file.seek(8 * first)
            self._file.write(whole.data)

    def adding(self, blocks: Iterator[Audio]) -> Iterator[Audio]:
        first = 0
        for block in blocks:
            self.add(first, block)
            first += len(block)
            yield block

    def blocks(self) -> Iterator[Audio]:
        self._file.seek(0)
        while data := self._file.read(8 * self._block_frames):
            yield np.frombuffer(data, np.int32).reshape(-1, 2) * self._unit


class _Clock:
    """Adds up what all threads have played, and stops them."""

    def __init__(self, progress: Callable[[float], None] | None, rate: int) -> None:
        self._progress, self._rate = progress, rate
        self._frames, self._stopped = 0, False
        self._lock = threading.Lock()

    def tell(self, frames: int) -> None:
        """So many more frames were played. Raises CancelledError when the others have been stopped."""
        with self._lock:
            if self._stopped:
                raise CancelledError
            self._frames += frames
            if self._progress:
                self._progress(self._frames / self._rate)

    def telling(self, blocks: Iterator[Audio]) -> Iterator[Audio]:
        for block in blocks:
            self.tell(len(block))
            yield block

    def stop(self) -> None:
        self._stopped = True


def render(
    midi_path: str | Path,
    audio_path: str | Path,
    soundfont: str | Path | None = None,
    config: RenderConfig = DEFAULT,
    progress: Callable[[float], None] | None = None,
    stems: bool = False,
    jobs: int = 1,
) -> RenderInfo:
    """Renders one file: see Renderer.render. For many files keep one Renderer: opening a soundfont takes a while."""
    with Renderer(soundfont, config) as renderer:
        return renderer.render(midi_path, audio_path, progress, stems, jobs)


AnyPath = TypeVar("AnyPath", bound=PurePath)


def stems_folder(audio_path: AnyPath) -> AnyPath:
    """Where the stems of an audio file lie: beside it."""
    return audio_path.with_name(f"{audio_path.stem}_stems")


def check_stems(paths: Sequence[Path]) -> None:
    """May a song's stems be written here? Raises BadInput where others lie, which would be taken for its own."""
    if not paths:
        return
    folder = paths[0].parent
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file, where the folder of stems belongs; give the audio another name.")
    alien = sorted(p.name for p in folder.glob(f"*{paths[0].suffix}") if p not in paths) if folder.exists() else []
    if alien:
        raise BadInput(f"{folder} holds files that are no stems of this song ({alien[0]}); empty it first.")


def _read(source: Path, target: Path) -> bytes:
    """The MIDI file's bytes, out of a RIFF wrapper. Raises BadInput for either path."""
    if target.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise BadInput(f"{target.name} has no audio extension midiex can write; end its name in one of {known}.")
    try:
        midi = unwrapped(source.read_bytes())  # FluidSynth opens no wrappers
    except OSError as error:
        raise BadInput(f"{source} cannot be read ({error.strerror}); give the path of a MIDI file.") from error
    if target.exists() and target.samefile(source):
        raise BadInput(f"{target} is the MIDI file itself; give the audio another name.")
    if midi[:4] != b"MThd":
        raise BadInput(f"{source} is not a MIDI file (it does not begin with MThd); give the path of a MIDI file.")
    return midi


make_callable(__name__)
