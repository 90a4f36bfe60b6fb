"""Rivals write as they were trained to: their steps are the forward pass, whatever they keep; and all can be judged."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import helpers
import numpy as np
import pytest
import torch
from helpers import random_rows, tiny_config, window_chunks, write_song
from songs import bars_of_4_4, talkative_model
from test_decoding import steps_note_by_note
from torch import nn

from midiex import collate, dataset, score, tokens, windows
from midiex.checkpoint import save_model
from midiex.conditions import program_vector, voice_vector
from midiex.config import Config, GenerateConfig
from midiex.constraints import Grammar
from midiex.decoding import Task, write_chunk
from midiex.echoes import ECHOES, NOTHING
from midiex.evaluation.excerpts import example
from midiex.habits import Habits
from midiex.model import Batch, NoteModel
from midiex.planner import MANY_CHUNKS, Plan
from midiex.prepare import prepare
from midiex.tokens import BAR, MICRO_PER_BEAT, PITCH, POSITION, moved
from midiex.windows import Window

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
RIVALS = ("lstm", "lstm_attention", "gru", "decoder_only")
SONG_BARS, NEW_BARS = 24, 8  # of two seconds: six chunks of four bars, and two
PLAIN = GenerateConfig(temperature=1, top_p=1, min_p=0, habits=0, engine="torch")


@pytest.fixture(scope="module")
def rivals() -> Iterator[Any]:
    """Finds the package's modules by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield lambda name: importlib.import_module(f"rivals.{name}")


@pytest.fixture(scope="module")
def writing(rivals: Any) -> ModuleType:
    return rivals("writing")


@pytest.fixture(scope="module")
def pasts(rivals: Any) -> ModuleType:
    return rivals("pasts")


def config_of(name: str) -> Config:
    config = tiny_config(window_chunks=3)
    return replace(config, model=replace(config.model, name=f"{name}-tiny", d_ff=48))


def talkative(rivals: Any, name: str) -> NoteModel:
    """Random weights that all count, and many notes; recurrent layers not so wild that digits are lost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helpers, "ChunkTransformer", rivals("sizes").builder(name))
        network = talkative_model(config_of(name))
    with torch.no_grad():
        for module in network.modules():
            for weight in module.parameters() if isinstance(module, nn.RNNBase) else ():
                weight.mul_(2 * weight.shape[-1] ** -0.5)
    return network.requires_grad_(False)


def planner_of(writing: ModuleType, network: NoteModel, silent: tuple[int, ...] = ()) -> Any:
    """In the middle of a random song, in which some chunks are silent."""
    rows = random_rows(np.random.default_rng(5), 150, SONG_BARS)
    rows = rows[~np.isin(rows[:, BAR] // 4, silent)]
    bars, grammar, none = bars_of_4_4(SONG_BARS + NEW_BARS), Grammar.of(rows, SONG_BARS), rows[:0]
    plan = Plan(bars, SONG_BARS, NEW_BARS, rows, none, none, grammar, "open")
    return writing.RivalPlanner(network, tiny_config().memory, plan)


def window_of(planner: Any, task: Task, rows: np.ndarray) -> Batch:
    """All chunks so far and a new one as targets of one window, told what training tells, the new one what its task
    tells."""
    bars, known = planner.bars, planner.chunks
    music = [moved(chunk.rows, chunk.first_bar) for chunk in known] + [moved(rows, task.first_bar)]
    song = windows.Song(np.concatenate(music), bars.seconds, (bars.beats * MICRO_PER_BEAT).astype(np.int64))
    spans = [(chunk.first_bar, chunk.bars) for chunk in known] + [(task.first_bar, len(task.bar_positions))]
    chunks = [windows.make_chunk(song, first, size, bars.beat_starts, MANY_CHUNKS) for first, size in spans]
    told = [chunk.conditions for chunk in chunks[:-1]] + [task.conditions]
    programs = [program_vector(chunk.rows) for chunk in chunks[:-1]] + [task.programs]
    voices = [voice_vector(chunk.rows) for chunk in chunks[:-1]] + [task.voices]
    assert task.voices is not None and task.source is None
    batch = collate.collate([Window(chunks, 0, 0, 0)], planner.memory, 0.0, None)
    habits = steps_note_by_note(moved(rows, task.first_bar), Habits(task.recalled.habits), task.first_bar)
    for known_so_far, own in (
        (batch.habit_share, habits.share), (batch.habit_bucket, habits.bucket), (batch.habit_level, habits.level)
    ):  # fmt: skip
        known_so_far[-len(rows) - 1 :] = torch.from_numpy(own)
    return replace(
        batch,
        conditions=torch.from_numpy(np.stack(told)),
        programs=torch.from_numpy(np.stack(programs)),
        voices=torch.from_numpy(np.stack(voices)),
    )


# ---- the steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("candidates", "silent", "is_deaf"), [(1, (), False), (3, (1, 5), False), (3, (), True)])
@pytest.mark.parametrize("name", RIVALS)
def test_steps_equal_the_forward_pass_chunk_after_chunk(
    rivals: Any, writing: ModuleType, pasts: ModuleType, name: str, candidates: int, silent: tuple[int, ...],
    is_deaf: bool,
) -> None:  # fmt: skip
    """Of what is written and of what was written before, with conditions, echoes and habits."""
    heard = network = talkative(rivals, name)
    if is_deaf:
        network = writing.deafen(talkative(rivals, name))
    planner, rng = planner_of(writing, network, silent), np.random.default_rng(0)
    settings, compared, lengths = replace(PLAIN, candidates=candidates), 0, set()
    while (step := planner.next_task()) is not None:
        task, past = step
        written = write_chunk(network, past, task, settings, rng, weigh=True, most_notes=60, steppers=pasts.any_stepper)
        for candidate in (c for c in written if c.finished and len(c.rows)):
            batch = window_of(planner, task, candidate.rows)
            losses = heard(rivals("networks").plain(batch) if is_deaf else batch)[-len(candidate.rows) - 1 :]
            assert float(losses.double().sum()) / len(candidate.rows) == pytest.approx(candidate.nll, abs=1e-4)
            compared, lengths = compared + 1, lengths | {len(candidate.rows)}
        planner.remember(written[-1].rows, len(task.bar_positions))
    assert compared >= candidates and max(lengths) > 15


@pytest.mark.parametrize("name", RIVALS)
def test_a_step_can_be_taken_again(rivals: Any, writing: ModuleType, name: str) -> None:
    """With another onset, as if it had not been taken."""
    network = talkative(rivals, name)
    task, past = planner_of(writing, network).next_task()
    rows = random_rows(np.random.default_rng(2), 12)[:8].astype(np.int64)
    nothing = np.tile(NOTHING, (1, ECHOES, 1))

    def states(again: bool) -> list[np.ndarray]:
        stepper = past.stepper(task, 1, len(rows))
        found = [stepper.step(None, None, nothing)]
        for i, row in enumerate(rows):
            previous = rows[i - 1 : i] if i else None
            if again:
                stepper.step(previous, np.array([[3, 40 - i]]), nothing)
            found.append(stepper.step(previous, row[None, [BAR, POSITION]], nothing, again=again))
        return found

    with torch.inference_mode():
        np.testing.assert_allclose(states(True), states(False), atol=1e-6)


@pytest.mark.parametrize("name", ["lstm_attention", "decoder_only"])
def test_what_is_old_is_forgotten(
    rivals: Any, writing: ModuleType, pasts: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest notes are kept as they are, so many and no more."""
    network = talkative(rivals, name)
    whole = planner_of(writing, network).past
    monkeypatch.setattr(pasts, "WINDOW_NOTES", 50)
    short = planner_of(writing, network).past
    if name == "lstm_attention":
        assert len(whole.memory) > 120 and len(short.memory) == 51
        np.testing.assert_array_equal(short.memory, torch.cat([whole.memory[:1], whole.memory[-50:]]))
    else:
        assert whole.keys.shape[2] > 120 and short.keys.shape[2] == short.values.shape[2] == 50
        for kept, all_kept in ((short.keys, whole.keys), (short.values, whole.values)):
            np.testing.assert_allclose(kept[0], all_kept[0][:, -50:], atol=1e-4)  # later layers heard less


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_the_latest_notes_are_heard(rivals: Any, writing: ModuleType, name: str) -> None:
    """Whatever is done to a note of the latest chunk, what is kept is another."""
    network = talkative(rivals, name)
    planner = planner_of(writing, network)
    rows = random_rows(np.random.default_rng(1), 12)
    states = []
    for note in (None, 0, len(rows) - 1):
        other, again = rows.copy(), planner_of(writing, network)
        if note is not None:
            other[note, PITCH] = (other[note, PITCH] + 5) % 128
        again.remember(other, 4)
        states.append(torch.cat([again.past.state.flatten(), getattr(again.past, "carried", torch.zeros(0))]))
    assert planner.past.state.shape == again.past.state.shape
    assert not torch.allclose(states[0], states[1]) and not torch.allclose(states[0], states[2])


@pytest.mark.parametrize("name", ["ours", *RIVALS])
def test_a_deafened_network_is_as_if_nothing_were_counted(rivals: Any, writing: ModuleType, name: str) -> None:
    chunks = window_chunks(np.random.default_rng(0), 4)
    batch = collate.collate([Window(chunks, 1, 0, 0)], tiny_config().memory, 0.0, None)
    network = talkative(rivals, name)
    told, plain = network(batch), network(rivals("networks").plain(batch))
    assert not torch.allclose(told, plain, atol=0.01)
    torch.testing.assert_close(writing.deafen(network)(batch), plain, rtol=1e-5, atol=1e-5)


# ---- songs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_song(tmp_path_factory.mktemp("songs") / "song.mid", bars=16)


@pytest.mark.parametrize("name", ["ours", *RIVALS])
def test_a_song_is_continued_by_its_own_voices(rivals: Any, writing: ModuleType, name: str, song: Path) -> None:
    cut = example("songs", score.read(song), 12, 10)
    assert cut is not None
    network, config = talkative(rivals, name), config_of(name)
    music, again, other = (writing.continue_song(network, config, cut, 12.0, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(music.rows, again.rows)
    assert not np.array_equal(music.rows, other.rows)
    assert music.seconds == pytest.approx(12.0, abs=1.1) and music.bars == 6
    assert len(music.rows) > 20 and music.rows[:, BAR].max() < 6
    np.testing.assert_array_equal(music.rows, tokens.sort_rows(music.rows))
    voices = {tuple(voice) for voice in tokens.voice_ids(cut.song.score).tolist()}
    assert {tuple(v) for v in music.rows[:, [tokens.PROGRAM, tokens.INSTANCE]].tolist()} <= voices


@pytest.mark.parametrize("name", ["ours", "gru"])
def test_a_long_song_is_written_chunk_by_chunk_to_its_length(
    rivals: Any, writing: ModuleType, name: str, song: Path
) -> None:
    wrote = list(writing.long_song(talkative(rivals, name), config_of(name), song, 60.0, seed=3))
    assert [chunk.first_bar for chunk in wrote] == [16 + sum(c.bars for c in wrote[:i]) for i in range(len(wrote))]
    assert sum(chunk.bars for chunk in wrote) == 30 and all(chunk.wall_s > 0 for chunk in wrote)


# ---- judging ---------------------------------------------------------------------------------------------------------


def test_a_trained_network_is_judged(rivals: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judging = rivals("judging")
    monkeypatch.setattr(judging, "QUESTIONS", 1)
    save_model(tmp_path / "run", talkative(rivals, "gru").state_dict(), config_of("gru"))
    files = [
        write_song(tmp_path / source / f"{number}.mid", bars=76, seed=number + 10 * len(source))
        for source in ("one", "three")
        for number in range(2)
    ]
    folders = [tmp_path / "one", tmp_path / "three"]
    splits = tmp_path / "splits.csv"
    lines = [f"{path.parent.name},{path.name},{path.stem}-{path.parent.name},valid" for path in files]
    splits.write_text("\n".join(["source,file,group,split", *lines]) + "\n")
    prepare(folders, tmp_path / "shards", splits=splits, jobs=1)
    found = judging.judge(tmp_path / "run", True, tmp_path / "shards", folders, splits, windows=2, songs=2)
    assert found["nll"]["songs"] == 4 and found["overlap_share"]["songs"] == 2
    fields = [figure["mean"] for title, figure in found.items() if title.startswith("nll_")]
    assert len(fields) == 8 and sum(fields) == pytest.approx(found["nll"]["mean"])
    assert found["choice"]["songs"] == 4 and 0 <= found["choice"]["mean"] <= 1
    assert 0 < found["overlap"]["mean"] < found["overlap_real"]["mean"] <= 1
    assert found["overlap_share"]["low"] <= found["overlap_share"]["mean"] <= found["overlap_share"]["high"] < 1
    sources = dataset.load_split(tmp_path / "shards", "valid")
    hearing = judging.foreseen(*judging.ready(tmp_path / "run", False), sources, 2, 0)
    assert hearing["nll"]["mean"] != pytest.approx(found["nll"]["mean"], abs=1e-3)


def test_generation_is_measured(rivals: Any, tmp_path: Path, song: Path) -> None:
    judging = rivals("judging")
    save_model(tmp_path, talkative(rivals, "lstm").state_dict(), config_of("lstm"))
    found = judging.generated(tmp_path, 0.5, song, 0)
    assert found["minutes"] == 0.5 and found["notes"] > 20
    assert 1 < found["notes_per_s"] <= 1.1 * found["notes_per_cpu_s"] < 1e6
    assert math.isfinite(found["peak_mb"]) and found["peak_mb"] >= 0
