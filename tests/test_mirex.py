"""The MIREX task: its prompts read or refused, twelve bars on the grid out of them, the same each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from songs import save_talkative

from midiex import mirex, score
from midiex.cli import EXIT_BAD_INPUT, main
from midiex.errors import BadInput
from midiex.extend import Model, load
from midiex.mirex import DURATION, MAX_FILE_BYTES, PIECE_STEPS, PITCH, PROMPT_STEPS, START

ROOTS = (48, 53, 55, 48)
MELODY = ((72, 76, 79, 76), (77, 81, 77, 74), (79, 77, 74, 71), (72, 76, 72, 67))
FIRST = {"start": 16, "pitch": 72, "duration": 6}


def notes_of_a_tune() -> list[dict[str, int]]:
    """A pickup of two notes and four bars: a melody in quarters over broken chords in eighths."""
    notes = [(12, 67, 2), (14, 71, 2)]
    for bar, (root, melody) in enumerate(zip(ROOTS, MELODY, strict=True)):
        at = 16 * (bar + 1)
        notes += [(at + 4 * i, pitch, 4) for i, pitch in enumerate(melody)]
        notes += [(at + 2 * i, root + (0, 7, 4, 7)[i % 4], 2) for i in range(8)]
    return [dict(zip(mirex.FIELDS, note, strict=True)) for note in notes]


def written(path: Path, data: Any) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


def prompt_of(folder: Path, *notes: tuple[int, int, int]) -> np.ndarray:
    listed = [dict(zip(mirex.FIELDS, note, strict=True)) for note in notes]
    return mirex.read_prompt(written(folder / "some.json", {"prompt": listed}))


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["mirex", *(str(arg) for arg in args)], prog_name="midiex")


def generation_in(path: Path) -> np.ndarray:
    data = json.loads(path.read_bytes())
    assert set(data) == {"generation"}
    assert all(list(note) == list(mirex.FIELDS) and all(type(v) is int for v in note.values())
               for note in data["generation"])  # fmt: skip
    return np.array([list(note.values()) for note in data["generation"]])


def check_generation(notes: np.ndarray) -> None:
    """In range, none twice, in order, no key struck while it is down."""
    assert notes[:, START].min() >= PROMPT_STEPS
    assert notes[:, DURATION].min() >= 1
    assert (notes[:, START] + notes[:, DURATION]).max() <= PIECE_STEPS
    assert notes[:, PITCH].min() >= 0 and notes[:, PITCH].max() <= 127
    strokes = notes[:, [START, PITCH]].tolist()
    assert sorted(strokes) == strokes and len({tuple(stroke) for stroke in strokes}) == len(strokes)
    for pitch in np.unique(notes[:, PITCH]):
        mine = notes[notes[:, PITCH] == pitch]
        assert (mine[:-1, START] + mine[:-1, DURATION] <= mine[1:, START]).all()


def finished(take: mirex.Take) -> np.ndarray:
    for _ in take.passage.chunks():
        pass
    return take.notes()


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_talkative(tmp_path_factory.mktemp("models") / "talkative")


@pytest.fixture(scope="module")
def tiny(talkative: Path) -> Model:
    return load(talkative)


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    return written(tmp_path / "prompt.json", {"prompt": notes_of_a_tune()})


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_a_prompt_is_read_sorted_and_whatever_else_it_says_is_ignored(tmp_path: Path) -> None:
    notes = [{"start": 20, "pitch": 60, "duration": 4, "velocity": 3}, {"start": 16, "pitch": 72, "duration": 6}]
    path = written(tmp_path / "p.json", b"\xef\xbb\xbf" + json.dumps({"title": "x", "prompt": notes}).encode())
    assert mirex.read_prompt(path).tolist() == [[16, 72, 6], [20, 60, 4]]


def test_doubled_notes_and_those_that_ring_too_long_are_cut(tmp_path: Path) -> None:
    read = prompt_of(tmp_path, (16, 60, 2), (16, 60, 9), (20, 60, 4), (70, 64, 30), (79, 0, 272), (16, 61, 9))
    assert read.tolist() == [[16, 60, 4], [16, 61, 9], [20, 60, 4], [70, 64, 10], [79, 0, 1]]


def test_a_full_prompt_fits_into_the_size_limit(tmp_path: Path) -> None:
    notes = [{"start": s, "pitch": p, "duration": 1} for s in range(PROMPT_STEPS) for p in range(128)]
    path = tmp_path / "full.json"
    path.write_text(json.dumps({"prompt": notes}, indent=2))
    assert len(mirex.read_prompt(path)) == PROMPT_STEPS * 128


HOSTILE = {
    "nothing": b"",
    "no JSON": b"MThd\x00\x00\x00\x06",
    "no text": b'{"prompt": "\xff\xfe"}',
    "cut off": b'{"prompt": [{"start": 16, "pi',
    "NaN": b'{"prompt": [{"start": NaN, "pitch": 60, "duration": 1}]}',
    "infinite": b'{"prompt": [{"start": 16, "pitch": 60, "duration": -Infinity}]}',
    "beyond floats": b'{"prompt": [{"start": 1e999, "pitch": 60, "duration": 1}]}',
    "endless number": b'{"prompt": [{"start": ' + b"9" * 100_000 + b', "pitch": 60, "duration": 1}]}',
    "big number": b'{"prompt": [{"start": ' + b"9" * 4000 + b', "pitch": 60, "duration": 1}]}',
    "nested lists": b"[" * 200_000,
    "nested keys": b'{"prompt":' * 50_000,
    "too large": b'{"prompt": [' + b" " * MAX_FILE_BYTES + b"]}",
    "list": [FIRST],
    "no prompt": {"generation": [FIRST]},
    "prompt is no list": {"prompt": FIRST},
    "null": None,
    "empty": {"prompt": []},
    "note is a list": {"prompt": [[16, 72, 6]]},
    "note is null": {"prompt": [None]},
    "note lacks a field": {"prompt": [FIRST, {"start": 16, "pitch": 72}]},
    **{
        f"{name} is {value!r}": {"prompt": [FIRST, FIRST | {name: value}]}
        for name, values in {
            "start": (-1, PROMPT_STEPS, 16.0, "16", True, None, [16], {}),
            "pitch": (-1, 128, 60.5, "C4", False),
            "duration": (0, -4, PIECE_STEPS + 1, 2**70, 1.0),
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_prompt_is_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path / "odd.json", HOSTILE[kind])
    with pytest.raises(BadInput) as error:
        mirex.read_prompt(path)
    message = str(error.value)
    assert message.startswith(str(path)) and len(message) < len(str(path)) + 250 and "\n" not in message


def test_the_error_names_the_note(tmp_path: Path) -> None:
    path = written(tmp_path / "odd.json", {"prompt": [FIRST, FIRST | {"pitch": 128}]})
    with pytest.raises(BadInput, match=r"number 2, whose pitch is 128 and not a whole number 0-127"):
        mirex.read_prompt(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(BadInput):
            mirex.read_prompt(path)


# ---- notes -----------------------------------------------------------------------------------------------------------

note_lists = st.lists(
    st.tuples(st.integers(0, PROMPT_STEPS - 1), st.integers(0, 127), st.integers(1, PIECE_STEPS)), min_size=1
)


@given(note_lists)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_prompt_comes_back_from_its_midi(tmp_path: Path, listed: list[tuple[int, int, int]]) -> None:
    notes = prompt_of(tmp_path, *listed)
    assert {(s, p) for s, p, _ in listed} == {(s, p) for s, p, _ in notes.tolist()}
    mirex.as_midi(notes).save(tmp_path / "some.mid")
    song = score.read(tmp_path / "some.mid")
    assert len(song.voices) == 1 and song.voices[0].program == 0 and not song.voices[0].is_drum
    per_step = song.score.tpq // 4
    sounding = [(n.time / per_step, n.pitch, n.duration / per_step) for n in song.score.tracks[0].notes]
    assert sorted(sounding) == sorted(map(tuple, notes.tolist()))


# ---- continuing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "notes",
    [
        [(79, 60, 1)],
        [(0, 60, 272)],
        [(16, 40, 4), (17, 0, 1), (18, 127, 1)],
        [(16, 60, 64), (16, 64, 64), (16, 67, 64)],
        [(s, 48 + s % 12, 3) for s in range(0, 80, 3)],
    ],
    ids=["last step", "pickup only", "first bar only", "one held chord", "dotted"],
)
def test_every_prompt_gives_twelve_bars_from_step_80(
    notes: list[tuple[int, int, int]], tiny: Model, tmp_path: Path
) -> None:
    take = mirex.start(prompt_of(tmp_path, *notes), model=tiny, candidates=1)
    assert take.first_step + take.passage.line.grid.ticks[-1] // mirex.TICKS_PER_STEP == PIECE_STEPS
    new = finished(take)
    check_generation(new)
    assert new[:, START].max() >= PIECE_STEPS - 16


@pytest.mark.parametrize("bpm", [20, 60, 97.3, 300])
def test_at_any_tempo_twelve_bars_are_begun(bpm: float, tiny: Model, prompt: Path) -> None:
    take = mirex.start(mirex.read_prompt(prompt), bpm=bpm, model=tiny, candidates=1)
    assert take.passage.line.new == 12
    assert take.passage.end_s == pytest.approx(16 * 240 / bpm, rel=1e-4)


def test_the_pickup_is_left_out_of_what_is_heard(tiny: Model, prompt: Path, tmp_path: Path) -> None:
    with_pickup = mirex.read_prompt(prompt)
    without = with_pickup[with_pickup[:, START] >= 16]
    heard = [mirex.start(notes, model=tiny).passage.song for notes in (with_pickup, without)]
    assert len(without) == len(with_pickup) - 2
    assert heard[0].n_notes == heard[1].n_notes == len(without)


@pytest.mark.parametrize("bpm", [0, -1, 19.9, 301, float("nan"), float("inf")])
def test_tempi_that_are_none_are_refused(bpm: float, tiny: Model, prompt: Path) -> None:
    with pytest.raises(BadInput, match="beats a minute"):
        mirex.start(mirex.read_prompt(prompt), bpm=bpm, model=tiny)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_best_take_is_written_and_the_same_bytes_again(talkative: Path, prompt: Path, tmp_path: Path) -> None:
    first, usual = tmp_path / "first.json", tmp_path / "prompt_generation.json"
    chosen = ("--model", talkative, "--takes", 2, "--candidates", 1, "--seed", 5)
    done = run(prompt, "-o", first, "--json", *chosen)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    scores = {take["seed"]: take["score"] for take in report["takes"]}
    assert set(scores) == {5, 6} and scores[5] != scores[6]
    assert report["seed"] == min(scores, key=lambda seed: scores[seed]) and report["score"] == min(scores.values())
    notes = generation_in(first)
    assert report["notes"] == len(notes)
    check_generation(notes)
    again = run(prompt, *chosen)
    assert again.exit_code == 0
    assert again.stdout.startswith(f"{usual}: {len(notes)} notes in 12 bars, seed {report['seed']}, the best of 2")
    assert usual.read_bytes() == first.read_bytes()


@pytest.mark.parametrize(
    ("data", "args"),
    [
        (b"[" * 100_000, ()),
        ({"prompt": [FIRST | {"start": 80}]}, ()),
        ({"prompt": [FIRST]}, ("--bpm", "nan")),
        ({"prompt": [FIRST]}, ("--model", "no such folder")),
        ({"prompt": [FIRST]}, ("--takes", "0")),
        ({"prompt": [FIRST]}, ("-o", "missing/out.json")),
    ],
    ids=["nested", "outside", "bpm", "model", "takes", "out"],
)
def test_an_error_leaves_nothing_behind(data: Any, args: tuple[str, ...], tmp_path: Path) -> None:
    path = written(tmp_path / "p.json", data)
    done = run(path, *args)
    assert done.exit_code == EXIT_BAD_INPUT and "Traceback" not in done.output
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]


def test_the_prompt_is_never_overwritten(prompt: Path) -> None:
    before = prompt.read_bytes()
    assert run(prompt, "-o", prompt).exit_code == EXIT_BAD_INPUT
    assert prompt.read_bytes() == before


def test_the_shipped_model_continues_a_tune(prompt: Path, tmp_path: Path) -> None:
    done = run(prompt, "-o", tmp_path / "out.json", "--takes", 1, "--candidates", 3)
    assert done.exit_code == 0, done.output
    notes = generation_in(tmp_path / "out.json")
    check_generation(notes)
    for first in range(PROMPT_STEPS, PIECE_STEPS, 64):
        assert ((notes[:, START] >= first) & (notes[:, START] < first + 64)).sum() >= 8
    white = np.isin(notes[:, PITCH] % 12, (0, 2, 4, 5, 7, 9, 11)).mean()
    assert white > 0.8  # the tune is in C
