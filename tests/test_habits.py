"""Habits: counts of the past alone, by hand and note by note as all at once, and at the steps that decide."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import numpy as np
import pytest
from helpers import song_of
from hypothesis import given, settings
from hypothesis import strategies as st
from songs import rows_of, told_of
from test_echoes import SONGS

from midiex.collate import collate, step_habits
from midiex.config import MemoryConfig
from midiex.habits import (
    CONTEXTS,
    FIRST_CONTEXT,
    HABITS,
    LEVELS,
    SYMBOLS,
    Evidence,
    Habits,
    columns_of,
    habits,
)
from midiex.occurrences import BUCKETS, bucket_of
from midiex.tokens import (
    BAR,
    DRUM_PITCH_OFFSET,
    DRUM_PROGRAM,
    DURATION,
    FIELD_SIZES,
    FIELDS,
    HEAD_ORDER,
    INSTANCE,
    MICRO,
    PITCH,
    POSITION,
    PROGRAM,
    VELOCITY,
    moved,
)
from midiex.windows import Window, make_chunk

ONCE, TWICE = 6, 12  # buckets of a context seen so often, always with the same symbol


def of_field(name: int) -> slice:
    return slice(FIRST_CONTEXT[name], FIRST_CONTEXT[name] + len(HABITS[name]))


def parts(found: Evidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return found.share, found.bucket, found.level


def in_context(found: Evidence, name: int, spec: str) -> list[tuple[float, int]]:
    """(share, bucket) of one context, row by row."""
    number = FIRST_CONTEXT[name] + HABITS[name].index(spec)
    return list(zip(found.share[:, number].tolist(), found.bucket[:, number].tolist(), strict=True))


def heard(rows: np.ndarray, before: Habits | None = None) -> Habits:
    found = Habits(before)
    for row in rows:
        found.hear(row)
    return found


def note_by_note(rows: np.ndarray, growing: Habits) -> Evidence:
    """Evidence on rows (n, 8) that come after what is heard already."""
    found = Evidence(np.zeros((len(rows), CONTEXTS)), *(np.zeros((len(rows), CONTEXTS), np.int64) for _ in range(2)))
    for number, row in enumerate(rows.tolist()):
        for name in HEAD_ORDER:
            at, value = number, row[name]
            if name == BAR:  # was decided behind the note before
                at, value = number - 1, int(row[BAR] == rows[number - 1, BAR])
            told = told_of(growing, name, row)
            if not told or at < 0:
                continue
            for context, (symbols, start) in enumerate(growing.seen(name, told), FIRST_CONTEXT[name]):
                seen = sum(symbols.values())
                found.share[at, context] = symbols.get((value - start) % SYMBOLS, 0) / max(1, seen)
                found.bucket[at, context] = bucket_of(np.array(seen), np.array(len(symbols)))
            found.level[at, of_field(name)] = growing.levels(name)
        growing.hear(row)
    return found


def agree(a: Evidence, b: Evidence) -> bool:
    """But for whether the bar goes on after the last note, which note by note is never decided."""
    alike = np.stack([np.isclose(x, y, rtol=1e-6) for x, y in zip(parts(a), parts(b), strict=True)])
    alike[:, -1:, of_field(BAR)] = True
    return bool(alike.all())


def known(rows: np.ndarray) -> Evidence:
    """All at once, and note by note the same."""
    found = habits(rows)
    assert agree(found, note_by_note(rows, Habits()))
    return found


# ---- of the past alone ----------------------------------------------------------------------------------------------


@given(SONGS, st.integers(0, 80))
def test_note_by_note_as_all_at_once(rows: np.ndarray, split: int) -> None:
    """The first notes in a song that does not grow any more, the others on top of it."""
    found, growing = habits(rows), Habits(heard(rows[:split]))
    assert agree(Evidence(*(part[split:] for part in parts(found))), note_by_note(rows[split:], growing))


@given(SONGS, st.integers(0, 79), st.sampled_from(HEAD_ORDER[:-2]))
def test_only_the_past_counts(rows: np.ndarray, at: int, name: int) -> None:
    """Another value in one field of a note, and other notes after it, change nothing before it, and of the note itself
    nothing that is decided before that field, nor how much is known of the field and how right that was."""
    at = min(at, len(rows) - 1)
    changed = rows.copy()
    changed[at, name] = (changed[at, name] + 1) % FIELD_SIZES[name]
    changed[at + 1 :] = changed[at + 1 :][::-1]
    changed[at + 1 :, PITCH] = 0
    before, after = habits(rows), habits(changed)
    for a, b in zip(parts(before), parts(after), strict=True):
        assert np.array_equal(a[:at], b[:at])
        for decided in (POSITION, *HEAD_ORDER[: HEAD_ORDER.index(name)]):
            assert np.array_equal(a[at, of_field(decided)], b[at, of_field(decided)]), FIELDS[decided]
    assert np.array_equal(before.bucket[at, of_field(name)], after.bucket[at, of_field(name)])
    assert np.array_equal(before.level[at], after.level[at])


@given(SONGS, st.integers(0, 80))
def test_a_beginning_is_as_it_is_in_the_whole(rows: np.ndarray, end: int) -> None:
    """But for whether the bar goes on after its last note."""
    whole, part = habits(rows), habits(rows[:end])
    others = [number for number in range(CONTEXTS) if not 0 <= number - FIRST_CONTEXT[BAR] < len(HABITS[BAR])]
    for a, b in zip(parts(whole), parts(part), strict=True):
        assert np.array_equal(a[: len(b)][:-1], b[:-1])
        assert np.array_equal(a[: len(b), others], b[:, others])
    assert np.array_equal(whole.bucket[:end], part.bucket) and np.array_equal(whole.level[:end], part.level)


@given(SONGS)
def test_values_are_in_range(rows: np.ndarray) -> None:
    share, bucket, level = parts(habits(rows))
    assert share.shape == bucket.shape == level.shape == (len(rows), CONTEXTS) and share.dtype == np.float32
    assert ((share >= 0) & (share <= 1)).all() and (share[bucket == 0] == 0).all()
    assert ((bucket >= 0) & (bucket < BUCKETS)).all() and ((level >= 0) & (level < LEVELS)).all()
    assert not bucket[0].any() and not level[0].any()  # nothing was before


def test_no_notes_no_habits() -> None:
    for part in parts(habits(np.zeros((0, 8), np.int32))):
        assert part.shape == (0, CONTEXTS)
    silent = Habits()
    assert silent.behind() == silent.behind(3) == {}
    for name in HEAD_ORDER[:-2]:
        assert list(silent.seen(name, told_of(silent, name, [0] * 8))) == [({}, 0)] * len(HABITS[name])


@given(SONGS, st.integers(0, 80))
def test_what_lies_on_top_leaves_what_is_below_alone(rows: np.ndarray, split: int) -> None:
    before = heard(rows[:split])
    was = deepcopy(vars(before))
    one, other = heard(rows[split:], before), Habits(before)
    assert vars(before) == was
    whole = heard(rows)
    assert (one.latest, one.ways, one.last) == (whole.latest, whole.ways, whole.last)
    for row in rows[:1].tolist():  # neither does it know what lies on top elsewhere
        for name in HEAD_ORDER[:-2]:
            told = told_of(before, name, row)
            assert list(other.seen(name, told)) == list(before.seen(name, told))


@given(SONGS, st.integers(0, 80))
def test_what_is_not_to_be_counted_only_comes_before_the_next(rows: np.ndarray, split: int) -> None:
    found = heard(rows[:split])
    counts, right = deepcopy(found.counts), found.right[:]
    for row in rows[split:]:
        found.hear(row, count=False)
    assert (found.counts, found.right) == (counts, right)
    whole = heard(rows)
    assert (found.latest, found.ways, found.last, found.of_voices) == (
        *(whole.latest, whole.ways, whole.last, whole.of_voices),
    )


@settings(max_examples=30)
@given(SONGS, SONGS)
def test_what_is_added_is_counted_too(rows: np.ndarray, more: np.ndarray) -> None:
    """And belongs to either alone: the other goes on as it was, and the latest notes stay the latest."""
    alone, other = heard(rows), heard(more)
    was, found = deepcopy(vars(other)), heard(rows)
    found.add(other)
    assert {**vars(found), "counts": 0} == {**vars(alone), "counts": 0}
    assert found.counts.keys() == alone.counts.keys() | other.counts.keys()
    for key, counted in found.counts.items():
        assert counted == Counter(alone.counts.get(key, {})) + Counter(other.counts.get(key, {}))
    for row in more:
        found.hear(row)
    assert vars(other) == was


# ---- by hand --------------------------------------------------------------------------------------------------------

NOTHING = (0.0, 0)


def test_two_notes_in_turn_by_hand() -> None:
    """Piano: C E C E C E on the beats, C short and loud."""
    c, e = (60, 3, 25), (64, 7, 15)  # pitch, duration, velocity
    rows = rows_of(*[(beat // 4, 12 * (beat % 4), 0, *(e if beat % 2 else c)) for beat in range(6)])
    found = known(rows)
    always = [NOTHING, (1, 6), (1, 12), (1, 18), (1, 18), (1, 24)]  # so 1, 2, 3, 4, 5 times before
    either = [NOTHING, (0, 6), (1 / 2, 13), (1 / 3, 19), (2 / 4, 19), (2 / 5, 25)]
    after_the_other = [NOTHING, NOTHING, NOTHING, (1, 6), (1, 6), (1, 12)]
    expected: dict[tuple[int, str], list[tuple[float, int]]] = {
        (PROGRAM, ""): always,
        (PROGRAM, "same r1v pos"): [*[NOTHING] * 5, (1, 6)],  # on the downbeat first after nothing, then after a note
        (INSTANCE, "program same r1v"): [NOTHING, *always[:5]],
        (PITCH, "voice"): either,
        (PITCH, "voice vs v1p"): after_the_other,
        (DURATION, "voice"): either,
        (DURATION, "voice pitch"): [NOTHING, NOTHING, (1, 6), (1, 6), (1, 12), (1, 12)],
        (VELOCITY, "voice v1e"): after_the_other,
        (VELOCITY, "voice pitch pos"): [*[NOTHING] * 4, (1, 6), (1, 6)],
        (MICRO, "drum beat"): always,
        (BAR, "pos voice pitch"): [*[NOTHING] * 4, (1, 6), (0, 6)],  # the second bar goes on, but ends after its E
        (POSITION, "+up pos"): [*[NOTHING] * 5, (1, 6)],  # a beat after the downbeat
        (POSITION, "+up i1 i2 voice pitch r1v r1p"): [NOTHING] * 6,  # nor has the way to a downbeat come again
    }
    for (name, spec), values in expected.items():
        approximate = [(pytest.approx(share), bucket) for share, bucket in values]
        assert in_context(found, name, spec) == approximate, (FIELDS[name], spec)
    # a tenth nearer to 1 with each time it was so, in eighths: of 0, 0, 0.1, 0.19, 0.271, 0.3439
    assert found.level[:, FIRST_CONTEXT[PROGRAM]].tolist() == [0, 0, 0, 1, 2, 2]


def test_a_melody_repeated_a_third_higher_is_foreseen() -> None:
    tune = (60, 62, 65, 64, 69, 66)
    rows = rows_of(*[(bar, 6 * i, 0, pitch + 4 * bar) for bar in (0, 1) for i, pitch in enumerate(tune)])
    heard_from = len(tune) + 3  # three notes of it must be heard
    intervals = in_context(known(rows), PITCH, "+voice a2 a3")
    assert intervals[2:heard_from] == [NOTHING] * (heard_from - 2)
    assert intervals[heard_from:] == [(1, ONCE)] * 3
    for spec in HABITS[PITCH][1:]:
        if not spec.startswith("+"):  # as pitches these are others
            assert not any(share for share, _ in in_context(known(rows), PITCH, spec)[heard_from:]), spec
    rows[:, PROGRAM], rows[:, PITCH] = DRUM_PROGRAM, rows[:, PITCH] + DRUM_PITCH_OFFSET
    assert not any(share for share, _ in in_context(known(rows), PITCH, "+voice a2 a3"))  # a kit has no intervals


def test_a_rhythm_at_another_place_of_the_bar_is_foreseen() -> None:
    """Long, short, short, and again, on one pitch: from the first beat, and in the next bar from the third."""
    rows = rows_of(*[(bar, 24 * bar + at, 0, 60) for bar in (0, 1) for at in (0, 3, 4, 5, 8, 9, 10)])
    ways = in_context(known(rows), POSITION, "+up i1 i2 voice pitch r1v r1p")
    assert ways[10:] == [(1, TWICE), (1, ONCE), (1, ONCE), (1, 18)]  # after long, short: twice in bar 0, then again
    assert in_context(known(rows), POSITION, "+up pos")[7:] == [NOTHING] * 7


def test_a_chord_is_told_by_the_notes_below() -> None:
    """In each bar C E G at once; the E is told to come on top of the C, by a voice that has played already."""
    rows = rows_of(*[(bar, 0, 0, pitch) for bar in range(3) for pitch in (60, 64, 67)])
    within = in_context(known(rows), PITCH, "voice vs v1p")
    assert within[3:] == [NOTHING, (1, ONCE), (1, ONCE), (1, ONCE), (1, TWICE), (1, TWICE)]


def test_voices_have_habits_of_their_own() -> None:
    """Flute and bass take turns; each goes on where it was itself."""
    rows = rows_of(*[(bar, *note) for bar in range(3) for note in ((0, 73, 80), (24, 32, 40))])
    pitches = in_context(known(rows), PITCH, "voice")
    assert pitches == [NOTHING, NOTHING, (1, ONCE), (1, ONCE), (1, TWICE), (1, TWICE)]


def test_a_context_is_trusted_as_long_as_it_is_right() -> None:
    """One pitch for long, then each but once."""
    pitches = [60] * 40 + list(range(61, 101))
    found = known(rows_of(*[(i // 4, 12 * (i % 4), 0, pitch) for i, pitch in enumerate(pitches)]))
    level = found.level[:, FIRST_CONTEXT[PITCH]]  # of the voice's pitches
    assert level[0] == level[1] == 0 and level[40] == level.max() == LEVELS - 1 and level[-1] == 0
    assert (np.diff(level[:41]) >= 0).all() and (np.diff(level[40:]) <= 0).all()


def test_contexts_keep_their_places() -> None:
    """Weights on disk depend on these."""
    assert CONTEXTS == sum(map(len, HABITS.values())) == 36
    assert list(FIRST_CONTEXT) == list(HEAD_ORDER) and list(FIRST_CONTEXT.values()) == [0, 5, 7, 13, 18, 23, 27, 31]


@pytest.mark.parametrize("name", HEAD_ORDER, ids=[FIELDS[name] for name in HEAD_ORDER])
def test_contexts_are_of_what_is_decided_before(name: int) -> None:
    decided_with = {"program": PROGRAM, "voice": INSTANCE, "pitch": PITCH, "duration": DURATION}
    columns = {column for spec in HABITS[name] for column in columns_of(spec)}
    for column in columns & decided_with.keys():
        assert HEAD_ORDER.index(decided_with[column]) < HEAD_ORDER.index(name)


# ---- at the steps that decide ---------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(SONGS, st.integers(1, 16))
def test_each_step_has_the_evidence_on_what_it_decides(rows: np.ndarray, bars: int) -> None:
    """Step i writes note i (from 1) and the bar and the position of the note after it, counted over all chunks."""
    first_bars = list(range(0, int(rows[-1, BAR]) + 1, bars))
    chunks = [moved(rows[(rows[:, BAR] >= b) & (rows[:, BAR] < b + bars)], -b) for b in first_bars]
    of_note = slice(0, FIRST_CONTEXT[POSITION])  # its fields, and the bar behind it
    number, whole = 0, parts(habits(rows))
    for own, evidence in zip(chunks, step_habits(chunks, first_bars), strict=True):
        for step, found in zip(parts(evidence), whole, strict=True):
            here = found[number : number + len(own)]
            assert step.shape == (len(own) + 1, CONTEXTS) and step.dtype == found.dtype
            assert np.array_equal(step[1:, of_note], here[:, of_note])
            assert np.array_equal(step[:-1, of_field(POSITION)], here[:, of_field(POSITION)])
            assert not step[0, of_note].any() and not step[-1, of_field(POSITION)].any()
        number += len(own)
    assert number == len(rows)


def test_a_batch_counts_what_each_window_shows() -> None:
    """What is only remembered counts too; what another window shows does not."""
    tune = rows_of(*[(bar, 12 * beat, 0, 60 + 2 * beat + bar // 8) for bar in range(12) for beat in range(4)])
    beat_starts = np.arange(13) * 4.0
    opening, middle, end = (make_chunk(song_of(tune, 12), first, 4, beat_starts, 1) for first in (0, 4, 8))
    windows = [Window([opening, middle, end], 1, 0, 34), Window([middle], 0, 0, 17)]
    batch = collate(windows, MemoryConfig(), 0.0, None)
    expected = [
        *step_habits([opening.rows, middle.rows, end.rows], [0, 4, 8])[1:],
        *step_habits([middle.rows], [4]),
    ]
    for name in ("share", "bucket", "level"):
        whole = np.concatenate([getattr(evidence, name) for evidence in expected])
        assert np.array_equal(getattr(batch, f"habit_{name}").numpy(), whole)
    first_pitch = [int(part[1, FIRST_CONTEXT[PITCH]]) for part in batch.habit_bucket.split(17)]
    assert first_pitch == bucket_of(np.array([16, 32, 0]), np.array([4, 4, 0])).tolist()
