"""Plays a song and goes on composing while it plays.

    passage ──► stream.py  ──► ahead.py ──► player.py ──► sinks.py, speakers.py
                whole bars     a thread     the clock     who makes the sound
                of events      composes     and the       take.py
                that stay      ahead        bar lines     keeps what was heard

Without end it is a rondo: ten minutes of new music that lead back to the beginning, the song itself, ten other minutes.
Each lap is a passage of its own after the untouched song, so that memory stays flat and nothing drifts away from it.
"""

from __future__ import annotations

from .ahead import AHEAD_S, Ahead, composing
from .player import Bar, Played, Player
from .sinks import Port, Silent, Sink, open_port, port_names
from .stream import Batch, Timed, batches
from .take import Take

LAP_S = 600.0  # of new music before the song comes again

__all__ = [
    "AHEAD_S",
    "LAP_S",
    "Ahead",
    "Bar",
    "Batch",
    "Played",
    "Player",
    "Port",
    "Silent",
    "Sink",
    "Take",
    "Timed",
    "batches",
    "composing",
    "open_port",
    "port_names",
]
