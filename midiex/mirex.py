"""The piano continuation task of MIREX 2025: its prompts in, continuations of them out, both as JSON.

All is 4/4 in steps of a sixteenth. A prompt is {"prompt": [{"start": 16, "pitch": 72, "duration": 6}, ...]}, a pickup
bar (steps 0-15, may be empty) and four bars (16-79); its continuation is {"generation": [...]}, twelve bars (80-271).
See the task's page, "2025:Symbolic Music Generation" in the MIREX wiki. It asks for "a complete 16-measure piece", so
the last bar ends the music as midiex ends any song. Knows the format and how to begin a passage; knows no tokens and
no ranking.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import mido
import numpy as np

from .checkpoint import write_whole
from .errors import BadInput
from .extend import Model, Passage
from .extend import start as start_passage
from .outline import FLAT

START, PITCH, DURATION = range(3)
FIELDS = ("start", "pitch", "duration")  # as in the files
STEPS_PER_BAR, STEPS_PER_BEAT = 16, 4
PROMPT_STEPS = 5 * STEPS_PER_BAR
PIECE_STEPS = 17 * STEPS_PER_BAR
LEAST = (0, 0, 1)  # of each field, in prompts
MOST = (PROMPT_STEPS - 1, 127, PIECE_STEPS)

MAX_FILE_BYTES = 2**20  # every key struck at every step, indented, takes less
TICKS_PER_STEP = 24
VELOCITY = 80
MIN_BPM, MAX_BPM = 20.0, 300.0


# ---- files ----------------------------------------------------------------------------------------------------------


def read_prompt(path: str | PathLike[str]) -> np.ndarray:
    """Notes (n, 3) int64 of a prompt, n >= 1: start, pitch and duration, sorted by start, then pitch.

    Of notes that agree in start and pitch the longest is kept; a note is cut where its pitch is struck again and where
    the prompt ends. Whatever else the file says is ignored.

    Raises BadInput for a file that cannot be read, is too large or is not a prompt.
    """
    path = Path(path)
    data = _parsed(path)
    listed = data.get("prompt") if isinstance(data, dict) else None
    if not isinstance(listed, list):
        found = f"{_shown(data)} was found" if not isinstance(data, dict) else "that key holds none"
        _refuse(path, f"must hold a list of notes under the key 'prompt', but {found}")
    if not listed:
        _refuse(path, "holds no notes, and there is nothing to go on from")
    return _tidy(np.array([_note(path, number, note) for number, note in enumerate(listed, 1)]), PROMPT_STEPS)


def _parsed(path: Path) -> Any:
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path} is no file; give a prompt as JSON.")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); give a prompt as JSON.") from None
    if len(data) > MAX_FILE_BYTES:
        raise BadInput(f"{path} is larger than {MAX_FILE_BYTES // 2**20} MiB, which no prompt is; give one as JSON.")
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant)
    except RecursionError:
        _refuse(path, "is nested too deeply")
    except ValueError as error:  # of the text's coding as well, and of numbers with thousands of digits
        _refuse(path, f"is not readable as JSON ({str(error)[:80]})")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _note(path: Path, number: int, note: Any) -> tuple[int, ...]:
    """The three numbers of one note."""
    if not isinstance(note, dict):
        _refuse(path, f"has as note {number} {_shown(note)}")
    for name, least, most in zip(FIELDS, LEAST, MOST, strict=True):
        value = note.get(name)
        if type(value) is not int or not least <= value <= most:  # True is an int too
            found = _shown(value) if name in note else "missing"
            _refuse(path, f"has a note, number {number}, whose {name} is {found} and not a whole number {least}-{most}")
    return tuple(note[name] for name in FIELDS)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _refuse(path: Path, fault: str) -> NoReturn:
    example = '{"prompt": [{"start": 16, "pitch": 72, "duration": 6}, ...]}'
    raise BadInput(f"{path} {fault}; give a prompt such as {example}.")


def write_generation(path: str | PathLike[str], notes: np.ndarray) -> Path:
    """Write notes (n, 3) as a continuation; whole or not at all."""
    rows = [dict(zip(FIELDS, map(int, note), strict=True)) for note in notes]
    write_whole(Path(path), (json.dumps({"generation": rows}, indent=2) + "\n").encode())
    return Path(path)


# ---- notes ----------------------------------------------------------------------------------------------------------


def _tidy(notes: np.ndarray, end_step: int) -> np.ndarray:
    """Notes (n', 3) sorted by start, then pitch: none twice, none ringing on past `end_step` or its own next stroke.

    All must start before `end_step`.
    """
    notes = notes[np.lexsort((-notes[:, DURATION], notes[:, START], notes[:, PITCH]))]
    notes = notes[np.unique(notes[:, PITCH] * PIECE_STEPS + notes[:, START], return_index=True)[1]]
    start, pitch, duration = notes.T
    last = np.append(pitch[1:] != pitch[:-1], True)[: len(notes)]  # of its pitch
    until = np.where(last, end_step, np.roll(start, -1))
    notes = np.stack([start, pitch, np.minimum(duration, until - start)], 1)
    return notes[np.lexsort((notes[:, PITCH], notes[:, START]))]


def as_midi(notes: np.ndarray, bpm: float = 120.0) -> mido.MidiFile:
    """Notes (n, 3) on one piano in 4/4, all equally loud."""
    events = [
        (0, mido.MetaMessage("track_name", name="Piano")),
        (0, mido.MetaMessage("time_signature", numerator=4, denominator=4)),
        (0, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm))),
        (0, mido.Message("program_change", program=0)),
    ]
    strokes = [
        (step, kind, int(pitch))
        for start, pitch, duration in notes
        for step, kind in ((start, "note_on"), (start + duration, "note_off"))
    ]
    for step, kind, pitch in sorted(strokes):  # "note_off" before "note_on"
        events.append((int(step) * TICKS_PER_STEP, mido.Message(kind, note=pitch, velocity=VELOCITY)))
    track, at = mido.MidiTrack(), 0
    for tick, message in events:
        track.append(message.copy(time=tick - at))
        at = tick
    return mido.MidiFile(type=1, ticks_per_beat=STEPS_PER_BEAT * TICKS_PER_STEP, tracks=[track])


# ---- continuing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Take:
    """One continuation of a prompt on its way: iterate `passage.chunks()` to the end, then take `notes()`."""

    passage: Passage
    first_step: int  # of the prompt at which the passage's song begins

    def notes(self) -> np.ndarray:
        """What was written, on the grid, inside the twelve bars; (n, 3) int64, sorted by start, then pitch."""
        new = self.passage.new_notes()
        start, duration = (_to_steps(ticks) for ticks in (new.start_ticks, new.duration_ticks))
        notes = np.stack([start + self.first_step, new.pitch, np.maximum(duration, 1)], 1).astype(np.int64)
        inside = (notes[:, START] >= PROMPT_STEPS) & (notes[:, START] < PIECE_STEPS)
        return _tidy(notes[inside], PIECE_STEPS)


def _to_steps(ticks: np.ndarray) -> np.ndarray:
    return (ticks + TICKS_PER_STEP // 2) // TICKS_PER_STEP


def start(
    prompt: np.ndarray,
    *,
    bpm: float = 120.0,
    model: Model | str | PathLike[str] | None = None,
    seed: int = 0,
    candidates: int | None = None,
) -> Take:
    """Begin a continuation of a prompt (n, 3), n >= 1, as read by `read_prompt`; other options as of `extend.start`.

    The song that is continued is the four bars, from the first that has a note. The pickup is heard only where nothing
    else is: a bar so sparse, cut as a chunk of its own, would halve the density that the song seems to have. Bars at
    the prompt's end in which no note begins are written too, for what follows to follow from, and left out of the
    result.

    Raises BadInput for a value that cannot be used.
    """
    if not MIN_BPM <= bpm <= MAX_BPM:
        raise BadInput(f"A tempo of {bpm:g} beats a minute is none; give {MIN_BPM:g} to {MAX_BPM:g}.")
    after_pickup = prompt[:, START] >= STEPS_PER_BAR
    heard = prompt[after_pickup] if after_pickup.any() else prompt
    first_step = int(heard[:, START].min()) // STEPS_PER_BAR * STEPS_PER_BAR
    midi = as_midi(heard - [first_step, 0, 0], bpm)
    beats = (PIECE_STEPS - first_step) / STEPS_PER_BEAT
    seconds = (beats + 2) * 60 / bpm  # half a bar more, lest one too few fit
    with TemporaryDirectory() as folder:
        path = Path(folder) / "prompt.mid"
        midi.save(path)
        passage = start_passage(path, seconds, begin="end", model=model, seed=seed, candidates=candidates, form=FLAT)
    return Take(passage, first_step)
