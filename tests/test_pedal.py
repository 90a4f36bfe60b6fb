"""Sharing sound between keys and pedal, so that together they sound as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import symusic
from helpers import NOTE_TYPES
from songs import EXAMPLES, spliced

from midiex import score, timeline, tokens
from midiex.newnotes import NewNotes
from midiex.pedal import CHANGE_SHARE, LIFT_BEATS, LONGEST_BEATS, Habit, habit, let_go, spans, under_pedal
from midiex.score import Song
from midiex.splice import Joint
from midiex.timeline import Timeline

TPQ = 480
BAR = 4 * TPQ
LIFT = round(LIFT_BEATS * TPQ)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def chords(*lengths: int) -> tuple[np.ndarray, np.ndarray]:
    """Broken chords of four notes a beat apart, each ringing to the end of its chord: starts and sounding lengths."""
    start, end, tick = [], [], 0
    for length in lengths:
        start += range(tick, tick + 4 * TPQ, TPQ)
        end += [tick + length] * 4
        tick += length
    return ints(*start), ints(*end) - ints(*start)


def sounding_again(start: np.ndarray, key: np.ndarray, pitch: np.ndarray, down_up: list[tuple[int, int]]) -> np.ndarray:
    """Lengths heard when keys and pedal are read back from a score, in order of the notes."""
    score = symusic.Score(TPQ)
    track = symusic.Track()
    columns = zip((start, key, pitch, np.full(len(start), 80)), NOTE_TYPES, strict=True)
    track.notes = symusic.Note.from_numpy(*(np.ascontiguousarray(column.astype(kind)) for column, kind in columns))
    down, length = np.array([(d, u - d) for d, u in down_up], np.int32).reshape(-1, 2).T
    track.pedals = symusic.Pedal.from_numpy(np.ascontiguousarray(down), np.ascontiguousarray(length))
    score.tracks.append(track)
    notes = tokens.notes_of(score)
    names = notes.start_ticks * 128 + notes.pitch
    heard = dict(zip(names.tolist(), notes.duration_ticks.tolist(), strict=True))
    return ints(*(heard[name] for name in (start * 128 + pitch).tolist()))


# ---- habit ----------------------------------------------------------------------------------------------------------


def test_a_habit_is_the_usual_share_of_the_key() -> None:
    key, sounding = ints(100, 100, 100, 300), ints(400, 200, 400, 300)
    assert habit(key, sounding, np.array([[0, 600]]), 1000) == Habit(0.25)


@pytest.mark.parametrize("down_up", [np.zeros((0, 2), np.int64), np.array([[0, 100], [500, 600]])])
def test_a_pedal_used_rarely_is_no_habit(down_up: np.ndarray) -> None:
    assert habit(ints(100), ints(400), down_up, 1000) is None


def test_a_pedal_that_holds_nothing_is_no_habit() -> None:
    assert habit(ints(400, 100), ints(400, 100), np.array([[0, 900]]), 1000) is None
    assert habit(ints(), ints(), np.array([[0, 900]]), 1000) is None


# ---- spans ----------------------------------------------------------------------------------------------------------


def test_the_pedal_changes_with_the_harmony() -> None:
    start, sounding = chords(BAR, 2 * BAR, BAR)
    expected = [(LIFT, BAR), (BAR + LIFT, 3 * BAR), (3 * BAR + LIFT, 4 * BAR)]
    assert spans(start, sounding, TPQ, 4 * BAR) == expected
    order = np.random.default_rng(0).permutation(len(start))
    assert spans(start[order], sounding[order], TPQ, 4 * BAR) == expected


@pytest.mark.parametrize(("held", "changes"), [(1, True), (3, False)])
def test_a_few_held_notes_do_not_keep_it_down(held: int, changes: bool) -> None:
    """Of five notes some ring on where the next begins: it changes where enough of what sounds ends."""
    ends = [BAR] * (5 - held) + [2 * BAR] * held
    start, sounding = ints(*[0] * 5, BAR), ints(*ends, BAR)
    assert ((5 - held) / 5 >= CHANGE_SHARE) is changes
    expected = [(LIFT, BAR), (BAR + LIFT, 2 * BAR)] if changes else [(LIFT, 2 * BAR)]
    assert spans(start, sounding, TPQ, 2 * BAR) == expected


def test_endings_a_little_early_or_late_count_as_together() -> None:
    start, sounding = ints(0, 10, 20, BAR), ints(BAR - 50, BAR + 40, BAR - 20, BAR)
    assert [down for down, _ in spans(start, sounding, TPQ, 2 * BAR)] == [LIFT, BAR + LIFT]


def test_no_span_lasts_past_the_end_or_for_ever() -> None:
    assert spans(ints(0), ints(3 * BAR), TPQ, BAR) == [(LIFT, BAR)]
    assert spans(ints(0), ints(9 * BAR), TPQ, 9 * BAR) == [(LIFT, int(LONGEST_BEATS * TPQ))]
    assert spans(ints(), ints(), TPQ, BAR) == []


def test_detached_notes_get_no_pedal_worth_pressing() -> None:
    assert spans(ints(0, 100, 200), ints(60, 60, 60), TPQ, BAR) == []


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_keys_are_let_go_under_the_pedal_and_sound_the_same() -> None:
    start, sounding = chords(BAR, 2 * BAR, BAR)
    down_up = spans(start, sounding, TPQ, 4 * BAR)
    key = let_go(start, sounding, down_up, Habit(0.3))
    assert (key < sounding).all() and (key >= 1).all()
    pitch = 60 + np.arange(len(start))
    np.testing.assert_array_equal(sounding_again(start, key, pitch, down_up), sounding)


def test_keys_stay_down_until_the_pedal_is() -> None:
    assert let_go(ints(0), ints(BAR), [(LIFT, BAR)], Habit(0.01)).tolist() == [LIFT + 1]
    assert let_go(ints(100), ints(BAR - 100), [(LIFT, BAR)], Habit(0.25)).tolist() == [455]


def test_what_the_pedal_does_not_hold_to_its_end_keeps_its_key() -> None:
    down_up = [(100, 1000), (1200, 2000)]
    start = ints(0, 500, 900, 1100)
    sounding = ints(50, 600, 250, 1500)  # ends before, between, between, after
    assert let_go(start, sounding, down_up, Habit(0.1)).tolist() == sounding.tolist()
    assert let_go(start, sounding, [], Habit(0.1)) is sounding


def test_random_music_keeps_its_lengths() -> None:
    """Nearly: a note that ends before the pedal's own end is held until then."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        n = int(rng.integers(1, 60))
        start = np.sort(rng.integers(0, 64, n)) * (TPQ // 4)
        end = np.minimum((start // BAR + 1 + rng.integers(0, 2, n)) * BAR, 17 * BAR)
        pitch = 20 + np.arange(n)  # no key struck twice
        down_up = spans(start, end - start, TPQ, 17 * BAR)
        edges = np.array(down_up).reshape(-1)
        assert (np.diff(edges) > 0).all()
        key = let_go(start, end - start, down_up, Habit(float(rng.uniform(0.05, 1))))
        assert ((key >= 1) & (key <= end - start)).all()
        heard = sounding_again(start, key, pitch, down_up)
        assert (heard >= end - start).all(), "the pedal may hold a note on, but nothing is cut"
        longest = max((up for _, up in down_up), default=0)
        assert (start + heard <= np.maximum(end, longest)).all()


# ---- a whole song ---------------------------------------------------------------------------------------------------


def chord_a_bar(song: Song, line: Timeline) -> NewNotes:
    """A chord of both hands at the beginning of every new bar, ringing to its end."""
    starts = np.repeat(line.grid.ticks[line.before : line.before + line.new], 4)
    length = np.diff(line.grid.ticks[line.before : line.before + line.new + 1]).repeat(4)
    hands = np.tile([0, 0, 1, 1], line.new)
    pitch = np.tile([64, 67, 40, 47], line.new)
    return NewNotes(hands, starts, length, pitch, np.full(len(starts), 70))


def test_two_hands_share_one_foot(tmp_path: Path) -> None:
    song = score.read(EXAMPLES / "piano_nocturne.mid")
    line = timeline.go_on(song, len(song.grid), 60)
    sounding = chord_a_bar(song, line)
    pressed, pedals = under_pedal(song, line, sounding)
    assert len(pedals) == 2 and len({tuple(down_up) for down_up in pedals.values()}) == 1
    (down_up, _) = pedals.values()
    assert len(down_up) == line.new  # it changes with the harmony
    assert (pressed.duration_ticks[:-4] < sounding.duration_ticks[:-4]).all()
    assert (pressed.duration_ticks[-4:] == sounding.duration_ticks[-4:]).all()  # the last chord is held
    result = tmp_path / "out.mid"
    score.save(spliced(song, Joint(line), pressed, pedals), result)
    heard = tokens.notes_of(score.read(result).score)
    new = heard.start_ticks >= line.start_tick
    assert sorted(heard.duration_ticks[new]) == sorted(sounding.duration_ticks)


def test_who_does_not_pedal_does_not_begin_to(tmp_path: Path) -> None:
    song = score.read(EXAMPLES / "band_groove.mid")
    line = timeline.go_on(song, len(song.grid), 60)
    sounding = chord_a_bar(song, line)
    pressed, pedals = under_pedal(song, line, sounding)
    assert pedals == {} and (pressed.duration_ticks == sounding.duration_ticks).all()
    piano = score.read(EXAMPLES / "piano_nocturne.mid")
    hole = timeline.rewrite(piano, 6, 8)
    _, pedals = under_pedal(piano, hole, chord_a_bar(piano, hole), standing=frozenset([1]))
    assert len(pedals) == 1  # a hand that stands keeps the pedal it has
