"""benchmarks/speed.py at toy sizes: what its rows hold, that ratios are what they say; never how fast anything is."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers import write_song
from songs import save_talkative
from test_render import needs_fluidsynth

from midiex import extend
from midiex.config import load_config

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
COLUMNS = {"section", "what", "value", "unit", "beside", "load"}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("speed")


@pytest.fixture(scope="module")
def parts(script: ModuleType) -> ModuleType:
    return script.references


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_talkative(tmp_path_factory.mktemp("models") / "talkative"))


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_song(tmp_path_factory.mktemp("songs") / "song.mid", bars=8)


@pytest.fixture
def bench(script: ModuleType, model: str, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Toy sizes, and all in this process."""
    monkeypatch.setattr(script, "alone", lambda function, *args, threads, seed: function(*args))
    gpt = script.GptSize(layers=2, width=16, heads=2, vocabulary=30, context=24)
    sizes = script.Sizes(
        chunks=1, songs=(song,), extend_s=30.0, first_chunks=1, lengths_s=(20.0, 30.0), span_s=5.0, files=3,
        train_steps=1, gpt=gpt, cacheless_lengths=(2, 12, 24), cacheless_steps=1, cached_steps=4, lstm_steps=3,
        midigpt_bars=1, copy_bytes=1 << 16,
    )  # fmt: skip
    monkeypatch.setattr(script.extend_speed, "EXAMPLE", song)
    return script.Bench(sizes, tmp_path, model, midi=song.parent)


def rows_of(bench: Any, section: str) -> dict[str, dict]:
    """A section's rows by name, all of one shape."""
    getattr(bench, section)()
    assert all(set(row) == COLUMNS and row["section"] == section for row in bench.rows)
    assert len({row["what"] for row in bench.rows}) == len(bench.rows) > 0
    return {row["what"]: row for row in bench.rows}


def fake_decoding(parts: ModuleType, monkeypatch: pytest.MonkeyPatch, bench: Any) -> None:
    """100 notes a second in 50 steps with one stream, 400 with eight."""
    found = {1: parts.Decoding(200, 100, 2.0, 1.0), 8: parts.Decoding(800, 100, 2.0, 2.0)}
    monkeypatch.setattr(bench, "decoding", lambda engine, count: found[count] if engine == "torch" else None)


# ---- sections -------------------------------------------------------------------------------------------------------


def test_decode_tells_rates_and_what_is_not_installed(
    parts: ModuleType, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "has_onnx", lambda: False)
    assert bench.decoding("onnx", 1) is None
    fake_decoding(parts, monkeypatch, bench)
    rows = rows_of(bench, "decode")
    assert set(rows) == {"torch, one stream", "torch, 8 candidates", "onnx, one stream", "onnx, 8 candidates"}
    assert rows["torch, one stream"]["value"] == 100.0
    assert rows["torch, one stream"]["beside"] == "200 notes in 2.0 s, 50 % of it on a core; 20.00 ms a step"
    assert rows["torch, 8 candidates"]["value"] == 400.0
    assert rows["torch, 8 candidates"]["unit"] == "candidate-notes/s"
    assert rows["onnx, 8 candidates"]["value"] == "skipped" and "not installed" in rows["onnx, 8 candidates"]["beside"]


def test_decoding_counts_all_candidates_but_those_of_the_first_chunk(
    parts: ModuleType, song: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths, settings = [], []
    inner = extend.write_chunk

    def spy(*args: Any, **options: Any) -> Any:
        found = inner(*args, **options)
        settings.append(next(a for a in args if hasattr(a, "candidates")))
        lengths.append([len(candidate.rows) for candidate in found])
        return found

    monkeypatch.setattr(extend, "write_chunk", spy)
    found = parts.decoding(song, "torch", 2, 2, model, 0)
    assert extend.write_chunk is spy  # put back
    assert [len(of_chunk) for of_chunk in lengths] == [2, 2, 2]
    assert {(s.engine, s.candidates, s.returns, s.max_attempts) for s in settings} == {("torch", 2, 0.0, 1)}
    assert found.notes == sum(map(sum, lengths[1:])) > 0
    assert found.steps == sum(max(of_chunk) + 1 for of_chunk in lengths[1:])
    assert found.notes_per_s * found.wall_s == pytest.approx(found.notes)


def test_end_to_end_runs_the_command_once_a_song_and_once_with_audio(
    script: ModuleType, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def run(song: Path, seconds: float, out: Path, *options: str) -> dict:
        runs.append(options)
        return {"wall s": 2.0, "new notes": 10, "peak MB": 100.0, "music s per wall s": 7.0}

    monkeypatch.setattr(script.extend_speed, "run", run)
    monkeypatch.setattr(script, "first_chunk_s", lambda *args: (4.0, 1.5))
    rows = rows_of(bench, "end_to_end")
    assert ["--audio" in options for options in runs] == [False, True]
    assert all("--model" in options and "--seed" in options for options in runs)
    assert [row["value"] for row in rows.values()] == [7.0, 7.0, 4.0, 1.5]


def test_the_first_chunk_is_waited_for_in_a_process_of_its_own(script: ModuleType, song: Path, model: str) -> None:
    cold_s, loaded_s = script.first_chunk_s(song, 1, model, 0)
    assert 0 < loaded_s < cold_s


def test_memory_compares_the_first_part_with_the_last(bench: Any) -> None:
    rows = rows_of(bench, "memory")
    first, last = (next(r["value"] for w, r in rows.items() if f"of the {part}" in w) for part in ("first", "last"))
    assert rows["last to first"]["value"] == pytest.approx(last / first)
    assert sum(row["unit"] == "MB at most" and row["value"] > 10 for row in rows.values()) == 2


def test_first_and_last_cut_chunks_in_proportion(parts: ModuleType) -> None:
    run = parts.LongRun(ends=(10.0, 30.0, 40.0), at=(1.0, 2.0, 6.0), wall_s=9.0, peak_mb=1.0)
    assert run.first_and_last(20.0) == pytest.approx((1.5, 4.5))


def test_tokenizer_reads_each_file_as_often_as_asked(bench: Any) -> None:
    rows = rows_of(bench, "tokenizer")
    ours, theirs = (rows[f"{name}, read and encode"]["value"] for name in ("midiex note rows", "MidiTok REMI"))
    assert rows["midiex to MidiTok REMI"]["value"] == pytest.approx(ours / theirs)
    assert "3 readings" in rows["midiex note rows, read and encode"]["beside"]


@needs_fluidsynth
def test_render_stands_beside_the_command_where_there_is_one(
    script: ModuleType, bench: Any, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.song = song
    monkeypatch.setattr(script, "fluidsynth_s", lambda *args: None)
    rows = rows_of(bench, "render")
    assert rows["fluidsynth command"]["value"] == "skipped"
    monkeypatch.setattr(script, "fluidsynth_s", lambda *args: 3.0)
    bench.rows.clear()
    rows = rows_of(bench, "render")
    (found,) = bench.known.values()
    assert found.music_s == pytest.approx(16, abs=1) and found.soundfont.is_file()
    assert rows["midiex to fluidsynth"]["value"] == pytest.approx(3.0 / (found.open_s + found.play_s))


def test_training_leaves_out_the_first_steps(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midiex.train.LOG_EVERY", 2)
    rows = rows_of(bench, "training")
    (found,) = bench.known.values()
    assert rows["config tiny"]["value"] == found.notes / found.wall_s > 0
    assert 0 < found.notes < 4 * load_config("tiny").train.notes_per_batch


def test_references_are_set_against_the_decoder_of_as_many_streams(
    bench: Any, parts: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_decoding(parts, monkeypatch, bench)
    monkeypatch.setattr(parts, "has_midigpt", lambda: False)
    monkeypatch.setattr(parts, "gpt_cacheless", lambda size, lengths, steps: [0.01, 0.02, 0.03])
    monkeypatch.setattr(parts, "gpt_cached", lambda size, befores, steps: [0.001, 0.002])
    monkeypatch.setattr(parts, "lstm", lambda width, sizes, streams, steps: 50.0)
    rows = rows_of(bench, "references")
    rates = {what: row["value"] for what, row in rows.items() if row["unit"] == "notes/s"}
    ratios = {what: row["value"] for what, row in rows.items() if row["unit"] == "times"}
    assert rates["GPT-2 small, no cache, start"] == pytest.approx(1 / 0.03)
    assert rates["GPT-2 small, no cache, window full"] == pytest.approx(1 / 0.09)
    assert rates["GPT-2 small, cache, window full"] == pytest.approx(1 / 0.006)
    assert rates["two LSTM layers, 64 wide, 8 at a time"] == 400.0
    assert rates["midigpt, own sampler"] == "skipped"
    assert ratios["midiex in torch to GPT-2 small, no cache, window full"] == pytest.approx(9.0)
    assert ratios["midiex in torch to two LSTM layers, 64 wide, 1 at a time"] == pytest.approx(2.0)
    assert ratios["midiex in torch to two LSTM layers, 64 wide, 8 at a time"] == pytest.approx(1.0)
    assert not any("midigpt" in what or "onnx" in what for what in ratios)


def test_references_run_at_toy_sizes(bench: Any, parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_decoding(parts, monkeypatch, bench)
    monkeypatch.setattr(parts, "has_midigpt", lambda: False)
    rows = rows_of(bench, "references")
    assert all(row["value"] == "skipped" or row["value"] > 0 for row in rows.values())


def test_floor_divides_the_step_by_the_time_to_read_its_weights(
    bench: Any, parts: ModuleType, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_decoding(parts, monkeypatch, bench)
    monkeypatch.setattr(parts, "bandwidth", lambda nbytes: 1e9)
    rows = rows_of(bench, "floor")
    nbytes = 4 * parts.weights_read(model)
    assert rows["weights in float32 read from memory"]["value"] == pytest.approx(nbytes / 1e6)
    assert rows["weights in int8 read from memory"]["value"] == pytest.approx(nbytes / 4e6)
    assert rows["a step in torch, 1 at a time"]["value"] == pytest.approx(20.0)
    assert rows["a step in torch, 1 at a time, to the floor"]["value"] == pytest.approx(20.0 / (nbytes / 1e6))


def test_weights_read_are_the_decoders_and_not_its_tables(parts: ModuleType, model: str) -> None:
    network = extend.load(model).network
    size = network.size
    matrices = size.decoder_layers * size.d_model * (4 * size.d_model + 2 * size.d_model + 3 * size.d_ff)
    everything = sum(p.numel() for p in network.parameters())
    assert matrices < parts.weights_read(model) < everything / 2


# ---- the other samplers ---------------------------------------------------------------------------------------------


def test_a_cache_changes_nothing_but_time(script: ModuleType, parts: ModuleType) -> None:
    torch.manual_seed(0)
    gpt = parts.Gpt(script.GptSize(layers=3, width=16, heads=2, vocabulary=30, context=24)).eval()
    tokens = torch.randint(30, (12,))
    with torch.inference_mode():
        cache = gpt.new_cache()
        gpt(tokens[:7], cache)
        for at in range(7, 12):
            logits = gpt(tokens[at : at + 1], cache, at)
        assert torch.allclose(logits, gpt(tokens), atol=1e-5)
        assert not torch.allclose(logits, gpt(tokens.roll(1)), atol=1e-3)


def test_gpt_small_is_as_large_as_gpt_2(script: ModuleType, parts: ModuleType) -> None:
    with torch.device("meta"):
        gpt = parts.Gpt(replace(script.GptSize(), vocabulary=50_257))
    assert sum(p.numel() for p in gpt.parameters()) == 124_439_808  # as published, its vocabulary in place


def test_mean_over_lengths_weighs_wide_gaps_more(parts: ModuleType) -> None:
    assert parts.mean_token_s((0, 10, 40), (1.0, 1.0, 3.0)) == pytest.approx((10 * 1 + 30 * 2) / 40)


def test_bandwidth_counts_what_is_read_and_what_is_written(parts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr(parts.time, "perf_counter", lambda: float(next(ticks)))
    assert parts.bandwidth(1 << 26, rounds=2) == 2 * (1 << 26)


# ---- the whole -------------------------------------------------------------------------------------------------------


def test_a_section_that_fails_leaves_the_others(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one(self: Any) -> None:
        self.add("floor", "something", 1.0, "ms")

    monkeypatch.setattr(importlib.import_module("common"), "RESULTS", tmp_path)
    monkeypatch.setattr(script.Bench, "floor", one)
    monkeypatch.setattr(script.Bench, "decode", lambda self: 1 / 0)
    monkeypatch.setattr("sys.argv", ["speed.py", "--only", "floor", "decode", "--seed", "5"])
    with pytest.raises(SystemExit, match="failed: decode"):
        script.main()
    saved = json.loads((tmp_path / "speed_part.json").read_text())
    assert [(row["section"], row["value"]) for row in saved["rows"]] == [("decode", "failed"), ("floor", 1.0)]
    assert "ZeroDivisionError" in saved["rows"][0]["beside"]
    assert saved["seed"] == 5 and {"cpu", "threads", "load"} <= set(saved["machine"])
    assert "| floor | something | 1.000 | ms |" in capsys.readouterr().out


def test_each_measurement_is_made_once_in_a_fresh_process(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    bench = script.Bench(script.QUICK, tmp_path)
    first = bench.measure("this process", os.getpid)
    assert first != os.getpid()
    assert bench.measure("this process", os.getpid) == first
    assert script.alone(os.getenv, "OPENBLAS_NUM_THREADS", threads=1, seed=0) == "1"
    assert "OPENBLAS_NUM_THREADS" not in os.environ and os.environ["MKL_NUM_THREADS"] == "2"
