"""midiex makes a MIDI song longer.

import midiex
model = midiex.load()
midiex.extend("song.mid", seconds=300, out="longer.mid", model=model, seed=1)
midiex.render("longer.mid", "longer.ogg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .extend import Extension, Model, extend, load, start
    from .render import render

__version__ = "0.1.0"
__all__ = ["Extension", "Model", "__version__", "extend", "load", "render", "start"]

_IN_EXTEND = ("Extension", "Model", "load", "start")


def __getattr__(name: str) -> Any:
    """Import the parts, and torch with them, only when they are used."""
    from importlib import import_module

    if name in ("extend", "render"):  # modules that can be called
        return import_module(f".{name}", __name__)
    if name in _IN_EXTEND:
        return getattr(import_module(".extend", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
