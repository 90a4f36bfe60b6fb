"""What is decided for each note, and the contexts in which the values of each decision are counted.

Knows the columns of surroundings.py by name only; counts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DURATION,
    FIELD_SIZES,
    INSTANCE,
    MAX_CHUNK_BARS,
    MICRO,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
)

# The next note's bar is two decisions: is it this bar ("stay"), and if not, how many bars are left out ("leap", where
# all that are left is the end of the chunk). Pitches count from 0 for drums as well: the program tells.
FIELD_OF = {"program": PROGRAM, "instance": INSTANCE, "pitch": PITCH, "duration": DURATION, "velocity": VELOCITY,
            "micro": MICRO, "stay": BAR, "leap": BAR, "position": POSITION}  # fmt: skip
SIZES = {part: FIELD_SIZES[f] for part, f in FIELD_OF.items()} | {
    "pitch": DRUM_PITCH_OFFSET,
    "stay": 2,
    "leap": MAX_CHUNK_BARS + 1,
}

# Contexts, in columns of `Surroundings`, from general to specific. With a + the value is counted from RELATIVE_TO's
# column, which makes it an interval or a way ahead: what is learned in one key or at one place serves the others.
RELATIVE_TO = {"pitch": "ref", "position": "from"}
STATIC = {
    "program": ("", "same r1v", "same r1v pos", "same r1v r2v beat", "same r1v nextv", "same r1v r2v r3v nextv",
                "same r1v r2v r3v r4v nextv pos"),
    "instance": ("program", "program same r1v", "program same r1v r2v", "program same r1v nextv",
                 "program same r1v r2v r3v nextv"),
    "pitch": ("drum", "drum program", "+vs a1 drum", "+vs a1 a2 drum", "+vs a1 degree", "+vs a1 under same drum",
              "+vs a1 a2 a3 drum", "+vs a1 a2 degree beat", "+vs a1 chord k drum", "+vs a1 a2 a3 a4 drum",
              "+vs a1 lagp v1hit", "+vs a1 lagp v1hit r1hit a2", "+vs a1 lagp lagstep v1hit r1hit drum"),
    "duration": ("drum", "program", "vs v1d drum", "vs v1d pos", "same r1d vs v1d", "vs v1d v2d beat",
                 "vs v1d v2d v3d pos", "lagd hit vs v1d", "lagd hit vs v1d r1d same drum", "lagd hit vs v1d v2d drump"),
    "velocity": ("drum", "program", "v1e vs", "v1e program drump", "v1e r1e same vs", "v1e v2e beat vs",
                 "v1e v2e v3e vs", "lage v1e hit", "lage v1e v2e r1e"),
    "micro": ("", "beat drum", "r1m same", "v1m beat", "r1m r2m same beat", "v1m v2m r1m beat same", "lagm r1m same",
              "lagm v1m r1m same r2m r3m"),
    "stay": ("", "pos", "pos barend", "pos shortest", "pos k m", "pos i1 i2", "next", "next nexto pos",
             "nexto next shortest i1 pos", "nexto next voice pos k"),
    "leap": ("begin left", "begin left gap"),
    "position": ("+up", "+up pos", "+up pos i1", "+up pos shortest", "+up pos m m1 k", "+up pos i1 i2", "+up next",
                 "+up next nexto", "+up voice k m beat next", "+up shortest i1 i2 pos", "+up next nexto shortest i1",
                 "+up next nexto barfirst m m1 pos", "+up pos i1 i2 i3 m m1"),
}  # fmt: skip
ADAPTIVE = {  # counted in the song itself
    "program": ("", "same r1v", "same r1v pos", "same r1v r1p r2v r2p", "same r1v r1p r2v r2p r3v r3p pos"),
    "instance": ("program", "program same r1v", "program same r1v r1p r2v pos"),
    "pitch": ("voice", "voice pos", "voice vs v1p", "+voice vs a2 a3", "voice v1p v2p vs", "voice vs r1v r1p pos",
              "voice vs v1p v2p v3p", "voice vs v1p r1v r1p r2v r2p", "voice vs pos v1p v2p r1p r1v",
              "voice vs v1p v2p v3p v4p"),
    "duration": ("voice", "voice pos", "voice v1d vs pos", "voice pitch", "voice pitch pos vs",
                 "voice pitch v1p v1d vs", "voice pitch v1p v2p v1d v2d pos"),
    "velocity": ("voice", "voice v1e", "voice pos vs", "voice pitch pos", "voice pitch v1p v1e",
                 "voice pitch v1e v2e v3e"),
    "micro": ("drum", "drum beat", "voice pos", "same r1m voice beat", "voice pos pitch v1p same"),
    "stay": ("pos", "pos voice k", "pos voice pitch", "pos i1 i2 m", "pos voice pitch r1v r1p",
             "pos voice pitch duration i1 i2"),
    "leap": ("begin left",),
    "position": ("+up pos", "+up pos voice k", "+up pos voice pitch duration", "+up pos i1 i2 m",
                 "+up pos voice pitch r1v r1p", "+up i1 i2 voice pitch r1v r1p",
                 "+up pos voice pitch r1v r1p r2v r2p i1"),
}  # fmt: skip

SYMBOLS = 256  # the low byte of a pair holds the value, the rest the context

_ALL = (1 << 64) - 1


def columns_of(spec: str) -> list[str]:
    """Names of a context's columns."""
    return spec.removeprefix("+").split()


_NAMES = sorted(
    {"song", "number"}
    | {name for table in (STATIC, ADAPTIVE) for specs in table.values() for s in specs for name in columns_of(s)}
)
_FACTORS = {  # odd, so that no bit of what they multiply is lost; the same in every process, since tables are saved
    name: int(factor) | 1
    for name, factor in zip(_NAMES, np.random.default_rng(20).integers(0, 1 << 63, len(_NAMES), np.uint64), strict=True)
}


def hashed(spec: str, columns: Mapping[str, Any], number: int, song: Any = 0) -> Any:
    """The hash of a part's context of this number, its low byte empty: of uint64 arrays or of Python's integers."""
    mixed = (number * _FACTORS["number"] & _ALL) + (song * _FACTORS["song"] & _ALL) & _ALL
    for name in columns_of(spec):
        mixed = mixed + (columns[name] * _FACTORS[name] & _ALL) & _ALL
    return (mixed ^ mixed >> 29) & (_ALL - SYMBOLS + 1)


def reference(part: str, spec: str, columns: Mapping[str, Any]) -> Any:
    """What the values are counted from in this context."""
    return columns[RELATIVE_TO[part]] if spec.startswith("+") else 0


def fingerprint() -> str:
    """What tables must have been counted with to be of use here."""
    return json.dumps([STATIC, ADAPTIVE])
