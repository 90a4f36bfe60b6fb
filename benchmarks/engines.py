"""Does eight bits harm? Nats a note of real music under the decoder in torch and in ONNX Runtime, and what each writes.

    python benchmarks/engines.py FOLDER… [--splits splits.csv] [--split valid] [--songs 50] [--model FOLDER]

Each song is cut where `midiex extend` would go on from its first half minute; its own next chunk is fed note by note to
both engines, which must foresee it from the same memory. "greedy" counts the chunks in which both engines, asked at
every step of the true chunk for the likeliest value of every field, name the same ones throughout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import report
from tqdm import tqdm

from midiex import score
from midiex.choices import Choices, told_more
from midiex.constraints import Grammar
from midiex.decoding import Task, stepper_for
from midiex.echoes import ECHOES, NO_SOURCE, NOTHING, Listener
from midiex.errors import MidiexError
from midiex.evaluation.excerpts import example, whole
from midiex.evaluation.run import songs_of
from midiex.extend import Model, load
from midiex.habits import Habits
from midiex.planner import Bars, Plan, Planner
from midiex.stepper import Memory
from midiex.tokens import BAR, HEAD_ORDER, POSITION, moved

ENGINES = ("torch", "onnx")


def coming(path: Path, model: Model) -> tuple[Task, Memory, np.ndarray] | None:
    """What would be written after the first half minute of a song, and what stands there, (n, 8)."""
    try:
        song = score.read(path)
        cut = example("", song)
    except MidiexError:
        return None
    if cut is None:
        return None
    music, seam = whole(song), cut.seam_bar
    rows = music.rows[music.rows[:, BAR] < seam]
    bars = Bars(music.bar_beats, music.bar_s)
    none = rows[:0]
    plan = Plan(bars, seam, len(bars.beats) - seam, rows, none, none, Grammar.of(rows, seam), "open")
    planner = Planner(model.network, model.config.memory, plan)
    step = planner.next_task()
    if step is None:
        return None
    task, memory = step
    inside = (music.rows[:, BAR] >= seam) & (music.rows[:, BAR] < seam + len(task.bar_positions))
    return task, memory, moved(music.rows[inside], -seam)


@torch.inference_mode()
def foresee(engine: str, model: Model, task: Task, memory: Memory, rows: np.ndarray) -> tuple[float, np.ndarray]:
    """Nats of all decisions of the chunk, and the likeliest value of each, (decisions,)."""
    network = model.network
    stepper = stepper_for(engine, network, memory, task, 1, len(rows))
    choices = Choices(network.heads, task.recalled)
    growing, listener = Habits(task.recalled.habits), Listener(task.heard)
    nats, likeliest = 0.0, []

    def decide(head: int, states: np.ndarray, told: dict, value: int, bar: int = -1) -> np.ndarray:
        """The states once this value is chosen."""
        nonlocal nats
        p = choices.p(head, states, [told], np.array([bar]) if bar >= 0 else None)[0]
        nats -= float(np.log(p[value]))
        likeliest.append(int(p.argmax()))
        return choices.after(head, np.array([value]), states)

    previous: np.ndarray | None = None
    onset: np.ndarray | None = None
    for number in range(len(rows) + 1):
        place = (0, 0) if onset is None else (int(onset[0, 0]) + task.first_bar, int(onset[0, 1]))
        heard = [*listener.expect(*place), *NO_SOURCE] if onset is not None else nothing()
        states = stepper.step(previous, onset, np.array([heard]))
        if onset is not None:
            note = rows[number - 1 : number].astype(np.int64)
            told = [growing.coming(*place)]
            for head, name in enumerate(HEAD_ORDER[:-2]):
                states = decide(head, states, told[0], int(note[0, name]))
                told = told_more([growing], told, name, note)
            absolute = (note[0, BAR] + task.first_bar, *note[0, 1:])
            listener.hear(absolute)
            growing.hear(absolute, count=False)
            previous = note
        if number == len(rows):
            break
        head, (bar, position) = len(HEAD_ORDER) - 2, rows[number, [BAR, POSITION]].tolist()
        before = rows[number - 1, BAR] if number else -1
        states = decide(head, states, growing.behind() if number else {}, bar, before)
        decide(head + 1, states, growing.behind(bar + task.first_bar) if number else {}, position)
        onset = rows[number : number + 1, [BAR, POSITION]].astype(np.int64)
    return nats, np.array(likeliest)


def nothing() -> list[tuple[int, ...]]:
    """The echoes of a step that writes no note."""
    return [tuple(NOTHING.tolist())] * ECHOES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--splits", type=Path)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--songs", type=int, default=50)
    parser.add_argument("--model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.model)
    by_source = songs_of(args.folders, args.splits, args.split)
    most = max(map(len, by_source.values()))
    paths = [p[k] for k in range(most) for p in by_source.values() if k < len(p)]  # the sources in turn
    nats = dict.fromkeys(ENGINES, 0.0)
    notes = chunks = same = decisions = agreed = 0
    with tqdm(total=args.songs, leave=False) as bar:
        for path in paths:
            found = coming(path, model)
            if found is None or not len(found[2]):
                continue
            task, memory, rows = found
            told = {engine: foresee(engine, model, task, memory, rows) for engine in ENGINES}
            for engine in ENGINES:
                nats[engine] += told[engine][0]
            alike = told["torch"][1] == told["onnx"][1]
            notes, chunks, same = notes + len(rows), chunks + 1, same + bool(alike.all())
            decisions, agreed = decisions + len(alike), agreed + int(alike.sum())
            bar.update()
            if chunks == args.songs:
                break
    per_note = {engine: nats[engine] / notes for engine in ENGINES}
    rows = [{"engine": e, "nats a note": f"{n:.4f}", "more than torch": f"{n / per_note['torch'] - 1:.3%}"}
            for e, n in per_note.items()]  # fmt: skip
    facts = {"chunks": chunks, "notes": notes, "greedy": same, "decisions": decisions, "alike": agreed}
    report("engines", rows, model=model.fingerprint, **facts)
    print(
        f"{chunks} chunks, {notes} notes; likeliest values agree in {same} chunks, in {agreed / decisions:.2%} of "
        f"{decisions} decisions"
    )


if __name__ == "__main__":
    main()
