"""Extending: the song stays as it is, new music keeps to its voices, times and end, and the seed decides."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
from helpers import DRUMS, Note, kinds_seen, notes_in, score_of, song_in_bars
from songs import (
    EXAMPLES,
    SMPTE_25,
    changing_song,
    meter,
    note,
    riff,
    riff_song,
    save_talkative,
    type_0_song,
    write_midi,
)

import midiex
from midiex import extend as extending
from midiex import provenance, ranking, score
from midiex.conditions import LEFT, chunks_left_bin
from midiex.config import GenerateConfig
from midiex.decoding import Candidate, write_chunk
from midiex.errors import BadInput, MidiexError
from midiex.extend import ENDING, LOOP, Model, Passage
from midiex.form_plan import SAME
from midiex.model import AFTER
from midiex.tokens import BAR, DRUM_PROGRAM, MICRO, POSITION, PROGRAM

MAKE: dict[str, Callable[[Path], Path]] = {
    **{
        name: (lambda folder, name=name: EXAMPLES / f"{name}.mid")
        for name in ("piano_nocturne", "band_groove", "small_orchestra", "chiptune_loop")
    },
    "type_0": lambda folder: type_0_song(folder / "type_0.mid"),
    "changing": lambda folder: changing_song(folder / "changing.mid"),
    "smpte": lambda folder: riff_song(folder / "smpte.mid", 8, SMPTE_25),
    "slow_ticks": lambda folder: riff_song(folder / "slow_ticks.mid", 6, 24, 140),
    "plain": lambda folder: song_in_bars(folder / "plain.mid", [(4, 4)] * 8, programs=(0, 33)),
    "alternating": lambda folder: song_in_bars(folder / "alternating.mid", [(7, 8), (4, 4)] * 5),
}
SONGS: dict[str, tuple[str, float, dict[str, Any]]] = {  # which song, how long to make it, and how
    "piano_nocturne": ("piano_nocturne", 45, {}),
    "band_groove": ("band_groove", 45, {}),
    "small_orchestra": ("small_orchestra", 45, {"begin": "end"}),
    "chiptune_loop": ("chiptune_loop", 45, {"loop": True}),
    "type_0": ("type_0", 30, {"begin": "end"}),
    "changing": ("changing", 36.5, {}),
    "smpte": ("smpte", 27, {}),
    "slow_ticks": ("slow_ticks", 22, {"begin": "end", "exact": True}),
    "from a bar": ("band_groove", 45, {"begin": "bar:9"}),
    "alternating": ("alternating", 40, {}),
    "drums alone": ("band_groove", 45, {"drums": True}),
}
TAILS: dict[str, tuple[str, float, dict[str, Any]]] = {  # the same with an ending that is kept
    "band_groove": ("band_groove", 55, {"begin": "bar:13"}),
    "piano_nocturne": ("piano_nocturne", 55, {"begin": "0:20"}),
    "small_orchestra": ("small_orchestra", 50, {"begin": "bar:7"}),
    "type_0": ("type_0", 30, {"begin": "bar:6"}),
    "changing": ("changing", 45, {}),
    "smpte": ("smpte", 34, {"begin": "12"}),
    "slow_ticks": ("slow_ticks", 24, {}),
}


@dataclass(frozen=True)
class Case:
    original: score.Song
    passage: Passage
    path: Path
    result: score.Song
    seconds: float

    @property
    def new(self) -> Counter[Note]:
        """Notes that begin in the new music."""
        start, end = self.passage.line.start_tick, self.passage.line.end_tick
        return Counter({n: count for n, count in notes_in(self.result).items() if start <= n[3] < end})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    loaded = midiex.load(save_talkative(tmp_path_factory.mktemp("model")))
    return replace(loaded, config=replace(loaded.config, generate=replace(loaded.config.generate, candidates=2)))


def made(name: str, seconds: float, options: dict[str, Any], model: Model, folder: Path) -> Case:
    source, out = MAKE[name](folder), folder / "out.mid"
    passage = midiex.extend(source, seconds, out, model=model, seed=1, **options)
    return Case(score.read(source), passage, out, score.read(out), seconds)


@pytest.fixture(scope="module", params=SONGS)
def case(request: pytest.FixtureRequest, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(*SONGS[request.param], model, tmp_path_factory.mktemp("songs"))


@pytest.fixture(scope="module", params=TAILS)
def tail_case(request: pytest.FixtureRequest, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, seconds, options = TAILS[request.param]
    return made(name, seconds, options | {"keep_ending": True}, model, tmp_path_factory.mktemp("songs"))


def bar_s(passage: Passage) -> float:
    return float(passage.line.grid.bar_s[passage.line.before : passage.line.before + passage.line.new].max())


def silent_candidates(*_: object, **__: object) -> list[Candidate]:
    return [Candidate(np.zeros((0, 8), np.int32), 0.0, True)] * 3


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Eight bars of two seconds that end with a held note."""
    return riff_song(tmp_path / "song.mid")


# ---- the result ------------------------------------------------------------------------------------------------------


def test_the_result_is_as_long_as_asked_for(case: Case) -> None:
    passage, result = case.passage, case.result
    assert case.seconds - bar_s(passage) < passage.end_s <= case.seconds + 0.01
    assert float(result.tempo.to_seconds(passage.line.end_tick)) == pytest.approx(passage.end_s, abs=1e-3)
    tracks = {passage.song.voices[v].track for v in np.unique(passage.new_notes().voice)}
    for track in tracks:
        assert sum(message.time for message in result.midi.tracks[track]) == passage.line.end_tick
    assert result.length_s <= passage.end_s + 1e-3 and passage.length_s == passage.end_s


def test_every_original_event_before_the_new_music_stays(case: Case) -> None:
    start = case.passage.line.start_tick
    assert score.events_before(case.result.midi, start) == score.events_before(case.original.midi, start)
    assert sum(map(len, score.events_before(case.original.midi, start))) > 50


def test_only_the_songs_own_voices_play_on(case: Case) -> None:
    old_voices = {
        (v.track, v.channel, v.program) for i, v in enumerate(case.original.voices) if i in case.passage.players
    }
    assert sum(case.new.values()) > 4
    assert {n[:3] for n in case.new} <= old_voices
    known = {(v.track, v.channel, v.program, v.is_drum) for v in case.original.voices}
    assert {(v.track, v.channel, v.program, v.is_drum) for v in case.result.voices} <= known


def test_new_notes_lie_between_start_and_end_and_nothing_after(case: Case) -> None:
    line = case.passage.line
    for *_, start, end, pitch, velocity in case.new:
        assert line.start_tick <= start < end <= line.end_tick
        assert 0 <= pitch <= 127 and 1 <= velocity <= 127
    assert max(n[3] for n in notes_in(case.result)) < line.end_tick


def test_no_new_note_sounds_into_the_next_of_its_pitch(case: Case) -> None:
    last: dict[tuple[int, int], int] = {}
    for _, channel, _, start, end, pitch, _ in sorted(case.new, key=lambda n: n[3]):
        assert start >= last.get((channel, pitch), 0)
        last[channel, pitch] = end


def test_every_chunk_has_notes_and_the_chunks_fill_what_was_to_be_filled(case: Case) -> None:
    written, passage = case.passage.written, case.passage
    assert written[0].start_s == passage.start_s and written[-1].end_s == passage.end_s
    assert written[0].first_bar == passage.line.before
    for one, following in zip(written, written[1:], strict=False):
        assert one.end_s == following.start_s and one.first_bar + one.bars == following.first_bar
    lands = passage.leads_to == ENDING
    for index, chunk in enumerate(written):
        assert (chunk.index, chunk.of) == (index, len(written))
        assert len(chunk.rows) and 1 <= chunk.attempts <= 3
        assert chunk.rows[:, BAR].max() < chunk.bars
        terms = set(ranking.WEIGHTS) - (set() if lands and index == len(written) - 1 else {"ending"})
        assert set(chunk.terms) == (set() if chunk.fallback else terms)
    assert not all(chunk.fallback for chunk in written)


def test_music_that_ends_ends_on_a_chord_that_rings(case: Case) -> None:
    passage, last = case.passage, case.passage.written[-1]
    rows = last.rows[last.rows[:, BAR] == last.bars - 1]
    tuned = rows[rows[:, PROGRAM] != DRUM_PROGRAM]
    if passage.leads_to == ENDING and not last.fallback:
        assert (rows[:, POSITION] == 0).all()
        final = passage.line.grid.ticks[-2]
        sounding = {n[:4] for n in case.new if n[4] == passage.line.end_tick}  # track, channel, program, start
        chord = [start for *_, start in sounding if abs(start - final) <= passage.song.grid.tpq / 12]
        assert len(chord) > 0 or len(tuned) == 0
    else:
        assert passage.leads_to == LOOP or last.fallback


def test_the_report_is_plain_json(case: Case) -> None:
    passage = case.passage
    report = json.loads(json.dumps(passage.report(), allow_nan=False))
    assert report["new_from_s"] == pytest.approx(passage.start_s, abs=1e-3)
    assert report["new_to_s"] == report["seconds"] == pytest.approx(passage.end_s, abs=1e-3)
    assert report["bars"] == [passage.line.before + 1, passage.line.before + passage.line.new]
    assert report["new_notes"] == sum(chunk["notes"] for chunk in report["chunks"]) > 0
    assert len(report["chunks"]) == len(passage.written)
    assert report["score"] == pytest.approx(passage.mean_score, abs=1e-3)
    assert sum(report["terms"].values()) == pytest.approx(report["score"], abs=2e-3)


def test_the_file_says_which_music_is_new(case: Case) -> None:
    passage = case.passage
    (told,) = provenance.notes_in(case.result)
    assert (told.tick, told.seed, told.leads_to) == (passage.line.start_tick, 1, passage.leads_to)
    assert told.model == passage.model.fingerprint and told.version == midiex.__version__
    assert [bars for _, bars, _ in told.chunks] == [chunk.bars for chunk in passage.written]
    assert set(told.tracks) == {case.original.voices[i].track for i in passage.players}
    ((start_s, end_s),) = provenance.spans_s(case.result)
    assert start_s == pytest.approx(passage.start_s, abs=1e-3)
    assert end_s == pytest.approx(passage.end_s, abs=bar_s(passage))  # the last bar may have been cut or ring out


# ---- where new music begins ------------------------------------------------------------------------------------------


def test_by_itself_it_begins_before_the_songs_ending(song: Path, model: Model, tmp_path: Path) -> None:
    passage = midiex.extend(song, 30, tmp_path / "out.mid", model=model)
    assert passage.line.before == 7 and passage.why_here == "before the song's ending: held"
    kept = [n for n in notes_in(score.read(song)) if n[3] >= passage.line.start_tick]
    assert len(kept) == 1 and kept[0] not in notes_in(score.read(tmp_path / "out.mid"))


def test_without_an_ending_it_begins_at_the_end(model: Model, tmp_path: Path) -> None:
    passage = midiex.start(MAKE["plain"](tmp_path), 30, model=model)
    assert passage.line.before == 8 and passage.why_here == "after the last bar with notes"


@pytest.mark.parametrize(
    ("begin", "bar"),
    [("auto", 7), ("end", 8), ("bar:4", 3), ("bar:9", 8), ("10", 5), (10, 5), (9.2, 5), ("0:10.9", 5), ("0:11.1", 6)],
)
def test_it_begins_where_asked(begin: str | float, bar: int, song: Path, model: Model) -> None:
    passage = midiex.start(song, 30, begin=begin, model=model)
    assert passage.line.before == bar and passage.line.start_tick == bar * 4 * 480
    assert passage.start_s == 2 * bar and passage.end_s == 30


@pytest.mark.parametrize("begin", ["bar:1", "0", "0:00.4", 0, "bar:10", "40", "somewhere", ""])
def test_places_where_nothing_can_go_on_are_refused(begin: str | float, song: Path, model: Model) -> None:
    with pytest.raises(BadInput):
        midiex.start(song, 30, begin=begin, model=model)


def test_what_lay_after_is_left_out(model: Model, tmp_path: Path) -> None:
    source = MAKE["type_0"](tmp_path)
    passage = midiex.extend(source, 24, tmp_path / "out.mid", begin="bar:4", model=model)
    result = score.read(tmp_path / "out.mid")
    later = [n for n in notes_in(score.read(source)) if n[3] >= passage.line.start_tick]
    assert later and not set(later) & set(notes_in(result))
    assert result.length_s <= 24.001
    assert midiex.start(source, 10, begin="bar:4", model=model).end_s == 10  # and may be cut shorter than it was


# ---- who plays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "programs"),
    [
        ({}, {0, 4, 33, 66}),
        ({"solo": ["bass"]}, {33}),
        ({"mute": ["bass", "sax"]}, {0, 4}),
        ({"drums": True}, {0}),
        ({"drums": False}, {4, 33, 66}),
        ({"solo": ["bass", "drums"], "drums": False}, {33}),
    ],
)
def test_only_those_chosen_play(options: dict[str, Any], programs: set[int], model: Model) -> None:
    passage = midiex.extend(EXAMPLES / "band_groove.mid", 50, model=model, **options)
    assert {passage.song.voices[i].program for i in passage.players} == programs
    played = {passage.song.voices[v].program for v in np.unique(passage.new_notes().voice)}
    assert played == programs if len(programs) == 1 else played <= programs


@pytest.mark.parametrize("options", [{"solo": ["tuba"]}, {"mute": ["tuba"]}, {"mute": ["0"]}, {"drums": True}])
def test_somebody_must_play(options: dict[str, Any], song: Path, model: Model) -> None:
    with pytest.raises(BadInput):
        midiex.start(song, 30, model=model, **options)


# ---- an ending that is kept ------------------------------------------------------------------------------------------


def others_from(midi: mido.MidiFile, tick: int) -> list[Counter[tuple[int, str]]]:
    """Events of each track from a tick on but notes and ends of tracks, (ticks from there, what)."""
    tracks = []
    for track in midi.tracks:
        at, events = 0, []
        for message in track:
            at += message.time
            if at >= tick and message.type not in ("note_on", "note_off", "end_of_track"):
                events.append((at - tick, str(message.copy(time=0))))
        tracks.append(Counter(events))
    return tracks


def test_a_kept_ending_follows_as_it_was(tail_case: Case) -> None:
    line, original, result = tail_case.passage.line, tail_case.original, tail_case.result
    shift = line.end_tick - line.start_tick
    kept = {n: c for n, c in notes_in(original).items() if n[3] >= line.start_tick}
    moved = Counter({(*n[:3], n[3] + shift, n[4] + shift, *n[5:]): c for n, c in kept.items()})
    assert moved == Counter({n: c for n, c in notes_in(result).items() if n[3] >= line.end_tick})
    tails = (others_from(original.midi, line.start_tick), others_from(result.midi, line.end_tick))
    assert not any(was - now for was, now in zip(*tails, strict=True))
    before = (score.events_before(song.midi, line.start_tick) for song in (result, original))
    assert next(before) == next(before)


def test_a_kept_ending_sounds_as_fast_as_it_did(tail_case: Case) -> None:
    passage, original, result = tail_case.passage, tail_case.original, tail_case.result
    shift_s = passage.end_s - passage.start_s
    assert result.length_s == pytest.approx(original.length_s + shift_s, abs=2e-3)
    assert passage.length_s == pytest.approx(result.length_s, abs=2e-3)
    assert tail_case.seconds - bar_s(passage) < result.length_s <= tail_case.seconds + 1e-3
    after = passage.line.before + passage.line.new
    assert result.grid.bar_beats[after:] == pytest.approx(original.grid.bar_beats[passage.line.before :])


def test_the_model_sees_a_kept_ending_when_it_writes_the_last_chunk(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = kinds_seen(model.network, monkeypatch)
    groove = EXAMPLES / "band_groove.mid"
    passage = midiex.extend(groove, 60, begin="bar:13", keep_ending=True, model=model)
    drawn = [chunk for chunk in passage.written if chunk.kind != SAME]  # what comes back as it was is not written
    assert len(seen) == len(drawn) > 1 and drawn[-1] is passage.written[-1]
    assert [AFTER in kinds for kinds in seen] == [False] * (len(seen) - 1) + [True]
    seen.clear()
    midiex.extend(groove, 45, begin="bar:13", model=model)
    assert seen and not any(AFTER in kinds for kinds in seen)


def test_with_nothing_after_it_there_is_no_ending_to_keep(model: Model, tmp_path: Path) -> None:
    passage = midiex.start(MAKE["plain"](tmp_path), 30, keep_ending=True, model=model)
    assert passage.leads_to == ENDING and passage.line.after is None


# ---- loops -----------------------------------------------------------------------------------------------------------


def test_a_loop_leads_back_to_its_beginning(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = kinds_seen(model.network, monkeypatch)
    passage = midiex.extend(EXAMPLES / "chiptune_loop.mid", 60, tmp_path / "out.mid", loop=True, model=model)
    assert passage.leads_to == LOOP
    assert [AFTER in kinds for kinds in seen] == [False] * (len(seen) - 1) + [True]
    assert not any("ending" in chunk.terms for chunk in passage.written)
    (marker,) = [event for event in others_from(mido.MidiFile(tmp_path / "out.mid"), 0)[0] if "loopEnd" in event[1]]
    assert marker[0] == passage.line.end_tick
    with pytest.raises(BadInput, match="loop"):
        midiex.start(EXAMPLES / "chiptune_loop.mid", 60, loop=True, keep_ending=True, model=model)


def test_an_open_end_is_no_ending(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def watch(network: Any, memory: Any, task: Any, *rest: Any, **more: Any) -> Any:
        told.append((int(task.conditions[LEFT]), task.final))
        return write_chunk(network, memory, task, *rest, **more)

    monkeypatch.setattr(extending, "write_chunk", watch)
    passage = midiex.extend(EXAMPLES / "chiptune_loop.mid", 60, open_end=True, model=model)
    assert passage.leads_to == "open" and not any("ending" in chunk.terms for chunk in passage.written)
    assert {left for left, _ in told} == {chunks_left_bin(99)} and all(final is None for _, final in told)
    for clash in ("loop", "keep_ending"):
        with pytest.raises(BadInput, match="open end"):
            midiex.start(EXAMPLES / "chiptune_loop.mid", 60, open_end=True, model=model, **{clash: True})


# ---- ends on the second ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "seconds"), [*((name, 45.77) for name in MAKE), ("band_groove", 70.0)])
def test_with_exact_the_last_release_falls_on_the_second(
    name: str, seconds: float, model: Model, tmp_path: Path
) -> None:
    case = made(name, seconds, {"exact": True}, model, tmp_path)
    assert case.result.length_s == pytest.approx(seconds, abs=0.05)
    new = case.passage.line.new - 1  # all but the last, which may slow down or be cut
    grid = case.passage.line.grid
    beat_s = (grid.bar_s / grid.bar_beats)[case.passage.line.before :][:new]
    if name not in ("changing", "smpte"):
        own = float(np.median(case.original.grid.bar_s / case.original.grid.bar_beats))
        assert beat_s == pytest.approx(own, rel=0.011)


@pytest.mark.parametrize("name", ["band_groove", "piano_nocturne", "type_0"])
def test_with_exact_a_kept_ending_ends_on_the_second_too(name: str, model: Model, tmp_path: Path) -> None:
    _, _, options = TAILS[name]
    case = made(name, 120, options | {"exact": True, "keep_ending": True}, model, tmp_path)
    assert case.result.length_s == pytest.approx(120, abs=0.05)


# ---- seeds and options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["band_groove", "type_0"])
def test_the_seed_decides_every_byte(name: str, model: Model, tmp_path: Path) -> None:
    name, seconds, _ = SONGS[name]
    source = MAKE[name](tmp_path)
    outs = [tmp_path / f"{i}.mid" for i in range(3)]
    for out, seed in zip(outs, (5, 5, 6), strict=True):
        midiex.extend(source, seconds, out, model=model, seed=seed)
    first, again, other = (out.read_bytes() for out in outs)
    assert first == again != other


def test_a_model_may_be_given_as_its_folder(song: Path, model: Model, tmp_path: Path) -> None:
    folder = save_talkative(tmp_path / "model")
    by_folder, loaded = (midiex.extend(song, 20, model=one, candidates=2) for one in (folder, model))
    assert by_folder.new_notes().pitch.tolist() == loaded.new_notes().pitch.tolist()


def test_temperature_and_candidates_are_passed_on(song: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[GenerateConfig] = []

    def spy(network: object, memory: object, task: object, config: GenerateConfig, rng: object) -> list[Candidate]:
        asked.append(config)
        return write_chunk(network, memory, task, config, rng)  # type: ignore[arg-type]

    monkeypatch.setattr(extending, "write_chunk", spy)
    midiex.extend(song, 20, model=model, temperature=0.5, candidates=2)
    assert (asked[0].temperature, asked[0].candidates) == (0.5, 2)
    midiex.extend(song, 20, model=model)
    assert asked[-1].candidates == model.config.generate.candidates


# ---- chunk by chunk --------------------------------------------------------------------------------------------------


def test_chunks_come_one_by_one(song: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*given: object) -> list[Candidate]:
        calls.append(1)
        return write_chunk(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(extending, "write_chunk", counted)
    passage = midiex.start(song, 60, model=model)
    chunks = passage.chunks()
    assert isinstance(chunks, Iterator) and not calls
    first = next(chunks)
    assert len(calls) == first.attempts and passage.written == [first] and first.of > 3
    rest = list(chunks)
    assert len(rest) == first.of - 1 and passage.written == [first, *rest]
    assert len(calls) == sum(chunk.attempts for chunk in passage.written if chunk.came_back is None)


def test_where_only_silence_is_written_the_song_itself_stands_in(
    song: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extending, "write_chunk", silent_candidates)
    passage = midiex.extend(song, 45, model=model)
    assert len(passage.written) >= 3 and any(chunk.fallback for chunk in passage.written)
    for chunk in passage.written:
        assert chunk.fallback != (chunk.kind == SAME) and len(chunk.rows)
        assert chunk.attempts == (model.config.generate.max_attempts if chunk.fallback else 1)
        assert np.diff(np.unique(chunk.rows[:, BAR])).max(initial=0) <= 1
    own = {n[5] for n in notes_in(passage.song)}
    new = passage.new_notes()
    assert set(new.pitch.tolist()) <= own
    at = [passage.line.grid.ticks[c.first_bar + c.rows[:, BAR]] + 40 * c.rows[:, POSITION] for c in passage.written]
    assert new.start_ticks.tolist() == np.concatenate(at).tolist()  # eighths, so none is off its position
    json.dumps(passage.report(), allow_nan=False)


def test_the_stand_in_fits_the_bars_to_come(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five bars of 3/4 and three of 4/4: what follows is in 3/4, and the song's last chunk is not."""
    beat = 480
    events = [meter(0, 3, 4), meter(15 * beat, 4, 4), *note(26 * beat, beat, 72)]
    for eighth in range(54):
        events += note(eighth * beat // 2, beat // 2, 60 + eighth % 7)
    source = write_midi(tmp_path / "song.mid", [events])
    monkeypatch.setattr(extending, "write_chunk", silent_candidates)
    passage = midiex.extend(source, 30, model=model)
    assert passage.line.grid.bar_beats[-1] == 3
    for chunk in passage.written:
        assert len(chunk.rows) and (chunk.rows[:, POSITION] < 36).all()
    new = passage.new_notes()
    assert (new.start_ticks < passage.line.grid.ticks[-1]).all()


def test_the_stand_in_is_never_silent_itself(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The song's last chunk of four bars begins with three empty ones, and one bar is to be written."""
    bar = 4 * 480
    events = [*riff(4), *note(7 * bar, bar, 60)]
    source = write_midi(tmp_path / "song.mid", [events])
    monkeypatch.setattr(extending, "write_chunk", silent_candidates)
    for seconds in (18, 20, 26):
        passage = midiex.extend(source, seconds, model=model)
        assert all(len(chunk.rows) for chunk in passage.written)


def test_faulty_rounds_are_followed_by_hotter_ones(song: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    temperatures: list[float] = []
    whole = midiex.extend(song, 20, model=model).written[0].rows

    def first_silent(
        network: object, memory: object, task: object, config: GenerateConfig, rng: object
    ) -> list[Candidate]:
        temperatures.append(config.temperature)
        if len(temperatures) < 3:
            return silent_candidates()
        return [Candidate(whole, 20.0, True)]

    monkeypatch.setattr(extending, "write_chunk", first_silent)
    monkeypatch.setattr(ranking.Fit, "faults", lambda _, rows: [] if len(rows) else ["silent"])
    passage = midiex.extend(song, 20, model=model)
    assert passage.written[0].attempts == 3 and not passage.written[0].fallback
    assert temperatures == sorted(set(temperatures))


def test_the_best_faulty_candidate_is_better_than_none(
    song: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = midiex.extend(song, 20, model=model).written[0].rows
    unfinished = [Candidate(whole[:n], 20.0, False) for n in (3, len(whole))]
    monkeypatch.setattr(extending, "write_chunk", lambda *_: unfinished)
    monkeypatch.setattr(ranking.Fit, "faults", lambda _, rows: ["stuck", "looping"] if len(rows) == 3 else ["stuck"])
    passage = midiex.extend(song, 20, model=model)
    chunk = passage.written[0]
    assert not chunk.fallback and np.array_equal(chunk.rows, whole) and chunk.attempts == 3


# ---- times -----------------------------------------------------------------------------------------------------------


def test_a_song_that_slows_down_goes_on_at_its_usual_tempo_and_slows_down_again(model: Model, tmp_path: Path) -> None:
    source = changing_song(tmp_path / "song.mid")
    passage = midiex.extend(source, 40, tmp_path / "out.mid", model=model)
    assert passage.why_here.startswith("before the song's ending") and "ritardando" in passage.why_here
    assert passage.line.before == 7 and passage.start_s == 6 * 2 + 4
    result = score.read(tmp_path / "out.mid")
    bar = 4 * 480
    last = passage.line.before + passage.line.new - 1
    assert [round(us) for us in result.grid.bar_s[7:last] / 4 * 1e6] == [500_000] * (last - 7)
    assert float(result.grid.bar_s[last]) == pytest.approx(3)  # as the song's last bar
    assert result.tempo.us_per_beat_at(passage.line.end_tick - bar) == 750_000
    assert 40 - 3 < passage.end_s <= 40
    ends = [sum(message.time for message in track) for track in result.midi.tracks]
    assert float(result.tempo.to_seconds(max(ends))) == pytest.approx(passage.end_s, abs=1e-3)


def test_a_tempo_near_the_usual_one_goes_on_exactly(model: Model, tmp_path: Path) -> None:
    """A performance whose beats all differ a little ends as it last was, and no tempo event is added."""
    events = [(480 * beat, mido.MetaMessage("set_tempo", tempo=500_000 + 900 * (beat % 5))) for beat in range(32)]
    source = write_midi(tmp_path / "song.mid", [events, riff(8)])
    passage = midiex.extend(source, 24, model=model, begin="end")
    assert passage.line.tempo.us_per_beat_at(passage.line.end_tick) == events[-1][1].tempo
    assert sum(message.type == "set_tempo" for message in passage.midi().tracks[0]) == 32


@pytest.mark.parametrize("name", ["alternating", "waltz, then not", "twelve eighths"])
def test_meters_are_written_so_that_bars_are_found_again(name: str, model: Model, tmp_path: Path) -> None:
    signatures = {
        "alternating": [(7, 8), (4, 4)] * 5,
        "waltz, then not": [(3, 4)] * 6 + [(4, 4)] * 6,
        "twelve eighths": [(12, 8)] * 8,
    }[name]
    source = song_in_bars(tmp_path / "song.mid", signatures)
    passage = midiex.extend(source, 60, tmp_path / "out.mid", model=model)
    result = score.read(tmp_path / "out.mid")
    new = slice(len(signatures), passage.line.before + passage.line.new)
    assert passage.line.before == len(signatures)
    shared = min(len(result.grid), new.stop)  # where the last bar rings out, no note tells of it
    assert shared >= new.stop - 1
    assert result.grid.ticks[: shared + 1].tolist() == passage.line.grid.ticks[: shared + 1].tolist()


def test_a_last_bar_of_odd_length_does_not_spill_over_the_end(model: Model, tmp_path: Path) -> None:
    """Bars of 27/64 hold 20 1/4 positions, so that the last one pushed late lies behind the bar line."""
    bar = 27 * 4 * 480 // 64
    events = [meter(0, 27, 64)]
    for i in range(12):
        events += note(i * bar, bar // 2, 60 + i % 5)
    passage = midiex.extend(write_midi(tmp_path / "song.mid", [events]), 20, model=model)
    chunk = passage.written[-1]
    chunk.rows[-1, [BAR, POSITION, MICRO]] = chunk.bars - 1, 20, 7
    new = passage.new_notes()
    end_tick = passage.line.end_tick
    assert (new.start_ticks < end_tick).all() and (new.start_ticks + new.duration_ticks <= end_tick).all()


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1.0, 15.9, 16.9, 6 * 3600 + 1, float("nan"), float("inf")])
def test_lengths_that_cannot_be_made_are_refused(seconds: float, song: Path, model: Model, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        midiex.extend(song, seconds, tmp_path / "out.mid", begin="end", model=model)
    assert not (tmp_path / "out.mid").exists()


@pytest.mark.parametrize(("bars", "bpm"), [(5, 97), (5, 120), (11, 343)])  # the last one's bars last 0.7 s
def test_the_length_advised_can_be_made(bars: int, bpm: int, model: Model, tmp_path: Path) -> None:
    source = riff_song(tmp_path / "song.mid", bars, bpm=bpm)
    with pytest.raises(BadInput, match=r"ask for at least [\d.]+ s\.") as caught:
        midiex.extend(source, 1, model=model)
    advised = float(re.findall(r"([\d.]+) s\.$", str(caught.value))[0])
    assert midiex.start(source, advised, model=model).line.new >= 1


def test_six_hours_may_be_asked_for(song: Path, model: Model) -> None:
    passage = midiex.start(song, 6 * 3600, model=model)
    assert next(passage.chunks()).of > 1000


# ---- files -----------------------------------------------------------------------------------------------------------


def test_the_input_stays_as_it_is(song: Path, model: Model, tmp_path: Path) -> None:
    before = song.read_bytes()
    midiex.extend(song, 20, tmp_path / "out.mid", model=model)
    assert song.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mid", "song.mid"]


def test_without_out_nothing_is_written(song: Path, model: Model, tmp_path: Path) -> None:
    passage = midiex.extend(song, 20, model=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.mid"]
    assert passage.save(str(tmp_path / "later.mid")) == tmp_path / "later.mid"
    assert score.read(tmp_path / "later.mid").length_s > passage.start_s


def test_a_result_can_be_extended(song: Path, model: Model, tmp_path: Path) -> None:
    midiex.extend(song, 24, tmp_path / "one.mid", model=model)
    passage = midiex.extend(tmp_path / "one.mid", 34, tmp_path / "two.mid", begin="end", model=model)
    assert 20 < passage.start_s < 26 and 32 < passage.end_s <= 34
    assert len(provenance.notes_in(score.read(tmp_path / "two.mid"))) == 2


@pytest.mark.parametrize(
    "data",
    [b"", b"no MIDI at all", b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x01\xe0MTrk\x00\x00\x00\x04\x00\xff\x2f\x00"],
)
def test_what_is_no_song_is_refused_in_one_sentence(data: bytes, model: Model, tmp_path: Path) -> None:
    path = tmp_path / "song.mid"
    path.write_bytes(data)
    with pytest.raises(MidiexError, match=re.escape(str(path))) as caught:
        midiex.extend(path, 30, model=model)
    assert "\n" not in str(caught.value)


# ---- the package -----------------------------------------------------------------------------------------------------


def run_python(code: str) -> str:
    environment = os.environ | {"CI": "true"}  # under which some libraries talk
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_midiex_imports_nothing_heavy() -> None:
    heavy = ["torch", "symusic", "miditok", "matplotlib", "pretty_midi", "soundfile", "scipy"]
    assert run_python(f"import sys, midiex; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_extend_and_render_are_functions_and_modules() -> None:
    code = """
import midiex
from midiex import extend, render
import midiex.extend as module
assert module is extend is midiex.extend and callable(extend) and callable(midiex.render)
assert midiex.Model is extend.Model and midiex.load is extend.load and midiex.start is extend.start
assert midiex.render.find_soundfont and extend.extend.__name__ == "extend"
from midiex.extend import Passage
assert midiex.Passage is Passage
print(*sorted(midiex.__all__))
"""
    assert run_python(code).split() == sorted(midiex.__all__)
    with pytest.raises(AttributeError, match="no attribute 'extends'"):
        midiex.extends  # noqa: B018


def test_calling_the_module_is_calling_the_function(song: Path, model: Model) -> None:
    module, function = midiex.extend(song, 20, model=model), extending.extend(song, 20, model=model)
    assert isinstance(module, Passage)
    assert module.new_notes().pitch.tolist() == function.new_notes().pitch.tolist()


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    song = riff_song(tmp_path / "song.mid")
    before = song.read_bytes()
    with pytest.raises(BadInput, match="is the input itself"):
        midiex.extend(song, 60, out=tmp_path / "." / "song.mid")
    assert song.read_bytes() == before


# ---- with the model that ships ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> Model:
    return midiex.load()


def offbeats(song: score.Song, start: int, end: int) -> np.ndarray:
    """Where in the beat the drums' off-beat eighths lie, as shares of the beat."""
    ticks = np.array([n[3] for n in notes_in(song) if n[1] == 9 and start <= n[3] < end])
    shares = ticks / song.grid.tpq % 1
    return shares[(shares > 0.25) & (shares < 0.9)]


@pytest.mark.parametrize("ratio", [0.58, 2 / 3])
def test_swing_goes_on_swinging(ratio: float, shipped: Model, tmp_path: Path) -> None:
    """Sixteen bars of ride, kick, snare and hi-hat, played by hand: each stroke up to a hundredth of a beat off."""
    rng = np.random.default_rng(0)
    rows = []
    for beat in range(64):
        hits = [(0.0, 51), (0.0, 36 if beat % 2 == 0 else 38)] + [(0.0, 44)] * (beat % 2)
        hits += [(ratio, 51)] * (beat % 2) + [(ratio, 38)] * (beat % 8 == 6) + [(ratio, 36)] * (beat % 8 == 3)
        for share, pitch in hits:
            tick = round((beat + share + rng.uniform(-0.01, 0.01)) * 480)
            rows.append((max(0, tick), 60, pitch, int(rng.integers(60, 110))))
    score_of([(DRUMS, rows)], bpm=150).dump_midi(tmp_path / "song.mid")
    song = score.read(tmp_path / "song.mid")
    out = tmp_path / "out.mid"
    passage = midiex.extend(song.path, song.length_s + 60, out, model=shipped, candidates=2)
    assert not any(chunk.fallback for chunk in passage.written)
    was = offbeats(song, 0, passage.line.start_tick)
    now = offbeats(score.read(out), passage.line.start_tick, passage.line.end_tick)
    assert len(now) > 30
    assert was.mean() == pytest.approx(ratio, rel=0.02)
    assert now.mean() == pytest.approx(ratio, rel=0.1)
    assert now.std() < 0.1  # and swings evenly


@pytest.mark.parametrize(
    ("signatures", "coming"),
    [
        ([(12, 8)] * 8, (12, 8)),
        ([(7, 8)] * 10, (7, 8)),
        ([(3, 4)] * 12, (3, 4)),
        ([(4, 4)] * 8 + [(3, 4)] * 8, (3, 4)),
    ],
)
def test_meters_go_on(
    signatures: list[tuple[int, int]], coming: tuple[int, int], shipped: Model, tmp_path: Path
) -> None:
    source, out = song_in_bars(tmp_path / "song.mid", signatures, programs=(0, 33, DRUMS)), tmp_path / "out.mid"
    length_s = score.read(source).length_s
    passage = midiex.extend(source, length_s + 25, out, model=shipped, candidates=1)
    result, line = score.read(out), passage.line
    assert line.before == len(signatures)
    beats = 4 * coming[0] / coming[1]
    new = result.grid.bar_beats[line.before :]
    assert new.tolist() == [beats] * len(new) and line.new - 1 <= len(new) <= line.new
    assert new.sum() * 0.5 == pytest.approx(25, abs=2 * beats)
    known = [(m.time, m.numerator, m.denominator) for m in result.score.time_signatures]
    assert known[-1][1:] == coming and known[-1][0] < line.start_tick  # nothing new was written
    for chunk in passage.written:
        assert (chunk.rows[:, POSITION] < 12 * beats).all()
