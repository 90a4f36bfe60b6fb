"""What an evaluation found: the values by figure and writer, what is good of each, and all of it as JSON.

Knows the dictionary that run.py's `evaluate` gives, and nothing of how it came about nor of the page that shows it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from . import form
from .discriminator import FOLDS
from .excerpts import CONTINUATION_S, FORM_PROMPTS_S, LONG_S, MOST_S, PROMPT_S

WRITERS = ("truth", "ours", "ngram", "ngram with song", "loop", "repeat", "real")  # in this order; others behind
REFERENCES = ("truth", "real")  # not written, so never the best
LOW, HIGH, OWN = -math.inf, math.inf, "the song's own"  # what is good
CHANCE = 0.25  # of the true chunk among four
NOTHING = "–"
FORM_GROUPS = {"form": "all songs", "band_form": "bands"}
# Of each minute: its name, and figure and writer that show the same of real music.
MINUTES = {
    "overlap": ("overlap with the song's next minute", "overlap", "real"),
    "similarity_8": ("likeness of bars 8 apart", "similarity_8", "truth"),
    "compression": ("compression", "compression", "real"),
    "notes_per_s": ("notes a second", "", ""),
    "silence_s": ("longest silence, s", "staying_own_silence_s", "ours"),
}


@dataclass(frozen=True)
class Value:
    """A writer's figure: the mean over sources, its interval, the songs it rests on, each source's own mean."""

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    songs: int | None = None
    by_source: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """A row or a table: a figure (a pattern, whose groups `label` and `own` may name) and what is good."""

    figure: str
    label: str
    aim: float | str = LOW  # LOW, HIGH, a number, a writer or OWN: the nearer to it the better
    spec: str = ".2f"
    own: str = ""  # figure of the song's own
    of: str = "songs"  # what is counted

    @property
    def good(self) -> str:
        ends: dict[float | str, str] = {LOW: "lower is better", HIGH: "higher is better"}
        return ends.get(self.aim, f"best near {self.aim if isinstance(self.aim, str) else f'{self.aim:g}'}")

    def best(self, values: Mapping[str, Value]) -> list[str]:
        """Of those that write whoever's mean is shown as the best one, if there are rivals that differ."""
        aim = values.get(self.aim, Value()).mean if isinstance(self.aim, str) else self.aim
        away = {w: v.mean if aim == LOW else -v.mean if aim == HIGH else abs(v.mean - aim) for w, v in values.items()}
        rivals = {w: shown(v.mean, self.spec) for w, v in values.items() if w not in REFERENCES}
        if math.isnan(aim) or len(set(rivals.values())) < 2:
            return []
        nearest = min(rivals, key=away.__getitem__)
        return [w for w in rivals if rivals[w] == rivals[nearest]]


@dataclass(frozen=True)
class Run:
    result: dict[str, Any]  # of the model's folder only the name
    figures: dict[str, dict[str, Value]]  # {figure: {writer: …}}, only those that have a value
    sources: list[str]

    @classmethod
    def of(cls, result: dict[str, Any]) -> Run:
        figures: dict[str, dict[str, Value]] = {}
        for figure, writer, value in _values(result):
            if math.isfinite(value.mean):
                figures.setdefault(figure, {})[writer] = value
        named = [s for writers in figures.values() for value in writers.values() for s in value.by_source]
        folder = result["model"]["name"]
        model = result["model"] | {"name": Path(folder).name or folder}  # "." has no other name
        return cls(result | {"model": model}, figures, list(dict.fromkeys([*result["songs"], *named])))

    @property
    def facts(self) -> dict[str, Any]:
        """What the page's texts may name."""
        return self.result["scope"] | {
            "songs_heard": sum(self.result["songs"].values()), "long_min": f"{self.result['scope']['long_s'] / 60:g}",
            "form_songs": self.result["scope"].get("form_songs", 0), "form_least_s": f"{LONG_S:g}",
            "form_most_s": f"{MOST_S:g}", "form_prompts": " or ".join(map("{:g}".format, FORM_PROMPTS_S)),
            "prompt_s": f"{PROMPT_S:g}", "next_s": f"{CONTINUATION_S:g}", "least": 2 * FOLDS, "chance": CHANCE,
        }  # fmt: skip

    def value(self, figure: str, writer: str) -> Value:
        return self.figures.get(figure, {}).get(writer, Value())

    def expanded(self, measures: Iterable[Measure]) -> list[Measure]:
        """A measure for each figure that its pattern fits, and itself where none does."""
        found = []
        for m in measures:
            fits = [fit for name in self.figures if (fit := re.fullmatch(m.figure, name))]
            for fit in fits:
                label, own = (text.format(*fit.groups()) for text in (m.label, m.own))
                found.append(replace(m, figure=fit[0], label=label, own=own))
            found += [] if fits else [m]
        return found

    def features(self) -> dict[str, dict[str, float]]:
        """Overlap by feature and writer; features on which ours is farthest behind the song itself come first."""
        found: dict[str, dict[str, float]] = {}
        for writer, overlaps in self.result.get("by_feature", {}).items():
            for name, overlap in overlaps.items():
                label = name.removeprefix("by_bar.").replace("_", " ") + (" by bar" if "by_bar." in name else "")
                if math.isfinite(_number(overlap)):
                    found.setdefault(label, {})[writer] = overlap
        return dict(sorted(found.items(), key=lambda f: f[1].get("ours", 0) - f[1].get("real", 0)))

    def forms(self) -> dict[tuple[str, str], dict[str, dict[str, Value]]]:
        """{writer: {figure of form.JUDGED: …}} by group (of FORM_GROUPS) and the prompt's seconds."""
        found: dict[tuple[str, str], dict[str, dict[str, Value]]] = {}
        for name, writers in self.figures.items():
            if (fit := re.fullmatch(rf"({'|'.join(FORM_GROUPS)})_([\d.]+)_(.*)", name)) and fit[3] in form.JUDGED:
                for writer, value in writers.items():
                    found.setdefault((fit[1], fit[2]), {}).setdefault(writer, {})[fit[3]] = value
        return {key: told for key, told in found.items() if "real" in told}

    def minutes(self) -> dict[str, list[float]]:
        """What MINUTES names, as far as there is any."""
        told = {name: [*map(_number, self.result.get("by_minute", {}).get(name, []))] for name in MINUTES}
        return {name: values for name, values in told.items() if any(map(math.isfinite, values))}


def _values(result: dict[str, Any]) -> Iterator[tuple[str, str, Value]]:
    """(figure, writer, value) of all that has a value for each writer."""
    trees = {f"auc, {kind}": writers for kind, writers in result.get("discriminator", {}).items()}
    for figure, writers in (result["figures"] | trees).items():
        for writer, told in writers.items():
            if writer == "notes":  # how many, of nats a note
                continue
            pooled = told.get("pooled", told)
            mean = _number(pooled.get("mean", pooled.get("auc")))
            low, high = _number(pooled.get("low")), _number(pooled.get("high"))
            by_source = {source: _number(value) for source, value in told.get("by_source", {}).items()}
            yield figure, writer, Value(mean, low, high, pooled.get("songs"), by_source)
            for share, quantile in told.get("quantiles", {}).items():
                yield f"{figure} quantile {share}", writer, Value(_number(quantile))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def ordered(*writers: Iterable[str]) -> list[str]:
    """Each writer once, as WRITERS has them."""
    each = dict.fromkeys(chain(*writers))
    return sorted(each, key=lambda w: WRITERS.index(w) if w in WRITERS else len(WRITERS))


def shown(value: float, spec: str = ".2f") -> str:
    """The number as the page shows it: a dash for NaN, no negative zero."""
    text = NOTHING if math.isnan(value) else f"{value:{spec}}"
    return text if text.strip("-0.%") else text.lstrip("-")


def to_json(value: Any) -> str:
    """JSON with null for what is no finite number; an object of plain values stands on one line."""
    text = json.dumps(_plain(value), indent=1)
    return re.sub(r"\{[^{}]*\}", lambda match: re.sub(r"\n *", " ", match[0]), text)  # strings hold no raw line breaks


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
