"""Forms that a person writes as letters, such as "A B A C A": turned into a form like those of the shelf.

Knows letters and forms; knows no rows and no plan.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .errors import BadInput
from .form_facts import PHRASE_FIELDS, Form, empty_fields
from .sections import letter_number

_RETURNS_FROM = 0.3  # likeness from which a form's phrase tells how phrases return
_USUAL_RETURN = 0.6  # where no form tells
_MOST_NAMES = 1000


def parse_form(text: str) -> list[int]:
    """Numbers of the sections in "A B A C" or "ABAC". Raises BadInput for anything but letters A to Z, each perhaps
    with a number as in "A2"."""
    names = re.findall(r"[A-Za-z][0-9]{0,2}|[^\s,;\-–|]+", text)
    try:
        numbers = [letter_number(name.upper()) for name in names]
    except KeyError as error:
        raise BadInput(
            f"The form '{text[:60]}' has {error}; write sections as letters, such as \"A B A C A\"."
        ) from None
    if not 1 <= len(numbers) <= _MOST_NAMES:
        raise BadInput(
            f"The form '{text[:60]}' has {len(numbers)} sections; write one to {_MOST_NAMES}, as in \"A B A\"."
        )
    return numbers


def form_of_letters(
    names: Sequence[int],
    song: Form | None,
    slots: int,
    alike: Sequence[tuple[Form, int]],
    rng: np.random.Generator,
) -> Form:
    """The `song`'s form with `slots` phrases after it whose sections are `names`, at least one phrase each.

    A section that the song has goes back to it phrase by phrase, one that came before among `names` to that; how like
    it is to be, and how new sections differ, is taken from phrases of forms `alike` (each with its opening's length).
    """
    lengths = _lengths(names, song, slots)
    opening = len(song) if song else 0
    total = opening + slots
    out = empty_fields(total)
    for name in PHRASE_FIELDS if song else ():
        out[name][:opening] = getattr(song, name)
    known: dict[int, list[int]] = {}  # section -> its phrases, as they last were
    for i in range(opening):
        section = int(out["section"][i])
        known[section] = [*known.get(section, []), i] if not out["border"][i] else [i]
    later = [(form, p) for form, first in alike for p in range(first, len(form) - 1)]
    returns = [(form, p) for form, p in later if form.likeness[p] >= _RETURNS_FROM]
    fresh = [(form, p) for form, p in later if form.likeness[p] < _RETURNS_FROM]
    at = opening
    for section, length in zip(names, lengths, strict=True):
        before, model = known.get(section), _drawn(fresh or later, rng)
        for k in range(length):
            out["section"][at], out["border"][at] = section, k == 0
            if before:
                _fill(out, at, _drawn(returns, rng), before[k % len(before)])
            else:
                _fill(out, at, _later_in(model, k), -1)
            at += 1
        known[section] = list(range(at - length, at)) if not before or before[-1] >= opening else before
    base = song if song else Form(**out)
    return replace(base, **out)


def _lengths(names: Sequence[int], song: Form | None, slots: int) -> list[int]:
    """Phrases of each section, `slots` together, in proportion to what sections of the song are."""
    usual: dict[int, list[int]] = {}
    if song is not None and len(song):
        starts = np.append(np.flatnonzero(song.border), len(song))
        for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            usual.setdefault(int(song.section[first]), []).append(last - first)
    mean = float(np.mean([length for own in usual.values() for length in own])) if usual else 1.0
    wanted = np.array([float(np.mean(usual[name])) if name in usual else max(mean, 1.0) for name in names])
    ends = np.round(np.cumsum(wanted) / wanted.sum() * (slots - len(names))).astype(int) + np.arange(1, len(names) + 1)
    return np.diff(ends, prepend=0).tolist()


def _drawn(phrases: Sequence[tuple[Form, int]], rng: np.random.Generator) -> tuple[Form, int] | None:
    return phrases[int(rng.integers(len(phrases)))] if phrases else None


def _later_in(model: tuple[Form, int] | None, k: int) -> tuple[Form, int] | None:
    """The phrase k after a form's, as far as it has any."""
    return None if model is None else (model[0], min(model[1] + k, len(model[0]) - 1))


def _fill(out: dict[str, Any], at: int, model: tuple[Form, int] | None, source: int) -> None:
    """Phrase `at` goes back to `source` (-1: to none) as the model's phrase goes back to its own."""
    out["source"][at], out["shift"][at] = source, 0
    out["of_role"][at] = np.nan
    if model is not None:
        form, p = model
        for name in ("of_role", "shares", "density", "loudness", "register", "transition", "harmony", "likeness"):
            out[name][at] = getattr(form, name)[p]
        s = int(form.source[p])
        if source >= 0 and s >= 0:  # what changes against the source, not what is
            for name in ("shares", "density", "loudness", "register"):
                out[name][at] = out[name][source] + getattr(form, name)[p] - getattr(form, name)[s]
    elif source >= 0:
        out["likeness"][at] = _USUAL_RETURN
        for name in ("shares", "density", "loudness", "register"):
            out[name][at] = out[name][source]
    else:
        out["shares"][at] = 1.0
    if source < 0:
        out["likeness"][at], out["harmony"][at] = 0.0, 0.0
