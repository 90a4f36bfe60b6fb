"""What an evaluation found, as a page to read: quality.md with its pictures, and quality.json with every number.

Knows the dictionary that run.py's `evaluate` gives, and nothing of how it came about: neither models nor songs. All
that the page says of a run is read off the dictionary; SECTIONS tells what each figure means and which way is good.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import plots
from ..errors import BadInput
from .bootstrap import SHARE
from .discriminator import FOLDS
from .excerpts import CONTINUATION_S, PROMPT_S

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "quality"
WRITERS = ("truth", "ours", "ngram", "ngram with song", "loop", "real")  # in this order; others behind
REFERENCES = ("truth", "real")  # not written, so never the best
LOW, HIGH, OWN = -math.inf, math.inf, "the song's own"  # what is good
CHANCE = 0.25  # of the true chunk among four
NOTHING = "–"
_STYLES = {  # colour and marker of each writer
    "ours": (plots.NEW, "o"), "ngram": (plots.TRACKS[2], "s"), "ngram with song": (plots.TRACKS[4], "v"),
    "loop": (plots.GREY, "^"), "real": (plots.ORIGINAL, "D"), "truth": (plots.ORIGINAL, "D"),
}  # fmt: skip


def write_page(result: dict[str, Any], out: str | Path) -> list[Path]:
    """Writes quality.json, the pictures and quality.md of a result of `evaluate` into a folder, which is made if need
    be, and returns their paths. The result may also be one read back from quality.json. Each file appears whole or not
    at all, in the place of one of the same name; the page comes last, when all that it shows is there.

    Raises BadInput when the folder cannot be written to.
    """
    folder, run = Path(out), Run.of(result)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    written = [_write(folder / f"{NAME}.json", to_json(result) + "\n")]
    shown = set()
    for section in SECTIONS:
        figure = section.draw(run) if section.draw else None
        if figure is not None:
            plots.save(figure, picture := folder / section.picture)
            written.append(picture)
            shown.add(section.picture)
    return [*written, _write(folder / f"{NAME}.md", page(run, shown))]


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


def _write(path: Path, text: str) -> Path:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="replace")
        os.replace(part, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _unwritable(path: Path, error: OSError) -> BadInput:
    reason = error.strerror or str(error)
    return BadInput(f"{path} cannot be written ({reason}); choose a folder that can be, with room.")


# ---- what was found -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """A writer's figure: the mean over sources, its interval, the songs it rests on, each source's own mean."""

    mean: float
    low: float = math.nan
    high: float = math.nan
    songs: int | None = None
    by_source: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    result: dict[str, Any]
    figures: dict[str, dict[str, Value]]  # {figure: {writer: …}}, only those that have a value
    sources: list[str]

    @classmethod
    def of(cls, result: dict[str, Any]) -> Run:
        figures: dict[str, dict[str, Value]] = {}
        for figure, writer, value in _values(result):
            if math.isfinite(value.mean):
                figures.setdefault(figure, {})[writer] = value
        named = [s for writers in figures.values() for value in writers.values() for s in value.by_source]
        return cls(result, figures, list(dict.fromkeys([*result["songs"], *named])))

    @property
    def facts(self) -> dict[str, Any]:
        """What the texts of SECTIONS may name."""
        return self.result["scope"] | {
            "songs_heard": sum(self.result["songs"].values()), "long_min": f"{self.result['scope']['long_s'] / 60:g}",
            "prompt_s": f"{PROMPT_S:g}", "next_s": f"{CONTINUATION_S:g}", "least": 2 * FOLDS, "chance": CHANCE,
        }  # fmt: skip

    def mean(self, figure: str, writer: str) -> float:
        writers = self.figures.get(figure, {})
        return writers[writer].mean if writer in writers else math.nan

    def expanded(self, measures: Iterable[Measure]) -> list[Measure]:
        """A measure for each figure that its pattern fits, and itself where none does."""
        found = []
        for m in measures:
            for fit in (fits := [fit for name in self.figures if (fit := re.fullmatch(m.figure, name))]):
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
            low, high = (_number(pooled.get(name)) for name in ("low", "high"))
            by_source = {source: _number(value) for source, value in told.get("by_source", {}).items()}
            yield figure, writer, Value(mean, low, high, pooled.get("songs"), by_source)
            for share, quantile in told.get("quantiles", {}).items():
                yield f"{figure} quantile {share}", writer, Value(_number(quantile))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


# ---- the page -------------------------------------------------------------------------------------------------------


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
    def best(self) -> str:
        ends: dict[float | str, str] = {LOW: "lower is better", HIGH: "higher is better"}
        return ends.get(self.aim, f"best near {self.aim if isinstance(self.aim, str) else f'{self.aim:g}'}")


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    absent: str = ""  # why it may not be there
    by_source: tuple[Measure, ...] = ()  # a table each
    pooled: tuple[Measure, ...] = ()  # a row each of one table
    own: str = "song's own"  # head of the column of `Measure.own`
    more: Callable[[Run], list[str]] | None = None
    draw: Callable[[Run], Figure | None] | None = None
    picture: str = ""


def page(run: Run, pictures: Iterable[str] = ()) -> str:
    """The page in Markdown; of the `pictures` those that exist are shown."""
    blocks = _opening(run)
    for number, section in enumerate(SECTIONS, 1):
        blocks += [f"## {number}. {section.title}", section.text.format_map(run.facts)]
        by_source, pooled = run.expanded(section.by_source), run.expanded(section.pooled)
        absent = [m.label.replace("{}", "…") for m in by_source + pooled if m.figure not in run.figures]
        if absent:
            names = f" ({'; '.join(absent)})" if len(absent) < len(by_source + pooled) else ""
            blocks.append(f"*Not measured{names}: {section.absent.format_map(run.facts)}.*")
        if section.picture in pictures:
            blocks.append(f"![{section.title}]({section.picture})")
        for measure in by_source:
            if measure.figure in run.figures:
                blocks += [f"**{_text(measure.label)}** ({measure.best})", _source_table(run, measure, section.own)]
        blocks += _measure_table(run, pooled, section.own)
        blocks += section.more(run) if section.more else []
    return "\n\n".join(blocks) + "\n"


def _opening(run: Run) -> list[str]:
    result, model = run.result, run.result["model"]
    name, notes = _text(Path(model["name"]).name), result["figures"].get("nll", {}).get("notes", {})
    machine = result.get("machine", "")
    lines = {
        "Model": f"{name}, {model['parameters']:,} parameters, weights {_text(model['fingerprint'])}",
        "Music": f"split {_text(result['split'])}; songs continued by {CONTINUATION_S:g} s: {_listed(result['songs'])}",
        "Asked for": _listed(result["scope"]),
        "Notes foreseen": _listed({source: f"{count:,}" for source, count in notes.items()}),
        "Settings": _listed({"seed": result["seed"], **result["generate"]}),
        "Machine": _listed(machine) if isinstance(machine, Mapping) else _text(machine),
    }
    glance = _measure_table(run, [m for s in SECTIONS for m in run.expanded((s.by_source + s.pooled)[:1])[:1]])
    has_ngram = any("ngram" in writers for writers in run.figures.values())
    return [
        f"# Quality of {name}",
        "\n".join(f"- {what}: {text}" for what, text in lines.items() if text),
        "Writers: *ours* is the model, *ngram* a back-off n-gram over the same notes"
        f"{'' if has_ngram else ' (absent: it learns from shards of training music, of which this run had none)'}, "
        "*loop* repeats the prompt's last bars, *real* is the song itself. Every source weighs the same, however many "
        f"songs it has; in parentheses the {SHARE:.0%} bootstrap interval, songs drawn anew inside each source (none "
        "where it is rounded away). Bold is the best mean among those that write, whether or not intervals overlap; "
        f"{NOTHING} stands where there was nothing to measure.",
        *(["## At a glance", *glance] if glance else []),
    ]


def _source_table(run: Run, measure: Measure, own: str) -> str:
    """A row a source, then the pooled values; with a column for the song's own if the measure has one."""
    values, owned = run.figures[measure.figure], run.figures.get(measure.own, {}).get("ours")
    writers = _ordered(values)
    columns = [*(values[w] for w in writers), *([owned] if owned else [])]
    cells = [[_shown(v.by_source.get(source, math.nan), measure.spec) for v in columns] for source in run.sources]
    rows = [[source, *row] for source, row in zip(run.sources, cells, strict=True)]
    pooled = [*_pooled_cells(values, writers, measure), *([_shown(owned.mean, measure.spec)] if owned else [])]
    counts = [str(v.songs) for v in columns]
    return _table(
        ["source", *writers, own][: 1 + len(columns)], [*rows, ["**pooled**", *pooled], [measure.of, *counts]]
    )


def _measure_table(run: Run, measures: Iterable[Measure], own: str = "") -> list[str]:
    """Pooled values, a row a measure, with a column for the song's own where a measure has one; [] without any."""
    there = [m for m in measures if m.figure in run.figures]
    writers = _ordered(w for m in there for w in run.figures[m.figure])
    own = own if any(m.own for m in there) else ""
    rows = []
    for m in there:
        values = run.figures[m.figure]
        counts = [v.songs for v in values.values() if v.songs]
        songs = " to ".join(dict.fromkeys(str(end(counts)) for end in (min, max))) if counts else NOTHING
        owned = [_shown(run.mean(m.own, "ours"), m.spec)] if own else []
        songs += f" {m.of}" if m.of != "songs" else ""
        rows.append([m.label, *_pooled_cells(values, writers, m), *owned, songs, m.best])
    return [_table(["", *writers, *([own] if own else []), "songs", ""], rows)] if rows else []


def _pooled_cells(values: Mapping[str, Value], writers: Sequence[str], measure: Measure) -> list[str]:
    """Mean and interval of each writer, the best in bold if there are rivals that differ."""
    means = {w: _shown(value.mean, measure.spec) for w, value in values.items()}
    aim = values.get(measure.aim, Value(math.nan)).mean if isinstance(measure.aim, str) else measure.aim
    away = {w: v.mean if aim == LOW else -v.mean if aim == HIGH else abs(v.mean - aim) for w, v in values.items()}
    rivals = [w for w in values if w not in REFERENCES and not math.isnan(aim)]
    best = means[min(rivals, key=lambda w: away[w])] if len({means[w] for w in rivals}) > 1 else None
    cells = []
    for w in writers:
        value, text = values.get(w, Value(math.nan)), means.get(w, NOTHING)
        ends = [_shown(end, measure.spec) for end in (value.low, value.high)]
        text = f"**{text}**" if w in rivals and text == best else text
        cells.append(text if ends[0] == ends[1] else f"{text} ({', '.join(ends)})")
    return cells


def _shown(value: float, spec: str = ".2f") -> str:
    text = NOTHING if math.isnan(value) else f"{value:{spec}}"
    return text if text.strip("-0.%") else text.lstrip("-")


def _ordered(writers: Iterable[str]) -> list[str]:
    return sorted(dict.fromkeys(writers), key=lambda w: WRITERS.index(w) if w in WRITERS else len(WRITERS))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [map(_text, head), ["---", *["---:"] * (len(head) - 1)], *([_text(row[0]), *row[1:]] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _listed(things: Mapping[str, Any]) -> str:
    return ", ".join(f"{_text(k)} {_text(f'{v:g}' if isinstance(v, float) else v)}" for k, v in things.items())


def _text(text: Any) -> str:
    """A name as Markdown shows it, on one line and inside one cell."""
    return re.sub(r"([\\|`<\[\]])", r"\\\1", " ".join(str(text).split()))


# ---- what is more than a table of figures ---------------------------------------------------------------------------

# Of each minute: its name, and figure and writer that show the same of real music.
MINUTES = {
    "overlap": ("overlap with the song's next minute", "overlap", "real"),
    "similarity_8": ("likeness of bars 8 apart", "similarity_8", "truth"),
    "compression": ("compression", "compression", "real"),
    "notes_per_s": ("notes a second", "", ""),
    "silence_s": ("longest silence, s", "staying_own_silence_s", "ours"),
}


def _shortfalls(run: Run) -> list[str]:
    """Where ours stays farthest behind the song itself."""
    behind = [(name, w["ours"], w["real"]) for name, w in run.features().items() if w.get("ours", 1) < w.get("real", 0)]
    named = ", ".join(f"{name} ({ours:.2f} of {real:.2f})" for name, ours, real in behind[:4])
    return [f"Farthest below *real* (overlap, ours of real): {named}."] if named else []


def _minutes(run: Run) -> list[str]:
    told = run.minutes()
    rows = [[str(k + 1), *map(_shown, row)] for k, row in enumerate(zip_longest(*told.values(), fillvalue=math.nan))]
    rows.append(["all songs' own", *(_shown(run.mean(*MINUTES[name][1:])) for name in told)])
    return [_table(["minute", *(MINUTES[name][0] for name in told)], rows)] if told else []


# ---- pictures -------------------------------------------------------------------------------------------------------


def _panel(
    figure: Figure, left: float, bottom: float, height: float, width: float = 0.0, axis: Literal["both", "y"] = "y"
) -> Axes:
    """Axes with faint lines along `axis`; by default as wide as there is room."""
    axes = figure.add_axes((left, bottom, width or plots.RIGHT - left, height))
    plots.bare(axes)
    axes.grid(axis=axis, color=plots.FAINT, linewidth=0.8)
    return axes


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (plots.RIGHT, 1.0), "ncols": max(1, len(labels))}
    figure.legend(handles, labels, fontsize=10, frameon=False, labelcolor=plots.INK, **place)


def _style(writer: str) -> dict[str, Any]:
    colour, marker = _STYLES.get(writer, (plots.TRACKS[3], "P"))
    return {"color": colour, "marker": marker, "label": plots.plain(writer), "markeredgecolor": "white"}


def _draw_nll(run: Run) -> Figure | None:
    values = run.figures.get("nll", {})
    if not values:
        return None
    figure = plots.paper("Nats a note, lower is better")
    axes, width = _panel(figure, plots.LEFT, 0.17, 0.72), 0.8 / len(values)
    for k, writer in enumerate(_ordered(values)):
        value, offset = values[writer], (k - (len(values) - 1) / 2) * width
        heights = [value.mean, *(value.by_source.get(source, math.nan) for source in run.sources)]
        at, style = [i + offset for i in range(len(heights))], _style(writer)
        axes.bar(at, heights, 0.92 * width, color=style["color"], label=style["label"])
        axes.vlines(offset, value.low, value.high, color=plots.INK, linewidth=1.4)
    axes.axvline(0.5, color=plots.GREY, linewidth=0.8)
    short = [plots.short(" ".join(source.split()), 18) for source in run.sources]
    names = ["pooled", *(plots.plain(name.encode(errors="replace").decode()) for name in short)]  # any folder's name
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(names) > 9 else {}
    axes.set_xticks(range(len(names)), names, **turned)
    axes.set_xlim(-0.6, len(names) - 0.4)
    _legend(figure, axes)
    return figure


def _draw_overlap(run: Run) -> Figure | None:
    features = run.features()
    if not features:
        return None
    figure = plots.paper("Overlap with the song's own next minute, worst feature first")
    axes, rows = _panel(figure, 0.13, 0.07, 0.84, axis="both"), range(len(features))
    for k, writer in enumerate(_ordered({w for overlaps in features.values() for w in overlaps})):
        at = [overlaps.get(writer, math.nan) for overlaps in features.values()]
        axes.plot(at, rows, linestyle="", markersize=9, zorder=9 - k, **_style(writer))
    axes.set_yticks(rows, [plots.plain(name) for name in features])
    axes.set(ylim=(len(features) - 0.3, -0.7))
    _legend(figure, axes)
    return figure


def _draw_similarity(run: Run) -> Figure | None:
    lags = sorted(int(fit[1]) for name in run.figures if (fit := re.fullmatch(r"similarity_(\d+)", name)))
    if not lags:
        return None
    figure = plots.paper("Likeness of bars that lie so far apart")
    axes, told = _panel(figure, plots.LEFT, 0.09, 0.8), [run.figures[f"similarity_{lag}"] for lag in lags]
    writers = _ordered({w for values in told for w in values} - {"real"})  # the truth is to be met
    for k, writer in enumerate(writers):
        values = [of_lag.get(writer, Value(math.nan)) for of_lag in told]
        at, style = [i + 0.03 * (k - (len(writers) - 1) / 2) for i in range(len(lags))], _style(writer)
        axes.vlines(at, [v.low for v in values], [v.high for v in values], color=style["color"], alpha=0.5)
        style |= {"linewidth": 2.8 if writer in REFERENCES else 1.6, "markersize": 8, "zorder": 9 - k}
        axes.plot(at, [v.mean for v in values], **style)
    axes.set_xticks(range(len(lags)), [str(lag) for lag in lags])
    axes.set_xlabel("lag in bars", fontsize=9, color=plots.INK)
    axes.set_ylim(0, 1.03)
    _legend(figure, axes)
    return figure


def _draw_minutes(run: Run) -> Figure | None:
    told = run.minutes()
    if not told:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, step = plots.paper("Minute by minute"), (plots.RIGHT - plots.LEFT) / len(told)
    for k, (name, values) in enumerate(told.items()):
        axes = _panel(figure, plots.LEFT + k * step, 0.1, 0.72, 0.82 * step)
        axes.plot(range(1, len(values) + 1), values, linewidth=1.8, markersize=7, **_style("ours"))
        own = run.mean(*MINUTES[name][1:])
        axes.axhline(own, color=plots.ORIGINAL, linewidth=1.6, linestyle=(0, (5, 2)), label="all songs' own")
        axes.set_title(MINUTES[name][0], fontsize=9.5, color=plots.INK, loc="left")
        axes.set_ylim(0, 1.12 * max(v for v in (0.1, own, *values) if math.isfinite(v)))
        axes.set_xlabel("minute", fontsize=9, color=plots.INK)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _legend(figure, axes)
    return figure


# ---- the figures ----------------------------------------------------------------------------------------------------

SECTIONS = (
    Section(
        "How well real music is foreseen",
        "How surprised each writer is by a note of real music when it is told all notes before: nats a note, over all "
        "its fields and the decisions that a chunk ends (in the field *bar*). Lower is better. *ngram with song* also "
        "counts the song so far.",
        "no song had a stretch of music to foresee",
        (Measure("nll", "nats a note"),),
        (Measure("nll_(.*)", "of them for {}"),),
        draw=_draw_nll, picture=f"{NAME}_nll.png",
    ),
    Section(
        "Choosing the true next chunk",
        "How often the model finds the chunk that really follows likelier than three of other songs, put into its key "
        "and on its instruments. Higher is better; blind choice gives {chance}.",
        "no chunk had three fitting foils",
        (Measure("choice", "choice among four", HIGH, of="questions"),),
    ),
    Section(
        "Nearness to the song's own continuation",
        "After {prompt_s} s of a song each writer goes on for {next_s} s, which is laid over what the song itself does "
        "there, feature by feature. The share of the ceiling is that overlapped area by *real*'s, which is the song's "
        "minute after that: 1 is as near as a song is to itself. Higher is better, of KLD lower. Sets are compared as "
        "mgeval does, without pairing songs.",
        "the songs are too few or too short; the ceiling needs another {next_s} s of a song, sets need three songs",
        (Measure("overlap_share", "overlap, share of the ceiling", HIGH),),
        (
            Measure("overlap", "overlapped area, song by song", HIGH),
            Measure("set_oa", "overlapped area of sets", HIGH),
            Measure("set_kld", "KLD of sets, nats"),
        ),
        more=_shortfalls, draw=_draw_overlap, picture=f"{NAME}_overlap.png",
    ),
    Section(
        "Can a classifier tell?",
        "Boosted trees that have not seen the song rate whether a minute was written or is the song's own: an AUC of "
        "0.5 is a guess, 1 is always right. Nearer 0.5 is better. *real*, the song's minute after, differs by its "
        "place alone. With the prompt known the trees are stricter.",
        "the trees need {least} continued songs of a writer, of which there were {songs_heard}",
        pooled=(Measure("auc, (.*)", "AUC, {}", 0.5),),
    ),
    Section(
        "Structure",
        "Does music come back as it does in the song? Compression is how much shorter the notes get when what recurs "
        "is written once, the repeat is the longest exact one, likeness is that of bars so far apart. Each is best "
        "near the song's own: *real* in the first two tables, *truth* in likeness, where *real* is the minute after. "
        "The error is the distance from the song's own likeness, song by song: lower is better.",
        "no song was continued, or none so long that enough bars lie so far apart",
        (
            Measure("compression", "compression", "real"),
            Measure("longest_repeat_bars", "longest repeat, bars", "real", ".1f"),
        ),
        (
            Measure(r"similarity_(\d+)", "likeness at lag {}", "truth"),
            Measure(r"similarity_error_(\d+)", "error at lag {}"),
        ),
        draw=_draw_similarity, picture=f"{NAME}_similarity.png",
    ),
    Section(
        "Staying power",
        "Ours alone goes on for {long_min} min. Silence, strikes and verbatim loops should stay near the song's own, "
        "though longer music has longer extremes; faults are best at zero, and what is told minute by minute best "
        "stays where it begins. *All songs' own* is a minute of music, as in the other sections.",
        "no song was continued for so long ({long_songs} asked for)",
        pooled=(
            Measure("staying_stuck", "songs with stuck notes", spec=".1%"),
            Measure("staying_silent", "songs that fall silent", spec=".1%"),
            Measure("staying_silence_s", "longest silence, s", OWN, own="staying_own_silence_s"),
            Measure("staying_held_notes", "notes held too long"),
            Measure("staying_strikes", "strikes of one pitch in a row", OWN, spec=".1f", own="staying_own_strikes"),
            Measure("staying_repeats", "times a loop is played in a row", OWN, spec=".1f", own="staying_own_repeats"),
            Measure("staying_looped_bars", "bars in loops too long", spec=".1f"),
            Measure("staying_resampled", "chunks tried again", spec=".1%"),
            Measure("staying_fallback", "chunks taken from the song instead", spec=".1%"),
        ),
        more=_minutes, draw=_draw_minutes, picture=f"{NAME}_minutes.png",
    ),
    Section(
        "The seam",
        "How the new music joins on: silence, rough intervals against notes that ring across, and jumps from the last "
        "bar to the first, in units of the prompt's own steps from bar to bar. *real* is the song itself at that bar "
        "line. Less silence and roughness are better, jumps are best near *real*'s.",
        "no song was continued, or nothing rings across",
        (Measure("seam_gap_s", "silence at the seam, s", own="seam_own_gap_s"),),
        (
            Measure("seam_rough", "rough intervals", spec=".1%", own="seam_own_rough"),
            Measure("seam_(.*)_jump", "jump in {}", "real"),
        ),
        own="prompt's bar lines",
    ),
    Section(
        "Mood",
        "How far arousal and valence (rough measures of calm to excited and dark to bright) lie from the prompt's, and "
        "how they change a minute. Distances are best near those of *real*, the song itself; changes near 0.",
        "no song was continued, or the music is too short for a change",
        (
            Measure("mood_arousal_distance", "arousal, distance", "real", own="mood_arousal_own_distance"),
            Measure("mood_valence_distance", "valence, distance", "real", own="mood_valence_own_distance"),
        ),
        (
            Measure("mood_(.*)_slope", "{}, change a minute", 0.0),
            Measure("staying_mood_([a-z]+)_distance", "{}, distance, long", own="staying_mood_{}_own_distance"),
            Measure("staying_mood_(.*)_slope", "{}, change a minute, long", 0.0),
        ),
        own="prompt's stretches",
    ),
    Section(
        "Originality",
        "What is shared with the training music, in any key: eight-note grams, and the longest run of notes. *real* is "
        "held-out music and shares what all music shares; more than that is copying. Lower is better, though little "
        "alone is no merit: noise shares nothing.",
        "it needs the shards of the training music, of which this run had none",
        (
            Measure("shared_grams", "grams found in training music", spec=".1%"),
            Measure("shared_run_notes", "longest shared run, notes", spec=".1f"),
        ),
        (
            Measure("shared_grams quantile (.*)", "grams, quantile {} of songs", spec=".1%"),
            Measure("shared_run_notes quantile (.*)", "longest run, quantile {} of songs", spec=".0f"),
        ),
    ),
    Section(
        "MIREX 2025",
        "`midiex mirex prompt.json` continues a prompt of that task in its own format, so that listeners can judge "
        "midiex beside its entries; it is not measured here.",
    ),
)  # fmt: skip
