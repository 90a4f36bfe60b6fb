"""A form laid over a song: where it goes on, which phrases are still to come, and of what kind each is.

Knows forms; knows no rows, no shelf and no files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .errors import BadInput
from .form_facts import Form, SongForm
from .form_plan import HARMONY, NEW, NEW_LEAD, SAME, VARIED
from .roles import BASS, CHORDS, DRUMS, LEAD
from .tokens import MAX_CHUNK_BARS

SAME_FROM, VARIED_FROM, HARMONY_FROM, BACKING_FROM = 0.85, 0.3, 0.35, 0.5  # likeness from which a phrase is of a kind
_HALVINGS = 30


@dataclass
class Telling:
    """A form as it is laid over the song: its first `opening` phrases are the song, the next is slot `first`."""

    form: Form
    opening: int
    first: int  # number of the planned phrase at which it takes over
    mapped: dict[int, int] = field(default_factory=dict)  # its opening's phrases -> the song's
    sections: dict[int, int] = field(default_factory=dict)  # its sections -> the plan's

    def __post_init__(self) -> None:
        starts = np.concatenate([[0], np.cumsum(self.form.bars)])[: len(self.form)]
        begins = starts[self.form.source] + self.form.shift  # the bar at which each phrase's source begins
        goes_on = begins[1:] == begins[:-1] + self.form.bars[:-1]
        both = (self.form.source[1:] >= 0) & (self.form.source[:-1] >= 0)
        self.goes_on = np.append(False, goes_on & both)[: len(self.form)]  # (p,) its source goes on from the last one's

    def run(self, p: int) -> int:
        """Phrases from `p` on whose sources lie one after another."""
        end = p + 1
        while end < len(self.form) and self.goes_on[end]:
            end += 1
        return end - p

    def at(self, slot: int) -> int:
        return self.opening + slot - self.first


def coming_phrases(song: SongForm | None, before: int, new: int, size: int, least: int = 1) -> list[tuple[int, int]]:
    """(first bar, bars) of each phrase to come, `size` bars each: a phrase in which the song was cut off is finished
    first, and what is left at the end joins the last one when it is short. At least `least` phrases where there is
    room; raises BadInput where there is not."""
    if least > new:
        raise BadInput(
            f"A form of {least} sections does not fit into {new} new bars; ask for fewer, or for more music."
        )
    while True:
        sizes: list[int] = []
        left = new
        rest = size - song.phrases[-1].bars if song and song.phrases and song.phrases[-1].bars < size else 0
        if 0 < rest < size / 2 and rest + size <= MAX_CHUNK_BARS:
            rest += size
        while left > 0:
            take = min(left, rest if rest and not sizes else size)
            sizes.append(take)
            left -= take
        if len(sizes) > 1 and sizes[-1] < size / 2 and sizes[-1] + sizes[-2] <= MAX_CHUNK_BARS:
            sizes[-2:] = [sizes[-2] + sizes[-1]]
        if len(sizes) >= least or size == 1:
            break
        size = max(1, size // 2)
    firsts = before + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return [(int(first), int(bars)) for first, bars in zip(firsts, sizes, strict=True)]


def kind_of(likeness: float, of_role: np.ndarray, harmony: float) -> str:
    """Which of form_plan.KINDS a phrase is of, by its likeness to its source: overall, by role (4,; nan where the role
    is not there), and of the harmony."""
    if likeness >= SAME_FROM:
        return SAME
    tuned = of_role[[BASS, CHORDS]]
    backing = tuned if not np.isnan(tuned).all() else of_role[[DRUMS]]
    if not np.isnan(of_role[LEAD]) and not np.isnan(backing).all():
        stands = float(np.nanmean(backing))
        if stands >= BACKING_FROM and of_role[LEAD] < 0.5 * stands:
            return NEW_LEAD
    if likeness >= VARIED_FROM:
        return VARIED
    return HARMONY if harmony >= HARMONY_FROM and likeness > 0 else NEW


def shared_out(likeness: float, of_role: np.ndarray, notes: np.ndarray) -> np.ndarray:
    """Likeness by role (4,) as in a form's phrase, made to come to the same overall `likeness` in a phrase whose roles
    have so many `notes` (4,); nan for a role without notes. A role that the form does not have is like all."""
    if not notes.any():
        return np.full(len(notes), np.nan)
    known = np.where(np.isnan(of_role), likeness, of_role).clip(0.01, 0.99)
    odds = np.log(known / (1 - known))
    low, high = -12.0, 12.0
    for _ in range(_HALVINGS):  # by how much all odds change alike
        middle = (low + high) / 2
        if float(notes @ (1 / (1 + np.exp(-odds - middle)))) < likeness * notes.sum():
            low = middle
        else:
            high = middle
    return np.where(notes > 0, 1 / (1 + np.exp(-odds - low)), np.nan)
