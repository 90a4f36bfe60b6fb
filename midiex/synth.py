"""FluidSynth: finds it and a soundfont, and plays a MIDI file as blocks of samples.

Knows the library, soundfonts and bytes of MIDI files; knows no audio files and no loudness.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .assets import asset_dir
from .errors import BadInput, MissingPart
from .libraries import quietly

Audio = npt.NDArray[np.float32]  # (frames, 2)

SYSTEM_SOUNDFONTS = ("/usr/share/sounds/sf3", "/usr/share/sounds/sf2")
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
    return str(fluidsynth()._fl.fluid_version_str().decode())


@functools.cache
def fluidsynth() -> ModuleType:
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


def fluid_error() -> str:
    """What FluidSynth last complained of."""
    return _fluid_errors[-1].rstrip(".") if _fluid_errors else "no reason given"


def new_synth(soundfont: str | Path | None = None, config: RenderConfig = DEFAULT, live: bool = True) -> Any:
    """A pyfluidsynth Synth with a soundfont (as `find_soundfont` finds it) on all 16 channels.

    To be played `live` it decodes all samples first (seconds of work) and sounds no more voices than can be kept up
    with; else it decodes what a program needs when it is chosen, and cuts no note off for another. All synths of a
    process share what any of them has decoded and still holds.

    Raises MissingPart: no FluidSynth, no soundfont or a damaged one.
    """
    path = find_soundfont(soundfont)
    _fluid_errors.clear()
    synth = fluidsynth().Synth(
        gain=float(config.gain),
        samplerate=config.sample_rate,
        channels=16,
        **{
            "synth.reverb.active": int(config.reverb),
            "synth.chorus.active": int(config.chorus),
            "synth.cpu-cores": config.cpu_cores,
            "synth.dynamic-sample-loading": int(not live),
            "synth.polyphony": 256 if live else 1024,
            "synth.lock-memory": 0,
            "player.timing-source": "sample",
        },
    )
    # The 1 gives every channel its preset at once; without it a file with no program change is silent.
    try:
        check_samples(path, loaded=synth.sfload(str(path), 1) != -1)
    except MissingPart:
        synth.delete()
        raise
    return synth


def check_samples(soundfont: Path, loaded: bool = True) -> None:
    """Raises MissingPart when the soundfont was not `loaded`, or the synth made last could not decode a sample."""
    if not loaded or any("load sample" in error for error in _fluid_errors):
        raise MissingPart(
            f"The soundfont {soundfont} is damaged or of an unknown kind (FluidSynth: {fluid_error()}); "
            "give another .sf2 or .sf3 file with --soundfont."
        )


def played(
    synth: Any, midi: bytes, source: Path, config: RenderConfig = DEFAULT, frames: int | None = None
) -> Generator[tuple[Audio, bool], None, None]:
    """A MIDI file from a fresh synth as blocks of shape (block_frames, 2), each with whether it begins after the last
    event. They end when all has faded, or hold `frames` frames at least.

    The memory of a block is used again for the next. Raises BadInput, which names `source`: it cannot be played or
    lasts too long.
    """
    fluid, lib = fluidsynth(), fluidsynth()._fl
    player = fluid.new_fluid_player(synth.synth)
    block = np.zeros((config.block_frames, 2), np.float32)
    done, song_over, limit = 0, False, round(config.max_s * config.sample_rate)
    try:
        lib.fluid_player_add_mem(player, midi, len(midi))
        fluid.fluid_player_play(player)
        while True:
            start = block.ctypes.data
            lib.fluid_synth_write_float(synth.synth, len(block), start, 0, 2, start, 1, 2)
            done += len(block)
            playing = fluid.fluid_player_get_status(player) == _PLAYING
            if done == len(block) and not playing and _fluid_errors:
                raise BadInput(
                    f"{source} cannot be played as MIDI ({fluid_error()}); write it anew with a MIDI editor."
                )
            yield block, song_over
            left_ticks = lib.fluid_player_get_total_ticks(player) - lib.fluid_player_get_current_tick(player)
            if left_ticks <= 0 and not song_over:
                song_over, limit = True, done + round(config.tail_s * config.sample_rate)
                lib.fluid_synth_all_notes_off(synth.synth, -1)  # what the file never ends; the player lifts pedals
            if frames is not None:
                if done >= frames:
                    return
            elif not playing:  # it waits for the last voice to fade
                return
            elif done >= limit:
                if song_over:
                    return
                raise BadInput(f"{source} lasts more than {config.max_s:.0f} s; mend its last event or its tempo.")
    finally:
        fluid.delete_fluid_player(player)
