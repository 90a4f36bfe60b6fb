"""Looks whether everything midiex needs is in place: Python, packages, libfluidsynth, soundfont, weights, temp folder.

Only looks and tells; prints nothing, mends nothing, and no look stops the others. Heavy packages are imported inside
the looks, so that importing this module costs nothing.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from math import prod
from pathlib import Path

from .assets import asset_dir
from .errors import MidiexError, MissingPart

OLDEST_PYTHON = (3, 10)
DEFAULT_MODEL = "small"
_REINSTALL = "Reinstall midiex with `pip install --force-reinstall .` in its folder."


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, and how to mend it (empty when nothing is wrong)."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def check() -> list[Check]:
    """Every check, in the order in which a user should mend them; never raises."""
    return [
        _look("Python", _python, "Install Python 3.10 or newer and midiex into it."),
        _look("torch", _torch, "Run `pip install torch`."),
        *(_look(name, _version_of(name), f"Run `pip install {name}`.") for name in ("miditok", "symusic", "soundfile")),
        _look("fast decoding", _fast, "Run `pip install --force-reinstall onnxruntime onnx`."),
        _look("fluidsynth package", _fluidsynth_package, "Run `pip install pyfluidsynth`."),
        _look("libfluidsynth", _libfluidsynth, _REINSTALL),
        _look("soundfont", _soundfont, _REINSTALL),
        _look("weights", _weights, _REINSTALL),
        _look("temp folder", _temp_folder, "Free some space there, or set TMPDIR to a folder you may write to."),
    ]


def _look(name: str, look: Callable[[], str], mend: str) -> Check:
    try:
        return Check(name, True, look())
    except MidiexError as error:  # its sentence says how to mend it
        return Check(name, False, "not usable", str(error))
    except Exception as error:  # a doctor reports whatever is broken
        return Check(name, False, f"{type(error).__name__}: {error}", mend)


def _python() -> str:
    if sys.version_info < OLDEST_PYTHON:
        raise MissingPart(f"Python {platform.python_version()} is too old; install 3.10 or newer and midiex into it.")
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _torch() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{torch.__version__}, {torch.get_num_threads()} threads, {device}"


def _fast() -> str:
    """Not needed, so nothing is wrong without it."""
    if not (_is_installed("onnxruntime") and _is_installed("onnx")):
        return "not installed (optional: `pip install onnxruntime onnx`)"
    return f"onnxruntime {import_module('onnxruntime').__version__}"


def _version_of(package: str) -> Callable[[], str]:
    def look() -> str:
        import_module(package)
        return metadata.version(package)

    return look


def _fluidsynth_package() -> str:
    """pyfluidsynth and an unrelated package `fluidsynth` both install a module of that name; the last one wins."""
    if _is_installed("fluidsynth"):
        raise MissingPart(
            "The package `fluidsynth` is installed, which is another project and hides pyfluidsynth; run "
            "`pip uninstall fluidsynth`, then `pip install --force-reinstall --no-deps pyfluidsynth`."
        )
    return f"pyfluidsynth {metadata.version('pyfluidsynth')}"


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _libfluidsynth() -> str:
    from .render import fluidsynth_version

    return fluidsynth_version()


def _soundfont() -> str:
    from .render import find_soundfont

    path = find_soundfont()
    return f"{path} ({path.stat().st_size / 1e6:.1f} MB)"


def _weights() -> str:
    from safetensors import SafetensorError, safe_open

    from .config import load_config

    folder = asset_dir("weights") / DEFAULT_MODEL
    parts = [folder / name for name in ("model.safetensors", "config.yaml", "tokenizer.json")]
    for part in parts:
        if not part.is_file():
            raise MissingPart(f"The model file {part} is missing; reinstall midiex or train a model.")
    load_config(parts[1])
    try:
        with safe_open(str(parts[0]), framework="numpy") as tensors:  # reads the header only
            names = tensors.keys()
            parameters = sum(prod(tensors.get_slice(name).get_shape()) for name in names)
    except SafetensorError as error:
        raise MissingPart(f"The weights {parts[0]} cannot be read ({error}); reinstall midiex.") from error
    return f"{folder} ({parameters / 1e6:.1f} M parameters, {parts[0].stat().st_size / 1e6:.1f} MB)"


def _temp_folder() -> str:
    with tempfile.TemporaryFile() as file:
        file.write(b"midiex")
    folder = Path(tempfile.gettempdir())
    return f"{folder} ({shutil.disk_usage(folder).free / 1e9:.1f} GB free)"
