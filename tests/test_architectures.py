"""benchmarks/architectures.py: equal effort for all, curves that say what was logged, a page of what was measured."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import write_song

from midiex.prepare import prepare

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


def module(name: str) -> ModuleType:
    return importlib.import_module(f"rivals.{name}")


def curve(
    network: str, nats: list[float], seed: int = 0, pace: float = 1.0, minutes: float = 15.0, cpu: str = "Abacus"
) -> dict[str, Any]:
    """A training that was validated every hundred notes, which took `pace` times ten seconds."""
    return {
        "network": network, "scale": "3M", "seed": seed, "alone": False, "minutes": minutes, "cpu": cpu, "nats": nats,
        "notes": [100 * (i + 1) for i in range(len(nats))], "core_s": [10 * pace * (i + 1) for i in range(len(nats))],
    }  # fmt: skip


# ---- search ---------------------------------------------------------------------------------------------------------


def test_every_network_is_searched_alike() -> None:
    training = module("training")
    best = training.Settings()
    for is_recurrent in (False, True):
        tried = [best_of for stage in range(3) for best_of in training.candidates(best, stage, is_recurrent)]
        assert len(tried) == 8 + is_recurrent
        assert len(set(tried)) == len(tried)
    assert best in training.candidates(best, 0, False)


@pytest.mark.parametrize("name", ["ours", "gru"])
def test_a_run_is_trained_logged_and_gathered(tmp_path: Path, name: str) -> None:
    training, curves = module("training"), module("curves")
    songs, shards = tmp_path / "songs", tmp_path / "shards"
    songs.mkdir()
    for seed in range(3):
        write_song(songs / f"{seed}.mid", bars=24)
    prepare([songs], shards)
    for split in ("train", "valid"):
        if not any((shards / split).glob("*.safetensors")):
            (shards / split).mkdir(exist_ok=True)
            for source in shards.glob("*/*.safetensors"):
                (shards / split / source.name).write_bytes(source.read_bytes())
    run = training.Run(name, "3M", replace(training.Settings(), notes_per_batch=256), minutes=0.02, seed=3)
    runs = tmp_path / "runs"
    nats = training.train_run(run, shards, runs / run.label)
    assert training.train_run(run, shards, runs / run.label) == pytest.approx(nats, abs=1e-3)  # it is complete
    [(folder, found)] = curves.finished(runs)
    assert folder == runs / run.label
    assert (found.network, found.seed, found.minutes) == (name, 3, 0.02)
    assert found.nats[-1] == pytest.approx(nats, abs=1e-3)
    assert found.notes == sorted(found.notes) and found.notes[-1] > 0
    assert found.core_s[-1] > 0
    assert 0 < found.as_remi < found.nats[-1]
    assert found.reached(nats - 1) is None


# ---- curves ---------------------------------------------------------------------------------------------------------


def test_a_value_is_reached_on_straight_lines() -> None:
    falling = module("curves").Curve(**curve("ours", [6.0, 5.0, 5.5, 4.0]))
    assert falling.reached(5.5) == (150.0, 15.0)
    assert falling.reached(7.0) == (100.0, 10.0)
    assert falling.reached(3.9) is None
    assert falling.reached(4.75) == (350.0, 35.0)


# ---- page -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module("page"), "RESULTS", tmp_path)
    return tmp_path


def write(results: Path, name: str, **found: Any) -> None:
    (results / f"architectures_{name}.json").write_text(json.dumps(found))


def test_what_was_not_measured_is_not_on_the_page(results: Path) -> None:
    text = module("page").draw(results / "docs").read_text()
    assert "## Method" in text
    assert not any(head in text for head in ("## Learning", "## Memory", "## Speed", "![", "## Writing"))


def test_the_race_is_told_in_time_notes_and_wall_time(results: Path) -> None:
    # the LSTM ends at 5.0 after 300 notes and 60 s; ours is there after 150 notes and 15 s
    write(results, "curves", curves=[curve("ours", [5.5, 4.5, 4.0]), curve("lstm_attention", [6.0, 5.5, 5.0], pace=2.0),
                                     curve("gru", [7.0, 6.5, 6.0])])  # fmt: skip
    rates = {("ours", "own"): 200.0, ("lstm_attention", "own"): 100.0, ("lstm_attention", "torch's"): 50.0}
    write(results, "speed", rows=[{"network": name, "scale": "3M", "threads": 2, "kernels": kernels, "parameters": 3,
                                   "notes/s": rate} for (name, kernels), rate in rates.items()])  # fmt: skip
    text = module("page").draw(results / "docs").read_text()
    [ours] = [line for line in text.splitlines() if line.startswith("| encoder-decoder") and line.count("|") == 5]
    assert [cell.strip() for cell in ours.split("|")[2:5]] == ["0.25", "0.50", "0.25"]
    assert "2.00 times the notes a second" in text and "4.00 times those that it learns from by the kernels" in text
    [gru] = [line for line in text.splitlines() if line.startswith("| GRU") and line.count("|") == 5]
    assert "not reached" in gru
    assert (results / "docs" / "why-encoder-decoder" / "learning_3M.png").stat().st_size > 10_000


def test_memory_is_compared_at_sixteen_chunks(results: Path) -> None:
    rows = [{"network": name, "scale": "3M", "chunks of context": chunks, "written": written, "MB": mb}
            for name, mb in (("ours", 300.0), ("lstm_attention", 200.0)) for chunks in (8, 16)
            for written in ("all", "last")]  # fmt: skip
    rows[-1]["MB"] = "more than 8 GB"
    write(results, "memory", rows=rows)
    text = module("page").draw(results / "docs").read_text()
    assert "With 16 chunks of context and all written midiex's own takes 1.50 times" in text
    assert "and last written" not in text
    assert "more than 8 GB" in text


def test_it_says_what_was_expected_and_where_a_recurrent_network_wins(results: Path) -> None:
    write(results, "curves", curves=[curve("ours", [5.6, 4.5, 4.0]), curve("lstm_attention", [5.5, 5.2, 5.0])])
    rows = [{"network": name, "scale": "3M", "chunks of context": 16, "written": "all", "MB": mb}
            for name, mb in (("ours", 300.0), ("gru", 100.0), ("lstm_attention", 200.0))]  # fmt: skip
    write(results, "memory", rows=rows)
    write(results, "generation", rows=[
        {"run": f"{name}-3M-seed0", "minutes": minutes, "notes_per_cpu_s": pace, "peak_mb": minutes * mb}
        for name, pace, mb in (("ours", 300.0, 5.0), ("gru", 200.0, 1.0)) for minutes in (20, 1)
    ])  # fmt: skip
    text = " ".join(module("page").draw(results / "docs").read_text().split())
    assert "ended after 0.52 of its time of a core; at most a third was expected." in text
    assert "1.50 times what the LSTM encoder-decoder with attention takes. At most half was expected." in text
    lstm = "a recurrent network, the LSTM encoder-decoder with attention"
    assert f"after 0.00 million notes, 3M (Abacus): {lstm} (5.500; midiex's" in text
    assert "after its time of a core, 3M (Abacus): encoder-decoder transformer (midiex) (4.000)." in text
    assert "16 chunks of context: a recurrent network, the GRU language model (100 MB; midiex's own: 300)." in text
    assert "of the processor in writing: encoder-decoder transformer (midiex) (300 notes)." in text
    assert "the longest piece: a recurrent network, the GRU language model (20 MB; midiex's own: 100)." in text


def test_where_midiex_did_not_come_as_far_it_says_so(results: Path) -> None:
    write(results, "curves", curves=[curve("ours", [5.6, 5.5, 5.1]), curve("lstm_attention", [5.5, 5.2, 5.0])])
    text = " ".join(module("page").draw(results / "docs").read_text().split())
    assert "midiex's own did not come as far as the LSTM encoder-decoder with attention in its time of a core" in text


def test_trainings_of_less_time_are_told_apart(results: Path) -> None:
    write(results, "curves", curves=[curve("ours", [5.5, 4.5, 4.0]), curve("ours", [5.5, 4.9], minutes=5.0),
                                     curve("lstm_attention", [6.0, 5.5, 5.0])])  # fmt: skip
    text = " ".join(module("page").draw(results / "docs").read_text().split())
    assert "at 3M (Abacus) ended the encoder-decoder transformer (midiex) after 5 at 4.900; the LSTM" in text
    assert "with its whole time at 5.000." in text
    assert "| encoder-decoder transformer (midiex) | not measured | 1 | 4.000 |" in text


def test_times_are_compared_on_one_machine(results: Path) -> None:
    # on either machine ours is where the LSTM ended after half its time; across them it would be a quarter or all
    trained = [curve(network, [5.0, 4.0], seed=seed, pace=pace, cpu=cpu)
               for cpu, pace, seeds in (("Abacus", 1.0, (0, 1)), ("Slide rule", 2.0, (0,))) for seed in seeds
               for network, pace in (("ours", pace / 2), ("lstm_attention", pace))]  # fmt: skip
    write(results, "curves", curves=trained[::-1])
    text = " ".join(module("page").draw(results / "docs").read_text().split())
    for cpu in ("Abacus", "Slide rule"):
        assert f"At 3M ({cpu}) midiex's own was where the LSTM encoder-decoder with attention ended after 0.50" in text
    assert text.index("## Learning, about 3 M parameters (Abacus)") < text.index("### Again on another machine: Slide")


def test_remi_stands_beside_note_rows_without_what_it_drops(results: Path) -> None:
    own = [curve("ours", [9.0]) | {"alone": alone, "as_remi": nats} for alone, nats in ((False, 6.5), (True, 7.5))]
    elsewhere = curve("gru", [9.0], cpu="Slide rule") | {"as_remi": 5.5}
    write(results, "curves", curves=[*own, elsewhere, curve("remi", [11.0])])
    text = module("page").draw(results / "docs").read_text()
    after = text[text.index("## Other tokens") :]
    assert "| decoder-only over REMI | not measured | 1 | 11.000 |" in after
    assert "| with | 6.500 |" in after and "| without | 7.500 |" in after and "5.500" not in after


def test_trainings_of_less_time_have_folders_of_their_own() -> None:
    training = module("training")
    run = training.Run("ours", "3M", training.Settings(), training.MINUTES["3M"])
    assert run.label == "ours-3M-seed0"
    assert replace(run, minutes=5.0).label == "ours-3M-seed0-5min"
    assert replace(run, minutes=training.ALONE_MINUTES, alone=True).label == "ours-3M-alone-seed0"
