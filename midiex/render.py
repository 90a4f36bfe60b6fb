"""MIDI file -> audio file, in one pass through FluidSynth, with even loudness and complete release tails.

Knows FluidSynth, soundfonts and audio formats. Must not know tokens, models or torch, nor what is old and what is
new in the song: it plays the joined file as any other.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import math
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from .assets import asset_dir
from .callable_module import make_callable
from .errors import BadInput, MissingPart
from .libraries import quietly
from .loudness import LoudnessMeter

Audio = npt.NDArray[np.float32]  # (frames, 2)

FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
SYSTEM_SOUNDFONTS = ("/usr/share/sounds/sf3", "/usr/share/sounds/sf2")
_SILENCE = 1e-4  # -80 dBFS: below this nothing is heard
_END_S = 0.5  # kept after the last audible sample, and faded out
_PLAYING = 1  # FluidSynth's player status
_log = logging.getLogger(__name__)
_fluid_errors: list[str] = []


@dataclass(frozen=True)
class RenderConfig:
    """How the audio should be. `loudness_lufs=None` leaves the level alone unless the peak is too high."""

    sample_rate: int = 44100  # 8000 to 96000
    loudness_lufs: float | None = -16.0  # integrated, BS.1770
    peak_dbfs: float = -1.0  # never exceeded; wins over the loudness
    gain: float = 0.5  # FluidSynth's own, before levelling
    reverb: bool = True
    chorus: bool = True
    block_frames: int = 16384
    tail_s: float = 15.0  # notes that never end ring this long after the last event
    max_s: float = 7200.0  # a longer song is taken for a damaged file
    cpu_cores: int = 1  # more is faster on dense songs, but then the last bits may differ from run to run


DEFAULT = RenderConfig()


@dataclass(frozen=True)
class RenderInfo:
    """What came out: length, integrated loudness (-inf for silence), largest sample (0 to 1) and time taken."""

    path: Path
    seconds: float
    loudness_lufs: float
    peak: float
    wall_s: float


def find_soundfont(chosen: str | Path | None = None) -> Path:
    """The soundfont to play with: `chosen`, else $MIDIEX_SOUNDFONT, else midiex's own, else the system's.

    Raises MissingPart when nothing usable is found; a chosen font that cannot be used is never replaced silently.
    """
    for origin, path in (("", chosen), (" (from MIDIEX_SOUNDFONT)", os.environ.get("MIDIEX_SOUNDFONT"))):
        if path:
            if fault := _soundfont_fault(Path(path)):
                raise MissingPart(f"The soundfont {path}{origin} {fault}; give the path of an .sf2 or .sf3 file.")
            return Path(path)
    folders = [Path(folder) for folder in SYSTEM_SOUNDFONTS]
    with contextlib.suppress(MissingPart):
        folders.insert(0, asset_dir("soundfonts"))
    for folder in folders:
        for path in sorted(folder.glob("*.sf3")) + sorted(folder.glob("*.sf2")):
            if fault := _soundfont_fault(path):
                _log.warning("passing over the soundfont %s: it %s", path, fault)
            else:
                return path
    tried = ", ".join(map(str, folders))
    raise MissingPart(f"No soundfont was found in {tried}; give one with --soundfont FILE or set MIDIEX_SOUNDFONT.")


def _soundfont_fault(path: Path) -> str:
    """Why the file cannot be a soundfont, or "" when it looks like one."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if head[:4] == b"RIFF" and head[8:] == b"sfbk" else "is not a soundfont (no RIFF sfbk header)"


def fluidsynth_version() -> str:
    """Version of the FluidSynth library, such as "2.3.1". Raises MissingPart when it is absent."""
    return str(_fluidsynth()._fl.fluid_version_str().decode())


@functools.cache
def _fluidsynth() -> ModuleType:
    """pyfluidsynth, imported late (it needs a system library) and given the functions it does not declare."""
    try:
        fluid = quietly("fluidsynth")
    except ModuleNotFoundError as error:
        raise MissingPart("The Python package pyfluidsynth is missing; run `pip install pyfluidsynth`.") from error
    except (ImportError, OSError) as error:
        install = {"darwin": "brew install fluid-synth", "win32": "choco install fluidsynth"}
        command = install.get(sys.platform, "apt install libfluidsynth3")
        raise MissingPart(f"The FluidSynth library was not found; install it with `{command}`.") from error
    if not hasattr(fluid, "Synth"):
        raise MissingPart(
            "The Python package fluidsynth, which is another project, hides pyfluidsynth; "
            "run `pip uninstall fluidsynth; pip install --force-reinstall --no-deps pyfluidsynth`."
        )
    pointer, integer, lib = ctypes.c_void_p, ctypes.c_int, fluid._fl
    lib.fluid_version_str.restype = ctypes.c_char_p
    lib.fluid_synth_write_float.argtypes = [pointer, integer, pointer, integer, integer, pointer, integer, integer]
    lib.fluid_player_add_mem.argtypes = [pointer, ctypes.c_char_p, ctypes.c_size_t]
    lib.fluid_synth_all_notes_off.argtypes = [pointer, integer]
    lib.fluid_player_get_current_tick.argtypes = [pointer]
    lib.fluid_player_get_total_ticks.argtypes = [pointer]
    lib.fluid_set_log_function.argtypes = [integer, _LOG_FUNCTION, pointer]
    for level in range(5):
        lib.fluid_set_log_function(level, _take_message, None)
    return fluid


_LOG_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


@_LOG_FUNCTION
def _take_message(level: int, message: bytes, _data: object) -> None:
    """FluidSynth's messages come here, not to stderr: errors are kept to be raised, the rest is for debugging."""
    text = message.decode(errors="replace")
    _log.debug("FluidSynth: %s", text)
    if level <= 1:  # panic, error
        _fluid_errors.append(text)


class Renderer:
    """Renders any number of files with one soundfont, which is decoded once. Not for several threads at a time."""

    def __init__(self, soundfont: str | Path | None = None, config: RenderConfig = DEFAULT) -> None:
        """Loads the soundfont, so that what is missing shows before any work is done.

        Raises MissingPart (no FluidSynth, no or damaged soundfont) and BadInput (sample rate).
        """
        if not 8000 <= config.sample_rate <= 96000:
            raise BadInput(f"The sample rate {config.sample_rate} is out of reach; choose one from 8000 to 96000 Hz.")
        self.config = config
        self.soundfont = find_soundfont(soundfont)
        self._fluid = _fluidsynth()
        # Holds the decoded samples in FluidSynth's cache and never plays: reverb and chorus remember the song before,
        # so each file gets a fresh synth, or its sound would depend on what was rendered earlier.
        self._keeper = self._new_synth()

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the soundfont; the renderer cannot be used afterwards."""
        if self._keeper is not None:
            self._keeper.delete()
            self._keeper = None

    def render(
        self, midi_path: str | Path, audio_path: str | Path, progress: Callable[[float], None] | None = None
    ) -> RenderInfo:
        """Plays `midi_path` into `audio_path`, whose extension (.wav .flac .ogg .mp3) chooses the format.

        `progress` is called with the seconds of audio played so far. The audio file appears only when complete.
        Memory does not grow with the song; the disk beside `audio_path` briefly holds 8 bytes a frame.

        Raises BadInput for an unreadable MIDI file, an unknown extension or a place that cannot be written.
        """
        start_s = time.perf_counter()
        source, target = Path(midi_path), Path(audio_path)
        if target.suffix.lower() not in FORMATS:
            known = ", ".join(FORMATS)
            raise BadInput(f"{target.name} has no audio extension midiex can write; end its name in one of {known}.")
        try:
            midi = source.read_bytes()
        except OSError as error:
            raise BadInput(f"{source} cannot be read ({error.strerror}); give the path of a MIDI file.") from error
        if target.exists() and target.samefile(source):
            raise BadInput(f"{target} is the MIDI file itself; give the audio another name.")
        if midi[:4] == b"RIFF":  # a wrapper FluidSynth does not open
            midi = midi[max(midi.find(b"MThd"), 0) :]
        if midi[:4] != b"MThd":
            raise BadInput(f"{source} is not a MIDI file (it does not begin with MThd); give the path of a MIDI file.")
        rate, meter = self.config.sample_rate, LoudnessMeter(self.config.sample_rate)
        frames = audible = 0
        peak = 0.0
        try:
            with tempfile.TemporaryFile(dir=target.parent) as spool:
                with contextlib.closing(self._blocks(midi, source)) as blocks:
                    for block, song_over in blocks:
                        level = np.abs(block).max(axis=1)
                        loud = np.flatnonzero(level > _SILENCE)
                        if not song_over:
                            audible = frames + len(block)
                        elif len(loud):
                            audible = frames + int(loud[-1]) + 1
                        frames += len(block)
                        peak = max(peak, float(level.max()))
                        meter.add(block)
                        spool.write(block.data)
                        if progress:
                            progress(frames / rate)
                frames = min(frames, audible + round(_END_S * rate))
                gain = self._levelling(meter.integrated_lufs(), peak)
                spool.seek(0)
                self.encode(spool, frames, gain, target)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadInput(f"{target} cannot be written ({reason}); choose an existing folder with room.") from error
        loudness_lufs = meter.integrated_lufs() + 20 * math.log10(gain)
        return RenderInfo(target, frames / rate, loudness_lufs, peak * gain, time.perf_counter() - start_s)

    def _new_synth(self) -> Any:
        config = self.config
        _fluid_errors.clear()
        synth = self._fluid.Synth(
            gain=float(config.gain),
            samplerate=config.sample_rate,
            channels=16,
            **{
                "synth.reverb.active": int(config.reverb),
                "synth.chorus.active": int(config.chorus),
                "synth.cpu-cores": config.cpu_cores,
                "synth.lock-memory": 0,
                "player.timing-source": "sample",
            },
        )
        # The 1 gives every channel its preset at once; without it a file with no program change is silent.
        if synth.sfload(str(self.soundfont), 1) == -1:
            synth.delete()
            why = _fluid_errors[-1] if _fluid_errors else "no reason given"
            raise MissingPart(
                f"The soundfont {self.soundfont} is damaged or of an unknown kind (FluidSynth: {why}); "
                "give another .sf2 or .sf3 file with --soundfont."
            )
        return synth

    def _blocks(self, midi: bytes, source: Path) -> Generator[tuple[Audio, bool], None, None]:
        """The song as blocks of shape (block_frames, 2), each with whether it begins after the song's last event.

        The memory of a block is used again for the next. Raises BadInput.
        """
        fluid, lib, config = self._fluid, self._fluid._fl, self.config
        synth = self._new_synth()
        player = fluid.new_fluid_player(synth.synth)
        block = np.zeros((config.block_frames, 2), np.float32)
        frames, song_over, limit = 0, False, round(config.max_s * config.sample_rate)
        try:
            lib.fluid_player_add_mem(player, midi, len(midi))
            fluid.fluid_player_play(player)
            while True:
                start = block.ctypes.data
                lib.fluid_synth_write_float(synth.synth, len(block), start, 0, 2, start, 1, 2)
                frames += len(block)
                playing = fluid.fluid_player_get_status(player) == _PLAYING
                if frames == len(block) and not playing and _fluid_errors:
                    why = _fluid_errors[-1].rstrip(".")
                    raise BadInput(f"{source} cannot be played as MIDI ({why}); write it anew with a MIDI editor.")
                yield block, song_over
                left_ticks = lib.fluid_player_get_total_ticks(player) - lib.fluid_player_get_current_tick(player)
                if left_ticks <= 0 and not song_over:
                    song_over, limit = True, frames + round(config.tail_s * config.sample_rate)
                    lib.fluid_synth_all_notes_off(synth.synth, -1)  # what the file never ends; the player lifts pedals
                if not playing:  # it waits for the last voice to fade
                    return
                if frames >= limit:
                    if song_over:
                        return
                    raise BadInput(f"{source} lasts more than {config.max_s:.0f} s; mend its last event or its tempo.")
        finally:
            fluid.delete_fluid_player(player)
            synth.delete()

    def _levelling(self, loudness_lufs: float, peak: float) -> float:
        """The factor that brings the song to the wished loudness, or as near as the peak allows."""
        config, gain = self.config, 1.0
        if config.loudness_lufs is not None and math.isfinite(loudness_lufs):
            gain = 10 ** ((config.loudness_lufs - loudness_lufs) / 20)
        return min(gain, 10 ** (config.peak_dbfs / 20) / peak) if peak > 0 else gain

    def encode(self, spool: BinaryIO, frames: int, gain: float, target: Path) -> None:
        """Writes the first `frames` of the raw float `spool`, levelled and faded at the end, to `target`."""
        kind, subtype = FORMATS[target.suffix.lower()]
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        fade = min(frames, round(_END_S * self.config.sample_rate))
        try:
            with soundfile.SoundFile(part, "w", self.config.sample_rate, 2, subtype, format=kind) as out:
                # In blocks: one long write of Vorbis overflows the stack inside the encoder.
                for first in range(0, frames, self.config.block_frames):
                    count = min(self.config.block_frames, frames - first)
                    block = np.frombuffer(spool.read(8 * count), np.float32).reshape(count, 2) * np.float32(gain)
                    if first + count > frames - fade:
                        left = np.arange(frames - first, frames - first - count, -1)[:, None]
                        block *= np.clip(left / fade, 0, 1).astype(np.float32)
                    if subtype == "PCM_16":
                        block += np.float32(0.5 / 32768)  # the encoder rounds down
                    out.write(block)
            if kind == "OGG":
                _fix_ogg_serial(part)
            os.replace(part, target)
        except soundfile.LibsndfileError as error:
            raise BadInput(f"{target} cannot be written ({error}); choose another folder, format or rate.") from error
        finally:
            part.unlink(missing_ok=True)


def render(
    midi_path: str | Path,
    audio_path: str | Path,
    soundfont: str | Path | None = None,
    config: RenderConfig = DEFAULT,
    progress: Callable[[float], None] | None = None,
) -> RenderInfo:
    """Renders one file: see Renderer.render. For many files keep one Renderer: loading a soundfont takes a second."""
    with Renderer(soundfont, config) as renderer:
        return renderer.render(midi_path, audio_path, progress)


def _fix_ogg_serial(path: Path) -> None:
    """Sets the stream's serial number, random in every new Ogg file, to 1: same song, same bytes."""
    data = bytearray(path.read_bytes())
    page = 0
    while page < len(data):
        table = page + 27
        body = table + data[page + 26]
        end = body + sum(data[table:body])
        data[page + 14 : page + 18] = (1).to_bytes(4, "little")
        data[page + 22 : page + 26] = bytes(4)
        data[page + 22 : page + 26] = _ogg_checksum(bytes(data[page:end])).to_bytes(4, "little")
        page = end
    path.write_bytes(data)


_MIRROR = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def _ogg_checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's with the bits the other way round and no inversion."""
    mirrored = zlib.crc32(page.translate(_MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


make_callable(__name__)
