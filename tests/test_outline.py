"""A plan before a note: made without the network, edited, read back, and refused where it is not of this music."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from songs import EXAMPLES, riff_song

import midiex
from midiex import outline
from midiex.errors import BadInput
from midiex.form_plan import KINDS, NEW, SAME, FormPlan, PlannedPhrase
from midiex.provenance import Formed
from midiex.timeline import rewrite

GROOVE, CHIPTUNE = EXAMPLES / "band_groove.mid", EXAMPLES / "chiptune_loop.mid"


@pytest.mark.parametrize(
    ("path", "seconds", "options"),
    [
        (GROOVE, 90, {}),
        (GROOVE, 40, {"solo": ["bass"]}),
        (GROOVE, 90, {"begin": "bar:9", "keep_ending": True}),
        (GROOVE, 75.3, {"exact": True, "form": "A B A"}),
        (CHIPTUNE, 90, {"loop": True}),
        (CHIPTUNE, 1200, {"open_end": True, "mute": ["drums"]}),
        (EXAMPLES / "piano_nocturne.mid", 120, {"form": "ABACA", "seed": 3}),
    ],
)
def test_a_plan_covers_the_new_music_for_those_who_play(path: Path, seconds: float, options: dict[str, Any]) -> None:
    plan = midiex.plan(path, seconds, **options)
    own = {name: value for name, value in options.items() if name not in ("form", "seed")}
    place = outline.outline(path, seconds, **own)
    bar = place.joint.line.before
    for phrase in plan.phrases:
        assert phrase.first_bar == bar and phrase.kind in KINDS and set(phrase.voices) <= place.players
        bar += phrase.bars
    assert bar == place.joint.line.before + place.joint.line.new
    assert place.checked(plan) == plan
    assert plan == midiex.plan(path, seconds, **options)


def test_planning_needs_no_network() -> None:
    code = "import sys, midiex; midiex.plan(sys.argv[1], 60); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(GROOVE)], timeout=120).returncode == 0


def test_another_seed_is_another_plan() -> None:
    assert len({str(midiex.plan(GROOVE, 200, seed=seed).phrases) for seed in range(4)}) > 1


def test_returns_say_how_much_comes_back_as_it_was() -> None:
    def same(returns: float) -> int:
        plans = [midiex.plan(GROOVE, 300, seed=seed, returns=returns) for seed in range(5)]
        return sum(phrase.kind == SAME for plan in plans for phrase in plan.phrases)

    assert same(0) == 0 < same(1) < same(3)


@pytest.mark.parametrize("form", ["", " ", "A ? B", "1", "A B!", "A " * 2000])
def test_a_form_that_is_none_is_refused(form: str) -> None:
    with pytest.raises(BadInput) as caught:
        midiex.plan(GROOVE, 60, form=form)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("form", ["flat", " Flat "])
def test_a_flat_form_has_no_plan(form: str) -> None:
    with pytest.raises(BadInput, match="flat"):
        midiex.plan(GROOVE, 60, form=form)
    assert outline.outline(GROOVE, 60).planned(form=form) is None


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    plan, path = midiex.plan(GROOVE, 90), tmp_path / "plan.json"
    path.write_text(json.dumps(plan.to_dict()))
    again = midiex.read_plan(path)
    assert again.form == plan.form and again.song == plan.song
    for one, other in zip(again.phrases, plan.phrases, strict=True):
        assert (one.kind, one.source_bar, one.voices) == (other.kind, other.source_bar, other.voices)
        assert one.density == pytest.approx(other.density, abs=1e-3)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"song": [], "phrases": [{}]}', None])
def test_a_file_that_holds_no_plan_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput) as caught:
        midiex.read_plan(path)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


EDITED: dict[str, Callable[[tuple[PlannedPhrase, ...]], tuple[PlannedPhrase, ...]]] = {
    "none": lambda phrases: (),
    "a gap": lambda phrases: phrases[:1] + phrases[2:],
    "too short": lambda phrases: phrases[:-1],
    "too long": lambda phrases: (*phrases, replace(phrases[-1], first_bar=phrases[-1].first_bar + phrases[-1].bars)),
    "out of order": lambda phrases: phrases[::-1],
    "a phrase too long": lambda phrases: (
        replace(phrases[0], bars=sum(phrase.bars for phrase in phrases), kind=NEW, source_bar=None),
    ),
    "a voice there is not": lambda phrases: (replace(phrases[0], voices=(0, 99)), *phrases[1:]),
    "a section without a name": lambda phrases: (replace(phrases[0], section=""), *phrases[1:]),
    "a section with a long name": lambda phrases: (replace(phrases[0], section="chorus" * 9), *phrases[1:]),
}


@pytest.mark.parametrize("name", EDITED)
def test_a_plan_of_other_music_is_refused(name: str) -> None:
    plan = midiex.plan(GROOVE, 90)
    edited = FormPlan(plan.song, EDITED[name](plan.phrases), plan.seed)
    with pytest.raises(BadInput) as caught:
        outline.outline(GROOVE, 90).checked(edited)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_those_who_must_not_play_are_in_no_plan() -> None:
    plan = midiex.plan(GROOVE, 90)
    with pytest.raises(BadInput, match="voice"):
        outline.outline(GROOVE, 90, mute=["drums"]).checked(plan)


@pytest.mark.parametrize("bars", [1, 2, 3])
def test_the_shortest_songs_have_plans(bars: int, tmp_path: Path) -> None:
    song = riff_song(tmp_path / "song.mid", bars)
    for seconds in (2 * bars + 2, 60):
        plan = midiex.plan(song, seconds, begin="end")
        assert sum(phrase.bars for phrase in plan.phrases) == round((seconds - 2 * bars) / 2)


def test_what_a_chunk_was_is_planned_again() -> None:
    place = outline.outline(GROOVE, 60, begin="bar:13", keep_ending=True)
    line = rewrite(place.song, 8, 12)
    (phrase,) = outline.as_it_was(place.song, line, frozenset({0, 1}), Formed("B", SAME, 4), 7).phrases
    assert (phrase.first_bar, phrase.bars, phrase.section, phrase.source_bar) == (8, 4, "B", 4)
    assert phrase.kind == "varied" and set(phrase.voices) == {0, 1}
    inside = place.rows[(place.rows[:, 0] >= 8) & (place.rows[:, 0] < 12)]
    assert phrase.density == pytest.approx(len(inside) / float(np.sum(line.grid.bar_s[8:12])))
    (new,) = outline.as_it_was(place.song, line, frozenset({0, 1}), Formed("B", "new lead", 99), 7).phrases
    assert new.kind == NEW and new.source_bar is None  # its source is no longer there


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("section", 5), ("section", None), ("bars", 4.5), ("likeness", "x"), ("likeness", 5), ("voices", [1.5]),
        ("likeness_of", {"drums": "x"}), ("likeness_of", [1]), ("likeness_of", {"drums": float("nan")}),
        ("density", 10**400), ("source_bar", "5"),
    ],
    ids=str,
)  # fmt: skip
def test_a_plan_with_a_wrong_value_is_refused_in_a_sentence(key: str, value: object) -> None:
    phrase = PlannedPhrase(8, 4, "A", "varied", 0, (0,), 4.0, 80.0, 60.0, 0.5, {"drums": 0.5})
    data = FormPlan((), (phrase,)).to_dict()
    assert FormPlan.from_dict(data).phrases == (phrase,)
    data["phrases"][0][key] = value
    with pytest.raises(BadInput, match="no plan of midiex"):
        FormPlan.from_dict(data)


def test_a_file_of_brackets_is_no_plan(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(BadInput):
        outline.read_plan(tmp_path / "deep.json")
