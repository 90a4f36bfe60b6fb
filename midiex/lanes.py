"""What is in force on a song's channels: programs, banks, controllers, bends, pressure, pedals.

Knows events; knows no notes beyond when they begin, no bars and no model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import mido
import numpy as np

from .score import SUSTAIN, Event, Lane, lane_of

BEND, PRESSURE = "bend", "pressure"
Dial = int | str  # a controller's number, BEND or PRESSURE
Bank = tuple[int | None, int | None]  # controllers 0 and 32; None: never set
NO_BANK: Bank = (None, None)

RESET = 121  # "reset all controllers"
# Controllers a performance moves; the others are switches, data entry or channel modes, which nothing here touches.
MOVING: frozenset[Dial] = frozenset([1, 2, 7, 8, 10, 11, 66, 67, 68, *range(70, 80), *range(91, 96), BEND, PRESSURE])
# Those that shape single notes: they go when the notes go.
EXPRESSIVE: frozenset[Dial] = frozenset([1, 2, 11, SUSTAIN, 66, 67, BEND, PRESSURE])
FADING = (7, 11)  # volume and expression
FADED = 0.5  # below this share of what is usual they are a fade, not a level
_AT_REST = {7: 100, 8: 64, 10: 64, 11: 127} | dict.fromkeys(range(70, 80), 64) | {91: 40}
_RESET_TO_REST: tuple[Dial, ...] = (1, 2, 11, SUSTAIN, 66, 67, BEND, PRESSURE)


@dataclass
class LaneState:
    """What is in force on one lane."""

    program: int = 0
    bank: Bank = NO_BANK  # as it was when the program was chosen
    bank_set: Bank = NO_BANK  # as it would be for the next program
    dials: dict[Dial, int] = field(default_factory=dict)  # those ever moved
    track: int | None = None  # that last said anything

    def take(self, track: int, message: Any) -> None:
        """Follow an event of this lane."""
        dial = dial_of(message)
        if message.type == "program_change":
            self.program, self.bank = message.program, self.bank_set
        elif dial == 0:
            self.bank_set = (message.value, self.bank_set[1])
        elif dial == 32:
            self.bank_set = (self.bank_set[0], message.value)
        elif dial == RESET:
            self.dials |= {d: at_rest(d) for d in _RESET_TO_REST if d in self.dials}
        elif dial is not None:
            self.dials[dial] = value_of(message)
        else:
            return
        self.track = track


def lane_states(events: Iterable[Event], midi: mido.MidiFile) -> defaultdict[Lane, LaneState]:
    """The state of every lane after the given events (in order)."""
    states: defaultdict[Lane, LaneState] = defaultdict(LaneState)
    for _, track, message in events:
        if message.type == "program_change" or dial_of(message) is not None:
            states[lane_of(midi, track, message.channel)].take(track, message)
    return states


def dial_of(message: Any) -> Dial | None:
    """Which dial of its channel an event turns, None if none."""
    if message.type == "control_change":
        return int(message.control)
    return {"pitchwheel": BEND, "aftertouch": PRESSURE}.get(message.type)


def value_of(message: Any) -> int:
    """The value an event that turns a dial turns it to."""
    return int(message.pitch if message.type == "pitchwheel" else message.value)


def at_rest(dial: Dial) -> int:
    """The value of a dial nobody has turned."""
    return _AT_REST.get(dial, 0) if isinstance(dial, int) else 0


def turn(dial: Dial, channel: int, value: int) -> mido.Message:
    """The event that turns a dial to a value."""
    if dial == BEND:
        return mido.Message("pitchwheel", channel=channel, pitch=value)
    if dial == PRESSURE:
        return mido.Message("aftertouch", channel=channel, value=value)
    return mido.Message("control_change", channel=channel, control=dial, value=value)


def choose_sound(channel: int, program: int, bank: Bank, bank_set: Bank = NO_BANK) -> list[mido.Message]:
    """The events that choose a program, its bank first if it has one or another (`bank_set`) may be set."""
    needed = [(dial, b or 0) for dial, b, b_set in zip((0, 32), bank, bank_set, strict=True) if (b, b_set) != NO_BANK]
    messages = [turn(dial, channel, value) for dial, value in needed]
    return [*messages, mido.Message("program_change", channel=channel, program=program)]


def choose_bank(channel: int, bank: Bank, bank_set: Bank) -> list[mido.Message]:
    """The events that set a bank, where another is set, for a program to come."""
    pairs = zip((0, 32), bank, bank_set, strict=True)
    return [turn(dial, channel, b or 0) for dial, b, b_set in pairs if (b or 0) != (b_set or 0)]


def same_sound(one: tuple[int, Bank], other: tuple[int, Bank]) -> bool:
    """Do two programs from two banks sound alike? A bank never set is bank 0."""
    (program, (high, low)), (other_program, (other_high, other_low)) = one, other
    return (program, high or 0, low or 0) == (other_program, other_high or 0, other_low or 0)


def usual_dials(
    events: Iterable[Event], midi: mido.MidiFile, since_tick: int, steady_tick: int, until_tick: int
) -> defaultdict[Lane, dict[Dial, int]]:
    """Where each moving dial of each lane should stand at `until_tick` for music to go on as usual.

    A dial last turned before `steady_tick` stays as it is, unless it was faded out. Any other is in motion, and goes to
    the median of its values between `since_tick` and `until_tick`, each weighted with the time it was in force.
    """
    steps: defaultdict[tuple[Lane, Dial], list[tuple[int, int]]] = defaultdict(list)
    for tick, track, message in events:
        dial = dial_of(message)
        if tick < until_tick and dial is not None:
            lane = lane_of(midi, track, message.channel)
            if dial in MOVING:
                steps[lane, dial].append((tick, value_of(message)))
            elif dial == RESET:
                for other in _RESET_TO_REST:
                    if steps.get((lane, other)):
                        steps[lane, other].append((tick, at_rest(other)))
    usual: defaultdict[Lane, dict[Dial, int]] = defaultdict(dict)
    for (lane, dial), turned in steps.items():
        ticks, values = (np.array(column) for column in zip((0, at_rest(dial)), *turned, strict=True))
        weights = np.diff(np.append(np.maximum(ticks, since_tick), until_tick)).clip(0)
        order = np.argsort(values, kind="stable")
        heard = np.cumsum(weights[order])
        median = int(values[order][np.searchsorted(heard, heard[-1] / 2)]) if heard[-1] else int(values[-1])
        last_tick, last = turned[-1]
        faded = dial in FADING and last < FADED * median
        usual[lane][dial] = last if last_tick <= steady_tick and not faded else median
    return usual
