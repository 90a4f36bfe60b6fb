"""Pictures of a song: a piano roll that shows where the original ends and the new music begins.

Knows the notes of a MIDI file and matplotlib, which is imported only when something is drawn and without pyplot's
global state, so that any thread may draw. Must not know tokens, models, nor how the new music was made.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import score
from .errors import BadInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORIGINAL, NEW = "#1b4f8a", "#e8710a"  # told apart by every kind of colour vision, and in grey
# One colour an instrument: safe for the colour-blind, dark enough for white paper; a second, darker round follows.
INSTRUMENTS = ("#0072b2", "#d55e00", "#009e73", "#cc6699", "#56b4e9", "#e69f00", "#4d4d4d", "#a89400")
INK, FAINT = "#30343b", "#d9dce1"
_SIZE_IN, _DPI = (16.0, 6.0), 110
_MAX_NAMES = 11
_TIME_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
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
class _Notes:
    """Columns of equal length (N,): what is drawn of each note."""

    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    pitch: npt.NDArray[np.int64]
    velocity: npt.NDArray[np.int64]
    drum: npt.NDArray[np.bool_]
    voice: npt.NDArray[np.int64]  # index into `names`
    names: tuple[str, ...]  # instruments, most notes first


def piano_roll(
    midi_path: str | Path,
    png_path: str | Path,
    seam_s: float | None = None,
    chunk_borders_s: Sequence[float] = (),
    title: str = "",
    bar_times_s: Sequence[float] = (),
) -> None:
    """Draws a MIDI file as a piano roll of 1760 x 660 pixels, with a lane for the drums beneath.

    With `seam_s`, notes that begin before it are drawn as original and the others as new, each in one colour; without,
    every instrument has its own. `chunk_borders_s` become faint lines, `bar_times_s` (the start of every bar, from the
    first) bar numbers along the top. Louder notes are stronger. The picture appears only when complete.

    Raises BadInput for a MIDI file without readable notes, a name that does not end in .png or a folder that cannot
    be written to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target = Path(png_path)
    if target.suffix.lower() != ".png":
        raise BadInput(f"{target.name} is not the name of a PNG picture; end it in .png.")
    notes = _read(Path(midi_path))
    length_s = max([1.0, *notes.end_s, *([seam_s] if seam_s else []), *chunk_borders_s])
    figure = Figure(figsize=_SIZE_IN, dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    lanes = _lanes(figure, notes, length_s)
    for lane in lanes:
        for border_s in chunk_borders_s:
            lane.axvline(border_s, color="#b4bac4", linewidth=0.7, linestyle=(0, (2, 3)), zorder=1)
        if seam_s is not None:
            lane.axvspan(seam_s, length_s, color=NEW, alpha=0.05, linewidth=0, zorder=0)
            lane.axvline(seam_s, color=INK, linewidth=1.4, zorder=6)
    colours, legend = _colours(notes, seam_s)
    pixel_s = length_s / (_SIZE_IN[0] * _DPI)
    _draw_pitched(lanes[0], notes, colours, pixel_s)
    if len(lanes) > 1:
        _draw_drums(lanes[1], notes, colours, pixel_s)
    _label(figure, lanes, title, seam_s, bar_times_s, length_s, legend)
    _save(figure, target)


def _read(path: Path) -> _Notes:
    from pretty_midi import program_to_instrument_name

    song = score.read(path)
    columns: dict[str, list[npt.NDArray[np.float64]]] = {}  # by name: tracks of one name are one instrument
    for voice, track in zip(song.voices, song.score.tracks, strict=True):
        name = "".join(filter(str.isprintable, voice.name)).strip(" _")
        name = name or ("Drums" if voice.is_drum else program_to_instrument_name(voice.program))
        notes = track.notes.numpy()
        start_s = song.tempo.to_seconds(notes["time"])
        end_s = song.tempo.to_seconds(notes["time"] + notes["duration"])
        drum = np.full(len(start_s), voice.is_drum)
        rows = np.column_stack([start_s, end_s, notes["pitch"], notes["velocity"], drum])
        columns.setdefault(_short(name, 18), []).append(rows)
    voices = sorted(((name, np.concatenate(rows)) for name, rows in columns.items()), key=lambda pair: -len(pair[1]))
    start_s, end_s, pitch, velocity, drum = np.concatenate([rows for _, rows in voices]).T
    index = np.repeat(np.arange(len(voices)), [len(rows) for _, rows in voices])
    whole = (pitch.astype(np.int64), velocity.astype(np.int64), drum.astype(np.bool_), index)
    return _Notes(start_s, end_s, *whole, tuple(name for name, _ in voices))


def _lanes(figure: Figure, notes: _Notes, length_s: float) -> list[Axes]:
    """The pitched lane and, when the song has drums, a lane for them below; both with axes, grid and labels."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    drums, pitches = bool(notes.drum.any()), notes.pitch[~notes.drum]
    place = {"left": 0.045, "right": 0.985, "top": 0.875, "bottom": 0.085, "hspace": 0.04}
    heights = [1.0, 0.2] if drums else [1.0]
    lanes: list[Axes] = list(
        figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights, gridspec_kw=place)[:, 0]
    )
    low, high = (int(pitches.min()), int(pitches.max())) if len(pitches) else (60, 60)
    spare = max(2, (24 - (high - low)) // 2)  # two octaves at least
    lanes[0].set_ylim(low - spare - 0.5, high + spare + 1.5)
    octaves = [pitch for pitch in range(0, 128, 12) if low - spare <= pitch <= high + spare]
    lanes[0].set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    lanes[0].grid(axis="y", color=FAINT, linewidth=0.8)
    for lane in lanes:
        lane.set_xlim(0, length_s)
        lane.set_axisbelow(True)
        lane.tick_params(colors=INK, labelsize=9, length=0)
        for side, spine in lane.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color("#9aa1ab")
    step_s = next((step for step in _TIME_STEPS_S if length_s / step <= 20), 7200)
    lanes[-1].xaxis.set_major_locator(MultipleLocator(step_s))
    lanes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value)))
    lanes[-1].tick_params(axis="x", length=4, color="#9aa1ab")
    return lanes


def _colours(notes: _Notes, seam_s: float | None) -> tuple[npt.NDArray[np.float64], list[tuple[str, Any]]]:
    """Colour of each note, shape (N, 4), louder ones more opaque, and the legend's names and colours."""
    from matplotlib.colors import to_rgb

    if seam_s is not None:
        legend = [("original", to_rgb(ORIGINAL)), ("new", to_rgb(NEW))]
        which = (notes.start_s >= seam_s - 1e-3).astype(np.int64)
    else:
        rounds = len(INSTRUMENTS)
        shades = [0.55 ** (voice // rounds % 2) * np.array(to_rgb(INSTRUMENTS[voice % rounds])) for voice in range(999)]
        legend = list(zip(notes.names, map(tuple, shades), strict=False))
        which = notes.voice
    alpha = 0.35 + 0.65 * np.clip(notes.velocity / 110, 0, 1)
    palette = np.array([colour for _, colour in legend]).reshape(-1, 3)
    return np.column_stack([palette[which], alpha]), legend


def _draw_pitched(lane: Axes, notes: _Notes, colours: npt.NDArray[np.float64], pixel_s: float) -> None:
    pitched = ~notes.drum
    left, pitch = notes.start_s[pitched], notes.pitch[pitched]
    right = np.maximum(notes.end_s[pitched] - 0.8 * pixel_s, left + 1.5 * pixel_s)  # repeated notes stay apart
    _draw_boxes(lane, left, right, pitch, 0.84, colours[pitched])


def _draw_drums(lane: Axes, notes: _Notes, colours: npt.NDArray[np.float64], pixel_s: float) -> None:
    family = {key: row for row, name in enumerate(_DRUMS) for key in _DRUMS[name]}
    rows = np.array([family.get(int(key), len(_DRUMS) - 1) for key in notes.pitch[notes.drum]])
    used, rows = np.unique(rows, return_inverse=True)
    left = notes.start_s[notes.drum]
    _draw_boxes(lane, left, left + max(0.05, 1.5 * pixel_s), rows, 0.72, colours[notes.drum])
    lane.set_ylim(-0.6, len(used) - 0.4)
    lane.set_yticks(range(len(used)), [list(_DRUMS)[row] for row in used])
    lane.tick_params(axis="y", labelsize=7)
    lane.set_facecolor("#f7f8fa")


def _draw_boxes(
    lane: Axes,
    left_s: npt.NDArray[np.float64],
    right_s: npt.NDArray[np.float64],
    middle: npt.NDArray[np.int64],
    height: float,
    colours: npt.NDArray[np.float64],
) -> None:
    """One collection for all notes: an artist a note would take seconds."""
    from matplotlib.collections import PolyCollection

    low, high = middle - height / 2, middle + height / 2
    corners = np.array([[left_s, low], [left_s, high], [right_s, high], [right_s, low]])  # (4, 2, N)
    boxes = PolyCollection(list(corners.transpose(2, 0, 1)), facecolors=colours, linewidths=0, zorder=3)
    lane.add_collection(boxes, autolim=False)


def _label(
    figure: Figure,
    lanes: list[Axes],
    title: str,
    seam_s: float | None,
    bar_times_s: Sequence[float],
    length_s: float,
    legend: list[tuple[str, Any]],
) -> None:
    """Title, legend, bar numbers and the seam's name above the music."""
    from matplotlib.patches import Patch

    top = lanes[0]
    above = top.get_xaxis_transform()  # x in seconds, y in heights of the lane
    figure.text(0.045, 0.962, _plain(_short(title, 60)), fontsize=14, fontweight="bold", color=INK, va="center")
    shown = legend[:_MAX_NAMES]
    handles = [Patch(facecolor=colour, label=_plain(name)) for name, colour in shown]
    if len(legend) > len(shown):
        handles.append(Patch(facecolor="none", label=f"and {len(legend) - len(shown)} more"))
    if handles:
        figure.legend(
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
    if seam_s is not None:
        right = seam_s < 0.9 * length_s  # on the roomy side of the line
        style: dict[str, Any] = {"fontsize": 10, "fontweight": "bold", "color": INK, "va": "top", "zorder": 5}
        style |= {"ha": "left" if right else "right", "transform": above}
        style |= {"bbox": {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1.5}}
        top.text(seam_s, 0.985, f"  new from {_clock(seam_s)}  ", **style)
    bars = np.asarray(bar_times_s, dtype=np.float64)
    step = next((2**n for n in range(20) if len(bars) / 2**n <= 40), 1 << 20)  # bars come in powers of two
    for number in range(0, len(bars), step):
        if bars[number] <= length_s:
            top.plot([bars[number]] * 2, [1.0, 1.015], transform=above, color="#9aa1ab", linewidth=0.8, clip_on=False)
            top.text(bars[number], 1.02, str(number + 1), transform=above, fontsize=7, color="#7a818c", ha="center")
    if len(bars):
        figure.text(0.038, 0.882, "bar", fontsize=7, color="#7a818c", ha="right")


def _save(figure: Figure, target: Path) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about letters the font does not have
            figure.savefig(part, format="png", dpi=_DPI, metadata={"Software": None})
        os.replace(part, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{target} cannot be written ({reason}); choose an existing folder with room.") from error
    finally:
        part.unlink(missing_ok=True)


def _clock(seconds: float) -> str:
    """125.2 -> "2:05"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _plain(text: str) -> str:
    """Keeps matplotlib from reading dollar signs as mathematics."""
    return text.replace("$", r"\$")
