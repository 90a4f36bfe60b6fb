"""The strip of sections above a piano roll: a letter and a colour a section, filled as far as it is as it was before.

Knows times, letters and kinds of phrases, and matplotlib's axes; knows no songs and no plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .form_plan import HARMONY, NEW, NEW_LEAD, SAME, VARIED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Section = tuple[
    float, float, str, str
]  # start and end in seconds, letter, kind of form_plan.KINDS ("": the song's own)

HEIGHT = 0.03  # of the strip, in heights of the picture
# Pale for what was not there before, stronger for what was; a third of them differ in lightness too.
_COLOURS = (
    ("#d6e2f2", "#8fb0d9"), ("#fae3c8", "#eeb36b"), ("#d5ead7", "#8cc194"), ("#eedbea", "#cf9cc4"),
    ("#f4f0bd", "#d6cb5c"), ("#d2ebec", "#84c3c6"), ("#ecdccf", "#c9a182"), ("#e3e3e6", "#a9abb3"),
)  # fmt: skip
_FILLED = {SAME: 1.0, VARIED: 0.66, NEW_LEAD: 0.5, HARMONY: 0.25, NEW: 0.0, "": 0.0}  # of its height
_INK, _GREY = "#30343b", "#6f7681"
_LETTER_PX = 9


def draw_sections(strip: Axes, sections: Sequence[Section], length_s: float, length_px: float) -> None:
    """Fills axes as wide as the music, `length_px` on the picture, with a cell for each phrase and a letter for each
    run of phrases of one section."""
    strip.set(xlim=(0, length_s), ylim=(0, 1), yticks=[], xticks=[])
    for spine in strip.spines.values():
        spine.set_visible(False)
    colours: dict[str, tuple[str, str]] = {}
    for start, end, letter, kind in sections:
        pale, strong = colours.setdefault(letter, _COLOURS[len(colours) % len(_COLOURS)])
        strip.axvspan(start, end, facecolor=pale, linewidth=0, zorder=1)
        if filled := _FILLED.get(kind, 0.0):
            strip.axvspan(start, end, 0, filled, facecolor=strong, linewidth=0, zorder=2)
        strip.axvline(start, color="white", linewidth=0.8, zorder=3)
    style: dict[str, Any] = {"fontsize": 9, "fontweight": "bold", "color": _INK, "va": "center_baseline", "zorder": 4}
    for start, end, letter in runs(sections):
        strip.axvline(start, color="white", linewidth=2.4, zorder=3)
        if (end - start) / length_s * length_px > _LETTER_PX * len(letter) + 2:
            strip.text((start + end) / 2, 0.48, letter, ha="center", clip_on=True, **style)


def runs(sections: Sequence[Section]) -> list[tuple[float, float, str]]:
    """(start, end, letter) of sections, phrases of one letter that follow one another as one; music of the song and of
    a plan stay apart."""
    found: list[tuple[float, float, str]] = []
    planned = False
    for start, end, letter, kind in sections:
        goes_on = bool(found) and found[-1][2] == letter and planned == bool(kind) and start - found[-1][1] < 1e-3
        if goes_on:
            found[-1] = (found[-1][0], end, letter)
        else:
            found.append((start, end, letter))
        planned = bool(kind)
    return found


def draw_key(figure: Figure, right: float) -> None:
    """Tells at the bottom what the strip shows."""
    words = "Letters: sections. Filled as far as earlier music comes back: wholly as it was, varied, under a new lead, "
    figure.text(right, 0.012, words + "its bass alone, not at all.", fontsize=7.5, color=_GREY, ha="right", va="bottom")
