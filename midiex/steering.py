"""Steers a chunk while it is written towards how dense, loud and high it is asked to be: a controller beside the model.

What is told as a condition a network heeds on average; a phrase is heard as one. So the chances of later onsets, louder
strokes and higher pitches are tilted (exponential tilting) by how far the notes so far are off, never more than a
stated number of nats, and not at all where they are right. Knows rows; knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .tokens import DRUM_PITCH_OFFSET, DRUM_PROGRAM, FIELD_SIZES, PITCH, POSITION, PROGRAM, VELOCITY

BEAT = 12  # positions
GAP_NATS = 1.5  # a beat of the way to the next onset, for twice as many notes as asked
LEAVE_NATS = 1.5  # of leaving the bar, for the same
LOUD_NATS = 0.3  # a bin of velocity, for each bin that is missing
HIGH_NATS = 0.04  # a semitone, for each semitone that is missing
MOST_OFF = 1.5  # doublings by which density counts as off at most
MOST_BINS, MOST_SEMITONES = 6.0, 8.0  # the same of loudness and register
FEW = 6.0  # notes that count as if they had been as asked
_VELOCITIES = np.arange(FIELD_SIZES[VELOCITY])
_PITCHES = np.arange(FIELD_SIZES[PITCH])
_POSITIONS = np.arange(FIELD_SIZES[POSITION])


@dataclass(frozen=True)
class Asked:
    """What a chunk is to come to; None: as it comes."""

    notes: float | None = None  # in all, those that stand included
    velocity: float | None = None  # mean, in bins
    pitch: float | None = None  # mean of what is no drum


class Steering:
    """How far K candidates of one chunk are off so far. Arrays are (K,)."""

    def __init__(self, asked: Asked, positions: int, candidates: int, strength: float = 1.0):
        """`positions` are those of the whole chunk."""
        self.asked, self.positions, self.strength = asked, positions, strength
        self.notes, self.loud = np.zeros(candidates), np.zeros(candidates)
        self.tuned, self.high = np.zeros(candidates), np.zeros(candidates)

    def hear(self, note: np.ndarray, over: np.ndarray) -> None:
        """One more note of each (K, 8), but of those that are `over` (K,)."""
        more = ~over
        tuned = more & (note[:, PROGRAM] != DRUM_PROGRAM)
        self.notes += more
        self.loud += more * note[:, VELOCITY]
        self.tuned += tuned
        self.high += tuned * (note[:, PITCH] % DRUM_PITCH_OFFSET)

    def _too_many(self, at: np.ndarray) -> np.ndarray:
        """Doublings by which there are more notes than asked up to a position of the chunk (K,)."""
        wanted = (self.asked.notes or 0.0) * np.clip(at / max(1, self.positions), 0, 1)
        return np.log2((self.notes + FEW) / (wanted + FEW)).clip(-MOST_OFF, MOST_OFF)

    def leaving(self, at: np.ndarray) -> np.ndarray | None:
        """How much likelier it is to become that the next note lies in another bar, (K,), after one at position `at`
        of the chunk."""
        if self.asked.notes is None:
            return None
        return np.exp(self.strength * LEAVE_NATS * self._too_many(at))

    def positions_of(self, at: np.ndarray, place: np.ndarray) -> np.ndarray | None:
        """The same of each position in the bar, (K, positions), where the bar's possible places begin at `place`."""
        if self.asked.notes is None:
            return None
        way = np.maximum(_POSITIONS[None] - place[:, None], 0) / BEAT
        return np.exp(self.strength * GAP_NATS * self._too_many(at)[:, None] * np.minimum(way, 4.0))

    def field(self, name: int, program: np.ndarray) -> np.ndarray | None:
        """The same of each value of a velocity or a pitch, (K, values), for notes of programs (K,)."""
        if name == VELOCITY and self.asked.velocity is not None:
            mean = (self.loud + FEW * self.asked.velocity) / (self.notes + FEW)
            off = (self.asked.velocity - mean).clip(-MOST_BINS, MOST_BINS)
            return np.exp(self.strength * LOUD_NATS * off[:, None] * (_VELOCITIES[None] - self.asked.velocity))
        if name == PITCH and self.asked.pitch is not None:
            off = (self.asked.pitch - (self.high + FEW * self.asked.pitch) / (self.tuned + FEW)).clip(
                -MOST_SEMITONES, MOST_SEMITONES
            )
            off = off * (program != DRUM_PROGRAM)
            return np.exp(self.strength * HIGH_NATS * off[:, None] * (_PITCHES[None] - self.asked.pitch))
        return None
