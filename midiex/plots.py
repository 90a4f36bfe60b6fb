"""Pictures of a song: the piano roll, and what all pictures share (paper, strip of original and new, saving).

Knows the notes of a MIDI file and matplotlib, which is imported only when something is drawn and without pyplot's
global state, so that any thread may draw. Must not know tokens, models, nor how the new music was made.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import form_strip, score
from .errors import BadInput
from .form_strip import Section
from .libraries import quietly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
Span = tuple[float, float]  # start and end in seconds

ORIGINAL, NEW = "#1b4f8a", "#e8710a"  # told apart by every kind of colour vision, and in grey
# One colour a track: safe for the colour-blind, dark enough for white paper; a second, darker round follows.
TRACKS = ("#0072b2", "#d55e00", "#009e73", "#cc6699", "#56b4e9", "#e69f00", "#4d4d4d", "#a89400")
INK, PALE, FAINT, GREY = "#30343b", "#e3e6ea", "#d9dce1", "#6f7681"
TINT = "#f4ecda"  # paper under new music: off-white in grey, too
SIZE_PX, LEFT, RIGHT = (1760, 660), 0.045, 0.985  # of a picture; of what is drawn in it, in widths of the picture
_DPI = 110
_MUTED = 0.2  # of a note of the original, how much is paper
_MAX_NAMES = 11
TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
# Rows of the drum lane from the bottom: General MIDI keys of each family; every other key is percussion.
_DRUMS = {
    "kick": (35, 36),
    "snare": (37, 38, 39, 40),
    "toms": (41, 43, 45, 47, 48, 50),
    "hi-hat": (42, 44, 46),
    "cymbals": (49, 51, 52, 53, 55, 57, 59),
    "percussion": (),
}


@dataclass(frozen=True)
class Beside:
    """What a picture is to have in common with that of another file, so that the two can be held side by side."""

    midi_path: str | Path  # the other file: a track has the same colour in both pictures, pitch the same range
    until_s: float = 0.0  # where the picture ends at the earliest
    seam_s: float | None = None  # a moment that gets the dark line of a border of new music


@dataclass(frozen=True)
class _Notes:
    """Columns of equal length (N,): what is drawn of each note."""

    start_s: Floats
    end_s: Floats
    pitch: npt.NDArray[np.int64]
    velocity: npt.NDArray[np.int64]
    drum: npt.NDArray[np.bool_]
    line: npt.NDArray[np.int64]  # index into `names`
    names: tuple[str, ...]  # of the tracks, most notes first
    lines: tuple[tuple[tuple[int, int], str], ...]  # (track, channel) of each, and its name before they were numbered


def piano_roll(
    midi_path: str | Path,
    png_path: str | Path,
    new_s: Sequence[Span] = (),
    chunk_borders_s: Sequence[float] = (),
    title: str = "",
    bar_times_s: Sequence[float] = (),
    sections: Sequence[Section] = (),
    beside: Beside | None = None,
) -> None:
    """Draws a MIDI file as a piano roll of 1760 x 660 pixels, with a lane for the drums beneath.

    Every track has its colour. `new_s` are the spans (start, end) of new music: they lie on tinted paper under a dark
    strip that says "new", the rest on white under a pale strip that says "original". `chunk_borders_s` become faint
    lines, `bar_times_s` (the start of every bar, from the first; by default the file's own) bar numbers along the top.
    `sections` (start, end, letter, kind) become a strip of their own above. Louder notes are stronger. `beside` names a
    file whose picture this one is to be compared with. The picture appears only when complete.

    Raises BadInput for a MIDI file without readable notes, spans that end before they start, a name that does not end
    in .png or a folder that cannot be written to.
    """
    target = png_target(png_path)
    song = score.read(midi_path)
    notes = _notes(song)
    spans = clean_spans(new_s)
    length_s = max([1.0, *notes.end_s, *(end for _, end in spans), *chunk_borders_s])
    pitches = notes.pitch[~notes.drum]
    if beside:
        other = _notes(score.read(beside.midi_path))
        pitches = np.append(pitches, other.pitch[~other.drum])
        notes, length_s = _as_beside(other, notes), max(length_s, beside.until_s)
    bars_s = np.asarray(bar_times_s if len(bar_times_s) else song.grid.seconds, np.float64)
    figure = paper(title)
    strip, lanes = _lanes(figure, pitches, bool(notes.drum.any()), length_s, bool(spans), bool(sections))
    draw_strip(strip, spans, length_s)
    for lane in lanes:
        draw_tint(lane, spans)
        if beside and beside.seam_s is not None:
            _draw_border(lane, beside.seam_s)
        for border_s in chunk_borders_s:
            lane.axvline(border_s, color="#b4bac4", linewidth=0.7, linestyle=(0, (2, 3)), zorder=1)
    topmost = strip
    if sections:
        strip.set_xticks([])
        bottom = strip.get_position().y1 + 0.004
        topmost = figure.add_axes((LEFT, bottom, RIGHT - LEFT, form_strip.HEIGHT))
        form_strip.draw_sections(topmost, sections, length_s, (RIGHT - LEFT) * SIZE_PX[0])
        topmost.tick_params(labelsize=7.5, length=0, labelcolor=GREY)
        if any(kind for *_, kind in sections):  # of a song's own sections nothing is told but their letters
            form_strip.draw_key(figure, RIGHT)
    number_bars(topmost, bars_s, length_s)
    colours, legend = _colours(notes, spans)
    pixel_s = length_s / SIZE_PX[0]
    _draw_pitched(lanes[0], notes, colours, pixel_s)
    if len(lanes) > 1:
        _draw_drums(lanes[1], notes, colours, pixel_s)
    _draw_legend(figure, legend)
    save(figure, target)


# ---- what all pictures share ----------------------------------------------------------------------------------------


def png_target(path: str | Path) -> Path:
    """The path, if it can be a picture's. Raises BadInput when it does not end in .png."""
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise BadInput(f"{target.name} is not the name of a PNG picture; end it in .png.")
    return target


def clean_spans(new_s: Sequence[Span]) -> list[Span]:
    """The spans in order of time, those that touch or overlap as one.

    Raises BadInput for a span that ends before it starts or is no time at all.
    """
    spans: list[Span] = []
    for start, end in sorted((float(start), float(end)) for start, end in new_s):
        if not 0 <= start < end < math.inf:
            raise BadInput(f"A span of new music cannot go from {start:g} s to {end:g} s; give a start before its end.")
        if spans and start <= spans[-1][1] + 1e-3:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def is_new(times_s: Floats, spans: Sequence[Span]) -> npt.NDArray[np.bool_]:
    """Whether each time (N,) lies in a span; a millisecond before a span's border counts as on it."""
    found = np.zeros(len(times_s), np.bool_)
    for start, end in spans:
        found |= (times_s >= start - 1e-3) & (times_s < end - 1e-3)
    return found


def paper(title: str) -> Figure:
    """An empty picture with its title at the top left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE_PX[0] / _DPI, SIZE_PX[1] / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(LEFT, 0.962, plain(short(title, 60)), fontsize=14, fontweight="bold", color=INK, va="center")
    return figure


def draw_tint(axes: Axes, spans: Sequence[Span]) -> None:
    """Tinted paper and borders for the new music of axes whose x is in the spans' unit."""
    for start, end in spans:
        axes.axvspan(start, end, facecolor=TINT, linewidth=0, zorder=0)
        for border in (start, end):
            _draw_border(axes, border)


def _draw_border(axes: Axes, at: float) -> None:
    axes.axvline(at, color=INK, linewidth=1.2, zorder=6)


def add_strip(figure: Figure, left: float, bottom: float, width: float, shown: bool = True) -> Axes:
    """Axes for the strip, of no height when there is nothing to tell apart; in widths and heights of the picture."""
    return figure.add_axes((left, bottom, width, 0.023 if shown else 1e-4))


def draw_strip(strip: Axes, spans: Sequence[Span], length: float) -> None:
    """Fills axes as wide as the music with a dark piece for each span and pale ones between, each with its name."""
    strip.set(xlim=(0, length), ylim=(0, 1), yticks=[])
    strip.tick_params(labelsize=7.5, length=0, labelcolor=GREY)
    for spine in strip.spines.values():
        spine.set_visible(False)
    if not spans:
        return
    length_px = strip.get_position().width * SIZE_PX[0]
    borders = [0.0, *(border for span in spans for border in span), length]
    style: dict[str, Any] = {"fontsize": 8.5, "fontweight": "bold", "va": "center_baseline", "y": 0.5, "clip_on": True}
    for index, (start, end) in enumerate(zip(borders, borders[1:], strict=False)):
        new, room = index % 2 == 1, (end - start) / length * length_px
        if end > start:
            strip.axvspan(start, end, facecolor=INK if new else PALE, edgecolor="white", linewidth=0.5)
        name, colour = ("new", "white") if new else ("original", INK)
        if room > 9 * len(name):
            strip.text(x=(start + end) / 2, s=name, color=colour, ha="center", **style)
        elif new:  # beside it, where the original has room for both names
            after, before = borders[index + 2] - end, start - borders[index - 1]
            if after / length * length_px > 180:
                strip.text(x=end, s=" ◂ new", color=INK, ha="left", **style)
            elif before / length * length_px > 180:
                strip.text(x=start, s="new ▸ ", color=INK, ha="right", **style)


def number_bars(axes: Axes, bars_s: Floats, length_s: float) -> None:
    """Numbers the bars that start at `bars_s` (bars,) along the top of axes, as many as stand side by side."""
    pixels = axes.get_position().width * SIZE_PX[0] / length_s
    bars_s = bars_s[bars_s < length_s - 1e-3]  # a border at the very end starts no bar
    step = next((2**n for n in range(20) if len(bars_s) / 2**n <= 40), 1 << 20)  # bars come in powers of two
    shown: list[int] = []
    for number in range(0, len(bars_s), step):
        if not shown or (bars_s[number] - bars_s[shown[-1]]) * pixels > 26:
            shown.append(number)
    axes.set_xticks([float(bars_s[number]) for number in shown], [str(number + 1) for number in shown])
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=3, color="#9aa1ab", pad=2)
    if shown:
        style: dict[str, Any] = {"fontsize": 7.5, "color": GREY, "ha": "right", "va": "bottom"}
        axes.annotate("bar", (0, 1), (-12, 5), xycoords="axes fraction", textcoords="offset points", **style)


def number_seconds(axes: Axes, length_s: float) -> None:
    """Minutes and seconds along the bottom of axes whose x is in seconds."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    step_s = next((step for step in TIME_STEPS_S if length_s / step <= 20), 7200)
    axes.set_xlim(0, length_s)
    axes.xaxis.set_major_locator(MultipleLocator(step_s))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))
    axes.tick_params(axis="x", length=4, color="#9aa1ab", colors=INK, labelsize=9)


def bare(axes: Axes) -> None:
    """Axes with nothing but a line at the bottom."""
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#9aa1ab")


def save(figure: Figure, target: Path) -> None:
    """Writes the picture, whole or not at all. Raises BadInput when it cannot be written."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with _quiet():
            figure.savefig(part, format="png", dpi=_DPI, metadata={"Software": None})
        os.replace(part, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{target} cannot be written ({reason}); choose an existing folder with room.") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings about letters the font does not have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def clock(seconds: float) -> str:
    """125.2 -> "2:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain(text: str) -> str:
    """Keeps matplotlib from reading dollar signs as mathematics."""
    return text.replace("$", r"\$")


# ---- the piano roll -------------------------------------------------------------------------------------------------


def _notes(song: score.Song) -> _Notes:
    """The notes by track; the channels of a track that holds several count as tracks of their own."""
    channels = Counter(track for track, _ in {(voice.track, voice.channel) for voice in song.voices})
    names: dict[tuple[int, int], str] = {}
    columns: dict[tuple[int, int], list[Floats]] = {}
    for voice, track in zip(song.voices, song.score.tracks, strict=True):
        key = voice.track, voice.channel
        names.setdefault(key, _name(voice, alone=channels[voice.track] == 1))
        notes = track.notes.numpy()
        start_s = song.tempo.to_seconds(notes["time"])
        end_s = song.tempo.to_seconds(notes["time"] + notes["duration"])
        drum = np.full(len(start_s), voice.is_drum)
        rows = np.column_stack([start_s, end_s, notes["pitch"], notes["velocity"], drum])
        columns.setdefault(key, []).append(rows)
    lines = sorted(((key, np.concatenate(rows)) for key, rows in columns.items()), key=lambda pair: -len(pair[1]))
    start_s, end_s, pitch, velocity, drum = np.concatenate([rows for _, rows in lines]).T
    index = np.repeat(np.arange(len(lines)), [len(rows) for _, rows in lines])
    whole = (pitch.astype(np.int64), velocity.astype(np.int64), drum.astype(np.bool_), index)
    named = tuple((key, names[key]) for key, _ in lines)
    return _Notes(start_s, end_s, *whole, _numbered([name for _, name in named]), named)


def _as_beside(other: _Notes, notes: _Notes) -> _Notes:
    """The notes with all tracks of both files, those with most notes in both first: the same order for either file."""
    count: Counter[tuple[int, int]] = Counter()
    for one in (other, notes):
        count.update({key: int(n) for (key, _), n in zip(one.lines, np.bincount(one.line), strict=True)})
    names = dict(other.lines) | dict(notes.lines)
    lines = tuple((key, names[key]) for key in sorted(count, key=lambda key: (-count[key], key)))
    place = {key: number for number, (key, _) in enumerate(lines)}
    line = np.array([place[key] for key, _ in notes.lines])[notes.line]
    return replace(notes, line=line, names=_numbered([name for _, name in lines]), lines=lines)


def _name(voice: score.Voice, alone: bool) -> str:
    """The track's own name, or, when it has none or shares it with other channels, the instrument's."""
    name = "".join(filter(str.isprintable, voice.name)).strip(" _") if alone else ""
    if not name:
        name = "Drums" if voice.is_drum else quietly("pretty_midi").program_to_instrument_name(voice.program)
    return short(name, 18)


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    """Piano, Piano -> Piano, Piano 2."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return tuple(numbered)


def _lanes(
    figure: Figure,
    pitches: npt.NDArray[np.int64],
    drums: bool,
    length_s: float,
    with_strip: bool,
    with_sections: bool,
) -> tuple[Axes, list[Axes]]:
    """The strip, the pitched lane and, when the song has drums, a lane for them; with axes, grid and labels."""
    bottom, top = 0.255 if drums else 0.075, 0.862 if with_strip else 0.885
    top -= form_strip.HEIGHT + 0.004 if with_sections else 0
    strip = add_strip(figure, LEFT, top, RIGHT - LEFT, with_strip)
    lanes = [figure.add_axes((LEFT, bottom, RIGHT - LEFT, top - bottom))]
    if drums:
        lanes.append(figure.add_axes((LEFT, 0.075, RIGHT - LEFT, 0.17)))
    low, high = (int(pitches.min()), int(pitches.max())) if len(pitches) else (60, 60)
    spare = max(2, (24 - (high - low)) // 2)  # two octaves at least
    lanes[0].set_ylim(low - spare + 0.5, high + spare - 0.5)
    octaves = [pitch for pitch in range(0, 128, 12) if low - spare < pitch < high + spare]
    lanes[0].set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    lanes[0].grid(axis="y", color="#cdd1d8", linewidth=0.8)
    for lane in lanes:
        bare(lane)
        number_seconds(lane, length_s)
    lanes[0].tick_params(axis="x", labelbottom=not drums, bottom=not drums)
    return strip, lanes


def _colours(notes: _Notes, spans: Sequence[Span]) -> tuple[Floats, list[tuple[str, Any]]]:
    """Colour of each note, shape (N, 4), louder ones more opaque, and the legend's names and colours."""
    from matplotlib.colors import to_rgb

    rounds = len(TRACKS)
    shades = [0.55 ** (n // rounds % 2) * np.array(to_rgb(TRACKS[n % rounds])) for n in range(len(notes.names))]
    colours = np.array(shades)[notes.line]
    if spans:
        old = ~is_new(notes.start_s, spans)
        colours[old] += _MUTED * (1 - colours[old])
    alpha = 0.35 + 0.65 * np.clip(notes.velocity / 110, 0, 1)
    return np.column_stack([colours, alpha]), list(zip(notes.names, map(tuple, shades), strict=True))


def _draw_pitched(lane: Axes, notes: _Notes, colours: Floats, pixel_s: float) -> None:
    pitched = ~notes.drum
    left, pitch = notes.start_s[pitched], notes.pitch[pitched]
    right = np.maximum(notes.end_s[pitched] - 0.8 * pixel_s, left + 1.5 * pixel_s)  # repeated notes stay apart
    _draw_boxes(lane, left, right, pitch, 0.84, colours[pitched])


def _draw_drums(lane: Axes, notes: _Notes, colours: Floats, pixel_s: float) -> None:
    family = {key: row for row, name in enumerate(_DRUMS) for key in _DRUMS[name]}
    rows = np.array([family.get(int(key), len(_DRUMS) - 1) for key in notes.pitch[notes.drum]])
    used, rows = np.unique(rows, return_inverse=True)
    left = notes.start_s[notes.drum]
    _draw_boxes(lane, left, left + max(0.05, 1.5 * pixel_s), rows, 0.72, colours[notes.drum])
    lane.set_ylim(-0.6, len(used) - 0.4)
    lane.set_yticks(range(len(used)), [list(_DRUMS)[row] for row in used])
    lane.tick_params(axis="y", labelsize=7.5)


def _draw_boxes(
    lane: Axes, left_s: Floats, right_s: Floats, middle: npt.NDArray[np.int64], height: float, colours: Floats
) -> None:
    """One collection for all notes: an artist a note would take seconds."""
    from matplotlib.collections import PolyCollection

    low, high = middle - height / 2, middle + height / 2
    corners = np.array([[left_s, low], [left_s, high], [right_s, high], [right_s, low]])  # (4, 2, N)
    boxes = PolyCollection(list(corners.transpose(2, 0, 1)), facecolors=colours, linewidths=0, zorder=3)
    lane.add_collection(boxes, autolim=False)


def _draw_legend(figure: Figure, legend: list[tuple[str, Any]]) -> None:
    """Names and colours of the tracks at the top right; the title gives way where they need its room."""
    from matplotlib.patches import Patch

    shown = legend[:_MAX_NAMES]
    handles = [Patch(facecolor=colour, label=plain(name)) for name, colour in shown]
    if len(legend) > len(shown):
        handles.append(Patch(facecolor="none", label=f"and {len(legend) - len(shown)} more"))
    box = figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(0.99, 1.0),
        ncols=min(6, len(handles)),
        fontsize=9 if len(handles) <= 6 else 8,
        frameon=False,
        labelcolor=INK,
        handlelength=1.2,
        columnspacing=1.4,
    )
    title, room_px = figure.texts[0], box.get_window_extent().x0 - 20
    with _quiet():
        while len(title.get_text()) > 1 and title.get_window_extent().x1 > room_px:
            title.set_text(title.get_text().rstrip("…")[:-1].rstrip("\\") + "…")
