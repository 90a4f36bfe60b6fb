"""Imports of libraries that print while they are imported: our standard output is for what we were asked for."""

from __future__ import annotations

import contextlib
import importlib
import io
from types import ModuleType


def quietly(name: str) -> ModuleType:
    """Import a module late and in silence; raises what the import itself raises.

    pyfluidsynth, and pretty_midi with it, print where they found their library when $CI is set. FluidSynth decodes
    samples with the libsndfile that is loaded first, its own or soundfile's, which differ in the last bits: so that the
    same song always has the same bytes, soundfile's comes first.
    """
    with contextlib.suppress(ImportError, OSError):
        importlib.import_module("soundfile")
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module(name)
