"""The plan of new music, phrase by phrase, before a note is written: plain data that can be read, edited and kept.

Every phrase to come says which section it is of, which earlier bars it goes back to and how like them it is to be,
which voices play and how intense it is. A phrase is a chunk: 2, 4 or 8 bars, about ten seconds. Knows names and
numbers; knows no rows, no files and no network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .errors import BadInput
from .roles import ROLES

# How a phrase goes back to its source, from note for note to not at all.
SAME, VARIED, NEW_LEAD, HARMONY, NEW = KINDS = ("same", "varied", "new lead", "harmony", "new")
TRANSITIONS = ("", "fill", "pickup", "break", "crash")
MOST_PHRASES = 10_000


@dataclass(frozen=True)
class SongPhrase:
    """A phrase of the song itself: bars [first_bar, first_bar + bars), counted from 0."""

    first_bar: int
    bars: int
    section: str  # letter, such as "A"


@dataclass(frozen=True)
class PlannedPhrase:
    """A phrase to be written: bars [first_bar, first_bar + bars) of the result, counted from 0."""

    first_bar: int
    bars: int
    section: str
    kind: str  # one of KINDS
    source_bar: int | None  # bar of the result, before `first_bar`, at which its source begins; None: it has none
    voices: tuple[int, ...]  # which of the song's voices play, by their index
    density: float  # notes a second
    loudness: float  # mean velocity, 0 to 127
    register: float  # mean pitch of what is no drum
    likeness: float | None = None  # share of notes in common with the source (Jaccard); None: as it comes
    likeness_of: Mapping[str, float] = field(default_factory=dict)  # the same by role (ROLES), where it is known
    transition: str = ""  # one of TRANSITIONS: what happens at its end ("crash": at its beginning)


@dataclass(frozen=True)
class FormPlan:
    """The song's own phrases, and those to come."""

    song: tuple[SongPhrase, ...]
    phrases: tuple[PlannedPhrase, ...]
    seed: int = 0

    @property
    def form(self) -> str:
        """Letters of the sections to come, one a run of phrases: "A B A"."""
        return letters([p.section for p in self.phrases])

    @property
    def song_form(self) -> str:
        """Letters of the song's own sections."""
        return letters([p.section for p in self.song])

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; bars count from 1, as everywhere a person reads them."""
        return {
            "song_form": self.song_form,
            "form": self.form,
            "seed": self.seed,
            "song": [_from_one(asdict(phrase)) for phrase in self.song],
            "phrases": [_from_one(asdict(phrase)) for phrase in self.phrases],
        }

    @classmethod
    def from_dict(cls, data: Any) -> FormPlan:
        """A plan from what `to_dict` gives, edited or not. Raises BadInput naming what is wrong."""
        try:
            song = tuple(_phrase(SongPhrase, phrase) for phrase in data["song"])
            phrases = tuple(_phrase(PlannedPhrase, phrase) for phrase in data["phrases"])
            seed = int(data.get("seed", 0))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadInput(f"This is no plan of midiex ({error}); start from one that `midiex.plan` made.") from None
        if len(phrases) > MOST_PHRASES:
            raise BadInput(f"A plan of {len(phrases)} phrases is too long; the limit is {MOST_PHRASES}.")
        return cls(song, phrases, seed)


def letters(sections: list[str]) -> str:
    """Sections of phrases, those in a row named once."""
    return " ".join(name for i, name in enumerate(sections) if i == 0 or name != sections[i - 1])


def _from_one(phrase: dict[str, Any]) -> dict[str, Any]:
    """With bars counted from 1, and figures rounded for people."""
    shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in phrase.items()}
    for key in ("first_bar", "source_bar"):
        if shown.get(key) is not None:
            shown[key] += 1
    return shown


def _phrase(kind: type, data: Mapping[str, Any]) -> Any:
    known = {f.name for f in fields(kind)}
    if unknown := set(data) - known:
        raise ValueError(f"a phrase has no '{sorted(unknown)[0]}'")
    values = dict(data)
    for key in ("first_bar", "source_bar"):
        if values.get(key) is not None:
            values[key] = _whole(key, values[key]) - 1
    values["bars"] = _whole("bars", values["bars"])
    if not isinstance(values["section"], str):
        raise ValueError(f"section is {values['section']!r}; it is a letter")
    if values["bars"] < 1 or values["first_bar"] < 0:
        raise ValueError(f"bars {values['first_bar'] + 1} and {values['bars']} more are no phrase")
    if kind is PlannedPhrase:
        _check_planned(values)
    return kind(**values)


def _check_planned(values: dict[str, Any]) -> None:
    if values["kind"] not in KINDS:
        raise ValueError(f"kind is {values['kind']!r}; it is one of {', '.join(KINDS)}")
    if values.get("transition", "") not in TRANSITIONS:
        raise ValueError(f"transition is {values['transition']!r}; it is one of {', '.join(TRANSITIONS)}")
    if unknown := set(values.get("likeness_of", {})) - set(ROLES):
        raise ValueError(f"likeness_of speaks of {sorted(unknown)[0]!r}; the roles are {', '.join(ROLES)}")
    source = values.get("source_bar")
    if source is not None and not 0 <= source <= values["first_bar"] - values["bars"]:
        raise ValueError(f"the phrase at bar {values['first_bar'] + 1} cannot go back to bar {source + 1}")
    if source is None and values["kind"] != NEW:
        raise ValueError(f"the phrase at bar {values['first_bar'] + 1} is to be {values['kind']!r}, but has no source")
    values["voices"] = tuple(_whole("voices", voice) for voice in values["voices"])
    for key in ("density", "loudness", "register"):
        values[key] = _number(key, values[key], math.inf)
    if values.get("likeness") is not None:
        values["likeness"] = _number("likeness", values["likeness"], 1.0)
    of_role = dict(values.get("likeness_of", {}))
    values["likeness_of"] = {role: _number(f"likeness_of {role}", of_role[role], 1.0) for role in of_role}


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"{key} holds {str(value)[:40]!r}; it takes whole numbers")
    return int(value)


def _number(key: str, value: Any, most: float) -> float:
    number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    if not math.isfinite(number) or not 0 <= number <= most:
        raise ValueError(f"{key} is {str(value)[:40]!r}; it is a number from 0 {'on' if most > 1 else 'to 1'}")
    return number
