"""The clock: every event of every batch to its time, every stop on a bar line, nothing left sounding.

Knows batches, an instrument (`Sink`) and where batches come from (`Source`); knows no passages and no threads.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import mido

from ..lanes import turn
from ..score import SUSTAIN
from .sinks import Sink
from .stream import Batch, Timed, is_release, playable
from .take import Take

START_S = 0.1  # before the first event, so that it is not late
LATE_S = 0.02  # a batch that comes later than this makes the music wait
MIN_POLL_S, POLL_S = 0.001, 0.05  # how often a stop is looked for while time passes


class Source(Protocol):
    """Where batches come from (ahead.py)."""

    @property
    def ahead_s(self) -> float:
        """Seconds of music that wait."""

    def ready(self, timeout_s: float) -> bool:
        """Would `take` answer at once? Waits for it, but no longer than `timeout_s`."""

    def take(self) -> Batch | None:
        """The next batch, None after the last one."""


@dataclass(frozen=True)
class Bar:
    """A bar that begins to sound."""

    number: int  # of the lap, from 1
    played_s: float  # music before it, waits left out
    ahead_s: float  # music that is composed and not yet played


@dataclass(frozen=True)
class Played:
    """What was played."""

    seconds: float  # of music, waits left out
    bars: int  # that were begun
    waits: int  # for music that was not composed yet
    waited_s: float
    stopped: bool  # before its end


class Player:
    """Plays batches in time. `stop` may be called from a signal handler or another thread."""

    def __init__(
        self,
        sink: Sink,
        source: Source,
        take: Take | None = None,
        on_bar: Callable[[Bar], None] = lambda bar: None,
        on_wait: Callable[[int], None] = lambda bar: None,
    ) -> None:
        """`take` keeps what was played. `on_bar` is called with every bar, `on_wait` with the number of the bar before
        which the music waits, since it is not composed yet."""
        self.sink, self.source, self._take = sink, source, take
        self._on_bar, self._on_wait = on_bar, on_wait
        self._stops = 0
        self._sounding: defaultdict[tuple[int, int], list[int]] = defaultdict(list)  # channel, pitch: tracks
        self._pedals: dict[int, int] = {}  # channels whose pedal is down: track
        self._bars = self._waits = 0
        self._played_s = self._waited_s = 0.0
        self._next_bar = 1

    def stop(self) -> None:
        """Stop at the next bar line; called once more, at once."""
        self._stops += 1

    def play(self) -> Played:
        """Play to the end, or until it is stopped. Raises what the source raises, after silence."""
        at_s = self.sink.now() + self.sink.lead_s + START_S
        goes_on = True
        try:
            while goes_on and (arrived := self._next(at_s)) is not None:
                batch, begin_s = arrived
                before_s = self._played_s
                goes_on = self._play(batch, begin_s)
                at_s = begin_s + self._played_s - before_s
        finally:
            if self._stops > 1:
                self.sink.silence()
            self._release(max(at_s, self.sink.now()))
        return Played(self._played_s, self._bars, self._waits, self._waited_s, self._stops > 0)

    def _left_s(self, at_s: float) -> float:
        """Time until something must be handed to the instrument."""
        return at_s - self.sink.lead_s - self.sink.now()

    def _pass(self, at_s: float) -> bool:
        """Let time pass until something must be handed over; False when all is to stop at once."""
        while self._stops < 2 and (left_s := self._left_s(at_s)) > 0:
            self.sink.wait(min(left_s, POLL_S))
        return self._stops < 2

    def _next(self, at_s: float) -> tuple[Batch, float] | None:
        """The next batch and when it begins: at `at_s`, or later where the music has to wait for it."""
        waits = False
        while not self.source.ready(POLL_S if waits else min(POLL_S, max(MIN_POLL_S, self._left_s(at_s)))):
            if self._stops:
                return None
            if not waits and self._left_s(at_s) < -LATE_S:
                waits = True
                self._on_wait(self._next_bar)
        batch = self.source.take()
        late_s = -self._left_s(at_s)
        if batch is None:
            return None
        if late_s <= LATE_S:
            return batch, at_s
        self._waits += 1
        self._waited_s += late_s
        return batch, at_s + late_s

    def _play(self, batch: Batch, begin_s: float) -> bool:
        """Play a batch; False when it was stopped."""
        times = [event.at_s for event in batch.events]
        sent, bars = 0, len(batch.bar_s) - 1
        for number, (line_s, next_s) in enumerate(itertools.pairwise(batch.bar_s)):
            if not self._pass(begin_s + line_s) or self._stops:
                break
            self._bars += 1
            self._next_bar = batch.first_bar + number + 2
            ahead_s = batch.seconds - line_s + self.source.ahead_s
            self._on_bar(Bar(batch.first_bar + number + 1, self._played_s + line_s, ahead_s))
            until = len(times) if number == bars - 1 else bisect.bisect_left(times, next_s - 1e-9)
            while sent < until and self._pass(begin_s + times[sent]):
                self._send(begin_s + times[sent], batch.events[sent])
                sent += 1
            if sent < until:
                break
        else:
            self._played_s += batch.seconds
            if self._take:
                self._take.add(batch, batch.events)
            return True
        stop_s, stop_tick = line_s, batch.bar_ticks[number]
        if self._stops > 1:
            last = batch.events[sent - 1] if sent else None
            stop_s, stop_tick = (last.at_s, last.tick) if last else (0.0, batch.bar_ticks[0])
        self._played_s += stop_s
        if self._take:
            self._take.add(batch, batch.events[:sent], stop_tick)
        return False

    def _send(self, at_s: float, event: Timed) -> None:
        message = playable(event.message)
        if message is None:
            return
        self.sink.send(at_s, message)
        if message.type in ("note_on", "note_off"):
            tracks = self._sounding[message.channel, message.note]
            if not is_release(message):
                tracks.append(event.track)
            elif tracks:
                tracks.pop(0)
        elif message.type == "control_change" and message.control == SUSTAIN:
            self._pedals.pop(message.channel, None)
            if message.value >= 64:
                self._pedals[message.channel] = event.track

    def _release(self, at_s: float) -> None:
        """Let go of every key and pedal that is down."""
        released = [
            (track, mido.Message("note_off", channel=channel, note=pitch))
            for (channel, pitch), tracks in self._sounding.items()
            for track in tracks
        ]
        released += [(track, turn(SUSTAIN, channel, 0)) for channel, track in self._pedals.items()]
        self._sounding.clear()
        self._pedals.clear()
        for _, message in released:
            self.sink.send(at_s, message)
        if self._take:
            self._take.end(released)
