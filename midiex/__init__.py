"""midiex makes a MIDI song longer.

import midiex
model = midiex.load()
midiex.extend("song.mid", seconds=300, out="longer.mid", model=model, seed=1)
plan = midiex.plan("song.mid", seconds=300, form="A B A C A")  # what it would be, made at once; edit it
midiex.extend("song.mid", seconds=300, out="planned.mid", model=model, plan=plan)
midiex.fill("song.mid", "0:40", "1:00", out="other.mid", tracks=["piano"])
midiex.insert("song.mid", "1:20", 30, out="with_a_middle.mid")
midiex.render("longer.mid", "longer.ogg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .edit import fill, insert, regenerate, start_fill, start_insert, start_regenerate
    from .extend import Model, Passage, extend, load, start
    from .form_plan import FormPlan
    from .outline import plan, read_plan
    from .render import render

__version__ = "0.2.0"
__all__ = [
    "FormPlan",
    "Model",
    "Passage",
    "__version__",
    "extend",
    "fill",
    "insert",
    "load",
    "plan",
    "read_plan",
    "regenerate",
    "render",
    "start",
    "start_fill",
    "start_insert",
    "start_regenerate",
]

_HOME = {
    **dict.fromkeys(("Model", "Passage", "load", "start"), ".extend"),
    **dict.fromkeys(("fill", "insert", "regenerate", "start_fill", "start_insert", "start_regenerate"), ".edit"),
    **dict.fromkeys(("plan", "read_plan"), ".outline"),
    "FormPlan": ".form_plan",
}


def __getattr__(name: str) -> Any:
    """Import the parts, and torch with them, only when they are used."""
    from importlib import import_module

    if name in ("extend", "render"):  # modules that can be called
        return import_module(f".{name}", __name__)
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
