"""What is around each note: the columns that contexts are made of.

Knows note rows of songs one after another; knows neither chunks nor what is decided when. Of each column, a note's
entry depends on the notes up to it alone.
"""

from __future__ import annotations

import numpy as np

from ...grid import POSITIONS_PER_BEAT
from ...occurrences import NONE, at, changes, latest_alike, run_start
from ...tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    FIELD_SIZES,
    INSTANCE,
    MAX_INSTANCES,
    MICRO,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
)

Columns = dict[str, np.ndarray]

NO_PITCH = 999  # the same among intervals

_BARS, _POSITIONS, _VOICES = 1 << 20, 128, FIELD_SIZES[PROGRAM] * MAX_INSTANCES  # more than any song has
_CHORD_NOTES = 64  # of a voice; further ones count as the last
_KEY_NOTES = 96  # how many notes back the key is felt
_SCALE = np.array([5, 0, 3, 0, 4, 3, 0, 4, 0, 3, 0, 3])  # how much a pitch class speaks for the major key of the first
_KEYS = np.stack([np.roll(_SCALE, key) for key in range(12)], 1)  # (pitch classes, keys)
_ENDINGS = (("d", DURATION), ("e", VELOCITY), ("m", MICRO))


class Surroundings:
    """Columns (N,) that tell what is around each note of rows (N, 8), songs (N,) one after another.

    Names: r1, r2 … the notes before; v1, v2 … those of the same voice; lag: the voice's note at this place the last
    time it had one; next: what followed there, nexto: which onset did. Endings: v voice, p pitch, d duration, e
    velocity, m micro-offset. hit: the pitch is the lag's. a1, a2 …: pitches of v1, v2 … as intervals from v1; chord:
    of the voice's chord before; under: of r1 at this onset. k and m count the notes before at this onset, of the voice
    and of all; i1, i2 …: the ways between the last onsets."""

    def __init__(self, rows: np.ndarray, song: np.ndarray):
        self.rows, self.song = rows, song
        self.index = index = np.arange(len(rows))
        self.voice = rows[:, PROGRAM] * MAX_INSTANCES + rows[:, INSTANCE]
        self.pitch, self.position, self.bar = rows[:, PITCH], rows[:, POSITION], rows[:, BAR]
        self.drum = rows[:, PROGRAM] == DRUM_PROGRAM
        self.bar_key = song * _BARS + self.bar
        self.onset = self.bar_key * _POSITIONS + self.position
        self.song_start, self.onset_start = run_start(song), run_start(self.onset)
        self.voice_start = run_start(self.onset * _VOICES + self.voice)
        self.number = index - self.voice_start  # of the note in its voice's chord
        self.before = [np.where(index - j >= self.song_start, index - j, NONE) for j in (1, 2, 3, 4)]
        self.same = (self.before[0] >= 0) & (self.onset_start < index)
        place = ((song * _POSITIONS + self.position) * _VOICES + self.voice) * _CHORD_NOTES
        self.lag = latest_alike(place + np.minimum(self.number, _CHORD_NOTES - 1))
        self.next = np.where(self.lag >= 0, self.lag + 1, NONE)  # of the same song: the note itself at the latest
        self.hit = np.where(self.lag < 0, 2, at(self.pitch, self.lag) == self.pitch)

    def voices(self) -> Columns:
        """What is known when the onset is: for the choice of program and instance."""
        found: Columns = {"pos": self.position, "beat": self.position % POSITIONS_PER_BEAT, "same": self.same}
        for end, column in (("v", self.voice), ("p", self.pitch), ("m", self.rows[:, MICRO])):
            found |= {f"r{j}{end}": at(column, note) for j, note in enumerate(self.before, 1)}
        coming = at(self.next, self.before[0])
        here = (coming >= 0) & (at(self.position, coming) == self.position)
        return found | {"program": self.rows[:, PROGRAM], "nextv": np.where(here, at(self.voice, coming), NONE)}

    def notes(self) -> Columns:
        """What is known when the voice is; pitch, duration, hit and drump only where their own notes' pitch is."""
        rows, r1 = self.rows, self.before[0]
        v1 = latest_alike(self.song * _VOICES + self.voice)
        pitched = ~self.drum
        ref = np.where(pitched & (v1 >= 0), at(self.pitch, v1), 0)

        def interval(note: np.ndarray) -> np.ndarray:
            return np.where(note >= 0, self.pitch[note] - ref, NO_PITCH)

        found = self.voices()
        v = v1
        for j in (1, 2, 3, 4):
            found |= {f"v{j}p": at(self.pitch, v), f"a{j}": interval(v)}
            found |= {f"v{j}{end}": at(rows[:, f], v) for end, f in _ENDINGS}
            v = at(v1, v)
        found |= {f"lag{end}": at(rows[:, f], self.lag) for end, f in _ENDINGS}
        chord_end = at(v1, self.voice_start)  # the voice's chord before: its note of the same number, or its last
        in_chord = np.where(chord_end >= 0, np.minimum(at(self.voice_start, chord_end) + self.number, chord_end), NONE)
        over = self.same & pitched & (at(self.pitch, r1) < DRUM_PITCH_OFFSET)
        lag_v1 = at(v1, self.lag)
        return found | {
            "voice": self.voice,
            "drum": self.drum,
            "k": np.minimum(self.number, 9),
            "vs": self.number > 0,
            "ref": ref,
            "a1": np.where(v1 < 0, -2, np.where(self.drum, found["v1p"], NONE)),  # where ref does not say it
            "lagp": interval(self.lag),
            "lagstep": np.where(lag_v1 >= 0, self.pitch[self.lag] - self.pitch[lag_v1], NO_PITCH),
            "v1hit": at(self.hit, v1),
            "r1hit": at(self.hit, r1),
            "r1d": at(rows[:, DURATION], r1),
            "r1e": at(rows[:, VELOCITY], r1),
            "degree": np.where(pitched, (ref - self._key()) % 12, NONE),
            "under": np.where(over, interval(r1), NO_PITCH),
            "chord": interval(in_chord),
            "pitch": self.pitch,
            "hit": self.hit,
            "drump": np.where(self.drum, self.pitch, 0),
        }

    def _key(self) -> np.ndarray:
        """The major key whose notes the last ones were, 0 to 11; of a minor one its relative."""
        pitched = np.flatnonzero(~self.drum)
        seen = np.zeros((len(self.rows) + 1, 12), np.int32)
        seen[pitched + 1, self.pitch[pitched] % 12] = 1
        seen = seen.cumsum(0, dtype=np.int32)
        return ((seen[:-1] - seen[np.maximum(self.song_start, self.index - _KEY_NOTES)]) @ _KEYS).argmax(1)

    def after(self) -> Columns:
        """What is known when the note is written: for the choice of the next one's bar."""
        onset_begins = changes(self.onset)
        group = np.cumsum(onset_begins) - 1  # which onset is the note's
        bar_start = run_start(self.bar_key)
        bar_before = np.where(bar_start > self.song_start, bar_start - 1, NONE)
        shortest = np.minimum.accumulate(self.rows[:, DURATION] - 1000 * group) + 1000 * group  # so far at its onset
        found = self.voices() | self._onsets(np.flatnonzero(onset_begins), group)
        return found | {
            "voice": self.voice,
            "pitch": self.pitch,
            "duration": self.rows[:, DURATION],
            "k": np.minimum(self.number, 9),
            "m": np.minimum(self.index - self.onset_start, 15),
            "shortest": shortest,
            "barfirst": self.position[bar_start],
            "barend": at(self.position, bar_before),
            "gap": np.where(bar_before >= 0, np.minimum(self.bar - self.bar[bar_before], 4), 0),
        }

    def _onsets(self, first: np.ndarray, group: np.ndarray) -> Columns:
        """What the onsets before tell: first (O,) are their first notes, group (N,) is which onset is each note's."""
        bar, position = self.bar[first], self.position[first]
        size = np.diff(np.append(first, len(self.rows)))  # notes
        song_begins = changes(self.song[first])
        onsets = np.arange(len(first))

        def way(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            """Positions from one onset to another of its bar; otherwise how many bars, and where in the bar."""
            bars = np.minimum(bar[b] - bar[a], 3)
            return np.where(bars == 0, position[b] - position[a], _POSITIONS * bars + position[b])

        i1 = np.where(song_begins, NONE, way(onsets - 1, onsets))
        i2 = np.where(song_begins, NONE, i1[onsets - 1])
        i3 = np.where(song_begins, NONE, i2[onsets - 1])
        lag = latest_alike(self.song[first] * _POSITIONS + position)
        after_lag = np.where(lag >= 0, way(lag, np.minimum(lag + 1, onsets)), NONE)
        return {
            "m1": np.where(song_begins, 0, np.minimum(size[onsets - 1], 15))[group],
            "i1": i1[group],
            "i2": i2[group],
            "i3": i3[group],
            "next": np.where(self.next >= 0, way(group[self.lag], group[self.next]), NONE),
            "nexto": after_lag[group],
        }
