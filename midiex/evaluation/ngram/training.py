"""Learning an n-gram: which songs are counted, which teach how far to trust the counts.

Knows shards and their weights; decides nothing of the contexts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...dataset import DEFAULT_WEIGHT, SOURCE_WEIGHTS, Songs
from ...errors import BadInput
from ...windows import Song
from .contexts import STATIC
from .counting import Evidence, Table, keys, tally
from .decisions import Chunks, Music, chunks_of, decisions, notes_in

BLOCK_NOTES = 500_000  # counted at a time
LONGEST_NOTES = 20_000  # of a longer song a stretch is counted: an opera is no more music than twenty songs
HELD_OUT = 12  # every which song of a source teaches the trust
HELD_SHARE, HELD_NOTES = 0.05, 1500  # as much of a source at most
WINDOW_NOTES, WINDOW_CHUNKS = 1600, 8  # of a song that teaches it


def draw(sources: list[Songs], notes: int, seed: int) -> tuple[list[Chunks], list[Chunks]]:
    """Songs to count, about `notes` notes, and songs to learn trust on. Raises BadInput where either are none."""
    rng = np.random.default_rng(seed)
    counted: list[Chunks] = []
    held: list[Chunks] = []
    for songs, quota in zip(sources, _quotas(sources, notes), strict=True):
        counted_here, held_here = _draw_source(songs, quota, rng)
        counted += counted_here
        held += held_here
    if not counted or not held:
        raise BadInput(f"An n-gram needs two songs or more, found {len(counted) + len(held)}; prepare more MIDI.")
    return counted, held


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


def _draw_source(songs: Songs, quota: float, rng: np.random.Generator) -> tuple[list[Chunks], list[Chunks]]:
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
            held_count += notes_in(held[-1])
        elif count < quota:
            counted.append(_stretch(song, LONGEST_NOTES, len(song.bar_s), rng))
            count += notes_in(counted[-1])
        else:
            break
    return counted, held


def _stretch(song: Song, notes: int, most_chunks: int, rng: np.random.Generator) -> Chunks:
    """Consecutive chunks of a song, all where it is no longer than `notes`."""
    chunks = chunks_of(song.rows, song.bar_s)
    ends = np.cumsum([len(rows) for rows, _ in chunks])
    last = int(np.searchsorted(ends, ends[-1] - notes, side="right"))  # from later chunks there are too few notes
    first = int(rng.integers(0, last + 1))
    before = ends[first - 1] if first else 0
    return chunks[first : min(int(np.searchsorted(ends, before + notes)) + 1, first + most_chunks)]


def count(songs: list[Chunks]) -> dict[str, Table]:
    """What the songs' decisions are in all static contexts, by part."""
    tallies: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {part: [] for part in STATIC}
    for block in _blocks(songs):
        for part, told in decisions(Music.of(block)).items():
            of_contexts = (keys(part, k, told) for k in range(len(STATIC[part])))
            tallies[part] += [tally(contexts | symbols) for contexts, symbols in of_contexts]
    tables = {}
    for part in STATIC:
        pairs, counts = (np.concatenate(column) for column in zip(*tallies.pop(part), strict=True))
        tables[part] = Table.of(*tally(pairs, counts))
    return tables


def _blocks(songs: list[Chunks]) -> Iterator[list[Chunks]]:
    """The songs in blocks of BLOCK_NOTES or little more, so that memory stays small."""
    block: list[Chunks] = []
    notes = 0
    for song in songs:
        block.append(song)
        notes += notes_in(song)
        if notes >= BLOCK_NOTES:
            yield block
            block, notes = [], 0
    if block:
        yield block


def learn_trust(tables: dict[str, Table], held: list[Chunks]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Trust (contexts, BUCKETS) by part: with the static contexts alone, and with the adaptive ones behind them."""
    music = Music.of(held)
    static, adaptive = {}, {}
    for part, told in decisions(music).items():
        evidence = Evidence.of(part, told, tables[part], music.chunk_song[told.chunk])
        static[part] = evidence.first(len(STATIC[part])).learn_trust()
        adaptive[part] = evidence.learn_trust()
    return static, adaptive
