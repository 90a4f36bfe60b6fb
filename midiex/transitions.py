"""Carries a song's own gestures at the borders of sections into planned phrases: fills, crashes, breaks and pickups.

What the song does not do is not made up. Knows rows and phrases of a plan; knows no network, no candidates and no
files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from . import metrics, tokens
from .form_facts import CRASHES
from .form_plan import PlannedPhrase, SongPhrase
from .phrase_task import joined, leads
from .roles import Roles, Voice, of_voices, played_by
from .tokens import BAR, DRUM_PITCH_OFFSET, DRUM_PROGRAM, PITCH, POSITION, PROGRAM, VELOCITY

_KICKS = (35, 36)
_LEAST_STROKES = 4  # of a fill, or of drums whose rest is heard
_DENSER, _NEW_DRUMS = 1.5, 2  # than the bars before: in strokes, or in drums that were not struck there
_EARLIER_BARS = 3  # that a fill is told apart from
_GOES_ON = 0.8  # likeness from which a bar that follows is the same groove, and no fill was
_SAME_HALF = 0.5  # likeness from which the first half of a fill's bar is still the groove
_AT_BORDER = 0.25  # what it is worth, in likeness of the groove, that a section begins after a fill
_MOST_AFTER_BREAK = 0.25  # of the usual notes may still be played in a break


@dataclass(frozen=True)
class Fill:
    """The drums of a song's bar from a position on."""

    bar: int
    begins: int  # position
    before_section: bool


@dataclass(frozen=True)
class Gestures:
    """What a song does at its borders. `rows` (n, 8) are its notes, bars counted from its first."""

    rows: np.ndarray
    positions: np.ndarray  # (bars,) in each bar
    song: Sequence[SongPhrase] = ()
    roles: Roles = field(default_factory=dict)

    def made(
        self,
        rows: np.ndarray,
        phrase: PlannedPhrase,
        following: PlannedPhrase | None,
        positions: np.ndarray,
        voices: Collection[Voice],
    ) -> tuple[np.ndarray, str]:
        """A phrase's rows (n, 8), bars from its first, with the transition that it is to have, and that one's name; as
        they were and "" where the song has no such gesture. Only `voices` are changed; `positions` (bars,) are in its
        bars. Made once or twice, it is the same."""
        drums = {voice for voice in voices if voice[0] == DRUM_PROGRAM}
        changed = None
        if phrase.transition == "fill":
            changed = self._with_fill(rows, positions, drums)
        elif phrase.transition == "crash":
            changed = self._with_crash(rows, drums)
        elif phrase.transition == "break":
            changed = self._with_break(rows, positions, drums, set(voices) - drums)
        elif phrase.transition == "pickup" and following is not None:
            changed = self._with_pickup(rows, positions, following, voices)
        if changed is None or not len(changed):
            return rows, ""
        return tokens.sort_rows(changed), phrase.transition

    # ---- fills ----

    @cached_property
    def fills(self) -> tuple[Fill, ...]:
        """Bars before a phrase or a crash whose drums are busier in their second half than those of the bars before,
        or others; where their first half is still the groove, only the second."""
        found = []
        for bar in range(1, len(self.positions) - 1):
            ends = bar + 1 in self._sections or bool(len(self._crashes_in(bar + 1)))
            if not ends or not self._is_fill(bar):
                continue
            half = int(self.positions[bar]) // 2
            first, before = (part[part[:, POSITION] < half] for part in (self._drums(bar), self._drums(bar - 1)))
            begins = half if _alike(first, before) >= _SAME_HALF else 0
            found.append(Fill(bar, begins, self._sections.get(bar + 1, False)))
        return tuple(found)

    def _is_fill(self, bar: int) -> bool:
        span = range(max(0, bar - _EARLIER_BARS), bar)
        earlier = [self._drums(b) for b in span if self.positions[b] == self.positions[bar] and len(self._drums(b))]
        here, half = self._drums(bar), self.positions[bar] / 2
        late = here[here[:, POSITION] >= half]
        if not earlier or len(late) < _LEAST_STROKES or _alike(here, self._drums(bar + 1)) >= _GOES_ON:
            return False
        usual = sum(int((part[:, POSITION] >= half).sum()) for part in earlier) / len(earlier)
        fresh = set(late[:, PITCH].tolist()) - set(np.concatenate(earlier)[:, PITCH].tolist())
        return len(late) >= _DENSER * usual or len(fresh) >= _NEW_DRUMS

    def _with_fill(self, rows: np.ndarray, positions: np.ndarray, drums: set[Voice]) -> np.ndarray | None:
        """With the fill whose groove is most like the phrase's, those before a section and late ones first."""
        last, own = len(positions) - 1, of_voices(rows, drums)
        groove = own[own[:, BAR] == last - 1]  # none in a phrase of one bar
        best, worth = None, -1.0
        for fill in self.fills:
            strokes = of_voices(self._drums(fill.bar), drums)
            strokes = strokes[strokes[:, POSITION] >= fill.begins]
            if self.positions[fill.bar] != positions[last] or len(strokes) < _LEAST_STROKES:
                continue
            fits = _alike(of_voices(self._drums(fill.bar - 1), drums), groove) + _AT_BORDER * fill.before_section
            if fits >= worth:
                best, worth = (fill, strokes), fits
        if best is None:
            return None
        fill, strokes = best
        replaced = (rows[:, BAR] == last) & (rows[:, POSITION] >= fill.begins) & played_by(rows, drums)
        return np.concatenate([rows[~replaced], _in_bar(strokes, last)])

    # ---- crashes ----

    def _with_crash(self, rows: np.ndarray, drums: set[Voice]) -> np.ndarray | None:
        """With the song's usual crash on the first beat, of middle loudness, and with the kick where the song does so;
        as it is where one is struck there already."""
        strokes = of_voices(self.rows, drums)
        crashes = strokes[np.isin(strokes[:, PITCH] - DRUM_PITCH_OFFSET, CRASHES)]
        on_beat = crashes[crashes[:, POSITION] <= 1]
        crashes = on_beat if len(on_beat) else crashes
        if not len(crashes):
            return None
        opening = of_voices(rows, drums)
        opening = opening[(opening[:, BAR] == 0) & (opening[:, POSITION] <= 1)]
        if np.isin(opening[:, PITCH] - DRUM_PITCH_OFFSET, CRASHES).any():
            return rows
        kinds, counts = np.unique(crashes[:, PITCH], return_counts=True)
        usual = crashes[crashes[:, PITCH] == kinds[counts.argmax()]]
        added = [_middle(usual)]
        kicks = strokes[np.isin(strokes[:, PITCH] - DRUM_PITCH_OFFSET, _KICKS)]
        together = kicks[np.isin(_onset(kicks), _onset(usual))]
        if 2 * len(together) >= len(usual) and not np.isin(opening[:, PITCH] - DRUM_PITCH_OFFSET, _KICKS).any():
            added.append(_middle(together))
        beat = np.concatenate(added)
        beat[:, [BAR, POSITION]], beat[:, tokens.MICRO] = 0, tokens.MICRO_CENTER
        return np.concatenate([rows, beat])

    def _crashes_in(self, bar: int) -> np.ndarray:
        """On its first beat."""
        opening = self._drums(bar)
        opening = opening[opening[:, POSITION] <= 1]
        return opening[np.isin(opening[:, PITCH] - DRUM_PITCH_OFFSET, CRASHES)]

    # ---- breaks ----

    def _with_break(
        self, rows: np.ndarray, positions: np.ndarray, drums: set[Voice], tuned: set[Voice]
    ) -> np.ndarray | None:
        """Without drums in the last bar, or its second half where the song breaks so late and in phrases of two bars;
        without drums that play, all but the lead rest in that half, if the song does such a thing."""
        last, half = len(positions) - 1, int(positions[-1]) // 2
        if len(of_voices(rows, drums)):
            breaks = self._breaks(drums)
            late = len(positions) <= 2 or 2 * sum(breaks) > len(breaks)
            resting = (rows[:, BAR] == last) & (rows[:, POSITION] >= half * late) & played_by(rows, drums)
            return rows[~resting]
        backing = tuned - leads(of_voices(rows, tuned), self.roles)
        if len(positions) < 2 or not backing or not self._breaks(backing):
            return None
        mine = played_by(rows, backing)
        playing = rows[mine & ~((rows[:, BAR] == last) & (rows[:, POSITION] >= half))]
        return np.concatenate([rows[~mine], joined(playing, np.append(positions[:-1], half))])

    def _breaks(self, voices: set[Voice]) -> list[bool]:
        """For each phrase of the song in whose last bar these voices pause: is it only in the second half?"""
        found = []
        own = of_voices(self.rows, voices)
        for last in (border - 1 for border in self._sections if border >= 2):
            half = self.positions[last] / 2
            here, before = (own[own[:, BAR] == bar, POSITION] for bar in (last, last - 1))
            usual = (before >= half).sum()
            if usual >= _LEAST_STROKES - 1 and (here >= half).sum() <= _MOST_AFTER_BREAK * usual:
                found.append(2 * (here < half).sum() > (before < half).sum())
        return found

    # ---- pickups ----

    def _with_pickup(
        self, rows: np.ndarray, positions: np.ndarray, following: PlannedPhrase, voices: Collection[Voice]
    ) -> np.ndarray | None:
        """With the notes by which the song's lead leads into what follows: to the very bar that it goes back to, or to
        the beginning of its section."""
        last, to = len(positions) - 1, following.source_bar or 0
        section = [p.first_bar for p in self.song if p.section == following.section and self._sections[p.first_bar]]
        for border in (to, *section):
            bar = border - 1
            if not 0 <= bar < len(self.positions) - 1 or self.positions[bar] != positions[last]:
                continue
            notes = of_voices(self.rows[self.rows[:, BAR] == bar], voices)
            carrying = leads(notes, self.roles) if len(notes) else set()
            notes = of_voices(notes, {voice for voice in carrying if voice[0] != DRUM_PROGRAM})
            if not len(notes) or notes[:, POSITION].min() < positions[last] / 2:  # the lead does not wait
                continue
            mine, begins = played_by(rows, carrying), int(notes[:, POSITION].min())
            earlier = rows[mine & ~((rows[:, BAR] == last) & (rows[:, POSITION] >= begins))]
            earlier = joined(earlier, np.append(positions[:-1], begins))
            notes = _in_bar(notes, last)
            notes = notes if border == to and following.source_bar is not None else joined(notes, positions)
            return np.concatenate([rows[~mine], earlier, notes])
        return None

    # ---- the song ----

    @cached_property
    def _sections(self) -> dict[int, bool]:
        """Each bar in which a phrase begins: does a section?"""
        before = ["", *(p.section for p in self.song)]
        return {p.first_bar: p.section != left for p, left in zip(self.song, before, strict=False)}

    @cached_property
    def _drums_by_bar(self) -> list[np.ndarray]:
        drums = self.rows[self.rows[:, PROGRAM] == DRUM_PROGRAM]
        return np.split(drums, np.searchsorted(drums[:, BAR], np.arange(1, len(self.positions))))

    def _drums(self, bar: int) -> np.ndarray:
        return self._drums_by_bar[bar]


def _in_bar(rows: np.ndarray, bar: int) -> np.ndarray:
    rows = rows.copy()
    rows[:, BAR] = bar
    return rows


def _onset(rows: np.ndarray) -> np.ndarray:
    return rows[:, BAR].astype(np.int64) * 128 + rows[:, POSITION]


def _middle(strokes: np.ndarray) -> np.ndarray:
    """The one of middle loudness, (1, 8)."""
    order = np.argsort(strokes[:, VELOCITY], kind="stable")
    return strokes[order[[len(order) // 2]]]


def _alike(drums: np.ndarray, others: np.ndarray) -> float:
    """Strokes in common of two bars' drums (rows)."""
    return metrics.likeness(*(part[:, POSITION].astype(np.int64) * 256 + part[:, PITCH] for part in (drums, others)))
