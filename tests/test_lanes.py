"""What is in force on channels, and where dials usually stand."""

from __future__ import annotations

import mido
import pytest
from mido import Message, MetaMessage

from midiex.lanes import (
    BEND,
    NO_BANK,
    PRESSURE,
    Dial,
    at_rest,
    choose_bank,
    choose_sound,
    dial_of,
    lane_states,
    same_sound,
    turn,
    usual_dials,
    value_of,
)
from midiex.score import Event

SONG = mido.MidiFile(type=1)
SINCE, STEADY, UNTIL = 1000, 2900, 3000


def turned(dial: Dial, *steps: tuple[int, int], channel: int = 0) -> list[Event]:
    """Events on track 0 that turn a dial: (tick, value)."""
    return [(tick, 0, turn(dial, channel, value)) for tick, value in steps]


def usual(dial: Dial, *steps: tuple[int, int]) -> int:
    return usual_dials(turned(dial, *steps), SONG, SINCE, STEADY, UNTIL)[0, 0][dial]


# ---- usual values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dial", [7, 10, 1, 74, BEND, PRESSURE])
def test_a_value_set_long_ago_stays(dial: Dial) -> None:
    assert usual(dial, (0, 90)) == 90
    assert usual(dial, (0, 20), (1500, 90)) == 90
    assert usual(dial, (0, 90), (2800, 60)) == 60  # the latest, as long as it is no fade
    assert usual(dial, (STEADY, 90)) == 90


def test_what_moves_goes_to_the_median_over_time() -> None:
    assert usual(BEND, (0, 0), (2950, 500), (2990, 900)) == 0
    assert usual(BEND, (0, 0), (1100, 300), (2950, 900)) == 300
    assert usual(1, (1000, 10), (1500, 40), (2400, 20), (2950, 127)) == 20  # 500, 900, 550 and 50 ticks
    assert usual(BEND, (2950, 500)) == 0  # before the first step it was at rest
    assert usual(11, (2950, 30)) == 127


@pytest.mark.parametrize(("dial", "expected"), [(7, 100), (11, 100), (10, 40), (1, 40), (91, 40)])
def test_only_volume_and_expression_fade(dial: int, expected: int) -> None:
    assert usual(dial, (0, 100), (2800, 40)) == expected
    assert usual(dial, (0, 100), (2800, 60)) == 60


def test_a_fade_of_all_the_bars_measured_is_a_level() -> None:
    assert usual(7, (0, 100), (SINCE, 20)) == 20


def test_what_comes_later_does_not_count() -> None:
    assert usual(7, (0, 90), (UNTIL, 10), (UNTIL + 5, 20)) == 90


def test_reset_puts_the_performance_back_but_no_level() -> None:
    events = [*turned(BEND, (0, 500)), *turned(7, (0, 50)), *turned(1, (0, 30)), (10, 0, turn(121, 0, 0))]
    found = usual_dials(events, SONG, SINCE, STEADY, UNTIL)[0, 0]
    assert found == {BEND: 0, 7: 50, 1: 0}


def test_switches_pedal_and_data_entry_are_no_dials_that_move() -> None:
    events = [event for dial in (0, 6, 32, 64, 98, 100, 120, 123) for event in turned(dial, (0, 5))]
    assert usual_dials(events, SONG, SINCE, STEADY, UNTIL)[0, 0] == {}


def test_lanes_are_channels_and_in_type_2_those_of_each_track() -> None:
    events = [(0, 0, turn(7, 3, 50)), (5, 1, turn(7, 3, 60)), (9, 1, turn(7, 4, 70))]
    assert usual_dials(events, SONG, SINCE, STEADY, UNTIL) == {(0, 3): {7: 60}, (0, 4): {7: 70}}
    own = usual_dials(events, mido.MidiFile(type=2), SINCE, STEADY, UNTIL)
    assert own == {(0, 3): {7: 50}, (1, 3): {7: 60}, (1, 4): {7: 70}}


def test_at_the_very_beginning_the_latest_value_is_usual() -> None:
    assert usual_dials(turned(7, (0, 50)), SONG, 0, 0, 0)[0, 0] == {}
    assert usual_dials(turned(7, (0, 50)), SONG, 0, 0, 1)[0, 0] == {7: 50}


# ---- what is in force -----------------------------------------------------------------------------------------------


def test_states_follow_the_events() -> None:
    events = [
        (0, 2, turn(0, 1, 8)),
        (0, 2, Message("program_change", channel=1, program=40)),
        (5, 2, turn(32, 1, 3)),
        (6, 3, turn(7, 1, 77)),
        (6, 3, turn(BEND, 1, -5)),
        (7, 3, Message("note_on", channel=1)),
        (8, 4, MetaMessage("text", text="no channel")),
    ]
    states = lane_states(events, SONG)
    assert list(states) == [(0, 1)]
    state = states[0, 1]
    assert (state.program, state.bank, state.bank_set, state.track) == (40, (8, None), (8, 3), 3)
    assert state.dials == {7: 77, BEND: -5}
    states[0, 1].take(5, turn(121, 1, 0))
    assert state.dials == {7: 77, BEND: 0} and state.track == 5


@pytest.mark.parametrize("dial", [0, 7, 64, 127, BEND, PRESSURE])
def test_an_event_turns_the_dial_it_is_made_for(dial: Dial) -> None:
    message = turn(dial, 5, 11)
    assert (dial_of(message), value_of(message), message.channel) == (dial, 11, 5)


def test_other_events_turn_none() -> None:
    others = (Message("note_on"), Message("program_change"), Message("polytouch"), MetaMessage("text", text=""))
    assert [dial_of(message) for message in others] == [None] * 4


def test_rest_is_as_the_standard_has_it() -> None:
    assert [at_rest(dial) for dial in (7, 10, 11, 1, 64, 74, 91, BEND, PRESSURE)] == [100, 64, 127, 0, 0, 64, 40, 0, 0]


# ---- programs and banks ---------------------------------------------------------------------------------------------


def test_a_sound_is_its_bank_and_then_its_program() -> None:
    change = Message("program_change", channel=4, program=9)
    assert choose_sound(4, 9, NO_BANK) == [change]
    assert choose_sound(4, 9, (8, None)) == [turn(0, 4, 8), change]
    assert choose_sound(4, 9, (8, 2)) == [turn(0, 4, 8), turn(32, 4, 2), change]
    assert choose_sound(4, 9, NO_BANK, (8, None)) == [turn(0, 4, 0), change]  # another bank is set
    assert choose_sound(4, 9, (8, None), (8, 1)) == [turn(0, 4, 8), turn(32, 4, 0), change]


def test_a_bank_is_set_only_where_another_is() -> None:
    assert choose_bank(4, NO_BANK, (0, None)) == []
    assert choose_bank(4, (8, 1), (8, None)) == [turn(32, 4, 1)]
    assert choose_bank(4, NO_BANK, (8, None)) == [turn(0, 4, 0)]


def test_no_bank_sounds_like_bank_0() -> None:
    assert same_sound((5, NO_BANK), (5, (0, 0)))
    assert not same_sound((5, NO_BANK), (5, (0, 1)))
    assert not same_sound((5, NO_BANK), (6, NO_BANK))
