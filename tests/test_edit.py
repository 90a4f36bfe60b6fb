"""New music inside a song: what was to stay stays, what was to change changes, and the model sees both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
from helpers import Note, kinds_seen, notes_in, song_in_bars
from songs import (
    EXAMPLES,
    SMPTE_25,
    changing_song,
    note,
    riff,
    riff_song,
    save_talkative,
    tempo,
    type_0_song,
    write_midi,
)

import midiex
from midiex import edit, provenance, score
from midiex import extend as extending
from midiex.decoding import Task, write_chunk
from midiex.errors import BadInput
from midiex.extend import ENDING, LOOP, SONG, Model, Passage
from midiex.model import AFTER

GROOVE = EXAMPLES / "band_groove.mid"  # 16 bars of 2.14 s: drums, bass, electric piano, saxophone
BAR = 4 * 480

MAKE: dict[str, Callable[[Path], Path]] = {
    "band_groove": lambda folder: GROOVE,
    "piano_nocturne": lambda folder: EXAMPLES / "piano_nocturne.mid",
    "type_0": lambda folder: type_0_song(folder / "type_0.mid"),
    "smpte": lambda folder: riff_song(folder / "smpte.mid", 8, SMPTE_25),
    "changing": lambda folder: changing_song(folder / "changing.mid"),
    "mixed": lambda folder: song_in_bars(folder / "mixed.mid", [(3, 4)] * 6 + [(4, 4)] * 6, programs=(0, 33)),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    loaded = midiex.load(save_talkative(tmp_path_factory.mktemp("model")))
    return replace(loaded, config=replace(loaded.config, generate=replace(loaded.config.generate, candidates=2)))


def between(notes: Counter[Note], start: int, end: float) -> Counter[Note]:
    return Counter({n: count for n, count in notes.items() if start <= n[3] < end})


def outside(song: score.Song, start: int, end: int) -> Counter[Note]:
    """Notes that begin before or after; what rings across the start is cut there, for a new note may end it."""
    notes: Counter[Note] = Counter()
    for n, count in notes_in(song).items():
        if n[3] < start:
            notes[(*n[:4], min(n[4], start), *n[5:])] += count
        elif n[3] >= end:
            notes[n] += count
    return notes


def moved(notes: Counter[Note], ticks: int) -> Counter[Note]:
    return Counter({(*n[:3], n[3] + ticks, n[4] + ticks, *n[5:]): count for n, count in notes.items()})


def others(midi: mido.MidiFile) -> list[Counter[tuple[int, str]]]:
    """Events of each track but notes and texts, with their ticks."""
    tracks = []
    for track in midi.tracks:
        at, found = 0, []
        for message in track:
            at += message.time
            if message.type not in ("note_on", "note_off", "text", "end_of_track"):
                found.append((at, str(message.copy(time=0))))
        tracks.append(Counter(found))
    return tracks


# ---- a passage rewritten ---------------------------------------------------------------------------------------------

FILLS: dict[str, tuple[str, str | float, str | float, list[str]]] = {
    "the middle": ("band_groove", "bar:7", "bar:12", []),
    "for the bass": ("band_groove", "0:10", "0:20", ["bass"]),
    "for two": ("band_groove", "bar:5", "bar:9", ["sax", "drums"]),
    "the beginning": ("band_groove", 0, "bar:6", []),
    "the beginning, for one": ("band_groove", "bar:1", "bar:5", ["piano"]),
    "the end": ("band_groove", "bar:13", "bar:17", []),
    "the end, for one": ("band_groove", "bar:13", "bar:17", ["bass"]),
    "all for one but a bar": ("band_groove", "bar:2", "bar:17", ["bass"]),
    "one bar": ("type_0", "bar:4", "bar:5", []),
    "under the pedal": ("piano_nocturne", "0:10", "0:18", []),
    "in frames": ("smpte", 4, 10, []),
    "over changes of tempo": ("changing", "bar:3", "bar:6", []),
    "over a change of meter": ("mixed", "bar:5", "bar:9", ["bass"]),
}


@pytest.mark.parametrize("name", FILLS)
def test_what_is_not_rewritten_stays(name: str, model: Model, tmp_path: Path) -> None:
    make, begin, end, tracks = FILLS[name]
    source = MAKE[make](tmp_path)
    passage = midiex.fill(source, begin, end, tmp_path / "out.mid", tracks=tracks, model=model, seed=1)
    original, result, line = score.read(source), score.read(tmp_path / "out.mid"), passage.line
    assert passage.leads_to == SONG and set(passage.players) | set(passage.standing) == set(range(len(original.voices)))
    was, now = notes_in(original), notes_in(result)
    rewritten = {original.voices[i] for i in passage.players}
    mine = {(v.track, v.channel, v.program) for v in rewritten}
    assert len(rewritten) == (len(tracks) or len(original.voices))
    hole_was, hole_now = (between(notes, line.start_tick, line.end_tick) for notes in (was, now))
    standing = Counter({n: count for n, count in hole_was.items() if n[:3] not in mine})
    assert outside(original, line.start_tick, line.end_tick) == outside(result, line.start_tick, line.end_tick)
    assert not standing - hole_now
    new = hole_now - standing
    assert new and {n[:3] for n in new} <= mine
    assert sum(new.values()) <= sum(len(chunk.rows) for chunk in passage.written)
    assert not set(hole_was - standing) & set(new) or len(new) > 4  # a note may be struck again by chance
    assert np.array_equal(original.grid.ticks, result.grid.ticks)
    assert np.allclose(original.grid.seconds, result.grid.seconds)
    for before, after, track in zip(others(original.midi), others(result.midi), range(99), strict=False):
        if make == "band_groove" and track not in {v.track for v in rewritten}:
            assert before == after
    assert sum(chunk.bars for chunk in passage.written) == line.new
    assert passage.length_s == pytest.approx(result.length_s, abs=bar_s(original))


def bar_s(song: score.Song) -> float:
    return float(song.grid.bar_s.max())


def test_the_model_sees_what_comes_after_from_the_last_chunk(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = kinds_seen(model.network, monkeypatch)
    passage = midiex.fill(GROOVE, "bar:3", "bar:15", model=model)
    assert len(seen) == len(passage.written) > 1
    assert [AFTER in kinds for kinds in seen] == [False] * (len(seen) - 1) + [True]


def test_the_notes_of_the_others_are_heeded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: list[Task] = []

    def spy(network: Any, memory: Any, task: Task, *more: Any) -> list:
        tasks.append(task)
        return write_chunk(network, memory, task, *more)

    monkeypatch.setattr(extending, "write_chunk", spy)
    passage = midiex.fill(GROOVE, "bar:5", "bar:9", tracks=["bass"], model=model)
    inside = between(notes_in(passage.song), passage.line.start_tick, passage.line.end_tick)
    standing = sum(count for n, count in inside.items() if n[2] != 33)
    assert (
        len(tasks[0].fixed) == pytest.approx(standing, abs=3) and standing > 50
    )  # but for those pushed over a bar line
    assert 33 not in tasks[0].fixed[:, 3]
    for chunk in passage.written:
        assert set(chunk.rows[:, 3]) == {33}
    tasks.clear()
    midiex.fill(GROOVE, "bar:5", "bar:9", model=model)
    assert len(tasks[0].fixed) == 0


@pytest.mark.parametrize(
    ("begin", "end", "options", "named"),
    [
        ("bar:5", "bar:5", {}, "not one whole bar"),
        ("bar:9", "bar:5", {}, "not one whole bar"),
        ("0:10", "0:10.5", {}, "not one whole bar"),
        ("bar:1", "bar:17", {}, "is all of"),
        ("0", "34.3", {}, "is all of"),
        ("bar:5", "bar:99", {}, "bars 1 to 16"),
        ("soon", "bar:5", {}, "no place"),
        ("bar:5", "2:00", {}, "behind its end"),
        ("bar:5", "bar:9", {"tracks": ["tuba"]}, "tuba"),
        ("bar:5", "bar:9", {"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_filled_is_refused(
    begin: str, end: str, options: dict[str, Any], named: str, model: Model, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=named) as caught:
        midiex.fill(GROOVE, begin, end, tmp_path / "out.mid", model=model, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not list(tmp_path.iterdir())


def test_with_nothing_around_it_nothing_can_be_filled(model: Model, tmp_path: Path) -> None:
    """Notes in bars 3 and 4 only, and an empty bar after them."""
    last = [(7 * BAR, mido.Message("note_on", note=60, velocity=0))]
    source = write_midi(tmp_path / "song.mid", [[tempo(0, 120), *riff(2, first_tick=2 * BAR), *last]])
    with pytest.raises(BadInput, match="no notes around"):
        midiex.fill(source, "bar:3", "bar:5", tmp_path / "out.mid", model=model)
    assert not (tmp_path / "out.mid").exists()


@pytest.mark.parametrize("begin", [24, 4])
def test_far_off_notes_are_something_to_go_by(begin: int, model: Model, tmp_path: Path) -> None:
    """Two bars of music, a long rest, two bars of music."""
    events = [*riff(2), *riff(2, first_tick=40 * BAR)]
    source = write_midi(tmp_path / "song.mid", [[tempo(0, 120), *events]])
    passage = midiex.fill(source, f"bar:{begin}", f"bar:{begin + 4}", tmp_path / "out.mid", model=model)
    assert passage.written and not notes_in(score.read(source)) - notes_in(score.read(tmp_path / "out.mid"))


def test_a_track_that_plays_nowhere_else_has_nothing_to_go_by(model: Model, tmp_path: Path) -> None:
    solo = [(0, mido.Message("program_change", channel=1, program=40)), *riff_on(1, 3 * BAR, 3)]
    source = write_midi(tmp_path / "song.mid", [[tempo(0, 120), *riff(8)], solo])
    with pytest.raises(BadInput, match="no notes around"):
        midiex.fill(source, "bar:4", "bar:7", tracks=["violin"], model=model)


def riff_on(channel: int, first_tick: int, bars: int) -> list[tuple[int, Any]]:
    events = [note(first_tick + i * 240, 240, 70 + i % 5, channel=channel) for i in range(8 * bars)]
    return [event for one in events for event in one]


# ---- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begin",
    [
        lambda seed, model: edit.start_fill(
            GROOVE, "bar:5", "bar:13", tracks=["bass", "drums"], model=model, seed=seed
        ),
        lambda seed, model: edit.start_insert(GROOVE, "bar:9", 18, model=model, seed=seed),
    ],
    ids=["fill", "insert"],
)
def test_the_seed_decides_every_byte(begin: Callable[[int, Model], Passage], model: Model, tmp_path: Path) -> None:
    written = []
    for number, seed in enumerate((5, 5, 6)):
        passage = begin(seed, model)
        list(passage.chunks())
        written.append(passage.save(tmp_path / f"{number}.mid").read_bytes())
    again = [chunk.rows.tolist() for chunk in passage.chunks()]
    assert again == [chunk.rows.tolist() for chunk in passage.written] and passage.save(tmp_path / "3.mid")
    assert (tmp_path / "3.mid").read_bytes() == written[2]
    assert written[0] == written[1] != written[2]


def test_nothing_is_written_without_out_nor_over_the_song(model: Model, tmp_path: Path) -> None:
    song = riff_song(tmp_path / "song.mid")
    before = song.read_bytes()
    midiex.fill(song, "bar:3", "bar:5", model=model)
    midiex.insert(song, "bar:3", 4, model=model)
    assert [path.name for path in tmp_path.iterdir()] == ["song.mid"]
    for over in (song, tmp_path / "." / "song.mid"):
        for run in (lambda out: midiex.fill(song, 4, 8, out, model=model),
                    lambda out: midiex.insert(song, 4, 8, out, model=model),
                    lambda out: midiex.regenerate(song, 1, out, model=model)):  # fmt: skip
            with pytest.raises(BadInput, match="is the input itself"):
                run(over)
    assert song.read_bytes() == before


# ---- room made in the middle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at", "seconds", "options"),
    [
        ("band_groove", "bar:9", 20, {}),
        ("band_groove", "bar:2", 4, {"drums": True}),
        ("band_groove", "bar:16", 10, {"mute": ["drums"]}),
        ("piano_nocturne", "0:15", 12, {}),
        ("type_0", "bar:5", 9, {}),
        ("smpte", "0:08", 6, {}),
        ("changing", "bar:5", 10, {}),
        ("mixed", "bar:7", 10, {"solo": ["bass"]}),
    ],
)
def test_room_is_made_and_all_else_stays(
    name: str, at: str, seconds: float, options: dict[str, Any], model: Model, tmp_path: Path
) -> None:
    source = MAKE[name](tmp_path)
    passage = midiex.insert(source, at, seconds, tmp_path / "out.mid", model=model, seed=2, **options)
    original, result, line = score.read(source), score.read(tmp_path / "out.mid"), passage.line
    shift = line.end_tick - line.start_tick
    assert shift > 0 and passage.end_s - passage.start_s == pytest.approx(seconds, abs=bar_s(original) / 2 + 1e-6)
    was, now = notes_in(original), notes_in(result)
    assert between(was, 0, line.start_tick) == between(now, 0, line.start_tick)
    assert moved(between(was, line.start_tick, np.inf), shift) == between(now, line.end_tick, np.inf)
    new = between(now, line.start_tick, line.end_tick)
    playing = {(v.track, v.channel, v.program) for v in (original.voices[i] for i in passage.players)}
    assert new and {n[:3] for n in new} <= playing and all(n[4] <= line.end_tick for n in new)
    assert len(result.grid) == len(original.grid) + line.new
    assert result.grid.bar_beats == pytest.approx(line.grid.bar_beats)
    assert result.length_s == pytest.approx(original.length_s + passage.end_s - passage.start_s, abs=2e-3)
    assert passage.length_s == pytest.approx(result.length_s, abs=2e-3)


def test_what_comes_after_the_room_is_seen(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = kinds_seen(model.network, monkeypatch)
    passage = midiex.insert(GROOVE, "bar:9", 30, model=model)
    assert len(seen) == len(passage.written) > 2
    assert [AFTER in kinds for kinds in seen] == [False] * (len(seen) - 1) + [True]
    assert not any("ending" in chunk.terms for chunk in passage.written)


@pytest.mark.parametrize(
    ("at", "seconds", "options"),
    [
        ("0", 10, {}), ("bar:1", 10, {}), ("bar:17", 10, {}), ("34.3", 10, {}), ("1:00", 10, {}), ("there", 10, {}),
        ("bar:5", 0, {}), ("bar:5", -1, {}), ("bar:5", float("nan"), {}), ("bar:5", 7 * 3600, {}),
        ("bar:5", 10, {"solo": ["tuba"]}), ("bar:5", 10, {"seed": -3}),
    ],
)  # fmt: skip
def test_what_cannot_be_inserted_is_refused(
    at: str, seconds: float, options: dict[str, Any], model: Model, tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as caught:
        midiex.insert(GROOVE, at, seconds, tmp_path / "out.mid", model=model, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not list(tmp_path.iterdir())


# ---- one chunk anew --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def longer(model: Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Passage]:
    path = tmp_path_factory.mktemp("longer") / "longer.mid"
    return path, midiex.extend(GROOVE, 75, path, model=model, seed=3)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_only_that_chunk_changes(chunk: int, longer: tuple[Path, Passage], model: Model, tmp_path: Path) -> None:
    path, first = longer
    assert len(first.written) >= 4
    passage = midiex.regenerate(path, chunk, tmp_path / "out.mid", model=model, seed=8)
    was, now = score.read(path), score.read(tmp_path / "out.mid")
    anew = first.written[chunk - 1]
    assert (passage.line.before, passage.line.new) == (anew.first_bar, anew.bars)
    assert [c.bars for c in passage.written] == [anew.bars]
    start, end = passage.line.start_tick, passage.line.end_tick
    assert outside(was, start, end) == outside(now, start, end)
    inside = [between(notes, start, end) for notes in (notes_in(was), notes_in(now))]
    assert inside[0] and inside[1] and inside[0] != inside[1]
    (note_was,), (note_now,) = provenance.notes_in(was), provenance.notes_in(now)
    assert passage.form is not None
    assert note_now == note_was.with_seed(chunk - 1, 8, passage.form.phrases[0].kind) != note_was
    assert passage.leads_to == (ENDING if chunk == len(first.written) else SONG)


def test_a_fresh_seed_is_chosen(longer: tuple[Path, Passage], model: Model, tmp_path: Path) -> None:
    path, _ = longer
    assert edit.fresh_seed(path) == 4 and edit.fresh_seed(GROOVE) == 1
    one = midiex.regenerate(path, 2, tmp_path / "one.mid", model=model)
    assert one.seed == 4 and edit.fresh_seed(tmp_path / "one.mid") == 5
    two = midiex.regenerate(tmp_path / "one.mid", 2, tmp_path / "two.mid", model=model)
    (told,) = provenance.notes_in(score.read(tmp_path / "two.mid"))
    assert two.seed == 5 and [seed for _, _, seed in told.chunks][:3] == [3, 5, 3]


def test_the_seed_it_had_is_refused(longer: tuple[Path, Passage], model: Model, tmp_path: Path) -> None:
    path, _ = longer
    with pytest.raises(BadInput, match="Chunk 2 .* was written with seed 3; give another one"):
        midiex.regenerate(path, 2, model=model, seed=3)
    midiex.regenerate(path, 2, tmp_path / "out.mid", model=model, seed=6)
    with pytest.raises(BadInput, match="written with seed 6"):
        midiex.regenerate(tmp_path / "out.mid", 2, model=model, seed=6)
    assert edit.start_regenerate(tmp_path / "out.mid", 2, model=model, seed=3)


@pytest.mark.parametrize("chunk", [0, -1, 99])
def test_a_chunk_that_is_not_there_is_refused(chunk: int, longer: tuple[Path, Passage], model: Model) -> None:
    with pytest.raises(BadInput, match=rf"new chunks 1 to {len(longer[1].written)} and chunk {chunk} was asked for"):
        midiex.regenerate(longer[0], chunk, model=model)


def test_a_file_that_does_not_say_what_is_new_is_refused(model: Model) -> None:
    with pytest.raises(BadInput, match="does not say"):
        midiex.regenerate(GROOVE, 1, model=model)


def test_a_file_whose_bars_moved_is_refused(longer: tuple[Path, Passage], model: Model, tmp_path: Path) -> None:
    """Other software cut a beat off the beginning."""
    midi = mido.MidiFile(longer[0])
    for track in midi.tracks:
        cut = midi.ticks_per_beat
        for message in track:
            taken = min(message.time, cut)
            message.time -= taken
            cut -= taken
    midi.save(tmp_path / "moved.mid")
    with pytest.raises(BadInput, match="no longer begins on a bar line; use midiex fill"):
        midiex.regenerate(tmp_path / "moved.mid", 2, model=model)


def test_a_file_without_the_tracks_is_refused(model: Model, tmp_path: Path) -> None:
    midiex.fill(GROOVE, "bar:5", "bar:9", tmp_path / "sax.mid", model=model, tracks=["sax"])
    midi = mido.MidiFile(tmp_path / "sax.mid")
    (told,) = provenance.notes_in(score.read(tmp_path / "sax.mid"))
    for track in told.tracks:
        midi.tracks[track] = mido.MidiTrack(m for m in midi.tracks[track] if m.type not in ("note_on", "note_off"))
    midi.save(tmp_path / "gone.mid")
    with pytest.raises(BadInput, match="tracks that midiex wrote are no longer"):
        midiex.regenerate(tmp_path / "gone.mid", 1, model=model)


def test_only_those_who_played_play_again(model: Model, tmp_path: Path) -> None:
    midiex.extend(GROOVE, 60, tmp_path / "solo.mid", model=model, solo=["bass"])
    passage = midiex.regenerate(tmp_path / "solo.mid", 1, model=model)
    assert {passage.song.voices[v].program for v in np.unique(passage.new_notes().voice)} == {33}


@pytest.mark.parametrize(
    "write",
    [
        lambda out, model: midiex.extend(GROOVE, 55, out, model=model, begin="bar:9", keep_ending=True),
        lambda out, model: midiex.extend(GROOVE, 55, out, model=model, loop=True),
        lambda out, model: midiex.extend(GROOVE, 51.3, out, model=model, exact=True),
        lambda out, model: midiex.fill(GROOVE, "bar:5", "bar:13", out, model=model),
        lambda out, model: midiex.fill(GROOVE, "bar:5", "bar:13", out, model=model, tracks=["bass"]),
        lambda out, model: midiex.insert(GROOVE, "bar:5", 20, out, model=model),
    ],
    ids=["kept ending", "loop", "exact", "fill", "fill for one", "insert"],
)
def test_whatever_midiex_wrote_can_be_written_anew(
    write: Callable[[Path, Model], Passage], model: Model, tmp_path: Path
) -> None:
    out, anew = tmp_path / "out.mid", tmp_path / "anew.mid"
    first = write(out, model)
    chunk = len(first.written)
    passage = midiex.regenerate(out, chunk, anew, model=model)
    start, end = passage.line.start_tick, passage.line.end_tick
    assert passage.line.before == first.written[-1].first_bar and passage.line.new == first.written[-1].bars
    was, now = score.read(out), score.read(anew)
    assert outside(was, start, end) == outside(now, start, end) and notes_in(was) != notes_in(now)
    assert {n[:3] for n in notes_in(now)} <= {n[:3] for n in notes_in(was)}
    assert provenance.spans_s(score.read(out)) == provenance.spans_s(score.read(anew))
    if first.leads_to == LOOP:
        for midi in (mido.MidiFile(out), mido.MidiFile(anew)):
            assert [m.text for track in midi.tracks for m in track if m.type == "marker"].count("loopEnd") == 1


@pytest.mark.parametrize("chunk", [0, 1, 3])
def test_chunks_are_found_where_later_edits_moved_them(
    chunk: int, longer: tuple[Path, Passage], model: Model, tmp_path: Path
) -> None:
    """Two more bars before one of a result's chunks: it and those after it lie two bars later."""
    path, first = longer
    firsts = [one.first_bar for one in first.written]
    midiex.insert(path, f"bar:{firsts[chunk] + 1}", 4.3, tmp_path / "moved.mid", model=model, seed=9)
    expected = firsts[:chunk] + [firsts[chunk]] + [bar + 2 for bar in firsts[chunk:]]
    found = [
        edit.start_regenerate(tmp_path / "moved.mid", n + 1, model=model, seed=99).line.before
        for n in range(len(expected))
    ]
    assert found == expected


def test_chunks_that_are_no_longer_whole_are_forgotten(
    longer: tuple[Path, Passage], model: Model, tmp_path: Path
) -> None:
    path, first = longer
    inside = first.written[1].first_bar + 1
    midiex.insert(path, f"bar:{inside + 1}", 4.3, tmp_path / "moved.mid", model=model, seed=9)
    expected = [c.first_bar + (2 if c.index > 1 else 0) for c in first.written if c.index != 1] + [inside]
    found = [
        edit.start_regenerate(tmp_path / "moved.mid", n + 1, model=model, seed=99).line.before
        for n in range(len(expected))
    ]
    assert found == sorted(expected)


def test_chunks_that_were_cut_off_are_forgotten(longer: tuple[Path, Passage], model: Model, tmp_path: Path) -> None:
    """A result continued from the middle of its new music."""
    path, first = longer
    border = first.written[2].first_bar
    second = midiex.extend(path, 75, tmp_path / "again.mid", begin=f"bar:{border + 1}", model=model, seed=12)
    notes = provenance.notes_in(score.read(tmp_path / "again.mid"))
    assert [len(one.chunks) for one in notes] == [2, len(second.written)]
