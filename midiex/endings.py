"""Where a song begins to end: the final chord, the slowing down, the fade-out that whoever wants it to go on would cut.

Every bar is compared with what is usual for this song: how many onsets a bar has, how long nothing new begins, how fast
and how loud the bars go. A loop that just stops has no ending. Reads a song and its rows; knows no model and cuts
nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import metrics, score, tokens
from .tokens import BAR, DRUM_PROGRAM, DURATION, DURATIONS, DURATIONS_PER_BEAT, MICRO, PITCH, POSITION, PROGRAM

MOST_BARS = 8  # of a gesture
FEWEST_BARS = 4  # of a song that can have one
CONTEXT_BARS = 32  # before a bar tell what is usual there
RARE = 0.15  # what a greater share of the bars before do as well is nothing out of the ordinary

STROKE_BEATS = 0.17  # onsets nearer than this are one: a strummed or spread chord
HELD = 1.75  # times the usual time without an onset
LONG = 1.5  # times a length that three notes in four do not reach
FEW = 0.45  # of the usual onsets: a stroke, not a bar of music
CALM = 0.75  # of the usual onsets: a bar that comes to rest
THIN = 0.5  # of the usual activity
DYING = 0.7  # of the activity in the first half of a thin run, in its second half
SLOW = 0.9  # of the usual tempo
SLOW_BARS = 4  # one change of tempo that holds longer than this is a new tempo
FALL = 0.95  # of the usual loudness: where a fade begins
FADED = 0.6  # of the usual loudness: where it must arrive
STEADY = 0.02  # of the usual tempo or loudness: a change that is none

AUDIBLE_S = 0.05
CLEAR_KEY = 0.6  # correlation from which a key is trusted to end in
PEDAL_BEATS = 4  # a pedal held this long into the ending began it

VOLUME, EXPRESSION = 7, 11  # controller numbers
AT_FIRST = {VOLUME: 100, EXPRESSION: 127}  # their values before the first event


@dataclass(frozen=True)
class Ending:
    """The closing gesture of a song."""

    first_bar: int  # index into Song.grid at which it begins
    kinds: tuple[str, ...]  # of "held", "rest", "ritardando", "fade", "thinning", in this order


def find_ending(song: score.Song, rows: np.ndarray) -> Ending | None:
    """The closing gesture, None where the song simply stops or has fewer than FEWEST_BARS bars.

    `rows` (n, 8) are all notes of the song on `song.grid`. A gesture is never longer than MOST_BARS and never begins in
    the first half of the bars up to the last one with notes; bars after that do not count.
    """
    bars = int(rows[-1, BAR]) + 1 if len(rows) else 0
    if bars < FEWEST_BARS:
        return None
    earliest = max((bars + 1) // 2, bars - MOST_BARS)
    stillness = _Stillness.of(song, rows, bars)
    starts: dict[str, int] = {}
    last = stillness.last_stroke()
    if last is not None:
        starts[last] = bars - 1
    for kind, first in (
        ("ritardando", _ritardando(song, bars, earliest)),
        ("fade", _fade(song, bars, earliest)),
        ("thinning", stillness.thinning(earliest, last is not None)),
    ):
        if first is not None:
            starts[kind] = first
    return Ending(_before_pedal(song, min(starts.values()), earliest), tuple(starts)) if starts else None


def _before_pedal(song: score.Song, bar: int, earliest: int) -> int:
    """`bar`, or the bar in which a pedal went down that is held across its beginning for long and for longer than is
    usual: what rings under it belongs to the ending."""
    tick = int(song.grid.ticks[bar])
    for track in song.score.tracks:
        pedals = track.pedals.numpy()
        down, length = pedals["time"].astype(np.int64), pedals["duration"]
        across = (down < tick) & (down + length > tick + PEDAL_BEATS * song.grid.tpq)
        for start in down[across & (length > 2 * np.median(length))] if across.any() else []:
            bar = max(earliest, min(bar, int(song.grid.bar_at(start))))
    return bar


def stops_short(song: score.Song, bars: int) -> bool:
    """Does the song fall silent before the end of its last bar (of `bars` with notes) for longer than it ever does
    across a bar line? A loop that its file cuts off within a bar does: whoever goes on after that bar leaves a hole."""
    if bars < 2:
        return False
    notes = tokens.notes_of(song.score)
    order = np.argsort(notes.start_ticks, kind="stable")
    start_s = song.tempo.to_seconds(notes.start_ticks[order])
    end_s = np.maximum.accumulate(song.tempo.to_seconds((notes.start_ticks + notes.duration_ticks)[order]))
    lines_s = song.grid.seconds[1 : bars + 1] - 1e-6
    after = np.searchsorted(start_s, lines_s)  # the first note at or after each bar line
    begins_s = np.append(start_s, lines_s[-1])[after]
    silence_s = np.where(after > 0, begins_s - end_s[np.maximum(after, 1) - 1], 0.0)
    return bool(silence_s[-1] > silence_s[:-1].max() + AUDIBLE_S)


# ---- what is usual -------------------------------------------------------------------------------------------------


def _before(values: np.ndarray, bar: int) -> np.ndarray:
    """The values (nan: none) of the bars that tell what is usual at `bar`."""
    context = values[max(0, bar - CONTEXT_BARS) : bar]
    return context[~np.isnan(context)]


def _usual(amounts: np.ndarray) -> float:
    """The median of what is above zero, zero where nothing is."""
    return float(np.median(amounts[amounts > 0])) if (amounts > 0).any() else 0.0


def _rare(holds: np.ndarray) -> bool:
    return len(holds) > 0 and float(holds.mean()) <= RARE


def _first_of_run(holds: np.ndarray, earliest: int) -> int | None:
    """The first bar of the last run of `holds` (bars,), not before `earliest`; None where it does not hold at last."""
    first = len(holds)
    while first > earliest and holds[first - 1]:
        first -= 1
    return first if first < len(holds) else None


def _longest_run(holds: np.ndarray) -> int:
    most = run = 0
    for one in holds:
        run = run + 1 if one else 0
        most = max(most, run)
    return most


# ---- onsets --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stillness:
    """How much begins in each bar and for how long nothing does. Arrays have one entry for each bar with an index
    below `bars`."""

    bars: int
    strokes: np.ndarray  # onsets, those of a spread chord counted once
    activity: np.ndarray  # mean of strokes and notes
    wait_beats: np.ndarray  # the longest time from an onset in the bar to the next one; nan without onset
    rest_beats: float  # from the last onset to the end of its bar
    ring_beats: float  # from the last onset to the last release
    bar_beats: float  # of the last bar
    length_beats: float  # three notes in four are no longer

    @classmethod
    def of(cls, song: score.Song, rows: np.ndarray, bars: int) -> _Stillness:
        grid = song.grid
        bar_starts = grid.ticks[: bars + 1] / grid.tpq
        unit = rows[:, POSITION] * tokens.MICROS_PER_POSITION + rows[:, MICRO] - tokens.MICRO_CENTER
        at = bar_starts[rows[:, BAR]] + unit / tokens.MICRO_PER_BEAT
        order = np.argsort(at, kind="stable")
        at, bar = at[order], rows[order, BAR]
        ends = at + DURATIONS[rows[order, DURATION]] / DURATIONS_PER_BEAT
        begins = _strokes(at, bar)
        strokes = np.bincount(bar[begins], minlength=bars).astype(float)
        notes = np.bincount(bar, minlength=bars)
        waits = np.diff(at[begins], append=np.nan)
        wait_beats = np.full(bars, np.nan)
        np.fmax.at(wait_beats, bar[begins], waits)
        last = float(at[begins][-1])
        return cls(
            bars, strokes, np.sqrt(strokes * notes), wait_beats,
            float(bar_starts[bars]) - last, float(ends.max()) - last,
            float(bar_starts[bars] - bar_starts[bars - 1]), float(np.percentile(ends - at, 75)),
        )  # fmt: skip

    def last_stroke(self) -> str | None:
        """How the last bar stands still: "held", "rest" or None."""
        last = self.bars - 1
        waits, strokes = _before(self.wait_beats, last), _usual(_before(self.strokes, last))
        if len(waits) == 0:
            return None
        enough = HELD * float(np.median(waits))
        still = max(self.rest_beats, self.ring_beats)
        if self.strokes[last] <= max(1.0, FEW * strokes) and still >= enough and self._is_new(still):
            return "held" if 2 * self.ring_beats >= still else "rest"
        calm = self.strokes[last] <= CALM * strokes or self.ring_beats >= self.bar_beats
        long = self.ring_beats >= max(enough, LONG * self.length_beats)
        return "held" if calm and long and self._is_new(self.ring_beats) else None

    def _is_new(self, still: float) -> bool:
        """Whether nearly so long a time without an onset is rare, of late or in the whole song."""
        waits = self.wait_beats[: self.bars - 1]
        return _rare(_before(waits, self.bars) >= 0.95 * still) or _rare(waits[~np.isnan(waits)] >= 0.95 * still)

    def thinning(self, earliest: int, stops: bool) -> int | None:
        """Where less and less begins, up to the last bar; `stops`: the last bar is known to be an end."""
        found = []
        for amount, share in ((self.strokes, FEW), (self.activity, THIN)):
            thin = amount <= share * _usual(_before(amount, earliest))
            first = _first_of_run(thin, earliest)
            if first is None or first == self.bars - 1:
                continue
            half = (self.bars - first) // 2
            dies = stops or amount[-half:].mean() < DYING * amount[first : first + half].mean()
            if dies and self.bars - first > _longest_run(thin[max(0, first - CONTEXT_BARS) : first]):
                found.append(first)
        return min(found, default=None)


def _strokes(at: np.ndarray, bar: np.ndarray) -> np.ndarray:
    """Indices of the onsets that begin a stroke; `at`, rising, in beats, and `bar` are (n,)."""
    begins = [0]
    for i in np.flatnonzero(np.diff(at)) + 1:
        if at[i] - at[begins[-1]] > STROKE_BEATS or bar[i] != bar[begins[-1]]:
            begins.append(int(i))
    return np.array(begins)


# ---- tempo and loudness --------------------------------------------------------------------------------------------


def _ritardando(song: score.Song, bars: int, earliest: int) -> int | None:
    """The first of the last bars that are slower than usual, None where that is but a new tempo."""
    pace = song.grid.bar_beats[:bars] / song.grid.bar_s[:bars]
    usual = float(np.median(_before(pace, earliest)))
    slow = pace <= SLOW * usual
    first = _first_of_run(slow, earliest)
    if first is None or not _rare(_before(slow.astype(float), first) > 0):
        return None
    falls = int((np.diff(pace[first - 1 :]) < -STEADY * usual).sum())
    return first if falls > 1 or bars - first <= SLOW_BARS else None


def _fade(song: score.Song, bars: int, earliest: int) -> int | None:
    """The first of the last bars that grow softer and softer."""
    loudness = _loudness(song, bars)
    heard = np.flatnonzero(~np.isnan(loudness))
    before = _before(loudness, earliest)
    if len(before) == 0:
        return None
    usual = float(np.median(before))
    first = last = int(heard[-1])
    for bar in heard[-2::-1]:
        rises = loudness[first] > loudness[bar] + STEADY * usual
        if bar < earliest or rises or loudness[bar] > FALL * usual:
            break
        first = int(bar)
    faded = loudness[last] <= FADED * usual and _rare(_before(loudness, first) <= loudness[last])
    return first if faded and first < last else None


def _loudness(song: score.Song, bars: int) -> np.ndarray:
    """How loud the notes are that begin in each bar, each next to its own voice's median; nan where none begins.

    Velocity times volume and expression. A loud voice that falls silent is no fade of those that play on.
    """
    levels = _levels(song)
    total, count = np.zeros(bars), np.zeros(bars)
    for voice, track in zip(song.voices, song.score.tracks, strict=True):
        notes = track.notes.numpy()
        level = notes["velocity"].astype(np.float64)
        lane = (voice.track if song.midi.type == 2 else 0, voice.channel)
        for control, default in AT_FIRST.items():
            ticks, values = levels.get((*lane, control), (np.zeros(0), np.zeros(0)))
            place = np.searchsorted(ticks, notes["time"], side="right")
            level = level * np.append(default, values)[place]
        level /= max(float(np.median(level)), 1.0)
        bar = song.grid.bar_at(notes["time"])
        inside = bar < bars
        np.add.at(total, bar[inside], level[inside])
        np.add.at(count, bar[inside], 1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _levels(song: score.Song) -> dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]]:
    """(ticks, values), each (n,), of volume and expression by (track in type 2 files, channel, controller)."""
    found: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for index, track in enumerate(song.midi.tracks):
        tick = 0
        for message in track:
            tick += message.time
            if message.type == "control_change" and message.control in AT_FIRST:
                key = (index if song.midi.type == 2 else 0, message.channel, message.control)
                found.setdefault(key, []).append((tick, message.value))
    tables = {key: np.array(sorted(events, key=lambda e: e[0])) for key, events in found.items()}
    return {key: (table[:, 0], table[:, 1]) for key, table in tables.items()}


def final_chord(rows: np.ndarray) -> np.ndarray:
    """Pitch classes (12,) bool that music like these rows may end on: its key's triad, or all where no key is clear."""
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    weights = metrics.pitch_class_weights(tuned[:, PITCH], DURATIONS[tuned[:, DURATION]])
    return metrics.tonic_triad(weights) if metrics.key_of(weights)[1] >= CLEAR_KEY else np.ones(12, bool)
