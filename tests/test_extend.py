"""Extending: the original stays as it is, the new music keeps to its voices, times and end, and the seed decides."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mido
import numpy as np
import pytest
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
from midiex import ranking, score
from midiex.config import GenerateConfig
from midiex.decoding import Candidate, write_chunk
from midiex.errors import BadInput, MidiexError
from midiex.extend import Extension, Model
from midiex.tokens import BAR, MICRO, POSITION

SONGS: dict[str, tuple[Callable[[Path], Path], float]] = {  # how to make it, and how long to make it
    **{
        name: (lambda folder, name=name: EXAMPLES / f"{name}.mid", 45.0)
        for name in ("piano_nocturne", "band_groove", "small_orchestra", "chiptune_loop")
    },
    "type_0": (lambda folder: type_0_song(folder / "type_0.mid"), 30.0),
    "changing": (lambda folder: changing_song(folder / "changing.mid"), 36.5),
    "smpte": (lambda folder: riff_song(folder / "smpte.mid", 8, SMPTE_25), 27.0),
    "slow_ticks": (lambda folder: riff_song(folder / "slow_ticks.mid", 6, 24, 140), 22.0),
}

Note = tuple[int, int, int, int, int, int, int]  # track, channel, program, start, end, pitch, velocity


@dataclass(frozen=True)
class Case:
    original: score.Song
    extension: Extension
    path: Path
    result: score.Song
    seconds: float


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return midiex.load(save_talkative(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module", params=SONGS)
def case(request: pytest.FixtureRequest, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Case:
    make, seconds = SONGS[request.param]
    folder = tmp_path_factory.mktemp("songs")
    source, out = make(folder), folder / "out.mid"
    extension = midiex.extend(source, seconds, out, model=model, seed=1)
    return Case(score.read(source), extension, out, score.read(out), seconds)


def notes_in(song: score.Song) -> Counter[Note]:
    found: Counter[Note] = Counter()
    for voice, track in zip(song.voices, song.score.tracks, strict=True):
        for n in track.notes:
            found[voice.track, voice.channel, voice.program, n.time, n.time + n.duration, n.pitch, n.velocity] += 1
    return found


def bar_s(extension: Extension) -> float:
    return float(extension.grid.bar_s[-1])


def silent_candidates(*_: object, **__: object) -> list[Candidate]:
    return [Candidate(np.zeros((0, 8), np.int32), 0.0, True)] * 3


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return riff_song(tmp_path / "song.mid")


# ---- the result ------------------------------------------------------------------------------------------------------


def test_the_result_is_as_long_as_asked_for(case: Case) -> None:
    extension, result = case.extension, case.result
    assert abs(extension.end_s - case.seconds) <= bar_s(extension) / 2 + 1e-6
    end_tick = int(extension.grid.ticks[-1])
    assert float(result.tempo.to_seconds(end_tick)) == pytest.approx(extension.end_s, abs=1e-3)
    tracks = {extension.song.voices[v].track for v in np.unique(extension.new_notes().voice)}
    for track in tracks:
        assert sum(message.time for message in result.midi.tracks[track]) == end_tick
    assert result.length_s <= extension.end_s + 1e-3


def test_every_original_event_before_the_seam_stays(case: Case) -> None:
    seam = case.extension.seam_tick
    assert score.events_before(case.result.midi, seam) == score.events_before(case.original.midi, seam)
    assert sum(map(len, score.events_before(case.original.midi, seam))) > 50


def test_original_events_after_the_seam_stay_too(case: Case) -> None:
    for before, after in zip(*(score.events_before(s.midi, 2**31) for s in (case.original, case.result)), strict=True):
        assert not Counter(before) - Counter(after)


def test_only_the_songs_own_voices_play_on(case: Case) -> None:
    new = notes_in(case.result) - notes_in(case.original)
    old_voices = {(v.track, v.channel, v.program) for v in case.original.voices}
    assert sum(new.values()) > 4
    assert {n[:3] for n in new} <= old_voices
    assert [(v.track, v.channel, v.program, v.is_drum) for v in case.result.voices] == [
        (v.track, v.channel, v.program, v.is_drum) for v in case.original.voices
    ]


def test_new_notes_lie_between_the_seam_and_the_end(case: Case) -> None:
    new = notes_in(case.result) - notes_in(case.original)
    end_tick = int(case.extension.grid.ticks[-1])
    for *_, start, end, pitch, velocity in new:
        assert case.extension.seam_tick <= start < end <= end_tick
        assert 0 <= pitch <= 127 and 1 <= velocity <= 127


def test_no_new_note_sounds_into_the_next_of_its_pitch(case: Case) -> None:
    last: dict[tuple[int, int], int] = {}
    for _, channel, _, start, end, pitch, _ in sorted(
        notes_in(case.result) - notes_in(case.original), key=lambda n: n[3]
    ):
        assert start >= last.get((channel, pitch), 0)
        last[channel, pitch] = end


def test_every_chunk_has_notes_and_the_chunks_fill_what_was_to_be_filled(case: Case) -> None:
    written, extension = case.extension.written, case.extension
    assert written[0].start_s == extension.seam_s and written[-1].end_s == extension.end_s
    assert written[0].first_bar == extension.song_bars
    for one, following in zip(written, written[1:], strict=False):
        assert one.end_s == following.start_s and one.first_bar + one.bars == following.first_bar
    for index, chunk in enumerate(written):
        assert (chunk.index, chunk.of) == (index, len(written))
        assert len(chunk.rows) and 1 <= chunk.attempts <= 3
        assert chunk.rows[:, BAR].max() < chunk.bars
        assert set(chunk.terms) == (set() if chunk.fallback else set(ranking.WEIGHTS))
    assert not all(chunk.fallback for chunk in written)


def test_the_report_is_plain_json(case: Case) -> None:
    report = json.loads(json.dumps(case.extension.report(), allow_nan=False))
    assert report["seam_s"] == pytest.approx(case.extension.seam_s, abs=1e-3)
    assert report["seconds"] == pytest.approx(case.extension.end_s, abs=1e-3)
    assert report["new_notes"] == sum(chunk["notes"] for chunk in report["chunks"]) > 0
    assert len(report["chunks"]) == len(case.extension.written)
    assert report["score"] == pytest.approx(case.extension.mean_score, abs=1e-3)


# ---- seeds and options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["band_groove", "type_0"])
def test_the_seed_decides_every_byte(name: str, model: Model, tmp_path: Path) -> None:
    make, seconds = SONGS[name]
    source = make(tmp_path)
    outs = [tmp_path / f"{i}.mid" for i in range(3)]
    for out, seed in zip(outs, (5, 5, 6), strict=True):
        midiex.extend(source, seconds, out, model=model, seed=seed)
    first, again, other = (out.read_bytes() for out in outs)
    assert first == again != other


def test_a_model_may_be_given_as_its_folder(song: Path, model: Model, tmp_path: Path) -> None:
    folder = save_talkative(tmp_path / "model")
    by_folder, loaded = midiex.extend(song, 20, model=folder), midiex.extend(song, 20, model=model)
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
    extension = midiex.start(song, 60, model=model)
    chunks = extension.chunks()
    assert isinstance(chunks, Iterator) and not calls
    first = next(chunks)
    assert len(calls) == first.attempts and extension.written == [first] and first.of > 3
    rest = list(chunks)
    assert len(rest) == first.of - 1 and extension.written == [first, *rest]
    assert len(calls) == sum(chunk.attempts for chunk in extension.written)


def test_where_only_silence_is_written_the_song_itself_stands_in(
    song: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extending, "write_chunk", silent_candidates)
    extension = midiex.extend(song, 45, model=model)
    assert len(extension.written) >= 3
    for chunk in extension.written:
        assert chunk.fallback and len(chunk.rows) and chunk.attempts == model.config.generate.max_attempts
        assert np.diff(np.unique(chunk.rows[:, BAR])).max(initial=0) <= 1
    own = {n[5] for n in notes_in(extension.song)}
    new = extension.new_notes()
    assert set(new.pitch.tolist()) <= own
    at = [extension.grid.ticks[c.first_bar + c.rows[:, BAR]] + 40 * c.rows[:, POSITION] for c in extension.written]
    assert new.start_ticks.tolist() == np.concatenate(at).tolist()  # eighths, so none is off its position
    json.dumps(extension.report(), allow_nan=False)


def test_the_stand_in_fits_the_bars_to_come(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five bars of 3/4 and three of 4/4: what follows is in 3/4, and the song's last chunk is not."""
    beat = 480
    events = [meter(0, 3, 4), meter(15 * beat, 4, 4), *note(26 * beat, beat, 72)]
    for eighth in range(54):
        events += note(eighth * beat // 2, beat // 2, 60 + eighth % 7)
    source = write_midi(tmp_path / "song.mid", [events])
    monkeypatch.setattr(extending, "write_chunk", silent_candidates)
    extension = midiex.extend(source, 30, model=model)
    assert extension.grid.bar_beats[-1] == 3
    for chunk in extension.written:
        assert len(chunk.rows) and (chunk.rows[:, POSITION] < 36).all()
    new = extension.new_notes()
    assert (new.start_ticks < extension.grid.ticks[-1]).all()


def test_the_stand_in_is_never_silent_itself(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The song's last chunk of four bars begins with three empty ones, and one bar is to be written."""
    bar = 4 * 480
    events = [*riff(4), *note(7 * bar, bar, 60)]
    source = write_midi(tmp_path / "song.mid", [events])
    monkeypatch.setattr(extending, "write_chunk", silent_candidates)
    for seconds in (18, 20, 26):
        extension = midiex.extend(source, seconds, model=model)
        assert all(len(chunk.rows) for chunk in extension.written)


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
    monkeypatch.setattr(ranking, "faults", lambda rows, *_: [] if len(rows) else ["silent"])
    extension = midiex.extend(song, 20, model=model)
    assert extension.written[0].attempts == 3 and not extension.written[0].fallback
    assert temperatures == sorted(set(temperatures))


def test_the_best_faulty_candidate_is_better_than_none(
    song: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = midiex.extend(song, 20, model=model).written[0].rows
    unfinished = [Candidate(whole[:n], 20.0, False) for n in (3, len(whole))]
    monkeypatch.setattr(extending, "write_chunk", lambda *_: unfinished)
    monkeypatch.setattr(ranking, "faults", lambda rows, *_: ["stuck", "looping"] if len(rows) == 3 else ["stuck"])
    extension = midiex.extend(song, 20, model=model)
    chunk = extension.written[0]
    assert not chunk.fallback and np.array_equal(chunk.rows, whole) and chunk.attempts == 3


# ---- times -----------------------------------------------------------------------------------------------------------


def test_a_song_that_slows_down_goes_on_at_its_usual_tempo(model: Model, tmp_path: Path) -> None:
    source = changing_song(tmp_path / "song.mid")
    extension = midiex.extend(source, 40, tmp_path / "out.mid", model=model)
    assert extension.tempo_us_per_beat == 500_000
    assert extension.seam_s == pytest.approx(6 * 2 + 4 + 3)
    result = score.read(tmp_path / "out.mid")
    bar = 4 * 480
    assert result.tempo.us_per_beat_at(extension.seam_tick) == 500_000
    assert result.tempo.us_per_beat_at(9 * bar) == 2_000_000  # the original's own, which stays
    ends = [sum(message.time for message in track) for track in result.midi.tracks]
    assert float(result.tempo.to_seconds(max(ends))) == pytest.approx(extension.end_s, abs=1e-3)
    assert abs(extension.end_s - 40) <= bar_s(extension) / 2


def test_a_tempo_near_the_usual_one_goes_on_exactly(model: Model, tmp_path: Path) -> None:
    """A performance whose beats all differ a little ends as it last was, and no tempo event is added."""
    events = [(480 * beat, mido.MetaMessage("set_tempo", tempo=500_000 + 900 * (beat % 5))) for beat in range(32)]
    source = write_midi(tmp_path / "song.mid", [events, riff(8)])
    extension = midiex.extend(source, 24, model=model)
    assert extension.tempo_us_per_beat == events[-1][1].tempo
    assert sum(message.type == "set_tempo" for message in extension.midi().tracks[0]) == 32


def test_a_last_bar_of_odd_length_does_not_spill_over_the_end(model: Model, tmp_path: Path) -> None:
    """Bars of 27/64 hold 20 1/4 positions, so that the last one pushed late lies behind the bar line."""
    bar = 27 * 4 * 480 // 64
    events = [meter(0, 27, 64)]
    for i in range(12):
        events += note(i * bar, bar // 2, 60 + i % 5)
    extension = midiex.extend(write_midi(tmp_path / "song.mid", [events]), 20, model=model)
    chunk = extension.written[-1]
    chunk.rows[-1, [BAR, POSITION, MICRO]] = chunk.bars - 1, 20, 7
    new = extension.new_notes()
    end_tick = int(extension.grid.ticks[-1])
    assert (new.start_ticks < end_tick).all() and (new.start_ticks + new.duration_ticks <= end_tick).all()


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1.0, 15.9, 16.9, 6 * 3600 + 1, float("nan"), float("inf")])
def test_lengths_that_cannot_be_made_are_refused(seconds: float, song: Path, model: Model, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        midiex.extend(song, seconds, tmp_path / "out.mid", model=model)
    assert not (tmp_path / "out.mid").exists()


@pytest.mark.parametrize(("bars", "bpm"), [(5, 97), (5, 120), (11, 343)])  # the last one's bars last 0.7 s
def test_the_length_advised_can_be_made(bars: int, bpm: int, model: Model, tmp_path: Path) -> None:
    source = riff_song(tmp_path / "song.mid", bars, bpm=bpm)
    with pytest.raises(BadInput, match=r"ask for at least [\d.]+ s\.") as caught:
        midiex.extend(source, 1, model=model)
    advised = float(re.findall(r"([\d.]+) s\.$", str(caught.value))[0])
    assert len(midiex.start(source, advised, model=model).grid) > bars


def test_six_hours_may_be_asked_for(song: Path, model: Model) -> None:
    extension = midiex.start(song, 6 * 3600, model=model)
    assert next(extension.chunks()).of > 1000


# ---- files -----------------------------------------------------------------------------------------------------------


def test_the_input_stays_as_it_is(song: Path, model: Model, tmp_path: Path) -> None:
    before = song.read_bytes()
    midiex.extend(song, 20, tmp_path / "out.mid", model=model)
    assert song.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mid", "song.mid"]


def test_without_out_nothing_is_written(song: Path, model: Model, tmp_path: Path) -> None:
    extension = midiex.extend(song, 20, model=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["song.mid"]
    assert extension.save(str(tmp_path / "later.mid")) == tmp_path / "later.mid"
    assert score.read(tmp_path / "later.mid").length_s > extension.seam_s


def test_an_extension_can_be_extended(song: Path, model: Model, tmp_path: Path) -> None:
    midiex.extend(song, 24, tmp_path / "one.mid", model=model)
    extension = midiex.extend(tmp_path / "one.mid", 34, tmp_path / "two.mid", model=model)
    assert 20 < extension.seam_s < 26
    assert abs(extension.end_s - 34) <= bar_s(extension) / 2


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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
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
from midiex.extend import Extension
assert midiex.Extension is Extension
print(*sorted(midiex.__all__))
"""
    assert run_python(code).split() == sorted(midiex.__all__)
    with pytest.raises(AttributeError, match="no attribute 'extends'"):
        midiex.extends  # noqa: B018


def test_calling_the_module_is_calling_the_function(song: Path, model: Model) -> None:
    module, function = midiex.extend(song, 20, model=model), extending.extend(song, 20, model=model)
    assert isinstance(module, Extension)
    assert module.new_notes().pitch.tolist() == function.new_notes().pitch.tolist()


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    song = riff_song(tmp_path / "song.mid")
    before = song.read_bytes()
    with pytest.raises(BadInput, match="is the input itself"):
        midiex.extend(song, 60, out=tmp_path / "." / "song.mid")
    assert song.read_bytes() == before
