"""Where played events go: a MIDI port, or nowhere (to files, as fast as can be). Speakers have a module of their own.

Each sink is a clock too: an instrument's time is its own. Knows single messages and their times; knows no songs.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any, Protocol

import mido

from ..errors import BadInput, MissingPart


class Sink(Protocol):
    """An instrument and its clock."""

    lead_s: float  # so long before its time an event is handed over

    def now(self) -> float:
        """Seconds since some beginning."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""

    def send(self, at_s: float, message: mido.Message) -> None:
        """An event to sound at a time of this clock. Called in order of time, up to `lead_s` before it."""

    def silence(self) -> None:
        """Forget what was handed over for later, and be silent at once."""

    def close(self) -> None:
        """Let what sounds fade, then free everything."""


class Silent:
    """Plays nothing, in no time."""

    lead_s = 0.0

    def __init__(self) -> None:
        self.time_s = 0.0

    def now(self) -> float:
        return self.time_s

    def wait(self, seconds: float) -> None:
        self.time_s += seconds

    def send(self, at_s: float, message: mido.Message) -> None:
        pass

    def silence(self) -> None:
        pass

    def close(self) -> None:
        pass


class Port:
    """A MIDI port of mido's: hardware, another program, or whatever else has its `send`, `panic` and `close`."""

    lead_s = 0.0

    def __init__(self, port: Any) -> None:
        self.port = port

    def now(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def send(self, at_s: float, message: mido.Message) -> None:
        self.port.send(message)

    def silence(self) -> None:
        self.port.panic()

    def close(self) -> None:
        self.port.close()


def port_names() -> list[str]:
    """Names of the MIDI ports that can be played to. Raises MissingPart without python-rtmidi or a MIDI system."""
    try:
        with quiet_stderr():
            return list(mido.get_output_names())
    except ImportError as error:
        raise MissingPart(
            "MIDI ports need the Python package python-rtmidi, which is not installed; run `pip install python-rtmidi`."
        ) from error
    except Exception as error:  # rtmidi's own kinds, which cannot be named where it is missing
        why = str(error).rstrip(".")
        raise MissingPart(f"The system has no MIDI ports to offer ({why}); write to a file with --out.") from error


def open_port(name: str) -> Port:
    """The port of that name, or the only one whose name holds it, whatever the case.

    Raises BadInput when there is no such port or it cannot be opened, MissingPart like `port_names`.
    """
    names = port_names()
    alike = [one for one in names if one == name] or [one for one in names if name.lower() in one.lower()]
    if len(alike) != 1:
        found = ", ".join(names) or "none at all"
        raise BadInput(f"{len(alike) or 'No'} MIDI ports are called {name}; choose one of those there are ({found}).")
    try:
        return Port(mido.open_output(alike[0]))
    except Exception as error:  # rtmidi's own kinds
        raise BadInput(f"The MIDI port {alike[0]} cannot be opened ({error}); close what else uses it.") from error


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Nothing is seen of what system libraries (ALSA, JACK) write to the process's standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
