"""What was done, ready for JSON: of a passage and chunk by chunk, with what was planned beside what came of it.

Knows passages that are written; writes none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .phrase_task import figures_of
from .roles import voices_in

if TYPE_CHECKING:
    from .extend import NewChunk, Passage


def report_on(passage: Passage) -> dict[str, Any]:
    """What `Passage.report` gives."""
    told = {
        "song": str(passage.song.path),
        "seconds": round(passage.length_s, 3),
        "new_from_s": round(passage.start_s, 3),
        "new_to_s": round(passage.end_s, 3),
        "why_here": passage.why_here,
        "leads_to": passage.leads_to,
        "bars": [passage.line.before + 1, passage.line.before + passage.line.new],
        "seed": passage.seed,
        "new_notes": sum(len(c.rows) for c in passage.written),
        "score": round(passage.mean_score, 4) if np.isfinite(passage.mean_score) else None,
        "terms": {k: round(v, 4) for k, v in passage.mean_terms.items()},
        "chunks": [_chunk(passage, chunk) for chunk in passage.written],
    }
    return told | ({"plan": passage.form.to_dict()} if passage.form else {})


def _chunk(passage: Passage, chunk: NewChunk) -> dict[str, Any]:
    told = {
        "start_s": round(chunk.start_s, 3), "end_s": round(chunk.end_s, 3), "bars": chunk.bars,
        "notes": len(chunk.rows), "attempts": chunk.attempts, "fallback": chunk.fallback,
        "bars_that_came_back": None if chunk.came_back is None else [chunk.came_back + 1, chunk.came_back + chunk.bars],
        "terms": {k: round(v, 4) for k, v in chunk.terms.items()},
    }  # fmt: skip
    return told | _beside_the_plan(passage, chunk)


def _beside_the_plan(passage: Passage, chunk: NewChunk) -> dict[str, Any]:
    """What was asked of a chunk and what it came to; nothing where there was no plan."""
    phrase = chunk.phrase
    if phrase is None:
        return {}
    first = {voice: number for number, voice in reversed(list(enumerate(map(tuple, passage.voices.tolist()))))}
    seconds = float(passage.line.grid.bar_s[chunk.first_bar : chunk.first_bar + chunk.bars].sum())
    figures = figures_of(chunk.rows, seconds)
    asked = {"density": phrase.density, "loudness": phrase.loudness, "register": phrase.register}
    played = sorted(first[voice] for voice in voices_in(chunk.rows))
    both = (
        (asked, phrase.voices, phrase.likeness, phrase.transition),
        (figures, played, chunk.likeness, chunk.transition),
    )
    sides = [
        {"voices": list(playing), **{k: round(v, 2) for k, v in values.items()},
         "likeness": None if like is None else round(like, 3), "transition": transition}
        for values, playing, like, transition in both
    ]  # fmt: skip
    source = phrase.source_bar
    return {
        "section": phrase.section,
        "kind": chunk.kind,
        "source_bars": None if source is None else [source + 1, source + phrase.bars],
        "asked": sides[0],
        "reached": sides[1],
    }
