"""Does the music copy what the model was trained on? Eight-note grams and runs shared with training songs (figure 9).

A voice is read as steps from note to note: interval in semitones and time between onsets in beats, so that a copy is
found in any key and at any tempo. Drums are left out: their patterns belong to everybody. Scales and repeated notes are
found in any music: compare with real music that was held out, never with nothing.

Pure functions on excerpts and an index that is built from shards; knows no models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import BadInput
from ..tokens import BAR, DRUM_PROGRAM, INSTANCE, MAX_INSTANCES, MICRO_PER_BEAT, PITCH, PROGRAM
from .excerpts import STEPS_PER_BEAT, Excerpt

if TYPE_CHECKING:
    from ..dataset import Songs

GRAM_NOTES = 8
_GRAM_STEPS = GRAM_NOTES - 1
_LONGEST = 8 * STEPS_PER_BEAT  # times between onsets longer than this count as this
_BREAK = np.uint16(0xFFFF)  # where a voice begins: no step equals it
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
# Steps within a beat -> nearest sixteenth or triplet eighth; halfway, to the sixteenth
_PLACES = np.array([0, 6, 12, 18, 24, 8, 16])
_ON_PLACE = _PLACES[np.abs(np.arange(STEPS_PER_BEAT)[:, None] - _PLACES).argmin(1)]


@dataclass(frozen=True)
class Index:
    """All grams of some songs, to be looked up by hash, and the songs' steps themselves, to be compared with."""

    hashes: np.ndarray  # (grams,) uint64, sorted
    places: np.ndarray  # (grams,) int32, where in `steps` each begins
    steps: np.ndarray  # (n,) uint16, song after song, voice after voice, with a break before each and at the end
    song_ends: np.ndarray  # (songs,) int64, where in `steps` each song ends
    names: tuple[str, ...]  # of the songs: source and number in its shard

    def save(self, path: str | Path) -> None:
        arrays = {name: getattr(self, name) for name in ("hashes", "places", "steps", "song_ends")}
        save_file(arrays, path, {"midiex_originality": "1", "names": json.dumps(self.names)})

    @classmethod
    def load(cls, path: str | Path) -> Index:
        """Raises BadInput when the file is no index."""
        try:
            with safe_open(path, "np") as file:
                names = tuple(json.loads((file.metadata() or {})["names"]))
                arrays = {name: file.get_tensor(name) for name in ("hashes", "places", "steps", "song_ends")}
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise BadInput(f"{path} is not an index of training music ({error}); build it again.") from None
        return cls(**arrays, names=names)


@dataclass(frozen=True)
class SharedRun:
    """The longest run of notes in one voice that is also in one voice of one training song."""

    notes: int  # 0 when fewer than GRAM_NOTES
    kinds: int  # different steps in it: one or two for repeated notes, trills and scales
    song: str  # one that has it; empty when none has


def voice_steps(excerpt: Excerpt) -> np.ndarray:
    """The music as steps, shape (n,) uint16: tuned voices one after another, a break for each voice's first note, then
    one step a note. Notes of a voice go by onset (on the nearest sixteenth or triplet of the bar), then pitch."""
    rows, onset = excerpt.rows, excerpt.onset
    tuned = rows[:, PROGRAM] != DRUM_PROGRAM
    rows, onset = rows[tuned], onset[tuned]
    line = excerpt.bar_starts[rows[:, BAR]]
    beat, rest = np.divmod(onset - line, STEPS_PER_BEAT)
    onset = line + beat * STEPS_PER_BEAT + _ON_PLACE[rest]
    voice = rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE]
    order = np.lexsort((rows[:, PITCH], onset, voice))
    voice, onset, pitch = voice[order], onset[order], rows[order, PITCH].astype(np.int64)
    later = np.minimum(np.diff(onset, prepend=0), _LONGEST)
    steps = (np.diff(pitch, prepend=0) + 128) * (_LONGEST + 1) + later
    return np.where(np.diff(voice, prepend=-1) != 0, _BREAK, steps).astype(np.uint16)


def grams(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (n,) uint64 of all grams of steps (m,), and where each begins, (n,)."""
    count = len(steps) - _GRAM_STEPS + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    mixed = _mixed(steps)
    hashes = np.zeros(count, np.uint64)
    for k in range(_GRAM_STEPS):
        hashes = hashes * _FACTOR + mixed[k : k + count]
    breaks = np.concatenate([[0], np.cumsum(steps == _BREAK)])
    places = np.flatnonzero(breaks[_GRAM_STEPS:] == breaks[:count])
    return hashes[places], places


def _mixed(steps: np.ndarray) -> np.ndarray:
    """64 well mixed bits for each step (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (steps.astype(np.uint64) + np.uint64(1)) * _FACTOR
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def build(sources: Iterable[Songs]) -> Index:
    """Index of all songs of some shards. 24 million notes take a quarter of a minute and 0.8 GB beside the shards, of
    which 0.33 GB stay."""
    steps, hashes, places, names, ends = [], [], [], [], [0]
    for songs in sources:
        for number in range(len(songs)):
            song = songs.song(number)
            of_song = voice_steps(Excerpt(song.rows, song.bar_units / MICRO_PER_BEAT, song.bar_s))
            found, at = grams(of_song)
            steps.append(of_song)
            hashes.append(found)
            places.append((at + ends[-1]).astype(np.int32))
            ends.append(ends[-1] + len(of_song))
            names.append(f"{songs.source} {number}")
    all_hashes = np.concatenate([np.zeros(0, np.uint64), *hashes])
    del hashes
    order = np.argsort(all_hashes, kind="stable")
    all_places = np.concatenate([np.zeros(0, np.int32), *places])[order]
    del order, places
    all_hashes.sort()
    all_steps = np.concatenate([*steps, np.array([_BREAK])])
    return Index(all_hashes, all_places, all_steps, np.array(ends[1:], np.int64), tuple(names))


def share(excerpt: Excerpt, index: Index) -> float:
    """Share of the excerpt's grams that some indexed song has; NaN when it has none."""
    hashes, _ = grams(voice_steps(excerpt))
    if len(hashes) == 0:
        return float("nan")
    at = np.searchsorted(index.hashes, hashes)
    return float((index.hashes[np.minimum(at, len(index.hashes) - 1)] == hashes).mean()) if len(index.hashes) else 0.0


def longest_shared_run(excerpt: Excerpt, index: Index) -> SharedRun:
    """The longest run shared with any one song: compared step by step, not only gram by gram."""
    ours = voice_steps(excerpt)
    hashes, at = grams(ours)
    low, high = (np.zeros(len(ours) + 1, np.int64) for _ in range(2))
    low[at], high[at] = (np.searchsorted(index.hashes, hashes, side) for side in ("left", "right"))
    count = high - low
    missing = np.concatenate([[0], np.cumsum(count == 0)])
    best, best_at, best_place = _GRAM_STEPS - 1, 0, -1
    for start in range(len(ours) - _GRAM_STEPS + 1):
        last = start + best + 1 - _GRAM_STEPS  # the last gram of a run that would be longer than the best
        if last >= len(ours) or missing[last + 1] > missing[start]:
            continue
        rarest = start + int(count[start : last + 1].argmin())
        places = index.places[low[rarest] : high[rarest]].astype(np.int64) - (rarest - start)
        places, length = places[places >= 0], 0
        while start + length < len(ours) and ours[start + length] != _BREAK:
            going_on = places[index.steps[places + length] == ours[start + length]]
            if len(going_on) == 0:
                break
            places, length = going_on, length + 1
        if length > best:
            best, best_at, best_place = length, start, int(places[0])
    if best_place < 0:
        return SharedRun(0, 0, "")
    song = int(np.searchsorted(index.song_ends, best_place, side="right"))
    return SharedRun(best + 1, len(np.unique(ours[best_at : best_at + best])), index.names[song])
