"""Imports of libraries that print while they are imported: our standard output is for what we were asked for."""

from __future__ import annotations

import contextlib
import importlib
import io
from types import ModuleType


def quietly(name: str) -> ModuleType:
    """Import a module late and in silence; raises what the import itself raises.

    pyfluidsynth, and pretty_midi with it, print where they found their library when $CI is set.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module(name)
