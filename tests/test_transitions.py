"""The song's own fills, crashes, breaks and pickups stand where they are planned, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from songs import note, rows_of, save_talkative, tempo, write_midi

import midiex
from midiex import score, tokens
from midiex.aligned import likeness
from midiex.extend import Model, Passage
from midiex.form_plan import NEW, NEW_LEAD, SAME, FormPlan, PlannedPhrase, SongPhrase
from midiex.roles import BASS as BASS_ROLE
from midiex.roles import DRUMS as DRUMS_ROLE
from midiex.roles import LEAD, Voice, of_voices
from midiex.tokens import BAR, DRUM_PITCH_OFFSET, DRUM_PROGRAM, PITCH, POSITION, PROGRAM, VELOCITY, moved
from midiex.transitions import Gestures

BARS = 20
DRUMS, BASS, FLUTE = (DRUM_PROGRAM, 0), (33, 0), (73, 0)
BAND = {DRUMS, BASS, FLUTE}
ROLES = {DRUMS: DRUMS_ROLE, BASS: BASS_ROLE, FLUTE: LEAD}
KICK, SNARE, HAT, CRASH, TOM = 36, 38, 42, 49, 45
FOUR, TWO, ONE = np.full(4, 48), np.full(2, 48), np.full(1, 48)
SONG = tuple(SongPhrase(bar, 4, section) for bar, section in zip(range(0, BARS, 4), "AABBA", strict=True))
PLANNED = PlannedPhrase(BARS, 4, "A", SAME, 0, (0, 1, 2), 10.0, 80.0, 60.0)


def groove(bar: int) -> list[tuple[int, ...]]:
    strokes = [(0, KICK), (12, SNARE), (24, KICK), (36, SNARE), *((6 * i, HAT) for i in range(8))]
    return [(bar, position, DRUM_PROGRAM, pitch) for position, pitch in strokes]


def fill(bar: int) -> list[tuple[int, ...]]:
    """The groove for half a bar, then toms in sixteenths."""
    first = [stroke for stroke in groove(bar) if stroke[1] < 24]
    return first + [(bar, 24 + 3 * i, DRUM_PROGRAM, TOM + 2 * (i // 4), 7, 10 + i) for i in range(8)]


def band(fills: tuple[int, ...] = (7, 15), crashes: tuple[int, ...] = (), silent: tuple[int, ...] = ()) -> np.ndarray:
    """Twenty bars: drums with fills and crashes in some bars and silent in others, a bass, and a flute that waits in
    bars 7 and 15 and leads into the next."""
    notes = [n for bar in range(BARS) if bar not in silent for n in (fill(bar) if bar in fills else groove(bar))]
    notes += [(bar, 0, DRUM_PROGRAM, CRASH, 7, 25 + bar % 3) for bar in crashes]
    notes += [(bar, 12 * beat, 33, 36 + bar % 5) for bar in range(BARS) for beat in range(4)]
    for bar in range(BARS):
        places = (36, 42) if bar in (7, 15) else (0, 12, 24, 30)
        notes += [(bar, place, 73, 70 + (bar + place) % 7) for place in places]
    return rows_of(*notes)


def gestures(rows: np.ndarray) -> Gestures:
    return Gestures(rows, np.full(BARS, 48), SONG, ROLES)


def bars_of(rows: np.ndarray, first: int, bars: int = 4) -> np.ndarray:
    return moved(rows[(rows[:, BAR] >= first) & (rows[:, BAR] < first + bars)], -first)


def made(
    song: np.ndarray,
    name: str,
    rows: np.ndarray,
    positions: np.ndarray = FOUR,
    voices: set[Voice] = BAND,
    following: PlannedPhrase | None = None,
) -> tuple[np.ndarray, str]:
    phrase = replace(PLANNED, transition=name, bars=len(positions))
    changed, done = gestures(song).made(rows, phrase, following, positions, voices)
    again, _ = gestures(song).made(changed, phrase, following, positions, voices)
    assert np.array_equal(again, changed)
    assert done == name or (done == "" and changed is rows)
    return changed, done


# ---- fills -----------------------------------------------------------------------------------------------------------


def test_the_songs_fills_are_found_where_a_phrase_ends() -> None:
    found = [(one.bar, one.begins, one.before_section) for one in gestures(band()).fills]
    assert found == [(7, 24, True), (15, 24, True)]
    assert gestures(band(fills=())).fills == ()
    assert gestures(band(fills=(2, 9, 13))).fills == ()  # in the middle of phrases


def test_a_planned_fill_is_the_songs_and_all_else_stays() -> None:
    song = band()
    rows = bars_of(song, 0)
    changed, _ = made(song, "fill", rows)
    drums = of_voices(changed, {DRUMS})
    assert np.array_equal(drums[drums[:, BAR] == 3], moved(of_voices(song[song[:, BAR] == 15], {DRUMS}), -12))
    assert np.array_equal(of_voices(changed, BAND - {DRUMS}), of_voices(rows, BAND - {DRUMS}))
    assert np.array_equal(drums[drums[:, BAR] < 3], bars_of(of_voices(rows, {DRUMS}), 0, 3))
    assert likeness(changed, rows) > 0.8


def test_a_fill_of_a_whole_bar_replaces_the_whole_bar() -> None:
    song = band(fills=())
    song = song[~((song[:, BAR] == 7) & (song[:, PROGRAM] == DRUM_PROGRAM))]
    toms = rows_of(*[(7, 3 * i, DRUM_PROGRAM, TOM + 2 * (i % 2)) for i in range(16)])
    song = tokens.sort_rows(np.concatenate([song, toms]))
    assert [one.begins for one in gestures(song).fills] == [0]
    changed, _ = made(song, "fill", bars_of(song, 0))
    last = of_voices(changed[changed[:, BAR] == 3], {DRUMS})
    assert set((last[:, PITCH] - DRUM_PITCH_OFFSET).tolist()) == {TOM, TOM + 2} and len(last) == 16


def test_without_a_fill_of_the_song_none_is_made() -> None:
    song = band(fills=())
    assert made(song, "fill", bars_of(song, 0))[1] == ""


def test_a_fill_of_another_meter_or_of_others_is_none() -> None:
    song = band()
    assert made(song, "fill", bars_of(song, 0), np.array([48, 48, 48, 36]))[1] == ""
    assert made(song, "fill", bars_of(song, 0), voices={BASS, FLUTE})[1] == ""
    assert made(song, "fill", bars_of(song, 0), voices={(DRUM_PROGRAM, 1), BASS})[1] == ""


@pytest.mark.parametrize(("positions", "bar"), [(ONE, 0), (TWO, 1)])
def test_short_phrases_have_the_fill_in_their_last_bar(positions: np.ndarray, bar: int) -> None:
    song = band()
    changed, name = made(song, "fill", bars_of(song, 0, len(positions)), positions)
    assert name == "fill" and (changed[changed[:, PITCH] >= DRUM_PITCH_OFFSET + TOM, BAR] == bar).sum() == 8


# ---- crashes ---------------------------------------------------------------------------------------------------------


def test_a_crash_is_struck_as_the_song_does_and_with_its_kick() -> None:
    song = band(crashes=(8, 16, 9))
    rows = bars_of(song, 0)
    for start in (rows, rows[rows[:, PITCH] != DRUM_PITCH_OFFSET + KICK]):
        changed, _ = made(song, "crash", start)
        first = changed[(changed[:, BAR] == 0) & (changed[:, POSITION] == 0)]
        crash = first[first[:, PITCH] == DRUM_PITCH_OFFSET + CRASH]
        assert crash[:, VELOCITY].tolist() == [26]  # the middle of 25, 26 and 27
        assert (first[:, PITCH] == DRUM_PITCH_OFFSET + KICK).sum() == 1
        assert len(changed) == len(start) + 1 + (start is not rows)


def test_a_crash_that_is_there_is_not_doubled() -> None:
    song = band(crashes=(8, 16))
    rows = bars_of(song, 8)
    assert np.array_equal(made(song, "crash", rows)[0], rows)


def test_a_song_without_crash_gets_none() -> None:
    song = band()
    assert made(song, "crash", bars_of(song, 0))[1] == ""


# ---- breaks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("positions", "rests_from"), [(FOUR, 0), (TWO, 24), (ONE, 24)])
def test_in_a_break_the_drums_rest_and_the_others_go_on(positions: np.ndarray, rests_from: int) -> None:
    song, last = band(), len(positions) - 1
    rows = bars_of(song, 0, len(positions))
    changed, _ = made_once(song, rows, positions)
    gone = (rows[:, PROGRAM] == DRUM_PROGRAM) & (rows[:, BAR] == last) & (rows[:, POSITION] >= rests_from)
    assert np.array_equal(changed, rows[~gone]) and gone.any()


def made_once(song: np.ndarray, rows: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, str]:
    phrase = replace(PLANNED, transition="break", bars=len(positions))
    return gestures(song).made(rows, phrase, None, positions, BAND)


def test_a_break_begins_as_late_as_the_songs_own() -> None:
    song = band(fills=())
    late = (song[:, PROGRAM] == DRUM_PROGRAM) & np.isin(song[:, BAR], (3, 7)) & (song[:, POSITION] >= 24)
    changed, _ = made(song[~late], "break", bars_of(song, 8))
    drums = of_voices(changed, {DRUMS})
    assert drums[drums[:, BAR] == 3, POSITION].max() < 24 and (drums[:, BAR] == 3).sum() == 6


def test_without_drums_the_lead_goes_on_alone_only_where_the_song_does_so() -> None:
    song = of_voices(band(), BAND - {DRUMS})
    song = np.concatenate([song, rows_of(*[(bar, 6 * i, 33, 48) for bar in range(BARS) for i in range(8)])])
    song = tokens.sort_rows(song)
    assert made(song, "break", bars_of(song, 0), voices=BAND - {DRUMS})[1] == ""
    gap = (song[:, PROGRAM] == 33) & (song[:, BAR] == 7) & (song[:, POSITION] >= 24)
    changed, name = made(song[~gap], "break", bars_of(song, 0), voices=BAND - {DRUMS})
    late = changed[(changed[:, BAR] == 3) & (changed[:, POSITION] >= 24)]
    assert name == "break" and set(late[:, PROGRAM].tolist()) == {73}


# ---- pickups ---------------------------------------------------------------------------------------------------------


def test_the_lead_leads_into_the_bar_that_comes_back() -> None:
    song = band()
    following = replace(PLANNED, first_bar=BARS + 4, section="C", source_bar=8)
    rows = bars_of(song, 0)
    changed, _ = made(song, "pickup", rows, following=following)
    lead = of_voices(changed[(changed[:, BAR] == 3) & (changed[:, POSITION] >= 36)], {FLUTE})
    assert np.array_equal(lead, moved(of_voices(song[song[:, BAR] == 7], {FLUTE}), -4))
    assert np.array_equal(of_voices(changed, {DRUMS, BASS}), of_voices(rows, {DRUMS, BASS}))


def test_the_lead_leads_into_a_section_of_the_song_and_not_into_a_new_one() -> None:
    song = band()
    rows = bars_of(song, 0)
    to_b, to_c = (replace(PLANNED, kind=NEW, source_bar=None, section=name, first_bar=BARS + 4) for name in "BC")
    assert made(song, "pickup", rows, following=to_b)[1] == "pickup"
    assert made(song, "pickup", rows, following=to_c)[1] == ""
    assert made(song, "pickup", rows)[1] == ""
    assert made(song, "pickup", rows, voices={DRUMS, BASS}, following=to_b)[1] == ""


@pytest.mark.parametrize("name", ["fill", "crash", "break", "pickup"])
def test_a_song_of_nothing_has_no_gestures(name: str) -> None:
    nothing = Gestures(rows_of(), np.full(0, 48))
    rows = bars_of(of_voices(band(), {BASS}), 0)
    following = replace(PLANNED, first_bar=BARS + 4)
    assert nothing.made(rows, replace(PLANNED, transition=name), following, FOUR, {BASS}) == (rows, "")


# ---- in what is written ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    loaded = midiex.load(save_talkative(tmp_path_factory.mktemp("model")))
    return replace(loaded, config=replace(loaded.config, generate=replace(loaded.config.generate, candidates=2)))


def band_file(folder: Path, drums_only: bool = False) -> Path:
    rows = band(crashes=(8,))
    rows = of_voices(rows, {DRUMS}) if drums_only else rows
    channels = {DRUM_PROGRAM: 9, 33: 0, 73: 1}
    events: list[Any] = [tempo(0, 120)]
    for bar, position, _, program, _, pitch, _, velocity in rows.tolist():
        events += note(1920 * bar + 40 * position, 100, pitch % 128, 4 * velocity + 2, channels[program])
    return write_midi(folder / "band.mid", [events])


def written(path: Path, model: Model, *phrases: PlannedPhrase, **options: Any) -> Passage:
    seconds = 2.0 * (phrases[-1].first_bar + phrases[-1].bars) + 0.2
    plan = FormPlan(SONG, phrases, 0)
    return midiex.extend(path, seconds, model=model, seed=1, begin="end", open_end=True, plan=plan, **options)


@pytest.mark.parametrize("kind", [SAME, NEW_LEAD, NEW])
def test_the_planned_fill_stands_whether_drums_are_copied_stand_or_are_written(
    kind: str, model: Model, tmp_path: Path
) -> None:
    path = band_file(tmp_path)
    voices = tuple(range(len(score.read(path).voices)))
    first = replace(PLANNED, kind=kind, source_bar=None if kind == NEW else 0, voices=voices, transition="fill")
    second = replace(PLANNED, first_bar=BARS + 4, source_bar=8, voices=voices)
    passage = written(path, model, first, second)
    chunk, copied = passage.written
    own = of_voices(bars_of(passage._plan().rows_before, 15, 1), {DRUMS})
    there = of_voices(chunk.rows[chunk.rows[:, BAR] == 3], {DRUMS})
    late = [part[part[:, POSITION] >= 24] for part in (own, moved(there, -3))]
    assert np.array_equal(late[0], late[1]) and len(late[0]) == 8
    assert chunk.transition == "fill" and copied.transition == "" and copied.likeness == 1
    assert kind != SAME or (chunk.likeness is not None and 0.8 < chunk.likeness < 1)
    report = passage.report()["chunks"]
    assert [(c["asked"]["transition"], c["reached"]["transition"]) for c in report] == [("fill", "fill"), ("", "")]


@pytest.mark.parametrize("name", ["fill", "crash", "break", "pickup"])
@pytest.mark.parametrize("drums_only", [False, True])
def test_with_transitions_the_song_stays_and_a_seed_gives_the_same_bytes(
    name: str, drums_only: bool, model: Model, tmp_path: Path
) -> None:
    path = band_file(tmp_path, drums_only)
    voices = tuple(range(len(score.read(path).voices)))
    phrase = replace(PLANNED, voices=voices, transition=name)
    phrases = (phrase, replace(phrase, first_bar=BARS + 4, bars=1), replace(phrase, first_bar=BARS + 5, source_bar=8))
    one, two = (written(path, model, *phrases, out=tmp_path / f"{i}.mid") for i in range(2))
    assert (tmp_path / "0.mid").read_bytes() == (tmp_path / "1.mid").read_bytes()
    original, result = score.read(path), score.read(tmp_path / "0.mid")
    start = one.line.start_tick
    assert score.events_before(result.midi, start) == score.events_before(original.midi, start)
    assert one.length_s == two.length_s and [chunk.bars for chunk in one.written] == [4, 1, 4]
    assert name not in ("fill", "crash") or [chunk.transition for chunk in one.written] == [name] * 3
    assert not (drums_only and name == "break" and one.written[0].transition)  # a silent bar would be a hole


def test_music_that_lands_has_no_transition_at_its_end(model: Model, tmp_path: Path) -> None:
    path = band_file(tmp_path)
    phrases = (PLANNED, replace(PLANNED, first_bar=BARS + 4, transition="fill"))
    passage = midiex.extend(path, 56.1, model=model, seed=1, begin="end", plan=FormPlan(SONG, phrases, 0))
    assert passage.leads_to == "ending" and passage.written[-1].transition == ""
