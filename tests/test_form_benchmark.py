"""The benchmarks of form and obedience: which songs take part, and that their files hold each song's figures."""

from __future__ import annotations

import importlib
import json
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import ModuleType

import pytest
from helpers import write_song
from songs import save_talkative

from midiex import score
from midiex.evaluation import discriminator, form, obedience
from midiex.evaluation.excerpts import whole
from midiex.form_plan import FormPlan

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
GROUPS = {"a.mid": "one", "b.mid": "one", "c.mid": "two", "d.mid": "three", "short.mid": "four"}
FEW = {"candidates": 1, "max_attempts": 1}


@pytest.fixture(scope="module")
def scripts() -> tuple[ModuleType, ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("form"), importlib.import_module("obedience")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Songs of a source of 140 s, two of them one piece, and a short one; and a model."""
    folder = tmp_path_factory.mktemp("corpus")
    save_talkative(folder / "model")
    rows = ["source,file,group,split"]
    for seed, (name, group) in enumerate(GROUPS.items()):
        bars = 8 if name == "short.mid" else 35
        write_song(folder / "band" / name, bars=bars, programs=(0, 32, -1), seed=seed, bpm=60)
        rows.append(f"band,{name},{group},{'valid' if name != 'd.mid' else 'train'}")
    (folder / "splits.csv").write_text("\n".join(rows) + "\n")
    return folder


def asked(script: ModuleType, folder: Path, *more: str) -> Namespace:
    parser = ArgumentParser()
    script.add_arguments(parser)
    parser.set_defaults(songs=5, options={}, auc=True)
    return parser.parse_args([str(folder / "band"), "--splits", str(folder / "splits.csv"), *more])


def test_songs_are_long_of_the_split_and_no_two_of_them_one_piece(
    scripts: tuple[ModuleType, ModuleType], folder: Path
) -> None:
    jobs = scripts[0].chosen(asked(scripts[0], folder))
    assert sorted(job.group for job in jobs) == ["one", "two"]
    assert [job.path.name for job in jobs] == [job.path.name for job in scripts[0].chosen(asked(scripts[0], folder))]
    assert [job.path for job in scripts[0].chosen(asked(scripts[0], folder, "--songs", "1"))] == [jobs[0].path]
    moved = scripts[0].chosen(asked(scripts[0], folder, "--seed", "2"))
    assert [job.path for job in moved] == [job.path for job in jobs] and moved[0].seed == jobs[0].seed + 1


@pytest.mark.parametrize("options", [{}, {"form": "flat"}])
def test_a_song_is_told_with_all_its_writers(
    scripts: tuple[ModuleType, ModuleType], folder: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    script = scripts[0]
    script.begin(str(folder / "model"), FEW)
    args = asked(script, folder, "--songs", "1", "--keep", str(tmp_path / "kept"))
    args.options = options
    (job,) = script.chosen(args)
    result = script.judge(job)
    assert set(result.judged.figures) == {"real", "ours", "loop", "repeat"} and result.judged.is_band
    assert result.told["figures"]["ours"].keys() == set(form.FIGURES)
    json.dumps(result.told)
    assert {kind for kind, _ in result.vectors} == set(discriminator.KINDS)
    assert len({vector.shape for (kind, _), vector in result.vectors.items() if kind == "prompt known"}) == 1
    prompt, ours = sorted(os.listdir(tmp_path / "kept"), reverse=True)
    given, made = (whole(score.read(tmp_path / "kept" / name)) for name in (prompt, ours))
    seam = result.told["seam_bar"] - 1
    assert given.bars == seam and made.part(0, seam).rows.tolist() == given.rows.tolist()
    assert made.seconds == pytest.approx(result.told["end_s"], abs=8)


def test_what_a_plan_asks_is_told_beside_what_came_out(scripts: tuple[ModuleType, ModuleType], folder: Path) -> None:
    script = scripts[1]
    scripts[0].begin(str(folder / "model"), FEW)
    (job,) = scripts[0].chosen(asked(scripts[0], folder, "--songs", "1", "--keep", str(folder / "kept")))
    found = script.judge((job, 110.0))
    plan = FormPlan.from_dict(found.told["plan"])
    assert len(found.answers) == len(plan.phrases) == len(found.told["chunks"]) > 2
    for phrase, answer in zip(plan.phrases, found.answers, strict=True):
        assert answer.asked["density"] == pytest.approx(phrase.density, abs=1e-3)
        assert answer.found.keys() >= answer.asked.keys()
    rows = script.rows_of([found.answers])
    assert [row["asked"] for row in rows][:3] == list(obedience.AMOUNTS) and rows[0]["chunks"] >= len(plan.phrases) - 1
