"""The errors midiex raises on purpose. Each message is one sentence: what is wrong, what was found, what to do."""

from __future__ import annotations


class MidiexError(Exception):
    """Base of every error a user can cause or mend; the command line shows its text and exits with code 2."""


class BadInput(MidiexError):
    """The file or value given cannot be used."""


class MissingPart(MidiexError):
    """Something midiex needs (a system library, a soundfont, weights) is not there."""
