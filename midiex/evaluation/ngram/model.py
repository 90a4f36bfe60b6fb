"""The n-gram: trained, saved and loaded, asked how likely music is, and asked to go on.

Knows its parts' modules; knows nothing of how they count and mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ...chunks import chunk_starts
from ...dataset import Songs
from ...errors import BadInput
from ...tokens import BAR, FIELD_SIZES, HEAD_ORDER, MICRO_PER_BEAT, MICROS_PER_POSITION, POSITION
from ..excerpts import Excerpt
from . import training
from .contexts import FIELD_OF, STATIC, fingerprint
from .counting import Evidence, Table
from .decisions import Music, decisions
from .writing import Writer


@dataclass(frozen=True)
class NGram:
    """Counts of the training songs and how far to trust them."""

    tables: dict[str, Table]  # of each part, all its contexts of STATIC
    static_trust: dict[str, np.ndarray]  # (contexts, BUCKETS), STATIC's alone
    adaptive_trust: dict[str, np.ndarray]  # (contexts, BUCKETS), STATIC's and then ADAPTIVE's
    adaptive: bool = field(default=True)  # count the song at hand as well

    @classmethod
    def train(cls, sources: list[Songs], notes: int, seed: int) -> NGram:
        """Counts about `notes` notes of the sources, shared as in training the network as far as they reach, each song
        at most once. Raises BadInput when there is too little to learn from."""
        counted, held = training.draw(sources, notes, seed)
        tables = training.count(counted)
        return cls(tables, *training.learn_trust(tables, held))

    def as_static(self) -> NGram:
        """The same without counting the song at hand: the n-gram of the literature."""
        return replace(self, adaptive=False)

    @property
    def trust(self) -> dict[str, np.ndarray]:
        """(contexts, BUCKETS) of this variant, by part."""
        return self.adaptive_trust if self.adaptive else self.static_trust

    def save(self, path: str | Path) -> None:
        arrays: dict[str, np.ndarray] = {}
        for part, table in self.tables.items():
            arrays |= {f"{part}.trust": self.static_trust[part], f"{part}.adaptive_trust": self.adaptive_trust[part]}
            arrays |= {f"{part}.pairs": table.pairs, f"{part}.counts": np.diff(table.ends).astype(np.uint32)}
        save_file(arrays, path, {"contexts": fingerprint()})

    @classmethod
    def load(cls, path: str | Path) -> NGram:
        """Raises BadInput when the file holds no n-gram, or one of other contexts."""
        try:
            with safe_open(path, "numpy") as file:
                contexts = (file.metadata() or {}).get("contexts")
                names = file.keys() if contexts == fingerprint() else []
                arrays = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path} is not an n-gram of midiex ({error}); train one anew.") from None
        if not arrays:
            raise BadInput(f"{path} holds no n-gram of this version's contexts; train one anew.")
        return cls(
            {part: Table.of(arrays[f"{part}.pairs"], arrays[f"{part}.counts"]) for part in STATIC},
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
            song = music.chunk_song[told.chunk] if self.adaptive else None
            p = Evidence.of(part, told, self.tables[part], song).probability(self.trust[part])
            nats[:, HEAD_ORDER.index(FIELD_OF[part])] += np.bincount(told.chunk, -np.log(p), len(nats))
        return nats[len(heard) :]

    def continue_(
        self, prompt: Excerpt, bar_beats: np.ndarray, bar_s: np.ndarray, seed: int, temperature: float = 1.0
    ) -> Excerpt:
        """Music for bars of these lengths after the prompt, sampled note by note and chunk by chunk: by the prompt's
        voices, in their range, in canonical order. Raises BadInput when the prompt has no notes."""
        if not len(prompt.rows):
            raise BadInput("The n-gram needs notes to go on from, found none in the prompt; choose another place.")
        bar_beats, bar_s = np.asarray(bar_beats), np.asarray(bar_s)
        writer = Writer(self, prompt, np.random.default_rng(seed), temperature)
        positions = np.ceil(np.round(bar_beats * MICRO_PER_BEAT) / MICROS_PER_POSITION).astype(np.int64)
        borders = chunk_starts(bar_s) if len(bar_s) else np.zeros(1, np.int64)
        for start, end in zip(borders[:-1], borders[1:], strict=True):
            writer.write_chunk(positions[start:end].clip(1, FIELD_SIZES[POSITION]))
        rows = writer.rows[len(prompt.rows) : writer.length].astype(np.int32)
        rows[:, BAR] -= prompt.bars
        return Excerpt(rows, bar_beats, bar_s)
