"""The time line of a result: the song's bars up to a point, new bars, and the song's bars from a point on, if any.

New bars go on in the song's meter pattern and tempo, and where its tempo breathes they repeat its fluctuation. Knows a
song's bars, meters and tempo map; knows no notes, no tokens and no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import BadInput
from .grid import MAX_BARS, BarGrid, TempoMap
from .score import Song

STEADY = 0.02  # a tempo this near the latest bars' usual one goes on as it is
BREATH = 0.005  # fluctuation below this share is no fluctuation
LATEST_BARS = 16  # whose tempo is the usual one
NEW_TEMPO_BARS = 5  # a tempo that has held for so long is not the end of another
MEMORY_BARS = 32  # whose fluctuation is repeated
RECURRENCES = 3  # make a fluctuation a habit
MAX_PERIOD_BARS = 8  # of a meter pattern
MAX_STRETCH = 0.01  # of the tempo, to end on the second
MAX_SLOWING_BARS = 4
MIN_BAR_S = 0.1  # of more than FEW_BARS new ones; shorter come of broken files, and minutes of them would be thousands
FEW_BARS = 64
NO_END = 10**9


@dataclass(frozen=True)
class Timeline:
    """Bars of the result: `before` bars of the song, `new` ones, and those of the song from bar `after` on."""

    before: int
    new: int
    after: int | None  # None: nothing of the song follows
    grid: BarGrid  # of the result
    tempo: TempoMap  # of the result
    end_tick: int  # where new music ends: the border of its last bar, or earlier when it was cut to the second
    tempi: tuple[tuple[int, int], ...] = ()  # (tick, microseconds a beat) to be written, start to end inclusive
    meters: tuple[tuple[int, int, int], ...] = ()  # (tick, numerator, denominator), likewise

    @property
    def start_tick(self) -> int:
        return int(self.grid.ticks[self.before])

    @property
    def start_s(self) -> float:
        return float(self.grid.seconds[self.before])

    @property
    def end_s(self) -> float:
        """Where the new music ends."""
        return float(self.tempo.to_seconds(self.end_tick))


def go_on(
    song: Song,
    before: int,
    seconds: float,
    after: int | None = None,
    exact: bool = False,
    slowing: range = range(0),
) -> Timeline:
    """As many new bars after the song's first `before` (one at least) as make the result `seconds` long or, by less
    than a bar, shorter; counted up to the last release where the song goes on from bar `after`.

    The last new bars slow down as the song's bars `slowing` do, if any (its own ritardando, which was cut off).

    With `exact` the result ends on the second: the tempo of the new bars is stretched by up to MAX_STRETCH, and where
    that is not enough the last bar is cut.

    Raises BadInput when not one bar fits, when bars would be too many or too short to be any, or when the song's own
    ending cannot be made to end on the second.
    """
    bars = _Coming(song, before, slowing)
    tail_s = 0.0
    if after is not None:
        tail_s = max(0.0, song.length_s - float(song.grid.seconds[min(after, len(song.grid))]))
    start_s = float(song.grid.seconds[before])
    room_s = seconds - start_s - tail_s
    ends_s = bars.ends_s(room_s)
    if room_s < ends_s[1] * (1 - MAX_STRETCH if exact else 1) - 1e-6:
        raise BadInput(
            f"{song.path} lasts {start_s + tail_s:.1f} s without new music and {seconds:.1f} s were asked for, which "
            f"leaves no room for a bar; ask for at least {int(np.ceil(start_s + tail_s + ends_s[1]))} s."
        )
    if not exact:
        return bars.line(int(np.searchsorted(ends_s, room_s + 1e-6, side="right")) - 1, after)
    count = max(1, int(np.abs(ends_s - room_s).argmin()))
    stretch = room_s / ends_s[count]
    if abs(stretch - 1) <= MAX_STRETCH and bars.can_stretch:
        return bars.line(count, after, stretch)
    if after is not None:
        lengths = [start_s + tail_s + ends_s[i] for i in range(max(1, count - 1), min(count + 2, len(ends_s)))]
        raise BadInput(
            f"With its own ending kept, {song.path} cannot end at {seconds:.2f} s with the tempo changed by 1 % at "
            f"most; ask for about {' or '.join(f'{length:.2f}' for length in lengths)} s."
        )
    count = int(np.searchsorted(ends_s, room_s - 1e-6))
    stretch = max(1 - MAX_STRETCH, room_s / ends_s[count]) if bars.can_stretch else 1.0
    return bars.line(count, None, stretch, until_s=seconds)


def insert(song: Song, before: int, seconds: float) -> Timeline:
    """New bars of about `seconds`, one at least, after the song's first `before` (one at least).

    Raises BadInput when bars would be too many, or too short to be any.
    """
    bars = _Coming(song, before)
    ends_s = bars.ends_s(seconds)
    return bars.line(max(1, int(np.abs(ends_s - seconds).argmin())), before)


def rewrite(song: Song, first: int, after: int) -> Timeline:
    """New music in place of the song's bars `first` to `after` - 1; tempo and meter stay the song's."""
    return Timeline(first, after - first, after, song.grid, song.tempo, int(song.grid.ticks[after]))


class _Coming:
    """The bars that could follow the song's first `before`, without end."""

    def __init__(self, song: Song, before: int, slowing: range = range(0)):
        self.song, self.before = song, before
        self.start_tick = int(song.grid.ticks[before])
        self.can_stretch = song.midi.ticks_per_beat > 0  # SMPTE time knows no tempo
        self.length_ticks = np.diff(song.grid.ticks[: before + 1])
        self.models = _meter_models(self.length_ticks)  # song bars whose lengths new bars take in turn
        beat_s = song.grid.bar_s[:before] / song.grid.bar_beats[:before]
        first = _latest_tempo(beat_s)
        usual = _usual(beat_s[first:], before) * 1e6
        self.in_force = song.tempo.us_per_beat_at(self.start_tick - 1)
        self.fluctuation = _fluctuation(song, beat_s, first, len(self.models))
        steady = not self.fluctuation and abs(self.in_force / usual - 1) < STEADY
        self.base_us = self.in_force if steady else usual
        self.slowing = [_shape(song, bar, usual) for bar in slowing[-MAX_SLOWING_BARS:]] if self.can_stretch else []

    def bar(self, number: int, count: int) -> tuple[int, list[tuple[float, float]], int]:
        """Of new bar `number` among `count`: its length in ticks, its tempi [(share of the bar, microseconds a beat)],
        and the song's bar it takes its length from."""
        model = self.models[number % len(self.models)]
        shape = self.fluctuation[number % len(self.fluctuation)] if self.fluctuation else [(0.0, 1.0)]
        to_end = count - number
        if to_end <= len(self.slowing) < count:
            shape = self.slowing[-to_end]
        return int(self.length_ticks[model]), [(at, self.base_us * ratio) for at, ratio in shape], model

    def bar_s(self, number: int, count: int) -> float:
        """How long that bar lasts."""
        ticks, tempi, _ = self.bar(number, count)
        if not self.can_stretch:
            return float(self.song.tempo.to_seconds(ticks))
        ends = [at for at, _ in tempi[1:]] + [1.0]
        beats = ticks / self.song.tempo.tpq
        return sum((end - at) * beats * us for (at, us), end in zip(tempi, ends, strict=True)) / 1e6

    def ends_s(self, room_s: float) -> np.ndarray:
        """How long 0, 1, 2 … new bars last, up to the first number of them, one at least, that lasts longer than
        `room_s`.

        Raises BadInput when they would be more than a song may have, or too short to be bars.
        """
        steady = [0.0]  # without slowing
        totals = [0.0]
        while len(totals) == 1 or totals[-1] <= room_s:
            count = len(steady)
            if count > MAX_BARS:
                raise BadInput(f"More than {MAX_BARS} new bars would be needed; ask for a shorter result.")
            if count > FEW_BARS and (bar_s := steady[-1] / (count - 1)) < MIN_BAR_S:
                raise BadInput(
                    f"{self.song.path} has bars of {bar_s:.3g} s where new music would begin, too short to go on from; "
                    "correct its tempo or meter, or let new music begin elsewhere."
                )
            steady.append(steady[-1] + self.bar_s(count - 1, NO_END))
            slow = len(self.slowing) if len(self.slowing) < count else 0
            totals.append(steady[count - slow] + sum(self.bar_s(n, count) for n in range(count - slow, count)))
        return np.array(totals)

    def line(self, count: int, after: int | None, stretch: float = 1.0, until_s: float | None = None) -> Timeline:
        """The time line with `count` new bars, their tempi multiplied by `stretch`, cut at `until_s`."""
        song, tick = self.song, self.start_tick
        ticks, tempi, meters = [tick], [], []
        tempo_now = round(self.in_force)
        meter_now = _signature_at(song, self.start_tick - 1)
        for number in range(count):
            length, shape, model = self.bar(number, count)
            for at, us in shape:
                new_tempo = min(_whole(us * stretch, number / count), 2**24 - 1)
                if new_tempo != tempo_now and self.can_stretch:
                    tempi.append((tick + round(at * length), new_tempo))
                    tempo_now = new_tempo
            meter = _signature_of(song, model)
            if meter is not None and meter != meter_now:
                meters.append((tick, *meter))
                meter_now = meter
            tick += length
            ticks.append(tick)
        before = song.tempo.ticks < self.start_tick
        parts_ticks = [song.tempo.ticks[before], np.array([at for at, _ in tempi], np.int64)]
        parts_us = [song.tempo.us_per_beat[before], np.array([us for _, us in tempi], np.float64)]
        following = np.zeros(0, np.int64)
        if after is not None:
            resume_tick = int(song.grid.ticks[after])
            shift = tick - resume_tick
            following = song.grid.ticks[after + 1 :] + shift
            theirs = song.tempo.us_per_beat_at(resume_tick)
            if self.can_stretch and round(theirs) != tempo_now:
                tempi.append((tick, round(theirs)))
            later = song.tempo.ticks > resume_tick
            parts_ticks += [np.array([tick]), song.tempo.ticks[later] + shift]
            parts_us += [np.array([theirs]), song.tempo.us_per_beat[later]]
            meter = _signature_at(song, resume_tick)
            if meter != meter_now:
                meters.append((tick, *meter))
        tempo = song.tempo
        if self.can_stretch:
            tempo = TempoMap.build(tempo.tpq, np.concatenate(parts_ticks), np.concatenate(parts_us))
        all_ticks = np.concatenate([song.grid.ticks[: self.before], ticks, following])
        grid = BarGrid(tempo.tpq, all_ticks, tempo.to_seconds(all_ticks))
        end_tick = tick if until_s is None else min(tick, round(float(tempo.to_ticks(until_s))))
        return Timeline(self.before, count, after, grid, tempo, end_tick, tuple(tempi), tuple(meters))


def _meter_models(lengths: np.ndarray) -> list[int]:
    """Indices of the bars (their lengths in ticks, shape (n,)) whose lengths the coming bars take in turn: one period
    of the pattern in which the latest repeat, or one bar of the latest bars' usual length."""
    n = len(lengths)
    for period in range(1, MAX_PERIOD_BARS + 1):
        span = max(2 * period, 4)
        if span <= n and (abs(lengths[n - span + period :] - lengths[n - span : n - period]) <= 1).all():
            return list(range(n - period, n))
    usual = float(np.median(lengths[-8:]))
    return [int(n - 1 - np.abs(lengths[::-1] - usual).argmin())]


def _whole(us: float, done: float) -> int:
    """A tempo as files hold it, rounded down in the first of the new bars (`done`: share of them before this one) and
    up in the others, so that over all of them nothing adds up."""
    us = round(us, 3)
    return int(us) + (done >= 1 - us % 1)


def _usual(beat_s: np.ndarray, bar: int) -> float:
    """The usual tempo around a bar, by LATEST_BARS of `beat_s` (n,) or all; never by fewer, since medians over parts of
    a phrase would differ."""
    first = min(max(0, bar - LATEST_BARS // 2), max(0, len(beat_s) - LATEST_BARS))
    return float(np.median(beat_s[first : first + LATEST_BARS]))


def _latest_tempo(beat_s: np.ndarray) -> int:
    """The bar with which the latest tempo begins, given seconds a beat of each bar (n,): where the tempo jumps, by far
    more than it moves from bar to bar before and after, and does not come back."""
    for first in range(len(beat_s) - NEW_TEMPO_BARS, 0, -1):
        earlier, since = beat_s[max(0, first - LATEST_BARS // 2) : first], beat_s[first:]
        jump = max(since.min() - earlier.max(), earlier.min() - since.max())
        steps = max(np.abs(np.diff(part)).max(initial=0.0) for part in (earlier, since))
        if jump > 2 * steps + BREATH * earlier[-1]:
            return first
    return 0


def _fluctuation(song: Song, beat_s: np.ndarray, first: int, period: int) -> list[list[tuple[float, float]]]:
    """What the tempo did in each of the latest bars: [(share of the bar, ratio to the tempo of the bars around)].

    Empty for a steady song, and for one that slowed down but once or twice. `beat_s`: seconds a beat of each known bar,
    those from `first` on in the latest tempo. As many bars as the meter pattern's period doubled over and over, so that
    phrases breathe as phrases.
    """
    n = len(beat_s)
    periods = min(n - first, MEMORY_BARS) // period
    usable = period << periods.bit_length() - 1 if periods else 0
    shapes = [_shape(song, bar, _usual(beat_s[first:], bar - first) * 1e6) for bar in range(n - usable, n)]
    moves = np.array([any(abs(ratio - 1) >= BREATH for _, ratio in shape) for shape in shapes], bool)
    times = int((np.diff(moves, prepend=False) & moves).sum())
    return shapes if 2 * moves.sum() >= len(moves) > 0 or times >= RECURRENCES else []


def _shape(song: Song, bar: int, around_us: float) -> list[tuple[float, float]]:
    """What the tempo does in a bar: [(share of the bar, ratio to `around_us`)]."""
    first, last = song.grid.ticks[bar], song.grid.ticks[bar + 1]
    inside = (song.tempo.ticks > first) & (song.tempo.ticks < last)
    shape = [(0.0, song.tempo.us_per_beat_at(first) / around_us)]
    shape += [
        (float((tick - first) / (last - first)), float(us) / around_us)
        for tick, us in zip(song.tempo.ticks[inside], song.tempo.us_per_beat[inside], strict=True)
    ]
    return [(at, min(max(ratio, 0.5), 2.0)) for at, ratio in shape]


def _signature_at(song: Song, tick: int) -> tuple[int, int]:
    """Time signature in force at a tick."""
    known = [m for m in song.score.time_signatures if m.time <= max(tick, 0)]
    return known[-1].numerator, known[-1].denominator


def _signature_of(song: Song, bar: int) -> tuple[int, int] | None:
    """Time signature of a bar as the file writes it; None where the bar is not one of the file's own."""
    first, last = (int(tick) for tick in song.grid.ticks[bar : bar + 2])
    numerator, denominator = _signature_at(song, first)
    return (numerator, denominator) if round(4 * song.grid.tpq * numerator / denominator) == last - first else None
