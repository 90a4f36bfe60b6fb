"""Standard MIDI files as bytes: parse one into mido's events without altering any, write such events to a file.

Knows the file format and single events; knows no notes, songs, bars or music.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import mido
from mido.midifiles.meta import KeySignatureError, UnknownMetaMessage, build_meta_message, encode_variable_int

from .errors import BadInput

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")
MAX_FILE_BYTES = 8 * 2**20
MAX_EVENTS = 200_000  # a quarter more than the largest symphonies hold; about ten seconds of work, half a GB
MAX_TRACKS = 4096  # mido cannot write more than 32,767


def max_file_bytes() -> int:
    """MAX_FILE_BYTES, or what the environment's MIDIEX_MAX_FILE_BYTES says instead. Raises BadInput as max_events."""
    return _limit("MIDIEX_MAX_FILE_BYTES", MAX_FILE_BYTES)


def max_events() -> int:
    """MAX_EVENTS, or what the environment's MIDIEX_MAX_EVENTS says instead. Raises BadInput when that is no number."""
    return _limit("MIDIEX_MAX_EVENTS", MAX_EVENTS)


def _limit(variable: str, usual: int) -> int:
    text = os.environ.get(variable) or str(usual)
    if not text.isdecimal():
        raise BadInput(f"{variable} is {text!r}, which is no whole number; set it to one such as {usual}, or unset it.")
    return int(text)


class RawEvent(UnknownMetaMessage):
    """An event mido would alter (SysEx packets, escapes, stray system messages), kept and written byte for byte."""

    def bytes(self) -> list[int]:
        return list(self.data)


def load(path: str | os.PathLike[str]) -> mido.MidiFile:
    """All events of a Standard MIDI File of any type and division, bare or in a RIFF wrapper.

    Raises BadInput when there is no such file, when it is no whole MIDI file or is beyond the limits at the head of
    this module, of which two can be set in the environment. Whatever follows a track's end_of_track is no part of the
    track and is left out.
    """
    path = Path(path)
    return _parse(_bytes(path), path)


def _bytes(path: Path) -> bytes:
    """The bytes of the file, out of its RIFF wrapper if it has one."""
    try:
        if not path.exists():
            raise BadInput(f"There is no file {path}; check its name and folder.")
        if not path.is_file():
            raise BadInput(f"{path} is a folder or device, not a MIDI file; name one .mid file.")
        size = path.stat().st_size
        if size > (most := max_file_bytes()):
            raise BadInput(
                f"{path} has {size} bytes and the limit is {most}; cut it shorter, or set MIDIEX_MAX_FILE_BYTES."
            )
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); check its name and permissions.") from error
    if not data:
        raise BadInput(f"{path} is empty; give a MIDI file with music in it.")
    data = unwrapped(data)
    if data[:4] != b"MThd":
        raise BadInput(f"{path} is not a MIDI file: it begins with {data[:4]!r} where b'MThd' belongs; check the file.")
    return data


def unwrapped(data: bytes) -> bytes:
    """The Standard MIDI File in a RIFF wrapper; anything else as it is."""
    return data[data.index(b"MThd") :] if data[:4] == b"RIFF" and data[8:12] == b"RMID" and b"MThd" in data else data


def _parse(data: bytes, path: Path) -> mido.MidiFile:
    """All events of a file. mido's own reader drops the delta of unknown metas, refuses odd metas and rewrites SysEx
    packets, so the events are read here and only held by mido."""
    cut_off = f"{path} is cut off: its {len(data)} bytes end inside {{}}; get the whole file."
    if len(data) < 14:
        raise BadInput(cut_off.format("the header"))
    at = 8 + int.from_bytes(data[4:8], "big")
    file_type, n_tracks = int.from_bytes(data[8:10], "big"), int.from_bytes(data[10:12], "big")
    division = int.from_bytes(data[12:14], "big", signed=True)  # below zero: SMPTE; mido writes it back as it is
    if file_type > 2:
        raise BadInput(f"{path} is of MIDI file type {file_type}, and only 0, 1 and 2 exist; the file is damaged.")
    if division == 0 or (division < 0 and division & 0xFF == 0):
        raise BadInput(f"{path} has a time division of 0 ticks, so its notes have no time; the file is damaged.")
    if n_tracks > MAX_TRACKS:
        raise BadInput(f"{path} announces {n_tracks} tracks, and the limit is {MAX_TRACKS}; join some of them first.")
    tracks: list[mido.MidiTrack] = []
    room = most_events = max_events()
    while len(tracks) < n_tracks:
        where = f"track {len(tracks) + 1} of {n_tracks}"
        if at + 8 > len(data):
            raise BadInput(cut_off.format(where))
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "big")
        chunk = data[at + 8 : at + 8 + size]
        at += 8 + size
        if name != b"MTrk":  # the standard: skip chunks of other kinds
            continue
        try:
            track = _parse_track(chunk, room)
        except ValueError as error:
            raise BadInput(f"{path} is damaged: {where} has {error}; export the file again.") from error
        except IndexError as error:
            raise BadInput(cut_off.format(where)) from error
        if len(chunk) < size and not (track and track[-1].type == "end_of_track"):
            raise BadInput(cut_off.format(where))
        room -= len(track)
        if room < 0:
            raise BadInput(f"{path} holds more than {most_events} events; cut it shorter, or set MIDIEX_MAX_EVENTS.")
        tracks.append(track)
    if len(tracks) > 1:
        file_type = max(file_type, 1)  # type 0 with several tracks is really type 1, and mido cannot write it else
    return mido.MidiFile(type=file_type, ticks_per_beat=division, charset="latin1", tracks=tracks)


_CHANNEL_MESSAGES = {
    0x8: ("note_off", "note", "velocity"),
    0x9: ("note_on", "note", "velocity"),
    0xA: ("polytouch", "note", "value"),
    0xB: ("control_change", "control", "value"),
    0xC: ("program_change", "program"),
    0xD: ("aftertouch", "value"),
    0xE: ("pitchwheel", "low", "high"),
}
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1, 0xF6: 0, 0xF8: 0, 0xFA: 0, 0xFB: 0, 0xFC: 0, 0xFE: 0}


def _parse_track(chunk: bytes, room: int) -> mido.MidiTrack:
    """Events of one track. IndexError: the bytes end inside an event. ValueError: they are no events."""
    track = mido.MidiTrack()
    at = running = 0
    while at < len(chunk) and len(track) <= room:
        delta, at = _varint(chunk, at)
        begin, status = at, chunk[at]
        if status >= 0x80:
            at += 1
        elif running:
            status = running
        else:
            raise ValueError("a data byte where an event must begin")
        if status < 0xF0:
            running = status
            kind, *names = _CHANNEL_MESSAGES[status >> 4]
            values = {name: min(chunk[at + i], 127) for i, name in enumerate(names)}
            at += len(names)
            if kind == "pitchwheel":
                values = {"pitch": (values["low"] | values["high"] << 7) - 8192}
            track.append(mido.Message(kind, skip_checks=True, channel=status & 15, time=delta, **values))
        elif status == 0xFF:
            kind_byte = chunk[at]
            payload, at = _sized(chunk, at + 1)
            if kind_byte == 0x2F:
                track.append(mido.MetaMessage("end_of_track", time=delta))
                break
            track.append(_meta(kind_byte, payload, delta))
        elif status in (0xF0, 0xF7):
            payload, at = _sized(chunk, at)
            if status == 0xF0 and payload[-1:] == b"\xf7" and max(payload[:-1], default=0) < 0x80:
                track.append(mido.Message("sysex", data=payload[:-1], time=delta))
            else:
                track.append(RawEvent(status, chunk[begin:at], delta, type="raw"))
        elif status in _SYSTEM_DATA_BYTES:
            at += _SYSTEM_DATA_BYTES[status]
            if at > len(chunk):
                raise IndexError
            track.append(RawEvent(status, chunk[begin:at], delta, type="raw"))
        else:
            raise ValueError(f"the undefined event 0x{status:02x}")
    return track


def _varint(chunk: bytes, at: int) -> tuple[int, int]:
    """A variable-length number and the place behind it."""
    value = 0
    for i in range(at, at + 4):
        value = value << 7 | chunk[i] & 0x7F
        if chunk[i] < 0x80:
            return value, i + 1
    raise ValueError("a number longer than four bytes")


def _sized(chunk: bytes, at: int) -> tuple[bytes, int]:
    """The payload whose length stands at `at`, and the place behind it."""
    size, at = _varint(chunk, at)
    if at + size > len(chunk):
        raise IndexError
    return chunk[at : at + size], at + size


def _meta(kind_byte: int, payload: bytes, delta: int) -> mido.MetaMessage:
    """A mido meta message where mido would write the same bytes back, else one that holds the bytes as they are."""
    with suppress(ValueError, KeyError, IndexError, TypeError, OverflowError, KeySignatureError):
        message = build_meta_message(kind_byte, list(payload), delta)
        if message.bytes() == [0xFF, kind_byte, *encode_variable_int(len(payload)), *payload]:
            message.time = delta  # mido forgets it for unknown kinds
            return message
    return UnknownMetaMessage(kind_byte, payload, delta)


def like(midi: mido.MidiFile, tracks: list[Any]) -> mido.MidiFile:
    """A MIDI file of other tracks. Iterators of messages will do for one that is only to be saved."""
    return mido.MidiFile(type=midi.type, ticks_per_beat=midi.ticks_per_beat, charset=midi.charset, tracks=tracks)


def save(midi: mido.MidiFile, path: str | os.PathLike[str]) -> None:
    """Write a MIDI file under a temporary name in its folder, then rename it: whole or not at all.

    Raises BadInput when the folder is missing or cannot be written.
    """
    path = Path(path)
    temporary = path.parent / f".midiex-{secrets.token_hex(8)}.tmp"
    try:
        if path.is_dir():
            raise BadInput(f"{path} is a folder; name the MIDI file to write.")
        with open(temporary, "xb") as file:
            midi.save(file=file)
        os.replace(temporary, path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror}); check its folder.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def events_before(midi: mido.MidiFile, tick: int) -> list[list[tuple[int, tuple[int, ...]]]]:
    """For each track the (absolute tick, bytes) of every event before `tick`, end_of_track aside, in file order."""
    tracks = []
    for track in midi.tracks:
        at, events = 0, []
        for message in track:
            at += message.time
            if at < tick and message.type != "end_of_track":
                events.append((at, tuple(message.bytes())))
        tracks.append(events)
    return tracks
