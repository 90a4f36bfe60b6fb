"""The command line: what it writes and prints; whoever errs gets one sentence, code 2 and nothing half-made."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import mido
import pytest
import soundfile
from click.testing import CliRunner, Result
from helpers import notes_in, song_in_bars, write_song
from songs import EXAMPLES, note, riff_song, save_talkative, type_0_song, write_midi

import midiex
from midiex import doctor, edit, provenance, ranking, score
from midiex.cli import EXIT_BAD_INPUT, EXIT_FAILED, main
from midiex.doctor import Check
from midiex.errors import MissingPart
from midiex.render import RenderInfo, fluidsynth_version

COMMANDS = sorted(main.commands)
HEAVY = ("torch", "miditok", "symusic", "matplotlib", "pretty_midi", "soundfile")


def _has_fluidsynth() -> bool:
    try:
        return bool(fluidsynth_version())
    except MissingPart:
        return False


HAS_FLUIDSYNTH = _has_fluidsynth()
needs_fluidsynth = pytest.mark.skipif(not HAS_FLUIDSYNTH, reason="libfluidsynth is not installed")


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="midiex")


def python(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(str(arg) for arg in args)]
    environment = os.environ | {"CI": "true"}  # under which some libraries talk
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, env=environment)


def files_under(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_talkative(tmp_path_factory.mktemp("models") / "talkative")


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """Eight bars of two seconds, the last one a held note."""
    return riff_song(tmp_path / "song.mid")


@pytest.fixture(scope="module")
def result(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A song of 16 seconds continued to 40, in chunks of four bars."""
    folder = tmp_path_factory.mktemp("result")
    out = folder / "long.mid"
    midiex.extend(song_in_bars(folder / "song.mid", [(4, 4)] * 8), 40, out, model=model, candidates=1)
    return out


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


# ---- help ------------------------------------------------------------------------------------------------------------


def test_help_of_all_shows_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert re.search(rf"^\s+{name}\s", result.stdout, re.M), name
        assert f"midiex {name}" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_command_has_examples(name: str, flag: str) -> None:
    result = run(name, flag)
    assert result.exit_code == 0
    examples = [line for line in result.stdout.splitlines() if re.match(rf"\s+midiex {name}\b", line)]
    assert examples, result.stdout
    options = {option for parameter in main.commands[name].params for option in parameter.opts}
    for example in examples:
        for option in re.findall(r"(?<= )--?[a-z][a-z-]*", example):
            assert option in options, f"{example}: there is no {option}"


def test_every_option_is_explained() -> None:
    for name, command in main.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"midiex {name} {parameter.opts[0]}"


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import contextlib, io, sys
from midiex.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    for args in [["--help"], *([name, "--help"] for name in main.commands)]:
        main(args, prog_name="midiex", standalone_mode=False)
assert "midiex extend" in out.getvalue()
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_module_and_version() -> None:
    done = python("-m", "midiex", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"midiex, version {midiex.__version__}")


# ---- extend ----------------------------------------------------------------------------------------------------------


def test_extend_writes_a_song_audio_and_a_picture(model: Path, tmp_path: Path) -> None:
    source, out, audio, plot = (
        EXAMPLES / "band_groove.mid", tmp_path / "long.mid", tmp_path / "long.ogg", tmp_path / "long.png",
    )  # fmt: skip
    more = ["--audio", audio] if HAS_FLUIDSYNTH else []
    result = run("extend", source, "-s", 45, "-o", out, "--plot", plot, "--model", model, "--json", *more)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["new_from_s"] == pytest.approx(34.286, abs=1e-3)
    assert 45 - 2.15 < report["seconds"] <= 45
    assert (report["out"], report["plot"]) == (str(out), str(plot))
    assert report.get("audio") == (str(audio) if HAS_FLUIDSYNTH else None)
    assert report["seed"] == 0 and report["new_notes"] > 0 and report["wall_s"] > 0
    assert {"start_s", "end_s", "bars", "notes", "attempts", "fallback", "terms"} <= set(report["chunks"][0])
    assert is_png(plot)
    if HAS_FLUIDSYNTH:
        assert soundfile.info(audio).duration > report["seconds"] - 1
    longer, original = score.read(out), score.read(source)
    assert longer.length_s <= report["seconds"] + 1e-3
    start = int(original.grid.ticks[report["bars"][0] - 1])
    assert score.events_before(longer.midi, start) == score.events_before(original.midi, start)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in (out, plot, *map(Path, more[1:])))


def test_extend_names_its_output_after_the_song_and_tells_what_it_did(song: Path, model: Path) -> None:
    result = run("extend", song, "-s", "24.5", "--model", model, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in song.parent.iterdir()) == ["song.mid", "song_24.5s.mid"]
    assert re.fullmatch(
        r".*song_24\.5s\.mid: 24\.0 s, new from 0:14\.0 \(before the song's ending: held\) to 0:24\.0, bars 8 to 12: "
        r"\d+ notes in 1 chunks?, seed 3\n",
        result.stdout,
    )


def test_extend_is_repeatable_and_agrees_with_the_library(song: Path, model: Path, tmp_path: Path) -> None:
    for name in ("a.mid", "b.mid"):
        assert run("extend", song, "-s", 24, "-o", tmp_path / name, "--model", model, "--seed", 9).exit_code == 0
    midiex.extend(song, 24, tmp_path / "c.mid", model=model, seed=9)
    first, *others = ((tmp_path / name).read_bytes() for name in ("a.mid", "b.mid", "c.mid"))
    assert others == [first, first]


def test_takes_are_explained(song: Path, model: Path) -> None:
    result = run("extend", song, "-s", 24, "--takes", 2, "--model", model, "--seed", 5)
    assert result.exit_code == 0, result.output
    first, second, empty, *table = result.stdout.splitlines()
    assert "song_24s_1.mid: " in first and "song_24s_2.mid: " in second and empty == ""
    heads, *rows = (re.split(r"  +", line) for line in table)
    assert heads == ["take", "seed", "score", *ranking.WEIGHTS, "nearest to the song in"]
    assert [row[0] for row in rows] == ["1", "2"] and sorted(row[1] for row in rows) == ["5", "6"]
    figures = [[float(cell) for cell in row[2:-1]] for row in rows]
    assert figures[0][0] <= figures[1][0]
    for score_, *terms in figures:
        assert sum(terms) == pytest.approx(score_, abs=0.06)
    names = heads[3:-1]
    for name in rows[0][-1].split(", ") if rows[0][-1] != "-" else []:
        assert figures[0][1 + names.index(name)] <= figures[1][1 + names.index(name)]


def test_takes_are_numbered_best_first(song: Path, model: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "take.mid", tmp_path / "take.png"
    result = run("extend", song, "-s", 24, "-o", out, "--plot", plot, "--takes", 3, "--model", model, "--json")
    assert result.exit_code == 0, result.output
    reports = json.loads(result.stdout)
    assert [Path(r["out"]).name for r in reports] == ["take_1.mid", "take_2.mid", "take_3.mid"]
    assert [Path(r["plot"]).name for r in reports] == ["take_1.png", "take_2.png", "take_3.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["song.mid", *(f"take_{i}.{kind}" for i in (1, 2, 3) for kind in ("mid", "png"))]
    )
    assert {r["seed"] for r in reports} == {0, 1, 2}
    scores = [math.inf if r["score"] is None else r["score"] for r in reports]
    assert scores == sorted(scores)
    assert len({(tmp_path / f"take_{i}.mid").read_bytes() for i in (1, 2, 3)}) == 3


def test_temperature_changes_the_song(song: Path, model: Path, tmp_path: Path) -> None:
    for name, more in (("a.mid", []), ("b.mid", ["-t", 0.5])):
        assert run("extend", song, "-s", 24, "-o", tmp_path / name, "--model", model, *more).exit_code == 0
    assert (tmp_path / "a.mid").read_bytes() != (tmp_path / "b.mid").read_bytes()


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (["--from", "bar:5"], {"begin": "bar:5"}),
        (["--from", "0:08", "--keep-ending"], {"begin": "8", "keep_ending": True}),
        (["--exact"], {"exact": True}),
        (["--loop"], {"loop": True}),
        (["--open-end"], {"open_end": True}),
        (["--form", "A B"], {"form": "A B"}),
        (["--form", "flat"], {"form": "flat"}),
        (["--solo", "0"], {"solo": ["0"]}),  # everything is on track 0
        (["--keep-instruments", "bass"], {"solo": ["bass"]}),
        (["--mute", "electric piano 2", "--mute", "drums"], {"mute": ["electric piano 2", "drums"]}),
        (["--only-drums"], {"drums": True}),
        (["--no-drums"], {"drums": False}),
    ],
)
def test_options_of_extend_are_those_of_the_library(
    args: list[str], options: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    source, out = type_0_song(tmp_path / "song.mid"), tmp_path / "out.mid"
    result = run("extend", source, "-s", 25.3, "-o", out, "--model", model, *args)
    assert result.exit_code == 0, result.output
    midiex.extend(source, 25.3, tmp_path / "same.mid", model=model, **options)
    assert out.read_bytes() == (tmp_path / "same.mid").read_bytes()
    plain = run("extend", source, "-s", 25.3, "-o", tmp_path / "plain.mid", "--model", model)
    assert plain.exit_code == 0
    assert ((tmp_path / "plain.mid").read_bytes() == out.read_bytes()) == (args == ["--solo", "0"])


# ---- the plan --------------------------------------------------------------------------------------------------------


def test_a_plan_is_printed_edited_and_kept_to(model: Path, tmp_path: Path) -> None:
    source, plan, out = type_0_song(tmp_path / "song.mid"), tmp_path / "plan.json", tmp_path / "out.mid"
    done = run("plan", source, "-s", 40, "--seed", 3, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == json.loads(json.dumps(midiex.plan(source, 40, seed=3).to_dict()))
    told["phrases"][0] |= {"section": "Z", "kind": "same", "source_bar": 1, "voices": [0]}
    plan.write_text(json.dumps(told))
    done = run("extend", source, "-s", 40, "--plan", plan, "-o", out, "--model", model, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    first = report["chunks"][0]
    assert (first["section"], first["kind"], first["reached"]["voices"]) == ("Z", "same", [0])
    assert report["plan"]["phrases"][0] == told["phrases"][0]
    midiex.extend(source, 40, tmp_path / "same.mid", model=model, plan=midiex.read_plan(plan))
    assert out.read_bytes() == (tmp_path / "same.mid").read_bytes()


def test_a_plan_as_text_has_a_line_for_each_phrase(tmp_path: Path) -> None:
    source = type_0_song(tmp_path / "song.mid")
    done = run("plan", source, "-s", 60, "--form", "A B A", "-o", tmp_path / "plan.json", "--mute", "bass")
    assert done.exit_code == 0, done.output
    plan = midiex.read_plan(tmp_path / "plan.json")
    assert plan.form == "A B A"
    song, coming, empty, head, *lines = done.stdout.splitlines()
    assert song.startswith("the song: A") and coming == "to come:  A B A" and empty == ""
    assert head.split()[:2] == ["section", "kind"] and len(lines) == len(plan.phrases)
    for line, phrase in zip(lines, plan.phrases, strict=True):
        assert line.startswith(f"{phrase.section}  ") and f" {phrase.first_bar + 1}-" in line
        assert phrase.kind in line


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--form", "A ! B"], "A B A"),
        (["--form", ""], "A B A"),
        (["--plan", "none.json"], "none.json"),
        (["--plan", "text.json"], "JSON"),
        (["--plan", "other.json"], "bar"),
        (["--plan", "fitting.json", "--form", "A"], "one of the two"),
    ],
)
def test_plans_and_forms_that_are_none_are_refused(args: list[str], named: str, model: Path, tmp_path: Path) -> None:
    source = type_0_song(tmp_path / "song.mid")
    (tmp_path / "text.json").write_text("A B A")
    for name, seconds in (("other", 60), ("fitting", 40)):
        (tmp_path / f"{name}.json").write_text(json.dumps(midiex.plan(source, seconds).to_dict()))
    args = [str(tmp_path / arg) if arg.endswith(".json") else arg for arg in args]
    done = run("extend", source, "-s", 40, "-o", tmp_path / "out.mid", "--model", model, *args)
    assert done.exit_code == EXIT_BAD_INPUT and named in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out.mid").exists()


def test_what_has_no_plan_is_not_planned(song: Path) -> None:
    done = run("plan", song, "--form", "flat")
    assert done.exit_code == EXIT_BAD_INPUT and "flat" in done.stderr


# ---- fill, insert, regenerate ----------------------------------------------------------------------------------------

EDITS: dict[str, tuple[list[object], str, Callable[..., Any]]] = {  # arguments, name of the result, the same in Python
    "fill": (
        ["--from", "0:04", "--to", "bar:6"],
        "long_filled.mid",
        lambda *a, **k: midiex.fill(a[0], 4, "bar:6", **k),
    ),
    "insert": (["--at", "bar:6", "-s", "8"], "long_inserted.mid", lambda *a, **k: midiex.insert(a[0], "bar:6", 8, **k)),
    "regenerate": (["--chunk", "2"], "long_chunk2.mid", lambda *a, **k: midiex.regenerate(a[0], 2, **k)),
}


def copied(result: Path, folder: Path) -> Path:
    path = folder / "long.mid"
    path.write_bytes(result.read_bytes())
    return path


@pytest.mark.parametrize("name", EDITS)
def test_edits_name_their_output_and_agree_with_the_library(
    name: str, result: Path, model: Path, tmp_path: Path
) -> None:
    source = copied(result, tmp_path)
    args, out, library = EDITS[name]
    done = run(name, source, *args, "--model", model, "--seed", 7)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["long.mid", out])
    assert re.fullmatch(
        rf".*{out}: \d+\.\d s, new from 0:\d\d\.\d( \([^)]+\))? to 0:\d\d\.\d, bars \d+ to \d+: \d+ notes in "
        r"\d+ chunks, seed 7\n",
        done.stdout,
    )
    library(source, out=tmp_path / "same.mid", model=model, seed=7)
    assert (tmp_path / "same.mid").read_bytes() == (tmp_path / out).read_bytes()
    assert source.read_bytes() == result.read_bytes() != (tmp_path / out).read_bytes()


@pytest.mark.parametrize("name", EDITS)
def test_edits_report_as_json_and_draw(name: str, result: Path, model: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "out.mid", tmp_path / "out.png"
    done = run(name, result, *EDITS[name][0], "--model", model, "--json", "-o", out, "--plot", plot, "--takes", 2)
    assert done.exit_code == 0, done.output
    reports = json.loads(done.stdout)
    assert [Path(r["out"]).name for r in reports] == ["out_1.mid", "out_2.mid"]
    assert reports[0]["score"] <= reports[1]["score"] and reports[0]["seed"] != reports[1]["seed"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out_1.mid", "out_1.png", "out_2.mid", "out_2.png"]
    assert is_png(tmp_path / "out_1.png") and is_png(tmp_path / "out_2.png")
    first, last = reports[0]["bars"]
    assert 1 < first <= last and reports[0]["new_notes"] > 0
    assert reports[0]["seconds"] == pytest.approx(score.read(reports[0]["out"]).length_s, abs=2.1)


def test_fill_may_be_for_some_tracks(model: Path, tmp_path: Path) -> None:
    source, out = type_0_song(tmp_path / "song.mid"), tmp_path / "out.mid"
    done = run(
        "fill", source, "--from", 4, "--to", 8, "--tracks", "bass", "--tracks", "drums", "-o", out, "--model", model
    )
    assert done.exit_code == 0, done.output
    was, now = (notes_in(score.read(path)) for path in (source, out))
    assert {n[1] for n in now - was} <= {1, 9} and now - was


def test_insert_may_be_for_some(model: Path, tmp_path: Path) -> None:
    source, out = type_0_song(tmp_path / "song.mid"), tmp_path / "out.mid"
    done = run("insert", source, "--at", "0:08", "-s", 4, "--only-drums", "-o", out, "--model", model, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["new_from_s"], report["new_to_s"], report["seconds"]) == (8, 12, 20)
    new = {n[1] for n in notes_in(score.read(out)) if 4 * 1920 <= n[3] < 6 * 1920}
    assert new == {9}


def test_regenerate_takes_a_fresh_seed(result: Path, model: Path, tmp_path: Path) -> None:
    source = copied(result, tmp_path)
    done = run("regenerate", source, "--chunk", 1, "--model", model, "--json", "-o", tmp_path / "a.mid")
    assert done.exit_code == 0 and json.loads(done.stdout)["seed"] == 1
    assert edit.fresh_seed(tmp_path / "a.mid") == 2
    (told,) = provenance.notes_in(score.read(tmp_path / "a.mid"))
    assert [seed for _, _, seed in told.chunks] == [1, *[0] * (len(told.chunks) - 1)]


EDITS_REFUSED: dict[str, tuple[list[object], str]] = {  # command, arguments after the song, what is named
    "fill: no length": (["fill", "--from", "bar:4", "--to", "bar:4"], "not one whole bar"),
    "fill: backwards": (["fill", "--from", "bar:6", "--to", "bar:4"], "not one whole bar"),
    "fill: all of it": (["fill", "--from", "0", "--to", "bar:21"], "is all of"),
    "fill: no such place": (["fill", "--from", "verse", "--to", "bar:4"], "'verse' is no place"),
    "fill: behind the end": (["fill", "--from", "bar:4", "--to", "9:00"], "behind its end"),
    "fill: no such track": (["fill", "--from", "bar:4", "--to", "bar:6", "--tracks", "tuba"], "called 'tuba'"),
    "fill: over the input": (["fill", "--from", "bar:4", "--to", "bar:6", "-o", "@long.mid"], "the input itself"),
    "insert: at the beginning": (["insert", "--at", "0"], "no bar before"),
    "insert: at the end": (["insert", "--at", "bar:21"], "none after"),
    "insert: nothing": (["insert", "--at", "bar:4", "-s", "0"], "more than 0"),
    "insert: no number": (["insert", "--at", "bar:4", "-s", "nan"], "nan s cannot be inserted"),
    "insert: nobody plays": (["insert", "--at", "bar:4", "--only-drums"], "left to play"),
    "insert: over the input": (["insert", "--at", "bar:4", "-o", "@long.mid"], "the input itself"),
    "regenerate: no such chunk": (["regenerate", "--chunk", "9"], "new chunks 1 to"),
    "regenerate: the same seed": (["regenerate", "--chunk", "1", "--seed", "0"], "was written with seed 0"),
    "regenerate: the same seed, later": (["regenerate", "--chunk", "1", "--seed", "0", "--takes", "2"], "seed 0"),
    "regenerate: over the input": (["regenerate", "--chunk", "1", "-o", "@long.mid"], "the input itself"),
    "unknown picture": (["insert", "--at", "bar:4", "--plot", "@a.svg"], "a.svg"),
    "missing folder": (["regenerate", "--chunk", "1", "-o", "@none/a.mid"], "no folder"),
    "missing model": (["fill", "--from", "bar:4", "--to", "bar:6", "--model", "@none"], "no model"),
}


@pytest.mark.parametrize("name", EDITS_REFUSED)
def test_edits_refuse_in_one_sentence_and_leave_nothing_behind(
    name: str, result: Path, model: Path, tmp_path: Path
) -> None:
    source = copied(result, tmp_path)
    (command, *args), named = EDITS_REFUSED[name]
    args = [tmp_path / str(a)[1:] if str(a).startswith("@") else a for a in args]
    before = files_under(tmp_path)
    done = run(command, source, "--model", model, *args)
    assert done.exit_code == EXIT_BAD_INPUT, done.output
    assert done.stdout == "" and named in done.stderr
    assert re.fullmatch(r"midiex: [^\n]+[.)]\n", done.stderr), done.stderr
    assert files_under(tmp_path) == before


def test_what_midiex_did_not_write_cannot_be_regenerated(song: Path, model: Path) -> None:
    done = run("regenerate", song, "--chunk", 1, "--model", model)
    assert done.exit_code == EXIT_BAD_INPUT and "does not say which of its chunks midiex wrote" in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["fill", "--from", "4"], ["fill", "--to", "4"], ["insert"], ["regenerate"], ["regenerate", "--chunk", "0"],
        ["regenerate", "--chunk", "two"], ["insert", "--at", "4", "-s", "long"],
        ["insert", "--at", "4", "--takes", "0"], ["fill", "--from", "4", "--to", "8", "--solo", "1"],
    ],
)  # fmt: skip
def test_options_that_are_missing_or_wrong_are_named(args: list[str], song: Path) -> None:
    before = files_under(song.parent)
    done = run(args[0], song, *args[1:])
    assert done.exit_code == EXIT_BAD_INPUT and "Error: " in done.stderr
    assert files_under(song.parent) == before


# ---- what is refused -------------------------------------------------------------------------------------------------


def _without_notes(folder: Path) -> list[object]:
    return [write_midi(folder / "song.mid", [[(0, mido.MetaMessage("lyrics", text="la"))]])]


def _of_bytes(data: Callable[[Path], bytes]) -> Callable[[Path], list[object]]:
    def make(folder: Path) -> list[object]:
        whole = type_0_song(folder / "song.mid")
        whole.write_bytes(data(whole))
        return [whole]

    return make


def _linked(link: Callable[[Path, Path], None]) -> Callable[[Path], list[object]]:
    def make(folder: Path) -> list[object]:
        song, other = riff_song(folder / "song.mid"), folder / "other.mid"
        link(song, other)
        return [song, "-o", other]

    return make


def _song_with(*args: str) -> Callable[[Path], list[object]]:
    """The song and these arguments; `@name` stands for a path in the song's folder."""
    return lambda folder: [riff_song(folder / "song.mid"), *(folder / a[1:] if a[0] == "@" else a for a in args)]


def _taken(folder: Path) -> list[object]:
    return [riff_song(folder / "song_2.mid"), "-o", folder / "song.mid", "--takes", "2"]


REFUSED: dict[str, tuple[Callable[[Path], Sequence[object]], str]] = {  # how to ask, and what the answer must name
    "empty file": (_of_bytes(lambda path: b""), "is empty"),
    "text file": (_of_bytes(lambda path: b"Dear diary,\nno music today.\n"), "not a MIDI file"),
    "truncated file": (_of_bytes(lambda path: path.read_bytes()[:-200]), "cut off"),
    "only a header": (_of_bytes(lambda path: path.read_bytes()[:14]), "cut off"),
    "no notes": (_without_notes, "no notes"),
    "already long enough": (_song_with("-s", "10"), "lasts 14.0 s without new music and 10.0 s were asked for"),
    "no such place": (_song_with("--from", "chorus"), "'chorus' is no place"),
    "a place behind the end": (_song_with("--from", "3:00"), "behind its end"),
    "a bar that is not there": (_song_with("--from", "bar:40"), "bars 1 to 8"),
    "nothing to go on from": (_song_with("--from", "bar:1"), "begin at bar 2 or later"),
    "no such track": (_song_with("--solo", "tuba"), "called 'tuba'"),
    "nobody left to play": (_song_with("--only-drums"), "is left to play"),
    "all are mute": (_song_with("--mute", "0"), "is left to play"),
    "a loop that ends": (_song_with("--loop", "--keep-ending"), "no ending to keep"),
    "an ending that cannot fall there": (
        _song_with("--from", "bar:7", "--keep-ending", "--exact", "-s", "19.1"),
        "about",
    ),
    "no length": (_song_with("-s", "0"), "more than 0"),
    "length is no number": (_song_with("-s", "nan"), "nan"),
    "too long": (_song_with("-s", "99999"), "at most"),
    "missing file": (lambda folder: [folder / "none.mid"], "none.mid"),
    "missing folder": (lambda folder: [folder / "none" / "song.mid"], "There is no file"),
    "a folder": (lambda folder: [folder], "folder"),
    "missing folder for the result": (_song_with("-o", "@none/out.mid"), "no folder"),
    "missing folder for the audio": (_song_with("--audio", "@none/out.ogg"), "no folder"),
    "a folder as the result": (_song_with("-o", "@"), "is a folder"),
    "unknown audio": (_song_with("--audio", "@out.aiff"), "out.aiff"),
    "audio without an extension": (_song_with("--audio", "@out"), "out"),
    "unknown picture": (_song_with("--plot", "@out.jpg"), "out.jpg"),
    "result = input": (_song_with("-o", "@song.mid"), "the input itself"),
    "audio = input": (_song_with("--audio", "@song.mid"), "the input itself"),
    "result = a link to the input": (_linked(lambda song, other: other.symlink_to(song)), "the input itself"),
    "result = the input by another name": (_linked(lambda song, other: other.hardlink_to(song)), "the input itself"),
    "second take = input": (_taken, "the input itself"),
    "missing model": (_song_with("--model", "@none"), "no model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_extend_refuses_in_one_sentence_and_leaves_nothing_behind(name: str, model: Path, tmp_path: Path) -> None:
    make, named = REFUSED[name]
    args = make(tmp_path)
    before = files_under(tmp_path)
    result = run("extend", "--model", model, *args)
    assert result.exit_code == EXIT_BAD_INPUT, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"midiex: [^\n]+[.)]\n", result.stderr), result.stderr
    assert named in result.stderr
    assert files_under(tmp_path) == before


@pytest.mark.parametrize("option", ["-o", "--audio", "--plot"])
def test_a_folder_that_cannot_be_written_is_refused(
    option: str, song: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, access = tmp_path / "locked", os.access
    locked.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and access(path, mode))  # even for root
    before = files_under(tmp_path)
    names = {"-o": "out.mid", "--audio": "out.ogg", "--plot": "out.png"}
    result = run("extend", song, "-s", 24, "--model", model, option, locked / names[option])
    assert result.exit_code == EXIT_BAD_INPUT
    assert re.fullmatch(r"midiex: .*cannot be written[^\n]*\.\n", result.stderr)
    assert files_under(tmp_path) == before


def test_an_interrupted_save_leaves_nothing(
    song: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = files_under(tmp_path)
    monkeypatch.setattr(os, "replace", full_disk)
    result = run("extend", song, "-s", 24, "--model", model)
    assert result.exit_code == EXIT_BAD_INPUT and "No space left" in result.stderr
    assert files_under(tmp_path) == before


@pytest.mark.parametrize("args", [["--seed", "-1"], ["-t", "0"], ["--takes", "0"], ["-s", "soon"], ["--nonsense"]])
def test_options_out_of_range_are_refused(args: list[str], song: Path, model: Path, tmp_path: Path) -> None:
    result = run("extend", song, "--model", model, *args)
    assert result.exit_code == EXIT_BAD_INPUT
    assert "Error: " in result.stderr and args[0] in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["song.mid"]


def test_a_soundfont_that_is_none_is_refused_before_composing(song: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "font.sf2").write_bytes(b"no soundfont at all")
    before = files_under(tmp_path)
    args = ["--audio", tmp_path / "out.ogg", "--soundfont", tmp_path / "font.sf2"]
    result = run("extend", song, "-s", 24, "--model", model, *args)
    assert result.exit_code == EXIT_BAD_INPUT and result.stderr.startswith("midiex: ")
    assert files_under(tmp_path) == before


@pytest.mark.parametrize("name", ["text file", "missing file"])
def test_no_traceback_reaches_the_terminal(name: str, model: Path, tmp_path: Path) -> None:
    args = REFUSED[name][0](tmp_path)
    before = files_under(tmp_path)
    done = python("-m", "midiex", "extend", "--model", model, *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (EXIT_BAD_INPUT, "")
    assert re.fullmatch(r"midiex: [^\n]+\.\n", done.stderr), done.stderr
    assert files_under(tmp_path) == before


# ---- render and info -------------------------------------------------------------------------------------------------


@needs_fluidsynth
def test_render_names_its_output_after_the_song(tmp_path: Path) -> None:
    source = write_midi(tmp_path / "song.mid", [note(0, 480, 60)])
    result = run("render", source, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["audio"] == str(tmp_path / "song.ogg")
    assert report["seconds"] == pytest.approx(soundfile.info(tmp_path / "song.ogg").duration, abs=0.1)


def test_render_reports_what_it_made(song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, ...]] = []
    loudness_lufs = iter((-16.04, -math.inf))

    def stub(*given: object, **_: object) -> RenderInfo:
        made.append(given)
        return RenderInfo(tmp_path / "song.wav", 20.04, next(loudness_lufs), 0.5, 0.1)

    monkeypatch.setattr("midiex.render.render", stub)
    result = run("render", song, tmp_path / "song.wav", "--soundfont", "my.sf2")
    assert result.stdout == f"{tmp_path / 'song.wav'}: 20.0 s at -16.0 LUFS\n"
    assert made == [(song, tmp_path / "song.wav", Path("my.sf2"))]
    silent = run("render", song, "--json")  # silence has no loudness, and JSON no infinity
    assert json.loads(silent.stdout, parse_constant=pytest.fail)["loudness_lufs"] is None


@pytest.mark.parametrize("name", ["empty file", "text file", "truncated file", "no notes", "missing file"])
@pytest.mark.parametrize("command", ["render", "info", "plot"])
def test_other_commands_refuse_bad_files_too(command: str, name: str, tmp_path: Path) -> None:
    make, named = REFUSED[name]
    args = make(tmp_path)
    before = files_under(tmp_path)
    result = run(command, *args)
    assert result.exit_code == EXIT_BAD_INPUT and named in result.stderr
    assert re.fullmatch(r"midiex: [^\n]+\.\n", result.stderr)
    assert files_under(tmp_path) == before


def test_render_refuses_to_overwrite_its_input(song: Path, tmp_path: Path) -> None:
    before = files_under(tmp_path)
    for target in (song, tmp_path / "out.xyz", tmp_path / "none" / "out.ogg"):
        assert run("render", song, target).exit_code == EXIT_BAD_INPUT
    assert files_under(tmp_path) == before


@pytest.mark.parametrize(("flag", "name"), [(None, "long"), ("--structure", "long_structure"), ("--mood", "long_mood")])
def test_plot_names_its_output_after_the_song(flag: str | None, name: str, result: Path, tmp_path: Path) -> None:
    source = copied(result, tmp_path)
    done = run("plot", source, *([flag] if flag else []))
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["long.mid", f"{name}.png"])
    assert is_png(tmp_path / f"{name}.png")
    assert re.fullmatch(rf".*{name}\.png: \d\d\.\d s, \d+ bars\n", done.stdout)


@pytest.mark.parametrize("flags", [[], ["--structure"], ["--mood"]])
def test_plots_tell_new_music_apart(flags: list[str], result: Path, tmp_path: Path) -> None:
    """The same notes with and without midiex's own text give different pictures."""
    midi = mido.MidiFile(result)
    for track in midi.tracks:
        for message in track:
            if message.type == "text":
                message.text = "by hand"
    midi.save(tmp_path / "long.mid")
    pictures = []
    for source, name in ((result, "told.png"), (tmp_path / "long.mid", "untold.png")):
        assert run("plot", source, tmp_path / name, *flags).exit_code == 0
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] != pictures[1]


def test_plot_refuses(song: Path, tmp_path: Path) -> None:
    disguised = tmp_path / "song.png"
    disguised.write_bytes(song.read_bytes())
    before = files_under(tmp_path)
    for args, named in (
        ([song, tmp_path / "out.pdf"], "out.pdf"),
        ([song, tmp_path / "none" / "out.png"], "no folder"),
        ([song, song], "the input itself"),
        ([disguised], "the input itself"),
        ([song, tmp_path], "is a folder"),
        ([song, tmp_path / "other.png", "--structure", "--colour"], "--colour"),
    ):
        done = run("plot", *args)
        assert done.exit_code == EXIT_BAD_INPUT and named in done.stderr, (args, done.output)
    assert files_under(tmp_path) == before


def test_info_as_json(tmp_path: Path) -> None:
    result = run("info", type_0_song(tmp_path / "song.mid"), "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert {"length_s", "bars", "notes", "tempo_bpm", "meter", "instruments", "key", "chunks", "mood"} <= set(found)
    assert (found["length_s"], found["bars"], found["type"]) == (16.0, 8, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["song.mid"]


def test_info_as_text(tmp_path: Path) -> None:
    result = run("info", type_0_song(tmp_path / "song.mid"))
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].endswith("song.mid: 0:16.0, 8 bars, 121 notes, MIDI type 0")
    assert [line.split()[0] for line in lines[1:7]] == ["tempo", "meter", "key", "mood", "form", "ending"]
    assert lines[5].startswith("form    A 1-")
    assert lines[6] == "ending  none that could be told" and lines[7].startswith("chunks  ")
    assert len(lines) == 8 + 4  # electric pianos 1 and 2, bass, drums
    assert "\nending  from bar 8 (held)\n" in run("info", riff_song(tmp_path / "riff.mid")).stdout
    drums = run("info", write_midi(tmp_path / "drums.mid", [note(0, 480, 36, channel=9)]))
    assert "none (drums only)" in drums.stdout


# ---- doctor ----------------------------------------------------------------------------------------------------------

GOOD, BAD = Check("Python", True, "3.11"), Check("weights", False, "not usable", "Reinstall it.")


@pytest.mark.parametrize(("checks", "code"), [([GOOD], 0), ([GOOD, BAD], EXIT_FAILED), ([BAD], EXIT_FAILED)])
def test_doctor_exits_by_what_it_finds(checks: list[Check], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "check", lambda: checks)
    result = run("doctor")
    assert result.exit_code == code
    assert ("BAD  weights: not usable\n     Reinstall it.\n" in result.stdout) == (BAD in checks)
    as_json = run("doctor", "--json")
    assert as_json.exit_code == code
    assert [Check(**one) for one in json.loads(as_json.stdout)] == checks


# ---- prepare and train -----------------------------------------------------------------------------------------------


def test_from_a_folder_of_songs_to_a_song_of_the_trained_model(tmp_path: Path) -> None:
    folder, shards, trained, out = (tmp_path / name for name in ("mine", "shards", "trained", "out.mid"))
    for i in range(4):
        write_song(folder / f"{i}.mid", bars=8, seed=i)
    (folder / "broken.mid").write_bytes(b"MThd")
    (tmp_path / "splits.csv").write_text(
        "source,file,split\n" + "".join(f"mine,{i}.mid,{'valid' if i == 3 else 'train'}\n" for i in range(4))
        + "mine,broken.mid,train\n"
    )  # fmt: skip
    result = run("prepare", folder, "-o", shards, "--splits", tmp_path / "splits.csv", "--jobs", 1)
    assert result.exit_code == 0, result.output
    assert re.search(r"^4 songs, \d+ notes in .*; 1 files skipped\n", result.stdout, re.M)
    assert "broken.mid" in result.stderr
    assert sorted(str(p.relative_to(shards)) for p in shards.rglob("*.*")) == [
        "train/mine.safetensors", "valid/mine.safetensors",
    ]  # fmt: skip

    result = run("train", "--data", shards, "--out", trained, "--config", "tiny", "--notes", 300)
    assert result.exit_code == 0, result.output
    assert re.search(r"mine \d+\.\d+, pooled \d+\.\d+ nats a note", result.stdout)
    assert {"model.safetensors", "config.yaml", "train.csv", "valid.csv"} <= {p.name for p in trained.iterdir()}

    result = run("extend", folder / "0.mid", "-s", 24, "-o", out, "--model", trained, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["seconds"] == 24 and report["new_notes"] > 0
    assert score.read(out).length_s <= 24 + 1e-3


def test_prepare_refuses_and_reports(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mid").write_bytes(b"nothing")
    for folder in ("empty", "none"):
        result = run("prepare", tmp_path / folder, "-o", tmp_path / "shards", "--jobs", 1)
        assert result.exit_code == EXIT_BAD_INPUT and result.stderr.startswith("midiex: ")
    result = run("prepare", tmp_path / "bad", "-o", tmp_path / "shards", "--jobs", 1)
    assert result.exit_code == EXIT_FAILED
    assert "a.mid" in result.stderr and "0 songs" in result.stdout
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize(
    ("args", "named"), [(["--config", "huge"], "huge"), ([], "shards"), (["--config", "tiny", "--lr", "1e9"], "shards")]
)
def test_train_refuses(args: list[str], named: str, tmp_path: Path) -> None:
    result = run("train", "--data", tmp_path / "none", "--out", tmp_path / "out", *args)
    assert result.exit_code == EXIT_BAD_INPUT
    assert re.fullmatch(r"midiex: [^\n]+\.\n", result.stderr) and named in result.stderr
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
