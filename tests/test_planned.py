"""Writing by a plan: what it asks is what is in the notes, all promises hold, and without one all is as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
from helpers import notes_in, song_in_bars
from songs import EXAMPLES, note, riff, riff_song, save_talkative, tempo, write_midi

import midiex
from midiex import extend as extending
from midiex import provenance, ranking, score
from midiex.decoding import Candidate, Task
from midiex.extend import ENDING, RETURNS, Model, NewChunk, Passage
from midiex.form_plan import HARMONY, KINDS, NEW, NEW_LEAD, SAME, VARIED, FormPlan, PlannedPhrase
from midiex.model import RECALLED, SOURCE
from midiex.outline import outline
from midiex.planner import Planner
from midiex.roles import of_voices, voices_in
from midiex.tokens import BAR, DURATION, DURATIONS, POSITION

GROOVE = EXAMPLES / "band_groove.mid"  # 16 bars of 4/4: drums, bass, electric piano and saxophone
BEFORE = 16
ALL = (0, 1, 2, 3)
Planned = tuple[str, int | None, Sequence[int]]  # kind, source bar, voices


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    loaded = midiex.load(save_talkative(tmp_path_factory.mktemp("model")))
    return replace(loaded, config=replace(loaded.config, generate=replace(loaded.config.generate, candidates=2)))


def plan_of(*phrases: Planned, bars: int = 4, before: int = BEFORE, **more: Any) -> FormPlan:
    planned = [
        PlannedPhrase(before + bars * i, bars, "ABC"[i % 3], kind, at, tuple(voices), 10.0, 80.0, 55.0, None)
        for i, (kind, at, voices) in enumerate(phrases)
    ]
    return FormPlan((), tuple(replace(phrase, **more) for phrase in planned), 0)


def written(plan: FormPlan, model: Model, path: Path = GROOVE, **options: Any) -> Passage:
    """New music that is as long as the plan."""
    last = plan.phrases[-1]
    song = score.read(path)
    bar_s = float(song.grid.bar_s[-1])
    first_s = float(song.grid.seconds[plan.phrases[0].first_bar])
    seconds = first_s + bar_s * (last.first_bar + last.bars - plan.phrases[0].first_bar) + 0.2
    return midiex.extend(path, seconds, model=model, seed=1, begin="end", open_end=True, plan=plan, **options)


def song_rows(passage: Passage, bar: int, bars: int = 4) -> np.ndarray:
    """The song's own rows (n, 8) of so many bars, counted from there."""
    rows = passage._plan().rows_before
    rows = rows[(rows[:, BAR] >= bar) & (rows[:, BAR] < bar + bars)].copy()
    rows[:, BAR] -= bar
    return rows


def voice(passage: Passage, *indexes: int) -> set[tuple[int, int]]:
    return {(int(program), int(instance)) for program, instance in passage.voices[list(indexes)]}


# ---- kinds -----------------------------------------------------------------------------------------------------------


def test_what_comes_back_as_it_was_is_note_for_note_that(model: Model) -> None:
    passage = written(plan_of((SAME, 4, ALL), (SAME, 8, ALL), (SAME, 0, (0, 1)), (SAME, 20, ALL)), model)
    first, second, third, fourth = passage.written
    assert [chunk.came_back for chunk in passage.written] == [4, 8, 0, 20]
    assert (first.rows == song_rows(passage, 4)).all()  # goes on as it did, and may ring on
    assert (np.delete(second.rows, DURATION, 1) == np.delete(song_rows(passage, 8), DURATION, 1)).all()
    assert voices_in(third.rows) == voice(passage, 0, 1)
    assert (np.delete(fourth.rows, DURATION, 1) == np.delete(second.rows, DURATION, 1)).all()
    assert all(chunk.attempts == 1 and chunk.likeness == 1 for chunk in passage.written)


def test_a_copy_is_not_sampled(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    inner = extending.write_chunk
    monkeypatch.setattr(extending, "write_chunk", lambda *given: asked.append(given[2].first_bar) or inner(*given))
    written(plan_of((SAME, 0, ALL), (NEW, None, ALL), (SAME, 4, ALL)), model)
    assert set(asked) == {20}


def test_nothing_of_a_copy_rings_into_what_does_not_follow_it(model: Model, tmp_path: Path) -> None:
    beat = 480
    events = [event for bar in range(8) for event in note(bar * 4 * beat, 16 * beat, 48 + bar)]  # each rings four bars
    song = write_midi(tmp_path / "song.mid", [[tempo(0, 120), *events]])
    phrases = plan_of((SAME, 0, (0,)), (SAME, 2, (0,)), (SAME, 0, (0,)), bars=2, before=8)
    goes_on, cut, last = written(phrases, model, song, mute=[]).written

    def rings(chunk: NewChunk) -> float:
        """Bars of the longest note beyond the chunk's end."""
        ends = chunk.rows[:, BAR] + chunk.rows[:, POSITION] / 48 + DURATIONS[chunk.rows[:, DURATION]] / 96
        return float(ends.max()) - chunk.bars

    assert rings(goes_on) == 3 and rings(cut) == 0 and rings(last) == 0


@pytest.mark.parametrize("kind", [NEW_LEAD, HARMONY])
def test_what_stands_is_the_sources_and_the_rest_is_written(kind: str, model: Model) -> None:
    passage = written(plan_of((kind, 8, ALL), (NEW, None, ALL)), model)
    chunk, stays = passage.written[0], voice(passage, 1) if kind == HARMONY else voice(passage, 0, 1, 2)
    there = song_rows(passage, 8)
    assert (of_voices(chunk.rows, stays) == of_voices(there, stays)).all()
    free = voice(passage, *ALL) - stays
    assert not np.array_equal(of_voices(chunk.rows, free), of_voices(there, free))
    assert chunk.came_back is None and chunk.kind == kind and not chunk.fallback


def test_varied_music_keeps_the_roles_that_are_to_be_all_but_the_same(model: Model) -> None:
    plan = plan_of((VARIED, 8, ALL), (NEW, None, ALL))
    of = {"drums": 0.9, "bass": 0.2, "chords": 0.95, "lead": 0.0}
    plan = replace(plan, phrases=(replace(plan.phrases[0], likeness_of=of, likeness=0.1), plan.phrases[1]))
    passage = written(plan, model)
    there, stays = song_rows(passage, 8), voice(passage, 0, 2)
    assert (of_voices(passage.written[0].rows, stays) == of_voices(there, stays)).all()
    assert not np.array_equal(passage.written[0].rows, there)


def test_another_meter_is_varied_and_nothing_is_out_of_its_bars(model: Model, tmp_path: Path) -> None:
    song = song_in_bars(tmp_path / "song.mid", [(4, 4)] * 4 + [(3, 4)] * 8, programs=(0, 33))
    passage = written(plan_of((SAME, 0, (0, 1)), (SAME, 4, (0, 1)), before=12), model, song)
    other, same = passage.written
    assert (other.kind, same.kind) == (VARIED, SAME)
    assert other.came_back is None and (other.rows[:, POSITION] < 36).all()


# ---- who plays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("voices", [(0,), (1, 3), (2,), (0, 1, 2)], ids=str)
def test_only_those_who_are_asked_play(kind: str, voices: tuple[int, ...], model: Model) -> None:
    at = None if kind == NEW else 4
    passage = written(plan_of((kind, at, voices)), model)
    played = voices_in(passage.written[0].rows)
    assert played and played <= voice(passage, *voices)


def test_those_who_are_asked_do_play_where_any_candidate_has_them(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(_: object, __: object, task: Task, *___: object) -> list[Candidate]:
        rows = whole[whole[:, BAR] < len(task.bar_positions)]
        lacking = [rows[(rows[:, 3] != program)] for program in (128, 33, 4, 66)]
        return [Candidate(one, True) for one in (*lacking[:2], rows, *lacking[2:])]

    whole = song_rows(written(plan_of((SAME, 0, ALL)), model), 4)
    monkeypatch.setattr(extending, "write_chunk", some)
    monkeypatch.setattr(ranking.Fit, "faults", lambda *_: [])
    passage = written(plan_of((NEW, None, ALL), (NEW, None, ALL)), model)
    for chunk in passage.written:
        assert voices_in(chunk.rows) == voice(passage, *ALL) and chunk.terms["missing"] == 0


def test_a_thin_phrase_is_not_silent_by_mistake(model: Model) -> None:
    passage = written(plan_of((NEW, None, (1,)), (NEW, None, ALL)), model)
    planner = Planner(model.network, model.config.memory, passage._plan())
    style = passage._style(planner)
    phrase = planner.next_phrase()
    assert phrase is not None
    few = of_voices(song_rows(passage, 4), voice(passage, 1))[::4]  # a note or two a bar, where the song has 25
    before = ranking.Before(song_rows(passage, 12), 4, 48)
    song = ranking.Fit(style, before, 4, 8.57)
    asked = passage._fit_as_asked(song, replace(phrase, phrase=replace(phrase.phrase, density=0.5)), planner)
    assert "silent" in song.faults(few) or "hole" in song.faults(few)
    assert "silent" not in asked.faults(few)
    assert asked.terms(few)["density"] < song.terms(few)["density"]


# ---- what is told and remembered -------------------------------------------------------------------------------------


def test_the_source_stands_in_memory_for_what_is_recalled(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of((NEW, None, ALL), *[(NEW, None, ALL)] * 5, (VARIED, 4, ALL), (VARIED, 17, ALL))
    passage = midiex.start(GROOVE, 103.1, model=model, begin="end", open_end=True, plan=plan)
    planner = Planner(model.network, model.config.memory, passage._plan())
    shown: list[dict[int, np.ndarray]] = []
    inner = model.network.remember

    def spy(encoded: Any, times: Any, kinds: Any) -> Any:
        shown.append({kind: times[kinds == kind].numpy() for kind in (RECALLED, SOURCE)})
        return inner(encoded, times, kinds)

    monkeypatch.setattr(model.network, "remember", spy)
    while planner.next_size is not None:
        planner.task()
        planner.remember(song_rows(passage, 0), 4)
    for memory, bar in ((shown[6], 4), (shown[7], 17)):  # the later one encoded anew: it was forgotten
        assert memory[SOURCE][:, 1].min() >= bar and memory[SOURCE][:, 1].max() < bar + 4
        assert not len(memory[RECALLED])
    assert len(shown[5][RECALLED]) and not len(shown[5][SOURCE])  # what has no source
    shapes = [chunk.encoded is not None for chunk in planner.chunks]
    assert not all(shapes)


# ---- promises --------------------------------------------------------------------------------------------------------

LENGTHS: dict[str, tuple[float, dict[str, Any]]] = {
    "plain": (56, {}),
    "exact": (57.3, {"exact": True}),
    "kept ending": (58, {"begin": "bar:13", "keep_ending": True}),
    "loop": (56, {"loop": True}),
    "form": (72, {"form": "A B A C"}),
    "nothing comes back": (64, {"returns": 0}),
    "all comes back": (64, {"returns": 10}),
    "one plays": (52, {"solo": ["bass"]}),
    "drums alone": (52, {"drums": True}),
    "one bar": (37, {}),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_with_a_plan_the_song_stays_and_the_length_is_right(name: str, model: Model, tmp_path: Path) -> None:
    seconds, options = LENGTHS[name]
    plan = midiex.plan(GROOVE, seconds, **{"seed": 4, **options})
    passage = midiex.extend(GROOVE, seconds, tmp_path / "out.mid", model=model, seed=4, **options)
    assert passage.form == plan
    given = {key: value for key, value in options.items() if key not in ("form", "returns")}
    midiex.extend(GROOVE, seconds, tmp_path / "same.mid", model=model, seed=4, plan=plan, **given)
    assert (tmp_path / "out.mid").read_bytes() == (tmp_path / "same.mid").read_bytes()
    original, result, start = score.read(GROOVE), score.read(tmp_path / "out.mid"), passage.line.start_tick
    assert score.events_before(result.midi, start) == score.events_before(original.midi, start)
    assert seconds - 2.2 < passage.length_s <= seconds + 0.05
    if name == "exact":
        assert result.length_s == pytest.approx(seconds, abs=0.05)
    assert [chunk.bars for chunk in passage.written] == [phrase.bars for phrase in plan.phrases]
    played = {passage.song.voices[v].track for v in np.unique(passage.new_notes().voice)}
    assert played <= {passage.song.voices[v].track for v in passage.players}
    if name == "nothing comes back":
        assert all(chunk.came_back is None and chunk.kind != SAME for chunk in passage.written)


def test_music_that_ends_lands_whatever_its_last_phrase_is(model: Model) -> None:
    for kind in KINDS:
        last = (kind, None if kind == NEW else 4, ALL)
        plan = plan_of((NEW, None, ALL), last)
        passage = midiex.extend(GROOVE, 51.5, model=model, begin="end", plan=plan, seed=2)
        assert passage.leads_to == ENDING and passage.written[-1].came_back is None
        rows = passage.written[-1].rows
        assert passage.written[-1].fallback or (rows[rows[:, BAR] == 3, POSITION] == 0).all()


def song_of_one_bar(folder: Path) -> Path:
    return riff_song(folder / "one.mid", 2)


def song_of_drums(folder: Path) -> Path:
    events = [event for beat in range(64) for event in note(480 * beat, 100, (36, 42, 38, 42)[beat % 4], channel=9)]
    return write_midi(folder / "drums.mid", [[tempo(0, 120), *events]])


def song_of_one_texture(folder: Path) -> Path:
    return write_midi(folder / "texture.mid", [[tempo(0, 120), *riff(12)]])


@pytest.mark.parametrize("make", [song_of_one_bar, song_of_drums, song_of_one_texture])
@pytest.mark.parametrize("seconds", [40, 64])
def test_the_simplest_songs_are_planned_and_written(
    make: Callable[[Path], Path], seconds: float, model: Model, tmp_path: Path
) -> None:
    source = make(tmp_path)
    for options in ({}, {"form": "A B A"}, {"begin": "bar:2"}):
        passage = midiex.extend(source, seconds, tmp_path / "out.mid", model=model, **options)
        assert all(len(chunk.rows) for chunk in passage.written)
        assert passage.end_s == pytest.approx(seconds, abs=2.1)


def test_a_plan_and_a_form_are_one_too_many(model: Model) -> None:
    plan = midiex.plan(GROOVE, 60)
    with pytest.raises(midiex.errors.BadInput, match="one of the two"):
        midiex.start(GROOVE, 60, model=model, plan=plan, form="A")


# ---- without a plan --------------------------------------------------------------------------------------------------


def chunk_after_chunk(passage: Passage) -> None:
    """The way music was written before there were plans, spelled out once more."""
    planner = Planner(passage.model.network, passage.model.config.memory, passage._plan())
    style = passage._style(planner)
    while (step := planner.next_task()) is not None:
        task, memory = step
        index, size, first = len(passage.written), len(task.bar_positions), planner.next_bar
        seconds = float(planner.bars.seconds[first : first + size].sum())
        lands = passage.leads_to == ENDING and index == len(planner.sizes) - 1
        before = ranking.Before(planner.chunks[-1].rows, planner.chunks[-1].bars, int(task.bar_positions[0]))
        fit = ranking.Fit(style, before, size, seconds, lands)
        back = planner.returning(passage.generate.returns, np.random.default_rng((passage.seed, index, RETURNS)))
        came_back = None
        if back is not None and not fit.faults(back[0]):
            rows, came_back = back
        else:
            found = passage._best(task, memory, index, fit).rows
            rows = passage._own_chunk(planner, task) if found is None else found
        planner.remember(rows, size, came_back)
        end_s = min(float(passage.line.grid.seconds[first + size]), passage.end_s)
        start_s = float(passage.line.grid.seconds[first])
        chunk = NewChunk(index, len(planner.sizes), first, size, start_s, end_s, rows, 1, {}, False, came_back)
        passage.written.append(chunk)


@pytest.mark.parametrize("options", [{}, {"returns": 8}, {"loop": True}, {"begin": "bar:9", "exact": True}])
@pytest.mark.parametrize("seed", [1, 5])
def test_flat_music_is_byte_for_byte_what_it_was_before_plans(
    options: dict[str, Any], seed: int, model: Model, tmp_path: Path
) -> None:
    now = midiex.start(GROOVE, 62, model=model, seed=seed, form="flat", **options)
    for _ in now.chunks():
        pass
    once = midiex.start(GROOVE, 62, model=model, seed=seed, form="flat", **options)
    chunk_after_chunk(once)
    now.save(tmp_path / "now.mid"), once.save(tmp_path / "once.mid")
    assert (tmp_path / "now.mid").read_bytes() == (tmp_path / "once.mid").read_bytes()
    assert b'"form"' not in (tmp_path / "now.mid").read_bytes()
    report = now.report()
    assert "plan" not in report and not any(
        "asked" in chunk or "missing" in chunk["terms"] for chunk in report["chunks"]
    )


# ---- what is told afterwards -----------------------------------------------------------------------------------------


def test_the_report_tells_what_was_asked_beside_what_came(model: Model) -> None:
    plan = plan_of((SAME, 4, (0, 1)), (NEW_LEAD, 8, ALL), (NEW, None, (3,)))
    report = json.loads(json.dumps(written(plan, model).report(), allow_nan=False))
    assert FormPlan.from_dict(report["plan"]) == plan
    same, lead, new = report["chunks"]
    assert [chunk["kind"] for chunk in report["chunks"]] == [SAME, NEW_LEAD, NEW]
    assert (same["section"], same["source_bars"]) == ("A", [5, 8]) and new["source_bars"] is None
    assert same["asked"]["voices"] == same["reached"]["voices"] == [0, 1] and same["reached"]["likeness"] == 1
    assert 0 < lead["reached"]["likeness"] < 1 and new["reached"]["likeness"] is None
    assert new["asked"]["density"] == 10 and new["reached"]["voices"] == [3]
    assert new["reached"]["density"] == pytest.approx(new["notes"] / (new["end_s"] - new["start_s"]), rel=0.01)


def test_the_file_tells_its_form_and_chunks_are_written_anew_as_what_they_were(model: Model, tmp_path: Path) -> None:
    passage = midiex.extend(GROOVE, 72, tmp_path / "out.mid", model=model, seed=2, form="A B A")
    assert passage.form is not None
    song = score.read(tmp_path / "out.mid")
    (told,) = provenance.notes_in(song)
    for formed, chunk in zip(told.form, passage.written, strict=True):
        assert chunk.phrase is not None
        assert (formed.section, formed.kind) == (chunk.phrase.section, chunk.kind)
        assert formed.back == (0 if chunk.phrase.source_bar is None else chunk.first_bar - chunk.phrase.source_bar)
    sections = provenance.sections_s(song)
    assert sections[0][0] == 0 and sections[-1][1] == pytest.approx(passage.end_s, abs=2.2)
    assert all(one[1] == pytest.approx(other[0]) for one, other in zip(sections, sections[1:], strict=False))
    for number, chunk in enumerate(passage.written, 1):
        again = midiex.regenerate(tmp_path / "out.mid", number, tmp_path / "again.mid", model=model)
        (one,) = again.written
        assert one.phrase is not None and chunk.phrase is not None
        assert (one.phrase.section, one.phrase.source_bar) == (chunk.phrase.section, chunk.phrase.source_bar)
        assert one.phrase.kind == (VARIED if chunk.kind == SAME else chunk.kind)
        (now,) = provenance.notes_in(score.read(tmp_path / "again.mid"))
        assert now.form[number - 1].kind == one.phrase.kind
        assert now.form[: number - 1] + now.form[number:] == told.form[: number - 1] + told.form[number:]


def test_twenty_minutes_are_told_in_few_words(model: Model, tmp_path: Path) -> None:
    few = replace(model, config=replace(model.config, generate=replace(model.config.generate, candidates=1)))
    plan = midiex.plan(GROOVE, 1200)
    quick = [
        phrase if phrase.kind == SAME else replace(phrase, kind=SAME, source_bar=i % 4 * 4, bars=phrase.bars)
        for i, phrase in enumerate(plan.phrases)
    ]
    passage = midiex.extend(GROOVE, 1200, tmp_path / "out.mid", model=few, open_end=True,
                            plan=replace(plan, phrases=tuple(quick)))  # fmt: skip
    texts = [m.text for track in mido.MidiFile(tmp_path / "out.mid").tracks for m in track if m.type == "text"]
    (told,) = [text for text in texts if text.startswith(provenance.PREFIX)]
    assert len(passage.written) > 100 and len(told) < 6_000
    assert len(provenance.notes_in(score.read(tmp_path / "out.mid"))[0].form) == len(passage.written)
    assert len(notes_in(score.read(tmp_path / "out.mid"))) > 1000


def test_where_music_is_to_stand_is_the_same_with_and_without_a_plan(model: Model) -> None:
    place = outline(GROOVE, 90)
    planned, flat = (midiex.start(GROOVE, 90, model=model, form=form) for form in (None, "flat"))
    assert planned.line.new == flat.line.new == place.joint.line.new
    assert planned.players == flat.players == place.players
