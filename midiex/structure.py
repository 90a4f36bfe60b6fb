"""Pictures of how a song holds together: which bars are alike, and how its mood moves.

Each picture has its figures in pure functions on arrays, so that they can be tested and used without it. Knows MIDI
files, rows and figures; must not know models, nor how the new music was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import conditions, metrics, plots, score, tokens
from .chunks import chunk_starts
from .grid import BarGrid
from .plots import Floats, Span
from .tokens import BAR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LAG_BARS = 64
FEWEST_PAIRS = 4  # of bars at one lag, below which their mean says nothing
MAX_CELLS = 2048  # along each side of the matrix; longer songs (an hour and more) have several bars a cell
_SHOWN_CELLS = 512  # what the picture has pixels for

_STYLES: dict[str, dict[str, Any]] = {
    "original": {"color": plots.ORIGINAL, "linestyle": "-", "marker": "o"},
    "new": {"color": plots.NEW, "linestyle": (0, (5, 1.5)), "marker": "s", "markerfacecolor": "white"},
}


@dataclass(frozen=True)
class Proxy:
    """How well a mood figure of metrics.py can be trusted.

    `auc` and `balanced_accuracy` are those of a regression on listeners' two classes of game piano phrases, of which
    the figure is a rounded version. `spread` is the figure's own standard deviation over ten-second chunks of piano
    music (1,476 chunks of the training music's four piano sources), which stands in for its unknown spread over the
    labelled phrases.
    """

    low: str
    high: str
    auc: float
    balanced_accuracy: float
    spread: float

    @property
    def separation(self) -> float:
        """Distance of the two classes' means in standard deviations of one class, if both are normal with the same
        deviation: d' = sqrt(2) * inverse normal(AUC) (Green and Swets, Signal Detection Theory, 1966)."""
        return float(np.sqrt(2) * NormalDist().inv_cdf(self.auc))

    @property
    def error(self) -> float:
        """Standard deviation inside a class, taken as the figure's error: what phrases that listeners called the same
        differ by. Two equally frequent classes d' apart make spread^2 = error^2 * (1 + d'^2 / 4)."""
        return float(self.spread / np.sqrt(1 + self.separation**2 / 4))


PROXIES = {
    "arousal": Proxy("calm", "excited", 0.87, 0.81, 0.87),
    "valence": Proxy("dark", "bright", 0.74, 0.67, 0.66),
}


@dataclass(frozen=True)
class Mood:
    """Mood by chunk of about ten seconds; a chunk lies wholly in new or in original music."""

    edges_s: Floats  # (chunks + 1,)
    new: npt.NDArray[np.bool_]  # (chunks,)
    figures: dict[str, Floats]  # arousal and valence, (chunks,); NaN where no notes tell


# ---- figures --------------------------------------------------------------------------------------------------------


def greatest_of(matrix: np.ndarray, size: int) -> np.ndarray:
    """The greatest value of each `size` x `size` cells, (n, n) -> (ceil(n / size),) * 2: lines one cell wide stay."""
    starts = np.arange(0, len(matrix), size)
    return np.maximum.reduceat(np.maximum.reduceat(matrix, starts, axis=0), starts, axis=1)


def likeness_by_lag(likeness: np.ndarray, member: np.ndarray, most: int = MAX_LAG_BARS) -> Floats:
    """Mean likeness of cells that lie 1, 2, ... `most` apart and are both members, shape (most,).

    `likeness` (cells, cells), `member` (cells,) of bool. NaN where there are fewer than FEWEST_PAIRS such pairs.
    """
    means = np.full(most, np.nan)
    for lag in range(1, min(most, len(likeness) - 1) + 1):
        both = member[lag:] & member[:-lag]
        if both.sum() >= FEWEST_PAIRS:
            means[lag - 1] = np.diagonal(likeness, lag)[both].mean(dtype=np.float64)
    return means


def mood_by_chunk(rows: np.ndarray, grid: BarGrid, new: np.ndarray) -> Mood:
    """Arousal and valence of each chunk of a song's rows (n, 8); `new` (bars,) of bool tells which bars are new.

    A chunk's figures are those of `conditions.features`, on all its notes. Without notes both are NaN, without pitched
    notes valence is.
    """
    turns = [0, *(np.flatnonzero(np.diff(new)) + 1).tolist(), len(grid)]
    borders = np.concatenate(
        [chunk_starts(grid.bar_s[:end], start)[:-1] for start, end in zip(turns, turns[1:], strict=False)]
        + [[len(grid)]]
    ).astype(np.int64)
    edges = np.searchsorted(rows[:, BAR], borders)
    figures: dict[str, list[float]] = {name: [] for name in PROXIES}
    for i, (start, end) in enumerate(zip(borders, borders[1:], strict=False)):
        part = rows[edges[i] : edges[i + 1]]
        beats, seconds = grid.bar_beats[start:end].sum(), grid.bar_s[start:end].sum()
        found = conditions.features(part, float(beats), float(seconds))
        figures["arousal"].append(found["arousal"] if len(part) else np.nan)
        figures["valence"].append(found["valence"] if found["tuned"] else np.nan)
    return Mood(grid.seconds[borders], new[borders[:-1]], {name: np.array(values) for name, values in figures.items()})


# ---- which bars are alike -------------------------------------------------------------------------------------------


def structure_plot(midi_path: str | Path, png_path: str | Path, new_s: Sequence[Span] = (), title: str = "") -> None:
    """Draws how alike the bars of a MIDI file are, as a picture of 1760 x 660 pixels.

    On the left every bar against every other, on the right the mean likeness by distance in bars, of the original and
    of the new music (the spans `new_s`, in seconds) each among itself. What repeats shows as lines along the diagonal
    and as peaks. Raises BadInput as `plots.piano_roll` does.
    """
    target, spans = plots.png_target(png_path), plots.clean_spans(new_s)
    song = score.read(midi_path)
    rows, grid = _rows(song), song.grid
    bars_per_cell = -(-len(grid) // MAX_CELLS)
    likeness = metrics.bar_likeness(rows, len(grid), bars_per_cell)
    new = plots.is_new(grid.seconds[:-1:bars_per_cell], spans)
    figure = plots.paper(title)
    pooled = -(-len(likeness) // _SHOWN_CELLS)
    what = "likeness of " + ("two bars" if bars_per_cell == 1 else f"{bars_per_cell} bars and {bars_per_cell} others")
    what += f", greatest of {pooled} × {pooled}" if pooled > 1 else ""
    shown, cell_bars = greatest_of(likeness, pooled), pooled * bars_per_cell
    _draw_matrix(figure, shown, cell_bars, what, grid, _in_bars(spans, grid))
    _draw_lags(figure, likeness, new, bars_per_cell)
    caption = (
        "Likeness of two bars: the share of their notes that agree in sixteenth, instrument and pitch.\n"
        f"Lines beside the diagonal, and peaks on the right: music that returns. Means of {FEWEST_PAIRS} or more pairs."
    )
    style: dict[str, Any] = {"fontsize": 8.5, "color": plots.GREY, "ha": "right", "va": "top", "linespacing": 1.35}
    figure.text(plots.RIGHT, 0.985, caption, **style)
    plots.save(figure, target)


def _rows(song: score.Song) -> np.ndarray:
    return tokens.encode(tokens.notes_of(song.score), tokens.voice_ids(song.score), song.grid)


def _in_bars(spans: Sequence[Span], grid: BarGrid) -> list[Span]:
    """The spans in bars since the beginning."""
    borders = np.arange(len(grid) + 1)
    inside = [np.interp(span, grid.seconds, borders) for span in spans]
    return [(float(start), float(end)) for start, end in inside if end > start]


def _draw_matrix(
    figure: Figure, likeness: np.ndarray, cell_bars: int, what: str, grid: BarGrid, spans: list[Span]
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    bars, bottom, height = len(grid), 0.085, 0.765
    width = height * plots.SIZE_PX[1] / plots.SIZE_PX[0]
    shades = LinearSegmentedColormap.from_list("likeness", ["#ffffff", "#c3d5e8", "#6f9bc6", "#235a96", "#0a1d38"])
    matrix = figure.add_axes((plots.LEFT, bottom, width, height))
    extent = (0.0, cell_bars * len(likeness)) * 2
    image = matrix.imshow(likeness, cmap=shades, vmin=0, vmax=1, origin="lower", extent=extent, interpolation="nearest")
    matrix.set(xlim=(0, bars), ylim=(0, bars))
    strip = plots.add_strip(figure, plots.LEFT, bottom + height + 0.008, width, bool(spans))
    plots.draw_strip(strip, spans, bars)
    for start, end in spans:
        for border in (start, end):
            if 0 < border < bars:
                matrix.axvline(border, color=plots.NEW, linewidth=1.3)
                matrix.axhline(border, color=plots.NEW, linewidth=1.3)
    _number_cells(matrix, strip, grid)
    bar = figure.colorbar(image, cax=figure.add_axes((plots.LEFT + width + 0.01, bottom, 0.008, height)))
    bar.ax.tick_params(labelsize=8, length=0, labelcolor=plots.INK)
    bar.set_label(what, fontsize=9, color=plots.INK)
    bar.outline.set_visible(False)


def _number_cells(matrix: Axes, strip: Axes, grid: BarGrid) -> None:
    """Bar numbers on both sides of the matrix, time above it."""
    bars = len(grid)
    step = next(step for n in range(9) for step in (10**n, 2 * 10**n, 4 * 10**n) if bars / step <= 11)
    marks = [1, *range(step, bars + 1, step)] if step > 1 else list(range(1, bars + 1))
    marks = [mark for mark in marks if mark == 1 or mark - 1 >= step / 2]
    places = [mark - 0.5 for mark in marks]  # the middle of the bar
    matrix.set_xticks(places, [str(mark) for mark in marks])
    matrix.set_yticks(places, [str(mark) for mark in marks])
    matrix.tick_params(labelsize=8.5, length=3, color="#9aa1ab", labelcolor=plots.INK)
    matrix.set_xlabel("bar", fontsize=9, color=plots.INK, labelpad=1)
    for spine in matrix.spines.values():
        spine.set_color("#9aa1ab")
    step_s = next((s for s in plots.TIME_STEPS_S if grid.seconds[-1] / s <= 9), 7200)
    times_s = np.arange(0, grid.seconds[-1], step_s)
    strip.set_xlim(0, bars)
    strip.set_xticks(np.interp(times_s, grid.seconds, np.arange(bars + 1)), [plots.clock(time_s) for time_s in times_s])
    strip.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=3, color="#9aa1ab", pad=2)


def _draw_lags(figure: Figure, likeness: np.ndarray, new: np.ndarray, bars_per_cell: int) -> None:
    axes = figure.add_axes((0.44, 0.085, plots.RIGHT - 0.44, 0.745))
    most = max(1, MAX_LAG_BARS // bars_per_cell)
    lags = bars_per_cell * np.arange(1, most + 1)
    parts = [("original", ~new), ("new", new)] if new.any() else [("whole song", ~new)]
    top = 0.0
    for name, member in parts:
        means = likeness_by_lag(likeness, member, most)
        top = max(top, float(np.nanmax(means, initial=0.0)))
        style = _STYLES["new" if name == "new" else "original"]
        label = f"{name} ({int(member.sum()) * bars_per_cell} bars)"
        if np.isnan(means).all():
            label += ": too short"
        axes.plot(lags, means, label=label, markersize=5, linewidth=1.6, **style)
    plots.bare(axes)
    last = max(4, min(MAX_LAG_BARS, bars_per_cell * len(likeness)))
    axes.set_xlim(0, last + 1)
    axes.set_ylim(0, min(1.02, max(0.2, 1.15 * top)))
    axes.set_xticks([1, *range(4, last + 1, 4)])
    axes.grid(axis="y", color=plots.FAINT, linewidth=0.8)
    for phrase in (4, 8, 16, 32, 64):  # lines beyond the last lag are not seen
        axes.axvline(phrase, color=plots.FAINT, linewidth=0.8, zorder=0)
    axes.set_xlabel("lag in bars", fontsize=9, color=plots.INK, labelpad=1)
    head: dict[str, Any] = {"fontsize": 11, "fontweight": "bold", "color": plots.INK, "loc": "left", "pad": 8}
    axes.set_title("Mean likeness of bars that lie so far apart", **head)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9, frameon=False, labelcolor=plots.INK)


# ---- how the mood moves ---------------------------------------------------------------------------------------------


def mood_plot(midi_path: str | Path, png_path: str | Path, new_s: Sequence[Span] = (), title: str = "") -> None:
    """Draws arousal and valence of a MIDI file by chunk of about ten seconds, as a picture of 1760 x 660 pixels.

    `new_s` are the spans (start, end) of new music in seconds. The band about each line is the proxy's error, one
    standard deviation to either side (see `Proxy.error`). Raises BadInput as `plots.piano_roll` does.
    """
    target, spans = plots.png_target(png_path), plots.clean_spans(new_s)
    song = score.read(midi_path)
    grid = song.grid
    mood = mood_by_chunk(_rows(song), grid, plots.is_new(grid.seconds[:-1], spans))
    length_s = max([float(grid.seconds[-1]), *(end for _, end in spans)])
    figure = plots.paper(title)
    left, width = plots.LEFT, 0.846
    strip = plots.add_strip(figure, left, 0.862, width, bool(spans))
    plots.draw_strip(strip, spans, length_s)
    plots.number_bars(strip, grid.seconds, length_s)
    for name, bottom in zip(PROXIES, (0.5, 0.125), strict=True):
        panel = figure.add_axes((left, bottom, width, 0.362 if bottom > 0.3 else 0.345))
        plots.draw_tint(panel, spans)
        plots.bare(panel)
        plots.number_seconds(panel, length_s)
        panel.tick_params(axis="x", bottom=bottom < 0.3, labelbottom=bottom < 0.3)
        _draw_mood(panel, name, mood)
    note = (
        "Band: ± one standard deviation among phrases that listeners classed alike, worked out from the AUC for two "
        "normal classes; where bands overlap, no difference is shown.\nAUC and accuracy: of a regression on labelled "
        "game piano phrases; the figures drawn are rounded versions of it, not themselves measured, nor tried on other "
        "music."
    )
    figure.text(left, 0.012, note, fontsize=8, color=plots.GREY, va="bottom", linespacing=1.35)
    plots.save(figure, target)


def _draw_mood(panel: Axes, name: str, mood: Mood) -> None:
    proxy, values = PROXIES[name], mood.figures[name]
    seconds = np.diff(mood.edges_s)
    means: list[tuple[str, float]] = []
    for part, member in (("original", ~mood.new), ("new", mood.new)):
        here = np.where(member, values, np.nan)
        style = _STYLES[part]
        band: dict[str, Any] = {"fill": True, "color": style["color"], "alpha": 0.2, "linewidth": 0, "zorder": 2}
        panel.stairs(here + proxy.error, mood.edges_s, baseline=here - proxy.error, **band)
        panel.stairs(here, mood.edges_s, baseline=None, color=style["color"], linewidth=2.2, zorder=4)
        known = ~np.isnan(here)
        if known.any():
            means.append((part, float(np.average(here[known], weights=seconds[known]))))
    reach = max(2.0, 1.3 * (float(np.nanmax(np.abs(values), initial=0.0)) + proxy.error))  # with room for words
    panel.set_ylim(-reach, reach)
    panel.axhline(0, color="#9aa1ab", linewidth=0.8, zorder=1)
    panel.grid(axis="y", color="#cdd1d8", linewidth=0.6)
    panel.yaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    _label_mood(panel, name, mood, means, reach)


def _label_mood(panel: Axes, name: str, mood: Mood, means: list[tuple[str, float]], reach: float) -> None:
    proxy = PROXIES[name]
    inside: dict[str, Any] = {"transform": panel.transAxes, "fontsize": 8.5, "color": plots.GREY, "zorder": 7}
    inside |= {"bbox": {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1.5}}
    panel.text(0.006, 0.03, proxy.low, va="bottom", **inside)
    panel.text(0.006, 0.97, proxy.high, va="top", **inside)
    trust = (
        f"{name.capitalize()}: AUC {proxy.auc:.2f}, balanced accuracy {proxy.balanced_accuracy:.2f}; "
        f"band ± {proxy.error:.2f}, {proxy.low} and {proxy.high} phrases lie {proxy.separation * proxy.error:.2f} apart"
    )
    panel.text(0.994, 0.97, trust, va="top", ha="right", **(inside | {"color": plots.INK, "fontsize": 9.5}))
    gap = 0.17 * reach  # a line of text
    heights = [mean for _, mean in means]
    if len(means) == 2 and abs(heights[0] - heights[1]) < gap:
        middle, sign = sum(heights) / 2, 1 if heights[0] >= heights[1] else -1
        heights = [middle + sign * gap / 2, middle - sign * gap / 2]
    if not means:
        panel.text(0.5, 0.5, "no pitched notes to tell it from", va="center", ha="center", **inside)
    for (part, mean), height in zip(means, heights, strict=True):
        style: dict[str, Any] = {"color": _STYLES[part]["color"], "linewidth": 1, "linestyle": (0, (4, 3))}
        panel.axhline(mean, zorder=3, **style)
        label = f"{part}: mean {mean:+.2f}" if mood.new.any() else f"mean {mean:+.2f}"
        panel.annotate(
            label.replace("-", "−"), (1, height), (6, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=9, fontweight="bold", color=_STYLES[part]["color"],
        )  # fmt: skip
