"""Which of several candidate chunks fits the song best, and which are no good at all. Pure functions on rows.

Few terms, each zero for a candidate that is just like the song:

    density     difference in notes a second, in octaves
    voices      one minus the overlap of how many notes each voice has
    length      difference of typical note length, in octaves
    harmony     one minus the cosine of the pitch class weights
    register    difference of mean pitch, in octaves
    loudness    difference of mean velocity, in fifths of its range
    rhythm      one minus the overlap of where in the bar notes begin
    repetition  difference of likeness to the chunk before, against the song's usual likeness of neighbours
    seam        silence before the first note beyond the song's longest silence at a bar line, in bars
    step        how much more density, loudness and register change from the bar before than they do in the song from
                bar to bar, in the song's own usual changes
    missing     share of the voices asked for that do not play, where a plan asks
    source      difference of likeness to the planned source, against what the plan asks
    ending      of the last chunk only: how late in its last bar notes still begin, whether the lowest of the last ones
                is not the key note, and how much thinner their chord is than those on the song's downbeats
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import metrics
from .aligned import likeness
from .chunks import likeness_set
from .constraints import longest_empty_run, longest_run, most_strikes, reach_of
from .roles import Voice, of_voices, voices_in
from .tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    DURATIONS,
    FIELD_SIZES,
    INSTANCE,
    MAX_INSTANCES,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
)

WEIGHTS = {
    "density": 1.0, "voices": 2.0, "length": 0.5, "harmony": 2.0, "register": 1.0, "loudness": 0.5,
    "rhythm": 1.0, "repetition": 1.0, "seam": 1.0, "step": 0.2,
    "missing": 2.0, "source": 1.0, "ending": 1.0,
}  # fmt: skip
ASKED = ("missing", "source")  # terms that only what a plan asks has
SILENT_SHARE = 0.2  # of the song's thinnest chunk's density: below it a chunk is silent
AUDIBLE_STEP = (1.0, 1.0, 1.0)  # onsets, bins of velocity, semitones: smaller changes from bar to bar hardly count
REST_MARGIN = 1.5  # times the song's longest rest, and no less than a bar
LOOP_MARGIN = 0.25  # likeness of bars or chunks beyond the most the song shows


@dataclass(frozen=True)
class Style:
    """What the song is like, measured over its own chunks."""

    density: float  # notes a second, mean of chunks that have any
    thinnest: float  # the least
    voices: np.ndarray  # (129 * 8,) share of notes of each (program, instance)
    length: float  # mean of log2 of the tuned notes' lengths
    pitch_classes: np.ndarray  # (12,)
    register: float
    loudness: float
    rhythm: np.ndarray  # (96,) share of notes at each position of the bar
    neighbour_likeness: float  # usual likeness of a chunk to the one before
    most_neighbour_likeness: float  # the most
    most_bar_likeness: float  # the most a chunk's bars are alike, on average
    longest_run: int  # most times one voice strikes the same pitch in a row, and nothing else
    reach: int  # most positions from one onset to the next, as of constraints.reach_of
    longest_silence: float  # longest silence at a bar line, in positions
    longest_rest: float  # longest silence anywhere, in positions
    empty_run: int  # most bars in a row without an onset
    downbeat: float  # tuned notes that begin a bar together, usually
    bar_step: np.ndarray  # (3,) spread of the changes from bar to bar of onsets, velocity (in bins) and pitch

    @classmethod
    def of(cls, chunks: list[tuple[np.ndarray, int, float]], bar_positions: int) -> Style:
        """`chunks`: (rows, bars, seconds) of the song's chunks, in order; `bar_positions` of its usual bar."""
        played = [(rows, bars, seconds) for rows, bars, seconds in chunks if len(rows)]
        density = np.array([len(rows) / max(seconds, 1e-3) for rows, _, seconds in played])
        rows = np.concatenate([rows for rows, _, _ in played])
        neighbours = [
            metrics.likeness(likeness_set(a[0]), likeness_set(b[0])) for a, b in zip(played, played[1:], strict=False)
        ]
        return cls(
            density=float(np.median(density)),
            thinnest=float(density.min()),
            voices=_voices(rows),
            length=_length(rows),
            pitch_classes=_pitch_classes(rows),
            register=_register(rows),
            loudness=float(rows[:, VELOCITY].mean()),
            rhythm=_rhythm(rows),
            neighbour_likeness=float(np.mean(neighbours)) if neighbours else 0.3,
            most_neighbour_likeness=max(neighbours, default=0.3),
            most_bar_likeness=max(_bar_likeness(rows, bars) for rows, bars, _ in played),
            longest_run=longest_run(rows),
            reach=reach_of(_onsets(chunks, bar_positions), bar_positions),
            longest_silence=_longest_silence(chunks, bar_positions),
            longest_rest=_longest_silence(chunks, bar_positions, anywhere=True),
            empty_run=max(_empty_run(rows, bars) for rows, bars, _ in played),
            downbeat=_downbeat(chunks),
            bar_step=_bar_step(chunks),
        )


@dataclass(frozen=True)
class Asked:
    """What a plan asks of a chunk, where that is not to be like the song's mean."""

    density: float  # notes a second
    loudness: float  # mean velocity, in bins
    register: float  # mean pitch of what is no drum; 0: nothing is
    voices: frozenset[Voice]
    source: np.ndarray  # (n, 8) rows that it goes back to, bars counted from the chunk's first; may be empty
    likeness: float | None = None  # to the source, as of aligned.likeness
    begins: bool = False  # a section: it may differ from the bar before as much as it likes

    def style(
        self, chunks: list[tuple[np.ndarray, int, float]], bar_positions: int, bars: int, seconds: float, whole: Style
    ) -> Style:
        """What is usual where this is asked: bounds as loose as the song's `chunks` (as of Style.of) and the source are
        in these voices, means those of the source if there is one. `whole` is the style of all voices."""
        mine = [(of_voices(rows, self.voices), bars, seconds) for rows, bars, seconds in chunks]
        played = [chunk for chunk in mine if len(chunk[0])]
        there = [(self.source, bars, seconds)] if len(self.source) else []
        if not played + there:
            return whole
        loose, usual = Style.of(played + there, bar_positions), Style.of(there or played, bar_positions)
        return replace(
            loose,
            density=self.density or usual.density,
            thinnest=min(loose.thinnest, self.density or loose.thinnest),
            voices=usual.voices,
            length=usual.length,
            pitch_classes=usual.pitch_classes,
            register=self.register or usual.register,
            loudness=self.loudness if self.loudness > 0 else usual.loudness,
            rhythm=usual.rhythm,
        )


@dataclass(frozen=True)
class Before:
    """The chunk before the candidates; without rows when there is none."""

    rows: np.ndarray
    bars: int
    bar_positions: int  # of the usual bar

    @property
    def likeness_set(self) -> np.ndarray:
        return likeness_set(self.rows)


@dataclass(frozen=True)
class Fit:
    """Judges candidates for one chunk."""

    style: Style
    before: Before
    bars: int  # of the chunk
    seconds: float
    lands: bool = False  # it is the last, and the music is to end in it
    asked: Asked | None = None  # by a plan; `style` is then what `Asked.style` makes of the song's

    def terms(self, rows: np.ndarray) -> dict[str, float]:
        """The terms of a candidate (rows must not be empty)."""
        style = self.style
        again = metrics.likeness(likeness_set(rows), self.before.likeness_set)
        found = {
            "density": abs(float(np.log2(len(rows) / max(self.seconds, 1e-3) / style.density))),
            "voices": 1 - float(np.minimum(_voices(rows), style.voices).sum()),
            "length": abs(_length(rows) - style.length),
            "harmony": 1 - _cosine(_pitch_classes(rows), style.pitch_classes),
            "register": abs(_register(rows) - style.register) / 12,
            "loudness": abs(float(rows[:, VELOCITY].mean()) - style.loudness) * 5 / 32,
            "rhythm": 1 - float(np.minimum(_rhythm(rows), style.rhythm).sum()),
            "repetition": abs(again - style.neighbour_likeness) if len(self.before.rows) else 0.0,
            "seam": max(0.0, silence_before(rows, self.before) - style.longest_silence) / self.before.bar_positions,
        }
        found["step"] = 0.0 if self.asked and self.asked.begins else _step(rows, self.before, style)
        if self.asked:
            found |= self._asked_terms(rows, self.asked)
        return found | {"ending": _unlike_an_ending(rows, self)} if self.lands else found

    def _asked_terms(self, rows: np.ndarray, asked: Asked) -> dict[str, float]:
        """How far a candidate is from what a plan asks, beyond what the style tells."""
        usual = self.style.neighbour_likeness
        if len(asked.source):  # as like the chunk before as its source would be, if it is to be like it
            again = metrics.likeness(likeness_set(rows), self.before.likeness_set)
            share = 0.5 if asked.likeness is None else asked.likeness
            usual = share * self._source_again + (1 - share) * usual
            repetition = {"repetition": abs(again - usual) if len(self.before.rows) else 0.0}
        else:
            repetition = {}
        unlike = len(asked.source) > 0 and asked.likeness is not None
        return repetition | {
            "missing": len(asked.voices - voices_in(rows)) / max(1, len(asked.voices)),
            "source": abs(likeness(rows, asked.source) - (asked.likeness or 0.0)) if unlike else 0.0,
        }

    @property
    def _source_again(self) -> float:
        """How like the chunk before the planned source is; 0 without one."""
        return metrics.likeness(likeness_set(self.asked.source), self.before.likeness_set) if self.asked else 0.0

    def faults(self, rows: np.ndarray) -> list[str]:
        """Why a chunk must not be used: "silent" (too thin, bars left empty), "hole" (a rest, at the seam or inside,
        longer than the song's), "stuck" or "looping"; an empty list when it may be. What the song itself does is never
        a fault, and a last chunk may ring out."""
        style, before, bars = self.style, self.before, self.bars
        if len(rows) == 0 or len(rows) / max(self.seconds, 1e-3) < SILENT_SHARE * style.thinnest:
            return ["silent"]
        found = []
        unavoidable = silence_before(np.zeros((1, rows.shape[1]), rows.dtype), before)  # with a note on the downbeat
        hole = silence_before(rows, before) > max(style.longest_silence, unavoidable)
        end = None if self.lands else bars
        stretched = _longest_gap(rows, end, before.bar_positions) > style.reach
        rest = _longest_silence([(rows, bars, 0.0)], before.bar_positions, anywhere=True)
        stretched |= rest > max(REST_MARGIN * style.longest_rest, before.bar_positions)
        if _empty_run(rows, bars) > style.empty_run:
            found.append("silent")
        if hole or stretched:
            found.append("hole")
        if is_stuck(rows, style):
            found.append("stuck")
        again = metrics.likeness(likeness_set(rows), before.likeness_set)
        most_again = max(style.most_neighbour_likeness, self._source_again)  # what a plan asks is no fault
        if (
            again > max(0.75, most_again + LOOP_MARGIN)
            or bars > 2
            and _bar_likeness(rows, bars) > max(0.75, style.most_bar_likeness + LOOP_MARGIN)
        ):
            found.append("looping")
        return found


def score(found: dict[str, float]) -> float:
    """Weighted sum of the terms; lower is better."""
    return sum(WEIGHTS[name] * value for name, value in found.items())


def _voices(rows: np.ndarray) -> np.ndarray:
    voice = rows[:, PROGRAM].astype(np.int64) * MAX_INSTANCES + rows[:, INSTANCE]
    return np.bincount(voice, minlength=FIELD_SIZES[PROGRAM] * MAX_INSTANCES) / max(1, len(rows))


def _length(rows: np.ndarray) -> float:
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    return float(np.log2(DURATIONS[tuned[:, DURATION]]).mean()) if len(tuned) else 0.0


def _pitch_classes(rows: np.ndarray) -> np.ndarray:
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    return metrics.pitch_class_weights(tuned[:, PITCH], DURATIONS[tuned[:, DURATION]])


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 0 else 1.0


def _register(rows: np.ndarray) -> float:
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM, PITCH]
    return float(tuned.mean()) if len(tuned) else 60.0


def _rhythm(rows: np.ndarray) -> np.ndarray:
    return np.bincount(rows[:, POSITION], minlength=96) / max(1, len(rows))


def _empty_run(rows: np.ndarray, bars: int) -> int:
    """Most bars in a row without an onset, those at the chunk's edges too."""
    return max(longest_empty_run(rows, bars), int(rows[0, BAR]), bars - 1 - int(rows[-1, BAR]))


def is_stuck(rows: np.ndarray, style: Style) -> bool:
    """Does a voice strike one pitch over and over, far more often in a row than the song does?"""
    return longest_run(rows) > most_strikes(style.longest_run)


def _bar_figures(rows: np.ndarray) -> np.ndarray:
    """Onsets, mean velocity and mean pitch (tuned notes) of one bar's rows, (3,); NaN for means of nothing."""
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM, PITCH]
    velocity = rows[:, VELOCITY].mean() if len(rows) else np.nan
    return np.array([len(np.unique(rows[:, POSITION])), velocity, tuned.mean() if len(tuned) else np.nan])


def _bar_step(chunks: list[tuple[np.ndarray, int, float]]) -> np.ndarray:
    """Standard deviation of the changes from bar to bar, and no less than is easily heard, (3,)."""
    bars = [_bar_figures(rows[rows[:, BAR] == bar]) for rows, count, _ in chunks for bar in range(count)]
    changes = np.diff(np.array(bars), axis=0).reshape(-1, 3).T
    heard = [change[~np.isnan(change)] for change in changes]
    return np.maximum([change.std() if len(change) else 0.0 for change in heard], AUDIBLE_STEP)


def _step(rows: np.ndarray, before: Before, style: Style) -> float:
    """Changes from the last bar before to the first, beyond one usual change each, summed; silence changes nothing."""
    last, first = before.rows[before.rows[:, BAR] == before.bars - 1], rows[rows[:, BAR] == 0]
    if not (len(last) and len(first)):
        return 0.0
    changes = np.abs(_bar_figures(first) - _bar_figures(last)) / style.bar_step
    return float(np.nan_to_num(changes - 1).clip(0, 5).sum())


def _unlike_an_ending(rows: np.ndarray, fit: Fit) -> float:
    """0 for a chunk whose last notes begin in the first half of its last bar, the key note lowest, in a chord as full
    as usual on a downbeat; up to 3."""
    onset = _onset(rows, fit.before.bar_positions)
    late = (onset.max() / fit.before.bar_positions - (fit.bars - 1) - 0.5) * 2
    last = rows[(onset == onset.max()) & (rows[:, PROGRAM] != DRUM_PROGRAM), PITCH]
    key_note = metrics.key_note(fit.style.pitch_classes)
    astray = len(last) > 0 and int(last.min()) % 12 != key_note
    return float(np.clip(late, 0, 1)) + float(astray) + max(0.0, 1 - len(last) / max(1.0, fit.style.downbeat))


def _downbeat(chunks: list[tuple[np.ndarray, int, float]]) -> float:
    """Median number of tuned notes that begin together with a bar, over bars in which any do; 0: none."""
    counts = [
        np.bincount(rows[(rows[:, POSITION] == 0) & (rows[:, PROGRAM] != DRUM_PROGRAM), BAR], minlength=1)
        for rows, _, _ in chunks
    ]
    played = np.concatenate(counts)
    return float(np.median(played[played > 0])) if (played > 0).any() else 0.0


def _onset(rows: np.ndarray, bar_positions: int, first_bar: int | np.int64 = 0) -> np.ndarray:
    """When each row begins, in positions since bar 0, (n,)."""
    return (rows[:, BAR].astype(np.int64) + first_bar) * bar_positions + rows[:, POSITION]


def silence_before(rows: np.ndarray, before: Before) -> float:
    """Positions from the last release of the chunk before to the first onset of this one; 0 when notes ring across."""
    first = int(_onset(rows[:1], before.bar_positions)[0])
    if len(before.rows) == 0:
        return float(first)
    onset = _onset(before.rows, before.bar_positions, -before.bars)
    return max(0.0, first - float((onset + DURATIONS[before.rows[:, DURATION]] / 2).max()))


def _onsets(chunks: list[tuple[np.ndarray, int, float]], bar_positions: int) -> np.ndarray:
    """All onsets of consecutive chunks, in positions since their beginning."""
    first_bars = np.cumsum([0] + [bars for _, bars, _ in chunks])
    parts = [_onset(rows, bar_positions, first) for (rows, _, _), first in zip(chunks, first_bars, strict=False)]
    return np.unique(np.concatenate(parts))


def _longest_gap(rows: np.ndarray, bars: int | None, bar_positions: int) -> int:
    """Longest time without an onset in a chunk, in positions; its beginning included and, with `bars`, its end."""
    end = [] if bars is None else [bars * bar_positions]
    return int(np.diff(np.unique(np.concatenate([[0], _onset(rows, bar_positions), end]))).max(initial=0))


def _longest_silence(chunks: list[tuple[np.ndarray, int, float]], bar_positions: int, anywhere: bool = False) -> float:
    """The longest silence between notes that holds a bar line, or `anywhere`, in positions, over consecutive chunks."""
    starts, ends, first_bar = [], [], 0
    for rows, bars, _ in chunks:
        start = _onset(rows, bar_positions, first_bar)
        starts.append(start)
        ends.append(start + DURATIONS[rows[:, DURATION]] / 2)
        first_bar += bars
    start, end = np.concatenate(starts), np.concatenate(ends)
    sounding_until = np.maximum.accumulate(end)
    silence = start[1:] - sounding_until[:-1]
    holds_line = start[1:] // bar_positions > start[:-1] // bar_positions
    return float(silence[holds_line | anywhere].max(initial=0.0))


def _bar_likeness(rows: np.ndarray, bars: int) -> float:
    """Mean likeness of each bar to the one before (0 with fewer than two bars)."""
    sets = []
    for bar in range(bars):
        r = rows[rows[:, BAR] == bar].astype(np.int64)
        sets.append((r[:, POSITION] * 256 + r[:, PROGRAM]) * 512 + r[:, PITCH] % (2 * DRUM_PITCH_OFFSET))
    return float(np.mean([metrics.likeness(a, b) for a, b in zip(sets, sets[1:], strict=False)])) if bars > 1 else 0.0
