"""The stems of a MIDI file: which there are, safe names for their files, and the file with one stem alone.

A stem is the notes of one track on one channel: a track of an ordinary file, a channel of a file with a single track.
Works on the bytes of the file, in which but the velocities of other stems' notes change: everything else (controllers,
programs, tempi, the end) reaches every stem at its time. Knows no audio.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from .libraries import quietly

DRUM_CHANNEL = 9
MAX_NAME = 40  # characters of a track's name that a file's name takes over
GHOST = 1  # velocity: 84 dB below the loudest
TRACK_NAME = 0xFF03
SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}


@dataclass(frozen=True)
class Stem:
    """One track's notes on one channel (both from 0). `velocities`: where the velocities of its notes stand."""

    name: str  # as a file's name: "03_Slap Bass 1"
    track: int
    channel: int
    velocities: tuple[int, ...]


def stems_of(midi: bytes) -> list[Stem]:
    """All stems of a Standard MIDI File in the order of tracks and channels. What is damaged ends its track."""
    velocities: dict[tuple[int, int], list[int]] = defaultdict(list)
    programs: dict[int, int] = {}  # the first of each channel
    titles: dict[int, str] = {}
    for track, (begin, end) in enumerate(_tracks(midi)):
        for status, at, data in _events(midi, begin, end):
            channel = status & 0x0F
            if status >> 4 == 0x9 and data[1] > 0:
                velocities[track, channel].append(at + 1)
            elif status >> 4 == 0xC:
                programs.setdefault(channel, data[0])
            elif status == TRACK_NAME:
                titles.setdefault(track, _text(data))
    found = sorted(velocities)
    alone = {track: sum(other == track for other, _ in found) == 1 for track, _ in found}
    names = [
        (alone[track] and file_name(titles.get(track, ""))) or file_name(_instrument(channel, programs.get(channel, 0)))
        for track, channel in found
    ]
    return [
        Stem(f"{number:02d}_{name}", *key, tuple(velocities[key]))
        for number, (key, name) in enumerate(zip(found, names, strict=True), 1)
    ]


def only(midi: bytes, stem: Stem, stems: list[Stem]) -> bytes:
    """The file with the notes of one of its stems alone.

    What other tracks strike on its channel stays as a ghost, too soft to be heard: in FluidSynth a note stops an
    earlier one of its pitch, and a closed hi-hat an open one, whichever track they are of.
    """
    data = np.frombuffer(midi, np.uint8).copy()
    for other in stems:
        if other != stem:
            data[list(other.velocities)] = GHOST if other.channel == stem.channel else 0
    return data.tobytes()


def file_name(text: str) -> str:
    """A piece of a file's name out of any text: letters, digits and a few signs of it; "" when nothing is left."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"[^\w +&'()-]+", "-", text)
    return re.sub(r"\s+", " ", text)[:MAX_NAME].strip(" -_")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin1")


def _instrument(channel: int, program: int) -> str:
    if channel == DRUM_CHANNEL:
        return "Drums"
    return str(quietly("pretty_midi").program_to_instrument_name(program & 127))


def _tracks(midi: bytes) -> Iterator[tuple[int, int]]:
    """Where the events of each track begin and end."""
    at = 8 + int.from_bytes(midi[4:8], "big")
    while at + 8 <= len(midi):
        size = int.from_bytes(midi[at + 4 : at + 8], "big")
        if midi[at : at + 4] == b"MTrk":
            yield at + 8, min(at + 8 + size, len(midi))
        at += 8 + size


def _events(midi: bytes, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """The events of a track: status (of meta events 0xFF00 and their kind), place of the first data byte, data."""
    running = 0
    with suppress(IndexError):  # cut off
        while at < end:
            at = _number(midi, at)[1]
            status = running
            if midi[at] >= 0x80:
                status, at = midi[at], at + 1
            if status == 0xFF:
                status, at = 0xFF00 | midi[at], at + 1
            if status < 0xF0:
                running, size = status, 1 if status >> 5 == 0b110 else 2
            elif status in (0xF0, 0xF7) or status >= 0xFF00:
                size, at = _number(midi, at)
            else:
                size = SYSTEM_DATA_BYTES.get(status, 0)
            if status < 0x80 or at + size > end:
                return
            yield status, at, midi[at : at + size]
            at += size


def _number(midi: bytes, at: int) -> tuple[int, int]:
    """A number of variable length and the place behind it."""
    value = 0
    while True:
        value, at = value << 7 | midi[at] & 0x7F, at + 1
        if midi[at - 1] < 0x80:
            return value, at
