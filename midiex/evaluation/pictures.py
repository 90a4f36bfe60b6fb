"""The pictures of an evaluation. Know what was found and how pictures look (plots.py), not the page they stand on."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal

from .. import plots
from .findings import MINUTES, REFERENCES, Run, Value, ordered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = {  # colour and marker of each writer
    "ours": (plots.NEW, "o"), "ngram": (plots.TRACKS[2], "s"), "ngram with song": (plots.TRACKS[4], "v"),
    "loop": (plots.GREY, "^"), "repeat": (plots.GREY, "<"), "real": (plots.ORIGINAL, "D"),
    "truth": (plots.ORIGINAL, "D"),
}  # fmt: skip


def _nll(run: Run) -> Figure | None:
    """Bars of nats a note, pooled and by source."""
    values = run.figures.get("nll", {})
    if not values:
        return None
    figure = plots.paper("Nats a note, lower is better")
    axes, width = _panel(figure, plots.LEFT, 0.17, 0.72), 0.8 / len(values)
    for k, writer in enumerate(ordered(values)):
        value, offset, style = values[writer], (k - (len(values) - 1) / 2) * width, _style(writer)
        heights = [value.mean, *(value.by_source.get(source, math.nan) for source in run.sources)]
        at = [i + offset for i in range(len(heights))]
        axes.bar(at, heights, 0.92 * width, color=style["color"], label=style["label"])
        axes.vlines(offset, value.low, value.high, color=plots.INK, linewidth=1.4)
    axes.axvline(0.5, color=plots.GREY, linewidth=0.8)
    short = [plots.short(" ".join(source.split()), 18) for source in run.sources]
    names = ["pooled", *(plots.plain(name.encode(errors="replace").decode()) for name in short)]  # any folder's name
    turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(names) > 9 else {}
    axes.set_xticks(range(len(names)), names, **turned)
    axes.set_xlim(-0.6, len(names) - 0.4)
    return _named(figure, axes)


def _overlap(run: Run) -> Figure | None:
    """A row of points a feature."""
    features = run.features()
    if not features:
        return None
    figure = plots.paper("Overlap with the song's own next minute, worst feature first")
    axes, rows = _panel(figure, 0.13, 0.07, 0.84, axis="both"), range(len(features))
    for k, writer in enumerate(ordered(*features.values())):
        at = [overlaps.get(writer, math.nan) for overlaps in features.values()]
        axes.plot(at, rows, linestyle="", markersize=9, zorder=9 - k, **_style(writer))
    axes.set_yticks(rows, [plots.plain(name) for name in features])
    axes.set(ylim=(len(features) - 0.3, -0.7))
    return _named(figure, axes)


def _similarity(run: Run) -> Figure | None:
    """A line a writer over lags, with its intervals."""
    lags = sorted(int(fit[1]) for name in run.figures if (fit := re.fullmatch(r"similarity_(\d+)", name)))
    if not lags:
        return None
    figure = plots.paper("Likeness of bars that lie so far apart")
    axes, told = _panel(figure, plots.LEFT, 0.09, 0.8), [run.figures[f"similarity_{lag}"] for lag in lags]
    writers = [w for w in ordered(*told) if w != "real"]  # the truth is to be met
    for k, writer in enumerate(writers):
        values, style = [of_lag.get(writer, Value()) for of_lag in told], _style(writer)
        at = [i + 0.03 * (k - (len(writers) - 1) / 2) for i in range(len(lags))]
        axes.vlines(at, [v.low for v in values], [v.high for v in values], color=style["color"], alpha=0.5)
        style |= {"linewidth": 2.8 if writer in REFERENCES else 1.6, "markersize": 8, "zorder": 9 - k}
        axes.plot(at, [v.mean for v in values], **style)
    axes.set_xticks(range(len(lags)), [str(lag) for lag in lags])
    axes.set_xlabel("lag in bars", fontsize=9, color=plots.INK)
    axes.set_ylim(0, 1.03)
    return _named(figure, axes)


def _minutes(run: Run) -> Figure | None:
    """A panel for each of MINUTES."""
    told = run.minutes()
    if not told:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, step = plots.paper("Minute by minute"), (plots.RIGHT - plots.LEFT) / len(told)
    for k, (name, values) in enumerate(told.items()):
        axes = _panel(figure, plots.LEFT + k * step, 0.1, 0.72, 0.82 * step)
        axes.plot(range(1, len(values) + 1), values, linewidth=1.8, markersize=7, **_style("ours"))
        title, *same = MINUTES[name]
        own = run.value(*same).mean
        axes.axhline(own, color=plots.ORIGINAL, linewidth=1.6, linestyle=(0, (5, 2)), label="all songs' own")
        axes.set_title(title, fontsize=9.5, color=plots.INK, loc="left")
        axes.set_ylim(0, 1.12 * max(v for v in (0.1, own, *values) if math.isfinite(v)))
        axes.set_xlabel("minute", fontsize=9, color=plots.INK)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return _named(figure, axes)


# Each file's picture of a run, None when there is nothing of the kind.
PICTURES = {
    "quality_nll.png": _nll, "quality_overlap.png": _overlap, "quality_similarity.png": _similarity,
    "quality_minutes.png": _minutes,
}  # fmt: skip


def _panel(
    figure: Figure, left: float, bottom: float, height: float, width: float = 0.0, axis: Literal["both", "y"] = "y"
) -> Axes:
    """Axes with faint lines along `axis`; by default as wide as there is room."""
    axes = figure.add_axes((left, bottom, width or plots.RIGHT - left, height))
    plots.bare(axes)
    axes.grid(axis=axis, color=plots.FAINT, linewidth=0.8)
    return axes


def _style(writer: str) -> dict[str, Any]:
    colour, marker = _STYLES.get(writer, (plots.TRACKS[3], "P"))
    return {"color": colour, "marker": marker, "label": plots.plain(writer), "markeredgecolor": "white"}


def _named(figure: Figure, axes: Axes) -> Figure:
    """The figure with a legend of what is drawn in the axes."""
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (plots.RIGHT, 1.0), "ncols": max(1, len(labels))}
    figure.legend(handles, labels, fontsize=10, frameon=False, labelcolor=plots.INK, **place)
    return figure
