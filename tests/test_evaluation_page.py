"""The page of an evaluation: every source and writer in its tables, gaps said and shown, every file whole or absent."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from midiex.errors import BadInput
from midiex.evaluation import discriminator, form
from midiex.evaluation.findings import Run
from midiex.evaluation.page import page, to_json, write_page
from midiex.evaluation.pictures import PICTURES

SOURCES = ("piano", "band", "scores")
NAN = math.nan


def figure(means: dict[str, float], sources: tuple[str, ...] = SOURCES, spread: float = 0.05) -> dict[str, Any]:
    """A figure with a mean for each writer; sources differ from it, their mean is it."""
    offsets = np.linspace(-spread, spread, len(sources))
    return {
        writer: {
            "pooled": {"mean": mean, "low": mean - spread / 2, "high": mean + spread / 2, "songs": 4 * len(sources)},
            "by_source": {source: mean + float(offset) for source, offset in zip(sources, offsets, strict=True)},
        }
        for writer, mean in means.items()
    }


def evaluation(sources: tuple[str, ...] = SOURCES, minutes: int = 5) -> dict[str, Any]:
    """What `evaluate` gives when nothing is missing."""
    written = {"ours": 0.7, "ngram": 0.6, "loop": 0.75}
    everyone = written | {"real": 0.8}
    foreseen = {"ngram": 6.2, "ngram with song": 5.1, "ours": 4.4}
    figures = {
        "nll": figure(foreseen, sources, 1.0) | {"notes": dict.fromkeys(sources, 1234)},
        **{f"nll_{name}": figure({w: m / 4 for w, m in foreseen.items()}, sources) for name in ("pitch", "bar")},
        "choice": figure({"ours": 0.66}, sources),
        "overlap": figure(everyone, sources),
        "overlap_share": figure({w: m / 0.8 for w, m in everyone.items()}, sources),
        "compression": figure({"ours": 2.1, "ngram": 1.5, "loop": 3.9, "real": 2.4}, sources),
        "longest_repeat_bars": figure({"ours": 1.0, "ngram": 0.0, "loop": 11.0, "real": 3.0}, sources),
        "set_oa": {w: {"mean": m, "by_feature": {"pitch": m}} for w, m in everyone.items()},
        "set_kld": {w: {"mean": 1 - m, "by_feature": {"pitch": 1 - m}} for w, m in everyone.items()},
    }  # fmt: skip
    for k, lag in enumerate((1, 2, 4, 8, 16, 32)):
        likeness = {"truth": 0.2 + 0.02 * k, "ours": 0.2, "ngram": 0.1, "loop": 0.2 + 0.8 * (lag >= 8), "real": 0.18}
        figures[f"similarity_{lag}"] = figure(likeness, sources)
        figures[f"similarity_error_{lag}"] = figure({"ours": 0.1, "ngram": 0.2, "loop": 0.4, "real": 0.05}, sources)
    for name in ("gap_s", "own_gap_s", "density_jump", "level_jump", "register_jump", "rough", "own_rough"):
        figures[f"seam_{name}"] = figure(everyone, sources)
    for name in ("arousal", "valence"):
        for what in ("distance", "own_distance", "slope"):
            figures[f"mood_{name}_{what}"] = figure(everyone, sources)
            figures[f"staying_mood_{name}_{what}"] = figure({"ours": 0.3, "real": 0.2}, sources)
    for name in ("silence_s", "own_silence_s", "held_notes", "strikes", "own_strikes", "stuck", "repeats",
                 "own_repeats", "looped_bars", "resampled", "fallback", "silent"):  # fmt: skip
        figures[f"staying_{name}"] = figure({"ours": 0.25}, sources)
    for name in ("shared_grams", "shared_run_notes"):
        figures[name] = figure({"ours": 0.3, "ngram": 0.6, "real": 0.35}, sources)
        for told in figures[name].values():
            told["quantiles"] = {"0.5": 0.3, "0.95": 0.5, "1": 0.9}
    for group in ("form", "band_form"):
        for prompt_s in (62, 30):
            for name in form.FIGURES:
                told = figure({"real": 0.5, "ours": 0.4, "loop": 0.0, "repeat": 0.45 + 0.3 * (name > "e")}, sources)
                figures[f"{group}_{prompt_s}_{name}"] = told
    features = ("pitch", "interval", "pitch_class_transition", "by_bar.notes", "by_bar.mean_pitch")
    flat = [0.6 + 0.01 * k for k in range(minutes)]
    return {
        "model": {"name": "somewhere/else/tiny", "fingerprint": "0123abcd", "parameters": 10_120_594},
        "scope": {"songs": 4, "windows": 8, "long_songs": 3, "long_s": 60.0 * minutes},
        "split": "valid", "seed": 3, "generate": {"temperature": 0.9, "candidates": 6},
        "machine": {"cores": 2, "python": "3.11"},
        "songs": dict.fromkeys(sources, 4), "figures": figures,
        "by_feature": {
            w: {f: m - 0.03 * k * (w == "ours") for k, f in enumerate(features)} for w, m in everyone.items()
        },
        "by_minute": dict.fromkeys(("compression", "notes_per_s", "overlap", "silence_s", "similarity_8"), flat),
        "discriminator": {
            known: {w: {"auc": 1.2 - m / 2, "low": 0.8, "high": 0.9, "songs": 12} for w, m in everyone.items()}
            for known in discriminator.KINDS
        },
    }  # fmt: skip


def only(result: dict[str, Any], *figures: str) -> dict[str, Any]:
    """The result with no other figures than these, so that there is little to draw."""
    kept = {name: told for name, told in result["figures"].items() if name in figures}
    return result | {"figures": kept, "by_feature": {}, "by_minute": {}, "discriminator": {}}


def section(page: str, number: int) -> str:
    return page.split(f"\n## {number}. ")[1].split("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """Cells by row label; of rows of the same label the first."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            label, *cells = [cell.strip() for cell in line[1:-1].replace("\\|", "¦").split("|")]
            found.setdefault(label, cells)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    folder = tmp_path_factory.mktemp("page") / "new" / "folder"
    return write_page(evaluation(), folder), folder


def test_all_files_are_there_and_nothing_else(made: tuple[list[Path], Path]) -> None:
    paths, folder = made
    assert {path.name for path in paths} == {"quality.json", "quality.md", *PICTURES}
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths}
    assert paths[-1].name == "quality.md"  # last, when all that it shows is there


def test_the_page_opens_with_what_was_measured(made: tuple[list[Path], Path]) -> None:
    head = (made[1] / "quality.md").read_text("utf-8").split("\n## ")[0]
    for told in ("# Quality of tiny", "10,120,594 parameters", "0123abcd", "split valid", "piano 4", "piano 1,234",
                 "seed 3", "temperature 0.9", "cores 2", "95%"):  # fmt: skip
        assert told in head, told
    assert "somewhere" not in head


def test_tables_have_every_source_and_the_pooled_row_with_its_interval(made: tuple[list[Path], Path]) -> None:
    text = (made[1] / "quality.md").read_text("utf-8")
    for number in (1, 2, 3, 5, 7, 8, 9):
        table = rows(section(text, number))
        assert {*SOURCES, "**pooled**"} <= table.keys(), number
        assert all("(" in cell and ", " in cell for cell in table["**pooled**"][:1]), number
    nll = rows(section(text, 1))
    assert nll["source"] == ["ours", "ngram", "ngram with song"]
    assert nll["piano"] == ["3.40", "5.20", "4.10"]
    assert nll["**pooled**"] == ["**4.40** (3.90, 4.90)", "6.20 (5.70, 6.70)", "5.10 (4.60, 5.60)"]
    assert nll["songs"] == ["12", "12", "12"]
    assert nll["of them for pitch"][0] == "**1.10** (1.08, 1.12)"
    assert rows(section(text, 2))["questions"] == ["12"]


def test_the_best_that_was_written_is_bold_and_real_music_never(made: tuple[list[Path], Path]) -> None:
    text = (made[1] / "quality.md").read_text("utf-8")
    assert [cell.startswith("**") for cell in rows(section(text, 3))["**pooled**"]] == [False, False, True, False]
    auc = rows(section(text, 4))["AUC, prompt known"]  # .5 is good, so the loop's .825 beats .85 and .9
    assert [cell.startswith("**") for cell in auc[:4]] == [False, False, True, False]
    compression = rows(section(text, 5))["**pooled**"]  # real has 2.4: neither least nor most is best
    assert [cell.startswith("**") for cell in compression] == [True, False, False, False]
    assert "**" not in rows(section(text, 2))["**pooled**"][0]  # without rivals
    lags = rows(section(text, 5))
    assert lags["source"] == ["ours", "ngram", "loop", "real"]
    likeness = lags["likeness at lag 8"]  # truth, ours, ngram, loop, real
    assert [cell.startswith("**") for cell in likeness[:5]] == [False, True, False, False, False]


def test_the_songs_own_stands_beside(made: tuple[list[Path], Path]) -> None:
    text = (made[1] / "quality.md").read_text("utf-8")
    assert rows(section(text, 7))["source"][-1] == "prompt's bar lines"
    assert rows(section(text, 6))["longest silence, s"][1] == "0.25"
    minutes = rows(section(text, 6))
    assert minutes["1"][0] == "0.60" and minutes["5"][0] == "0.64" and "6" not in minutes
    assert minutes["all songs' own"][0] == "0.80"  # the overlap of real music
    assert "by bar (0.58 of 0.80)" in section(text, 3)  # where ours stays farthest behind


def test_form_stands_beside_the_real_ones_with_its_distance(made: tuple[list[Path], Path]) -> None:
    text = section((made[1] / "quality.md").read_text("utf-8"), 11)
    bands, of_all = text.split("**bands, prompt of 30 s**")[1], text.split("**all songs, prompt of 62 s**")[1]
    for part in (bands, of_all):
        assert "nearer to it than loop on 7 of 7, than repeat on 4 of 7" in part
        assert rows(part)["contrast of sections"] == ["0.50", "0.40 (-20%)", "0.00 (-100%)", "0.45 (-10%)"]
    assert rows(of_all)["piano"][:2] == ["0.45 / 0.35 (-22%)", "0.45 / 0.35 (-22%)"]
    assert len(rows(of_all)["piano"]) == len(form.JUDGED)
    intervals = rows(text)["returns_5, prompt of 30 s"]
    assert intervals[0].startswith("**0.40** (") and "best near real" in intervals[-1]


def test_a_result_from_before_form_was_measured_makes_a_page(tmp_path: Path) -> None:
    result = evaluation()
    result["figures"] = {name: told for name, told in result["figures"].items() if "form_" not in name}
    write_page(result, tmp_path)
    told = section((tmp_path / "quality.md").read_text("utf-8"), 11)
    assert "*Not measured: " in told and "|" not in told


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    result = evaluation()
    figures = {n: {w: v for w, v in f.items() if not w.startswith("ngram")} for n, f in result["figures"].items()}
    gone = ("nll_", "shared_", "overlap", "set_", "staying_")
    result["figures"] = {name: told for name, told in figures.items() if not name.startswith(gone)}
    result["scope"]["long_songs"] = 0
    result |= {"discriminator": {}, "by_minute": {}, "by_feature": {"ours": {"pitch": NAN}}}
    write_page(result, tmp_path)
    text = (tmp_path / "quality.md").read_text("utf-8")
    assert "absent: it learns from shards" in text.split("\n## ")[0]
    assert "Not measured (of them for …)" in section(text, 1)
    for number, reason in ((3, "too few or too short"), (4, "10 continued songs"), (6, "0 asked for"), (9, "shards")):
        assert "*Not measured: " in section(text, number) and reason in section(text, number)
        assert "|" not in section(text, number)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["quality_nll.png", "quality_similarity.png"]
    assert "quality_overlap.png" not in text and "quality_minutes.png" not in text
    assert "{" not in text


def test_nothing_at_all_still_makes_a_page(tmp_path: Path) -> None:
    write_page(only(evaluation()) | {"songs": {}}, tmp_path)
    text = (tmp_path / "quality.md").read_text("utf-8")
    assert text.count("*Not measured: ") == 10 and "|" not in text
    assert not [*tmp_path.glob("*.png")]


def test_nan_is_a_dash_and_null() -> None:
    result = evaluation()
    result["songs"]["opera"] = 0  # no song of it could be used
    result["figures"]["nll"]["ngram"]["by_source"]["band"] = NAN
    result["figures"]["similarity_32"]["ours"]["pooled"] |= {"mean": NAN, "low": NAN, "high": NAN, "songs": 0}
    result["figures"]["choice"]["ours"]["pooled"] |= {"low": 0.66, "high": 0.66}  # nothing varies
    result["by_minute"]["overlap"] = [0.5, NAN, 0.4]
    text = page(Run.of(result))
    assert rows(section(text, 1))["band"] == ["4.40", "–", "5.10"]
    assert rows(section(text, 1))["opera"] == ["–", "–", "–"]
    assert rows(section(text, 2))["**pooled**"] == ["0.66"]
    assert rows(section(text, 5))["likeness at lag 32"][1] == "–"
    assert rows(section(text, 6))["2"][0] == "–" == rows(section(text, 6))["5"][0]
    assert not re.search(r"\bnan\b", text)
    assert "NaN" not in to_json(result)
    assert json.loads(to_json(result))["by_minute"]["overlap"] == [0.5, None, 0.4]
    assert page(Run.of(json.loads(to_json(result)))) == text


def test_json_holds_the_result_and_makes_the_same_page(made: tuple[list[Path], Path]) -> None:
    text = (made[1] / "quality.json").read_text("utf-8")
    result = evaluation()
    result["model"]["name"] = "tiny"  # and not where it lies
    assert json.loads(text) == result
    assert max(map(len, text.splitlines())) < 300 and text.count("\n") > 100  # neither one line nor one a number
    assert page(Run.of(json.loads(text)), PICTURES) == (made[1] / "quality.md").read_text("utf-8")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    )
)
def test_json_of_anything_loads_back(value: Any) -> None:
    assert json.loads(to_json(value)) == value


def test_pictures_show_something(made: tuple[list[Path], Path]) -> None:
    for name in PICTURES:
        picture = imread(made[1] / name)
        assert picture.shape[:2] == (660, 1760)
        drawn = (picture[80:, :, :3] < 0.97).any(axis=2)  # below title and legend
        assert 0.01 < drawn.mean() < 0.8, name
        assert drawn[:, :880].any() and drawn[:, 880:].any()
        assert name in (made[1] / "quality.md").read_text("utf-8")


def test_names_are_escaped(tmp_path: Path) -> None:
    result = evaluation(("a|b", "c\nd", "$x$", "\udcff"))
    result["model"]["name"] = "m|n"
    write_page(only(result, "nll"), tmp_path)  # draws and writes the names
    text = page(Run.of(result))
    assert "\n| a\\|b | 3.40 |" in text and "\n| c d | " in text and "# Quality of m\\|n" in text
    tables = [line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")]
    heads = [i for i, line in enumerate(line for line in text.splitlines() if line[:1] == "|") if line[:5] == "| ---"]
    assert len(heads) > 10 and all(tables[i - 1] == tables[i] == tables[i + 1] for i in heads)


def test_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "quality.md").write_text("old")
    (tmp_path / "quality_nll.png").write_bytes(b"old")
    (tmp_path / "mine.txt").write_text("mine")
    write_page(only(evaluation(), "nll"), tmp_path)
    assert (tmp_path / "quality.md").read_text("utf-8").startswith("# Quality")
    assert (tmp_path / "quality_nll.png").stat().st_size > 1000
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_pictures_of_an_earlier_run_go_once_the_page_is_there(tmp_path: Path) -> None:
    shown, other = {"quality_nll.png"}, tmp_path / "quality_of_mine.png"
    for path in (*(tmp_path / name for name in PICTURES), other):
        path.write_bytes(b"old")
    (tmp_path / "quality.md").mkdir()  # so that the page cannot be written
    with pytest.raises(BadInput, match="quality.md cannot be written"):
        write_page(only(evaluation(), "nll"), tmp_path)
    (tmp_path / "quality.md").rmdir()
    assert {path.name for path in tmp_path.glob("*.png")} == {*PICTURES, other.name}
    paths = write_page(only(evaluation(), "nll"), tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {*shown, other.name}
    assert {path.name for path in paths} == {"quality.json", "quality.md", *shown}


@pytest.mark.parametrize(("name", "told"), [("a/b/tiny/", "tiny"), ("small", "small"), (".", ".")])
def test_of_the_models_folder_the_name_is_told(name: str, told: str) -> None:
    result = evaluation()
    result["model"]["name"] = name
    assert Run.of(result).result["model"] == evaluation()["model"] | {"name": told}
    assert result["model"]["name"] == name  # the caller's own stays
    assert page(Run.of(result)).startswith(f"# Quality of {told}\n")


@pytest.mark.parametrize("name", ["quality.json", "quality_nll.png", "quality.md"])
def test_a_write_that_fails_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_text("old")
    replace = os.replace

    def refuse(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(BadInput, match="No space left"):
        write_page(only(evaluation(), "nll"), tmp_path)
    assert (tmp_path / name).read_text() == "old"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") or "part" in path.name]


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(BadInput, match="taken cannot be written"):
        write_page(evaluation(), tmp_path / "taken")
