"""An interpolated n-gram over note rows: what counting alone achieves, the baseline the network has to beat.

It takes the network's decisions (HEAD_ORDER) one by one, so that nats a note compare. Each decision interpolates
relative frequencies in contexts from general to specific: of the notes before, of the voice, of what stood at this
place of the bar last time. How far a context is trusted depends on how often it was seen and with how many values,
learned on songs that were not counted: deleted interpolation (Jelinek and Mercer 1980), the contexts in buckets (Chen
and Goodman 1999). The adaptive variant goes on with contexts that count the song itself up to the note in question, as
PPM does (Cleary and Witten 1984).
Knows rows and shards; knows no network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..chunks import MAX_CHUNK_NOTES, chunk_starts, cut
from ..dataset import DEFAULT_WEIGHT, SOURCE_WEIGHTS, Song, Songs
from ..errors import BadInput
from ..grid import POSITIONS_PER_BEAT
from ..layers import HEAD_ORDER
from ..tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    FIELD_SIZES,
    INSTANCE,
    MAX_CHUNK_BARS,
    MAX_INSTANCES,
    MICRO,
    MICRO_CENTER,
    MICRO_PER_BEAT,
    MICROS_PER_POSITION,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
)
from .excerpts import Excerpt

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

NONE = -1  # no such note
NO_PITCH = 999  # the same among intervals
BARS, VOICES = 1 << 20, FIELD_SIZES[PROGRAM] * MAX_INSTANCES  # more than any song has
KEY_NOTES = 96  # how many notes back the key is felt
SCALE = np.array([5, 0, 3, 0, 4, 3, 0, 4, 0, 3, 0, 3])  # how much a pitch class speaks for the major key of the first
KEYS = np.stack([np.roll(SCALE, key) for key in range(12)], 1)  # (pitch classes, keys)

BLOCK_NOTES = 500_000  # counted at a time
LONGEST_NOTES = 20_000  # of a longer song a stretch is counted: an opera is no more music than twenty songs
HELD_OUT = 12  # every which song of a source teaches the trust
HELD_SHARE, HELD_NOTES = 0.05, 1500  # as much of a source at most
WINDOW_NOTES, WINDOW_CHUNKS = 1600, 8  # of a song that teaches it
EM_STEPS = 25
TYPE_BUCKETS, BUCKETS = 6, 96
LOOK_BACK_NOTES = 512  # when writing
RANGE_MARGIN = 3  # semitones beyond the prompt's range

_SYMBOLS = 256  # the low byte of a key holds the value, the rest the context
_ALL = (1 << 64) - 1
_NAMES = sorted({name for table in (STATIC, ADAPTIVE) for specs in table.values() for s in specs
                 for name in s.removeprefix("+").split()} | {"song", "number"})  # fmt: skip
_FACTORS = {
    name: int(f) | 1
    for name, f in zip(_NAMES, np.random.default_rng(20).integers(0, 1 << 63, len(_NAMES), np.uint64), strict=True)
}

Columns = dict[str, np.ndarray]
Chunks = Sequence[tuple[np.ndarray, int]]  # rows (n, 8) and bars of consecutive chunks


# ---- what a note's surroundings are --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Music:
    """Songs cut into chunks, one after another. N notes, C chunks."""

    rows: np.ndarray  # (N, 8) int64, bars counted from the song's first
    chunk: np.ndarray  # (N,)
    left: np.ndarray  # (N,) bars after the note's in its chunk
    chunk_bars: np.ndarray  # (C,)
    chunk_song: np.ndarray  # (C,)

    @classmethod
    def of(cls, songs: Sequence[Chunks]) -> Music:
        rows, left, bars, owner = [np.zeros((0, len(FIELD_SIZES)), np.int64)], [np.zeros(0, np.int64)], [], []
        for number, chunks in enumerate(songs):
            at = 0
            for part, length in chunks:
                moved = part.astype(np.int64)
                left.append(length - 1 - moved[:, BAR])
                moved[:, BAR] += at
                rows.append(moved)
                bars.append(length)
                owner.append(number)
                at += length
        chunk = np.repeat(np.arange(len(bars)), [len(part) for part in rows[1:]])
        return cls(
            np.concatenate(rows), chunk, np.concatenate(left), np.array(bars, np.int64), np.array(owner, np.int64)
        )

    @property
    def song(self) -> np.ndarray:
        return self.chunk_song[self.chunk]


def _previous(key: np.ndarray) -> np.ndarray:
    """Index of the latest earlier element with the same key, NONE where there is none."""
    order = np.argsort(key, kind="stable")
    found = np.full(len(key), NONE)
    again = key[order[1:]] == key[order[:-1]]
    found[order[1:][again]] = order[:-1][again]
    return found


def _at(values: np.ndarray, index: np.ndarray, none: int = NONE) -> np.ndarray:
    return np.where(index >= 0, values[index], none)


def _changes(key: np.ndarray) -> np.ndarray:
    """True where another value begins."""
    return np.append(True, key[1:] != key[:-1])[: len(key)]


def _run_start(key: np.ndarray) -> np.ndarray:
    """Index at which each element's run of equal values begins."""
    return np.maximum.accumulate(np.where(_changes(key), np.arange(len(key)), 0))


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
        self.bar_key = song * BARS + self.bar
        self.onset = self.bar_key * 128 + self.position
        self.song_start, self.onset_start = _run_start(song), _run_start(self.onset)
        self.voice_start = _run_start(self.onset * VOICES + self.voice)
        self.number = index - self.voice_start  # of the note in its voice's chord
        self.before = [np.where(index - j >= self.song_start, index - j, NONE) for j in (1, 2, 3, 4)]
        place = ((song * 128 + self.position) * VOICES + self.voice) * 64
        self.lag = _previous(place + np.minimum(self.number, 63))
        self.same = (self.before[0] >= 0) & (self.onset_start < index)
        self.next = np.where(self.lag >= 0, self.lag + 1, NONE)  # of the same song: the note itself at the latest
        self.hit = np.where(self.lag < 0, 2, _at(self.pitch, self.lag) == self.pitch)
        self.drum = rows[:, PROGRAM] == DRUM_PROGRAM

    def voices(self) -> Columns:
        """What is known when the onset is: for the choice of program and instance."""
        r1 = self.before[0]
        found: Columns = {"pos": self.position, "beat": self.position % POSITIONS_PER_BEAT, "same": self.same}
        for end, column in (("v", self.voice), ("p", self.pitch), ("m", self.rows[:, MICRO])):
            found |= {f"r{j}{end}": _at(column, at) for j, at in enumerate(self.before, 1)}
        coming = _at(self.next, r1)
        here = (coming >= 0) & (_at(self.position, coming) == self.position)
        return found | {"program": self.rows[:, PROGRAM], "nextv": np.where(here, _at(self.voice, coming), NONE)}

    def notes(self) -> Columns:
        """What is known when the voice is; pitch, duration, hit and drump only where their own notes' pitch is."""
        rows, r1 = self.rows, self.before[0]
        v1 = _previous(self.song * VOICES + self.voice)
        pitched = ~self.drum
        ref = np.where(pitched & (v1 >= 0), _at(self.pitch, v1), 0)

        def interval(at: np.ndarray) -> np.ndarray:
            return np.where(at >= 0, self.pitch[at] - ref, NO_PITCH)

        found = self.voices()
        at = v1
        for j in (1, 2, 3, 4):
            found |= {f"v{j}p": _at(self.pitch, at), f"a{j}": interval(at)}
            found |= {f"v{j}{end}": _at(rows[:, f], at) for end, f in (("d", DURATION), ("e", VELOCITY), ("m", MICRO))}
            at = _at(v1, at)
        found |= {f"lag{end}": _at(rows[:, f], self.lag) for end, f in (("d", DURATION), ("e", VELOCITY), ("m", MICRO))}
        chord_end = _at(v1, self.voice_start)  # the voice's chord before: its note of the same number, or its last
        in_chord = np.where(chord_end >= 0, np.minimum(_at(self.voice_start, chord_end) + self.number, chord_end), NONE)
        lag_v1 = _at(v1, self.lag)
        degree = np.where(pitched, (ref - self._key()) % 12, NONE)
        return found | {
            "voice": self.voice,
            "drum": self.drum,
            "k": np.minimum(self.number, 9),
            "vs": self.number > 0,
            "ref": ref,
            "a1": np.where(v1 < 0, -2, np.where(self.drum, found["v1p"], NONE)),  # where ref does not say it
            "lagp": interval(self.lag),
            "lagstep": np.where(lag_v1 >= 0, self.pitch[self.lag] - self.pitch[lag_v1], NO_PITCH),
            "v1hit": _at(self.hit, v1),
            "r1hit": _at(self.hit, r1),
            "r1d": _at(rows[:, DURATION], r1),
            "r1e": _at(rows[:, VELOCITY], r1),
            "degree": degree,
            "under": np.where(self.same & pitched & (_at(self.pitch, r1) < DRUM_PITCH_OFFSET), interval(r1), NO_PITCH),
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
        return ((seen[:-1] - seen[np.maximum(self.song_start, self.index - KEY_NOTES)]) @ KEYS).argmax(1)

    def after(self) -> Columns:
        """What is known when the note is written: for the choice of the next one's bar."""
        found = self.voices()
        group = np.cumsum(_changes(self.onset)) - 1
        first = np.flatnonzero(_changes(self.onset))  # the first note of each onset
        bar, position, size = self.bar[first], self.position[first], np.diff(np.append(first, len(self.rows)))
        begins = _changes(self.song[first])

        def way(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            bars = np.minimum(bar[b] - bar[a], 3)
            return np.where(bars == 0, position[b] - position[a], 128 * bars + position[b])

        onsets = np.arange(len(first))
        ways = [np.where(begins, NONE, way(onsets - 1, onsets))]
        for _ in range(2):
            ways.append(np.where(begins, NONE, ways[-1][onsets - 1]))
        onset_lag = _previous(self.song[first] * 128 + position)
        after_lag = np.where(onset_lag >= 0, way(onset_lag, np.minimum(onset_lag + 1, onsets)), NONE)
        bar_start = _run_start(self.bar_key)
        bar_before = np.where(bar_start > self.song_start, bar_start - 1, NONE)
        shortest = np.minimum.accumulate(self.rows[:, DURATION] - 1000 * group) + 1000 * group  # so far at its onset
        return found | {
            "voice": self.voice,
            "pitch": self.pitch,
            "duration": self.rows[:, DURATION],
            "k": np.minimum(self.number, 9),
            "m": np.minimum(self.index - self.onset_start, 15),
            "m1": np.where(begins, 0, np.minimum(size[onsets - 1], 15))[group],
            **{f"i{j}": column[group] for j, column in enumerate(ways, 1)},
            "shortest": shortest,
            "next": np.where(self.next >= 0, way(group[self.lag], group[self.next]), NONE),
            "nexto": after_lag[group],
            "barfirst": self.position[bar_start],
            "barend": _at(self.position, bar_before),
            "gap": np.where(bar_before >= 0, np.minimum(self.bar - self.bar[bar_before], 4), 0),
        }


@dataclass(frozen=True)
class Decisions:
    """Those of one part, D in all, in order."""

    columns: Columns  # (D,) each
    values: np.ndarray  # (D,) int64
    chunk: np.ndarray  # (D,)


def decisions(music: Music) -> dict[str, Decisions]:
    """All decisions of a music, by part."""
    rows, chunk = music.rows, music.chunk
    around = Surroundings(rows, music.song)
    voices, notes, after = around.voices(), around.notes(), around.after()
    found = {}
    for part in list(SIZES)[:6]:
        values = rows[:, FIELD_OF[part]] % SIZES[part]
        found[part] = Decisions(voices if part in ("program", "instance") else notes, values, chunk)
    first = _changes(chunk)
    last = np.append(first[1:], True)[: len(rows)]
    stay = ~last & (np.append(rows[1:, BAR], NONE)[: len(rows)] == rows[:, BAR])
    found["stay"] = Decisions(after, stay.astype(np.int64), chunk)
    r1 = around.before[0]
    up = first | (_at(rows[:, BAR], r1) != rows[:, BAR])
    ahead = {name: _at(column, r1) for name, column in after.items()}
    ahead |= {"up": up, "from": np.where(up, 0, ahead["pos"])}
    found["position"] = Decisions(ahead, rows[:, POSITION], chunk)
    found["leap"] = _leaps(music, np.flatnonzero(~stay & (music.left > 0)), after["gap"], first, last)
    return found


def _leaps(music: Music, leaving: np.ndarray, gap: np.ndarray, first: np.ndarray, last: np.ndarray) -> Decisions:
    """At the beginning of every chunk, and behind the notes `leaving` their bar with bars left."""
    chunks = np.arange(len(music.chunk_bars))
    begin = music.chunk_bars.copy()  # an empty chunk leaps over all of its bars
    begin[music.chunk[first]] -= 1 + music.left[first]
    to = np.append(music.rows[1:, BAR], 0)[leaving] - music.rows[leaving, BAR] - 1
    chunk = np.concatenate([chunks, music.chunk[leaving]])
    order = np.argsort(chunk, kind="stable")
    columns = {
        "begin": np.concatenate([np.ones_like(chunks), np.zeros_like(leaving)])[order],
        "left": np.concatenate([music.chunk_bars, music.left[leaving]])[order],
        "gap": np.concatenate([np.zeros_like(chunks), gap[leaving]])[order],
    }
    values = np.concatenate([begin, np.where(last[leaving], music.left[leaving], to)])[order]
    return Decisions(columns, values, chunk[order])


# ---- counting ------------------------------------------------------------------------------------------------------


def _mixed(spec: str, columns: Mapping[str, Any], number: int, song: Any = 0) -> Any:
    """The hash of a part's context of this number, its low byte empty: of uint64 arrays or of Python's integers."""
    mixed = number * _FACTORS["number"] + song * _FACTORS["song"] & _ALL
    for name in spec.removeprefix("+").split():
        mixed = mixed + (columns[name] * _FACTORS[name] & _ALL) & _ALL
    return (mixed ^ mixed >> 29) & (_ALL - _SYMBOLS + 1)


def _reference(part: str, spec: str, columns: Mapping[str, Any]) -> Any:
    """What the values are counted from in this context."""
    return columns[RELATIVE_TO[part]] if spec.startswith("+") else 0


def _keys(part: str, number: int, told: Decisions, song: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Context and symbol of each decision, both (D,) uint64, in the part's static context of this number, or, where a
    song is given, its adaptive one."""
    spec = (STATIC if song is None else ADAPTIVE)[part][number]
    unsigned = {n: told.columns[n].astype(np.int64).view(np.uint64) for n in spec.removeprefix("+").split()}
    context = np.asarray(_mixed(spec, unsigned, number, 0 if song is None else song.astype(np.uint64)), np.uint64)
    symbol = ((told.values - _reference(part, spec, told.columns)) % SIZES[part]).astype(np.uint64)
    return np.broadcast_to(context, symbol.shape), symbol


@dataclass(frozen=True)
class Table:
    """How often each value was seen in each context."""

    pairs: np.ndarray  # (P,) uint64, sorted: context, and the value in the low byte
    ends: np.ndarray  # (P + 1,) int64, counts before each pair

    @classmethod
    def of(cls, pairs: np.ndarray, counts: np.ndarray) -> Table:
        return cls(pairs, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))

    def look_up(self, contexts: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How often each context was seen, with how many values, and how often with this one."""
        asked, back = np.unique(contexts, return_inverse=True)
        low = np.searchsorted(self.pairs, asked)
        high = np.searchsorted(self.pairs, asked | np.uint64(_SYMBOLS - 1), side="right")
        asked_pairs, pair_back = np.unique(contexts | symbols, return_inverse=True)
        at = np.searchsorted(self.pairs, asked_pairs)
        to = np.searchsorted(self.pairs, asked_pairs, side="right")
        return (self.ends[high] - self.ends[low])[back], (high - low)[back], (self.ends[to] - self.ends[at])[pair_back]

    def seen(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How many values each context was seen with, (K,), and these one after another with how often, (V,) each."""
        low = np.searchsorted(self.pairs, contexts)
        high = np.searchsorted(self.pairs, contexts | np.uint64(_SYMBOLS - 1), side="right")
        kinds = high - low
        at = np.arange(kinds.sum()) + np.repeat(low - (np.cumsum(kinds) - kinds), kinds)
        return kinds, (self.pairs[at] & np.uint64(_SYMBOLS - 1)).astype(np.int64), self.ends[at + 1] - self.ends[at]


def _tally(keys: np.ndarray, counts: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys, sorted, and how often each occurs."""
    if counts is None:
        keys = np.sort(keys)
    else:
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
    first = np.flatnonzero(_changes(keys))
    if counts is None:
        return keys[first], np.diff(np.append(first, len(keys)))
    return keys[first], np.add.reduceat(counts, first) if len(first) else counts


def _so_far(contexts: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As Table.look_up, but counted in the decisions before each."""

    def ranks(key: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order = np.argsort(key, kind="stable")
        start = _run_start(key[order])
        rank = np.empty_like(start)
        rank[order] = np.arange(len(order)) - start
        return rank, order, start

    times = ranks(contexts | symbols)[0]
    seen, order, start = ranks(contexts)
    new = (times == 0)[order]
    before = np.cumsum(new) - new
    kinds = np.empty_like(before)
    kinds[order] = before - before[start]
    return seen, kinds, times


def _bucket(seen: Any, kinds: Any) -> Any:
    """Contexts of one bucket are trusted alike; the first TYPE_BUCKETS are those never seen."""
    size = np.minimum(np.ceil(np.log2(np.maximum(seen, 1))).astype(np.int64) + 1, BUCKETS // TYPE_BUCKETS - 1)
    variety = np.minimum(np.ceil(np.log2(np.maximum(kinds, 1))).astype(np.int64), TYPE_BUCKETS - 1)
    return np.where(seen == 0, 0, size * TYPE_BUCKETS + variety)


def _interpolate(base: np.ndarray, share: np.ndarray, trust: np.ndarray) -> list[np.ndarray]:
    """Probability (D,) after each of K contexts, the base first; share and trust (K, D)."""
    steps = [base]
    for own, weight in zip(share, trust, strict=True):
        steps.append(weight * own + (1 - weight) * steps[-1])
    return steps


def _learn_trust(base: np.ndarray, share: np.ndarray, bucket: np.ndarray) -> np.ndarray:
    """Trust (K, BUCKETS) in each bucket of each context that makes the decisions likeliest: expectation-maximisation,
    asking of each decision from which context it came."""
    trust = np.full((len(share), BUCKETS), 0.5)
    trust[:, :TYPE_BUCKETS] = 0
    for _ in range(EM_STEPS):
        weight = np.take_along_axis(trust, bucket, 1)
        steps = _interpolate(base, share, weight)
        reached = np.ones(len(base))
        for k in range(len(share) - 1, -1, -1):
            stopped = reached * weight[k] * share[k] / steps[k + 1]
            total = np.bincount(bucket[k], reached, BUCKETS)
            trust[k] = (np.bincount(bucket[k], stopped, BUCKETS) + 0.25) / (total + 0.5)
            reached = reached - stopped
        trust[:, :TYPE_BUCKETS] = 0
    return trust


def _base(part: str, columns: Mapping[str, Any]) -> Any:
    """The uniform distribution from which interpolation starts."""
    return 1 / (columns["left"] + 1) if part == "leap" else 1 / SIZES[part]


# ---- the model -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NGram:
    """Counts of the training songs and how far to trust them."""

    tables: dict[str, Table]  # of each part, all its contexts of STATIC
    trust: dict[str, np.ndarray]  # (contexts, BUCKETS), STATIC's alone
    adaptive_trust: dict[str, np.ndarray]  # (contexts, BUCKETS), STATIC's and then ADAPTIVE's
    adaptive: bool = field(default=True)  # count the song at hand as well

    @classmethod
    def train(cls, sources: list[Songs], notes: int, seed: int) -> NGram:
        """Counts about `notes` notes of the sources, shared as in training the network as far as they reach, each song
        at most once. Raises BadInput when there is too little to learn from."""
        rng = np.random.default_rng(seed)
        counted, held = [], []
        for songs, quota in zip(sources, _quotas(sources, notes), strict=True):
            counted_here, held_here = _draw(songs, quota, rng)
            counted += counted_here
            held += held_here
        if not counted or not held:
            raise BadInput(f"An n-gram needs two songs or more, found {len(counted) + len(held)}; prepare more MIDI.")
        tables = _count(counted)
        music = Music.of(held)
        trust, adaptive_trust = {}, {}
        for part, told in decisions(music).items():
            model = cls({part: tables[part]}, {}, {})
            share, bucket = model._evidence(part, told, music.chunk_song[told.chunk])
            base = np.broadcast_to(_base(part, told.columns), told.values.shape)
            static = len(STATIC[part])
            trust[part] = _learn_trust(base, share[:static], bucket[:static])
            adaptive_trust[part] = _learn_trust(base, share, bucket)
        return cls(tables, trust, adaptive_trust)

    def as_static(self) -> NGram:
        """The same without counting the song at hand: the n-gram of the literature."""
        return replace(self, adaptive=False)

    def save(self, path: str | Path) -> None:
        arrays: dict[str, np.ndarray] = {}
        for part, table in self.tables.items():
            arrays |= {f"{part}.trust": self.trust[part], f"{part}.adaptive_trust": self.adaptive_trust[part]}
            arrays |= {f"{part}.pairs": table.pairs, f"{part}.counts": np.diff(table.ends).astype(np.uint32)}
        save_file(arrays, path, {"contexts": _fingerprint()})

    @classmethod
    def load(cls, path: str | Path) -> NGram:
        """Raises BadInput when the file holds no n-gram, or one of other contexts."""
        try:
            with safe_open(path, "numpy") as file:
                contexts = (file.metadata() or {}).get("contexts")
                names = file.keys() if contexts == _fingerprint() else []
                arrays = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path} is not an n-gram of midiex ({error}); train one anew.") from None
        if not arrays:
            raise BadInput(f"{path} holds no n-gram of this version's contexts; train one anew.")
        tables = {part: Table.of(arrays[f"{part}.pairs"], arrays[f"{part}.counts"]) for part in STATIC}
        return cls(
            tables,
            {part: arrays[f"{part}.trust"] for part in STATIC},
            {part: arrays[f"{part}.adaptive_trust"] for part in STATIC},
        )

    def nll(self, chunks: Sequence[np.ndarray], bars: Sequence[int], before: Sequence[np.ndarray] = ()) -> np.ndarray:
        """Nats of each consecutive chunk, by field: (chunks, 8) in HEAD_ORDER, the end's among the bar's. Chunks are
        rows (n, 8) with bars counted from their first, `bars` how many each has; `before` are chunks from earlier in
        the song, that are only heard."""
        heard = [(rows, int(rows[-1, BAR]) + 1) for rows in before if len(rows)]
        music = Music.of([[*heard, *zip(chunks, bars, strict=True)]])
        nats = np.zeros((len(music.chunk_bars), len(HEAD_ORDER)))
        for part, told in decisions(music).items():
            nats[:, HEAD_ORDER.index(FIELD_OF[part])] += np.bincount(
                told.chunk, -np.log(self._likelihood(part, told, music)), len(nats)
            )
        return nats[len(heard) :]

    def _likelihood(self, part: str, told: Decisions, music: Music) -> np.ndarray:
        """Probability of each decision's value, (D,)."""
        share, bucket = self._evidence(part, told, music.chunk_song[told.chunk])
        weight = np.take_along_axis(self.trust_in(part), bucket, 1)
        base = np.broadcast_to(_base(part, told.columns), told.values.shape)
        return _interpolate(base, share, weight)[-1]

    def trust_in(self, part: str) -> np.ndarray:
        """(contexts, BUCKETS) of this variant."""
        return (self.adaptive_trust if self.adaptive else self.trust)[part]

    def _evidence(self, part: str, told: Decisions, song: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The value's share in each context and the context's bucket, both (K, D)."""
        found = [self.tables[part].look_up(*_keys(part, k, told)) for k in range(len(STATIC[part]))]
        if self.adaptive:
            found += [_so_far(*_keys(part, k, told, song)) for k in range(len(ADAPTIVE[part]))]
        share = np.stack([times / np.maximum(seen, 1) for seen, _, times in found])
        return share, np.stack([_bucket(seen, kinds) for seen, kinds, _ in found])

    def continue_(
        self, prompt: Excerpt, bar_beats: np.ndarray, bar_s: np.ndarray, seed: int, temperature: float = 1.0
    ) -> Excerpt:
        """Music for bars of these lengths after the prompt, sampled note by note and chunk by chunk: by the prompt's
        voices, in their range, in canonical order. Raises BadInput when the prompt has no notes."""
        if not len(prompt.rows):
            raise BadInput("The n-gram needs notes to go on from, found none in the prompt; choose another place.")
        writer = Writer(self, prompt, np.random.default_rng(seed), temperature)
        positions = np.ceil(np.round(np.asarray(bar_beats) * MICRO_PER_BEAT) / MICROS_PER_POSITION).astype(np.int64)
        borders = chunk_starts(np.asarray(bar_s)) if len(bar_s) else np.zeros(1, np.int64)
        for start, end in zip(borders[:-1], borders[1:], strict=True):
            writer.write_chunk(positions[start:end].clip(1, FIELD_SIZES[POSITION]))
        rows = writer.rows[len(prompt.rows) : writer.length].astype(np.int32)
        rows[:, BAR] -= prompt.bars
        return Excerpt(rows, np.asarray(bar_beats), np.asarray(bar_s))


def _fingerprint() -> str:
    return json.dumps([STATIC, ADAPTIVE])


def _quotas(sources: list[Songs], notes: int) -> np.ndarray:
    """Notes of each source: in proportion to its weight, or all it has."""
    weights = np.array([SOURCE_WEIGHTS.get(s.source, DEFAULT_WEIGHT) for s in sources])
    sizes = np.array([len(s.notes) for s in sources])
    share, quotas = 0.0, np.zeros(len(sources))
    for _ in sources:  # what exhausted sources leave goes to the others
        open_to = quotas < sizes
        if not open_to.any():
            break
        share += (notes - quotas.sum()) / weights[open_to].sum()
        quotas = np.minimum(weights * share, sizes)
    return quotas


def _draw(songs: Songs, quota: float, rng: np.random.Generator) -> tuple[list[Chunks], list[Chunks]]:
    """Songs to count, about `quota` notes, and songs on which to learn trust."""
    counted: list[Chunks] = []
    held: list[Chunks] = []
    count = held_count = 0
    for number, index in enumerate(rng.permutation(len(songs))):
        song = songs.song(int(index))
        if not len(song.rows):
            continue
        if number % HELD_OUT == 0 and held_count < HELD_SHARE * quota + HELD_NOTES:
            held.append(_stretch(song, WINDOW_NOTES, WINDOW_CHUNKS, rng))
            held_count += sum(len(rows) for rows, _ in held[-1])
        elif count < quota:
            counted.append(_stretch(song, LONGEST_NOTES, len(song.bar_s), rng))
            count += sum(len(rows) for rows, _ in counted[-1])
        else:
            break
    return counted, held


def _stretch(song: Song, notes: int, most_chunks: int, rng: np.random.Generator) -> Chunks:
    """Consecutive chunks of a song, all where it is no longer than `notes`."""
    chunks = [(c.rows, c.bars) for c in cut(song.rows, chunk_starts(song.bar_s))]
    ends = np.cumsum([len(rows) for rows, _ in chunks])
    last = int(np.searchsorted(ends, ends[-1] - notes, side="right"))  # from later chunks there are too few notes
    first = int(rng.integers(0, last + 1))
    before = ends[first - 1] if first else 0
    return chunks[first : min(int(np.searchsorted(ends, before + notes)) + 1, first + most_chunks)]


def _blocks(songs: list[Chunks]) -> Iterator[list[Chunks]]:
    block: list[Chunks] = []
    notes = 0
    for song in songs:
        block.append(song)
        notes += sum(len(rows) for rows, _ in song)
        if notes >= BLOCK_NOTES:
            yield block
            block, notes = [], 0
    if block:
        yield block


def _count(songs: list[Chunks]) -> dict[str, Table]:
    tallies: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {part: [] for part in STATIC}
    for block in _blocks(songs):
        for part, told in decisions(Music.of(block)).items():
            keys = (_keys(part, k, told) for k in range(len(STATIC[part])))
            tallies[part] += [_tally(contexts | symbols) for contexts, symbols in keys]
    tables = {}
    for part in STATIC:
        pairs, counts = (np.concatenate(column) for column in zip(*tallies.pop(part), strict=True))
        tables[part] = Table.of(*_tally(pairs, counts))
    return tables


# ---- writing -------------------------------------------------------------------------------------------------------


class Writer:
    """Writes after a prompt, note by note. It looks back LOOK_BACK_NOTES for what surrounds a note; what it counts in
    the song, it counts in all of it."""

    def __init__(self, model: NGram, prompt: Excerpt, rng: np.random.Generator, temperature: float):
        self.model, self.rng, self.temperature = model, rng, temperature
        self.rows = prompt.rows.astype(np.int64)  # the first `length` are written
        self.length = len(self.rows)
        self.bar = prompt.bars  # at which the next chunk begins
        self.playable = _playable(prompt.rows)
        self.after = self._told(Surroundings.after)
        self.nats = 0.0  # of what was chosen, at temperature 1 and with every choice open
        self.counts: dict[str, dict[int, dict[int, int]]] = {part: {} for part in ADAPTIVE}  # of each context
        music = Music.of([[(c.rows, c.bars) for c in cut(prompt.rows, chunk_starts(prompt.bar_s))]])
        for part, told in decisions(music).items() if model.adaptive else ():
            for k in range(len(ADAPTIVE[part])):
                keys = _keys(part, k, told, np.zeros_like(told.values))
                for context, symbol in zip(*(column.tolist() for column in keys), strict=True):
                    self._count(part, context, symbol)

    def write_chunk(self, bar_positions: np.ndarray) -> None:
        """The next bars, of so many positions each."""
        first, bars, end = self.bar, len(bar_positions), self.length + MAX_CHUNK_NOTES
        self.bar += bars
        room = np.zeros((MAX_CHUNK_NOTES, len(FIELD_SIZES)), np.int64)
        self.rows = np.concatenate([self.rows[: self.length], room])
        told = {"begin": 1, "left": bars, "gap": 0}
        skipped = self._choose("leap", told, np.arange(SIZES["leap"]) <= bars)
        bar, position = skipped, NONE  # in this chunk; no position: another bar than the note before
        while bar < bars and self.length < end:
            position, bar = self._write_note(first, bar, position, bar_positions)

    def _write_note(self, first: int, bar: int, position: int, bar_positions: np.ndarray) -> tuple[int, int]:
        """One note in `bar`, not before `position`. Returns where the next one may be."""
        up = position == NONE
        told = self.after | {"up": int(up), "from": 0 if up else position}
        index = np.arange(SIZES["position"])
        earliest = 0 if up else position + (not self._more_here())
        onset = self._choose("position", told, (index >= earliest) & (index < bar_positions[bar]))
        same = not up and onset == position
        floor = self._last() if same else NONE
        open_to = self.playable[self.playable > floor]  # canonical order inside an onset
        note = self.rows[self.length]
        note[BAR], note[POSITION] = first + bar, onset
        self.length += 1
        told = self._told(Surroundings.voices)
        note[PROGRAM] = self._choose("program", told, _among(open_to // (MAX_INSTANCES * 256), SIZES["program"]))
        told["program"] = int(note[PROGRAM])
        open_to = open_to[open_to // (MAX_INSTANCES * 256) == note[PROGRAM]]
        note[INSTANCE] = self._choose("instance", told, _among(open_to // 256 % MAX_INSTANCES, SIZES["instance"]))
        open_to = open_to[open_to // 256 % MAX_INSTANCES == note[INSTANCE]]
        offset = DRUM_PITCH_OFFSET if note[PROGRAM] == DRUM_PROGRAM else 0
        note[PITCH] = offset  # so that nobody takes a drum for a note
        told = self._told(Surroundings.notes)
        note[PITCH] = offset + self._choose("pitch", told, _among(open_to % DRUM_PITCH_OFFSET, SIZES["pitch"]))
        lag_pitch = told["lagp"] + told["ref"]
        told |= {"pitch": int(note[PITCH]), "drump": int(note[PITCH]) if offset else 0}
        told["hit"] = 2 if told["lagp"] == NO_PITCH else int(lag_pitch == note[PITCH])
        note[DURATION] = self._choose("duration", told)
        note[VELOCITY] = self._choose("velocity", told)
        late = np.arange(SIZES["micro"]) >= (MICRO_CENTER if onset == 0 else 0)  # no note begins before its bar
        note[MICRO] = self._choose("micro", told, late)
        return self._next_bar(bar, onset, bar_positions)

    def _next_bar(self, bar: int, onset: int, bar_positions: np.ndarray) -> tuple[int, int]:
        """Where the next note may be: in this bar from this position on, in a later one, behind the last."""
        self.after = self._told(Surroundings.after)
        room = onset + 1 < bar_positions[bar] or self._more_here()
        if self._choose("stay", self.after, np.array([True, room])):
            return onset, bar
        left = len(bar_positions) - 1 - bar
        if not left:
            return NONE, bar + 1
        told = {"begin": 0, "left": left, "gap": self.after["gap"]}
        return NONE, bar + 1 + self._choose("leap", told, np.arange(SIZES["leap"]) <= left)

    def _more_here(self) -> bool:
        """May another note begin with the last one?"""
        return bool(self.playable[-1] > self._last())

    def _last(self) -> int:
        """Program, instance and pitch of the last note as one integer that sorts as they do."""
        last = self.rows[self.length - 1]
        return int((last[PROGRAM] * MAX_INSTANCES + last[INSTANCE]) * FIELD_SIZES[PITCH] + last[PITCH])

    def _told(self, columns: Any) -> dict[str, int]:
        """The last row's columns."""
        rows = self.rows[max(0, self.length - LOOK_BACK_NOTES) : self.length]
        around = Surroundings(rows, np.zeros(len(rows), np.int64))
        return {name: int(column[-1]) for name, column in columns(around).items()}

    def distribution(self, part: str, told: dict[str, int]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Probability of each value, (size,), and context and reference of each adaptive context."""
        specs = STATIC[part] + (ADAPTIVE[part] if self.model.adaptive else ())
        static = len(STATIC[part])
        contexts = [_mixed(spec, told, k if k < static else k - static) for k, spec in enumerate(specs)]
        refs = [_reference(part, spec, told) for spec in specs]
        kinds, values, counts = self.model.tables[part].seen(np.array(contexts[:static], np.uint64))
        here = [self.counts[part].get(context, {}) for context in contexts[static:]]
        kinds = np.concatenate([kinds, np.array([len(seen) for seen in here], np.int64)])
        values = np.concatenate([values, np.array([v for seen in here for v in seen], np.int64)])
        counts = np.concatenate([counts, np.array([c for seen in here for c in seen.values()], np.int64)])
        owner = np.repeat(np.arange(len(specs)), kinds)
        seen = np.bincount(owner, counts, len(specs))
        trust = self.model.trust_in(part)[np.arange(len(specs)), _bucket(seen, kinds)]
        passed_on = np.append(np.cumprod(1 - trust[::-1])[::-1], 1.0)  # what a context and those after it leave
        share = trust * passed_on[1:] / np.maximum(seen, 1)
        size = SIZES[part]
        open_to = told["left"] + 1 if part == "leap" else size
        p = np.where(np.arange(size) < open_to, passed_on[0] / open_to, 0.0)
        p += np.bincount((values + np.array(refs)[owner]) % size, share[owner] * counts, size)
        return p, list(zip(contexts, refs, strict=True))[static:]

    def _choose(self, part: str, told: dict[str, int], mask: np.ndarray | None = None) -> int:
        """One value, sampled among those that mask (size,) allows, and counted."""
        p, asked = self.distribution(part, told)
        plain = p
        if self.temperature != 1:
            p = (p / p.max()) ** (1 / self.temperature)
        cumulative = np.cumsum(p if mask is None else np.where(mask, p, 0))
        value = int(np.searchsorted(cumulative, self.rng.random() * cumulative[-1], side="right"))
        self.nats -= float(np.log(plain[value]))
        for context, ref in asked:
            self._count(part, context, (value - ref) % SIZES[part])
        return value

    def _count(self, part: str, context: int, symbol: int) -> None:
        seen = self.counts[part].setdefault(context, {})
        seen[symbol] = seen.get(symbol, 0) + 1


def _among(values: np.ndarray, size: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[values] = True
    return mask


def _playable(rows: np.ndarray) -> np.ndarray:
    """What the prompt's voices may play, as integers like `_last`: their range and a bit more; only drums they have."""
    found = []
    for program, instance in np.unique(rows[:, [PROGRAM, INSTANCE]], axis=0).tolist():
        pitches = np.unique(rows[(rows[:, PROGRAM] == program) & (rows[:, INSTANCE] == instance), PITCH])
        if program != DRUM_PROGRAM:
            pitches = np.arange(max(0, pitches[0] - RANGE_MARGIN), min(127, pitches[-1] + RANGE_MARGIN) + 1)
        found.append((program * MAX_INSTANCES + instance) * FIELD_SIZES[PITCH] + pitches)
    return np.concatenate(found).astype(np.int64)
