"""What was measured as rows of tables and as sentences, each made of the figures it tells. Draws and writes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .curves import Curve, by_machine
from .recurrence import OWN, TORCHS
from .sizes import NETWORKS, RECURRENT, SCALES

TITLES = {
    "ours": "encoder-decoder transformer (midiex)", "lstm": "LSTM encoder-decoder",
    "lstm_attention": "LSTM encoder-decoder with attention", "gru": "GRU language model",
    "decoder_only": "decoder-only transformer", "remi": "decoder-only over REMI",
    "remi_bpe": "decoder-only over REMI and BPE",
}  # fmt: skip
RIVAL = "lstm_attention"  # whose end midiex's own network is timed to
MISSED = "not reached"
WALL = "wall time, two cores"
UNKNOWN = "not measured"
Rows = list[dict[str, Any]]
Bests = dict[str, tuple[str, str, "str | None"]]  # what: (network, its figure, that of midiex's own)


@dataclass(frozen=True)
class Group:
    """Trainings of midiex's note rows that may be compared: of one size, with echoes and habits or without, and on one
    machine."""

    scale: str
    alone: bool
    cpu: str
    whole: list[Curve]
    short: list[Curve]  # which had less time

    @property
    def title(self) -> str:
        return f"{self.scale}{', without echoes and habits' if self.alone else ''} ({short(self.cpu)})"


def short(cpu: str) -> str:
    """A processor's name without what only its maker says."""
    return cpu.replace("(R)", "").replace("(TM)", "").removesuffix(" Processor")


def groups(trained: Iterable[Curve]) -> list[Group]:
    """Those with echoes and habits first, the smaller first, and of each the machine with most trainings first."""
    trained, found = [one for one in trained if one.network in NETWORKS], []
    for alone in (False, True):
        for scale in SCALES:
            for cpu, own in by_machine(c for c in trained if (c.scale, c.alone) == (scale, alone)).items():
                whole, short = ([one for one in own if one.is_short == is_short] for is_short in (False, True))
                found.append(Group(scale, alone, cpu, whole, short))
    return found


def verdict(compared: Sequence[Group], speed: Rows, memory: Rows, generation: Rows) -> str:
    """What was expected and what came of it; then who is best at what, recurrent networks told apart."""
    lines = [line for group in compared for line in (_raced(group, speed), _in_less_time(group)) if line]
    if told := _memory_ratio(memory):
        lines.append(f"{told} At most half was expected.")
    bests = {**_bests_of_learning(compared), **_bests_of_cost(speed, memory, generation)}
    for what, (best, value, ours) in bests.items():
        mine = "" if best == "ours" or ours is None else f"; midiex's own: {ours}"
        kind = "a recurrent network, the " if best in RECURRENT else ""
        lines.append(f"{what}: {kind}{TITLES[best]} ({value}{mine}).")
    return "## What came of it\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


def _raced(group: Group, speed: Rows) -> str:
    race = {row["network"]: row for row in race_rows(group.whole, speed, group.scale)}
    own = race.get(TITLES["ours"])
    if own is None:
        return ""
    took = own["time of a core"]
    if took == MISSED:
        return (f"At {group.title} midiex's own did not come as far as the {TITLES[RIVAL]} in its time of a core; a "
                "third of it was expected to do.")  # fmt: skip
    wall = "" if own[WALL] == UNKNOWN else f", {own[WALL]} of its wall time on two cores"
    return (f"At {group.title} midiex's own was where the {TITLES[RIVAL]} ended after {took} of its time of a core"
            f"{wall}; at most a third was expected.")  # fmt: skip


def _in_less_time(group: Group) -> str:
    """Trainings whose learning rate fell sooner, beside the rival's that had their whole time."""
    rivals = [one.nats[-1] for one in group.whole if one.network == RIVAL]
    if not (group.short and rivals):
        return ""
    short = sorted(group.short, key=lambda one: (one.network, one.minutes, one.seed))
    ended = ", ".join(f"the {TITLES[one.network]} after {one.minutes:g} at {one.nats[-1]:.3f}" for one in short)
    return (f"Trained for fewer minutes of a core in all, so that the learning rate falls sooner, at {group.title} "
            f"ended {ended}; the {TITLES[RIVAL]} with its whole time at {np.mean(rivals):.3f}.")  # fmt: skip


def _bests_of_learning(compared: Sequence[Group]) -> Bests:
    """Lowest nats a note after little data, and at the end."""
    bests: Bests = {}
    for group in compared:
        kinds = by_network(group.whole)
        if len(kinds) < 2:
            continue
        few = max(one.notes[0] for own in kinds.values() for one in own)
        early = {n: float(np.mean([np.interp(few, one.notes, one.nats) for one in own])) for n, own in kinds.items()}
        late = {n: float(np.mean([one.nats[-1] for one in own])) for n, own in kinds.items()}
        for what, at in ((f"after {few / 1e6:.2f} million notes", early), ("after its time of a core", late)):
            best = min(at, key=at.__getitem__)
            bests[f"Lowest nats a note {what}, {group.title}"] = best, f"{at[best]:.3f}", _told(at.get("ours"), ".3f")
    return bests


def _bests_of_cost(speed: Rows, memory: Rows, generation: Rows) -> Bests:
    """Speeds and memory, at the smaller size."""
    bests: Bests = {}
    seconds = {r["network"]: r["notes/s"] for r in speed
               if (r["scale"], r["threads"], r["kernels"]) == ("3M", 1, OWN)}  # fmt: skip
    most = {r["network"]: r["MB"] for r in memory
            if (r["chunks of context"], r["written"]) == (16, "all") and not isinstance(r["MB"], str)}  # fmt: skip
    longest = _longest(generation)
    took = {name: row["peak_mb"] for name, row in longest.items()}
    pace = {name: row["notes_per_cpu_s"] for name, row in longest.items()}
    for what, at, most_is_best, unit in (
        ("Most notes a second in training, one thread", seconds, True, "notes/s"),
        ("Least memory in training with 16 chunks of context", most, False, "MB"),
        ("Most notes a second of the processor in writing", pace, True, "notes"),
        ("Least memory in writing the longest piece", took, False, "MB"),
    ):
        at = {name: value for name, value in at.items() if name in NETWORKS}
        if len(at) > 1:
            best = (max if most_is_best else min)(at, key=at.__getitem__)
            bests[what] = (best, f"{at[best]:.0f} {unit}", _told(at.get("ours"), ".0f"))
    return bests


def _longest(generation: Rows) -> dict[str, dict[str, Any]]:
    """By network of the smaller size, the row of its longest piece."""
    rows = sorted((r for r in generation if r["run"].endswith("-3M-seed0")), key=lambda r: r["minutes"])
    return {r["run"].removesuffix("-3M-seed0"): r for r in rows}


def _told(value: float | None, how: str) -> str | None:
    return None if value is None else format(value, how)


def by_network(found: Iterable[Curve]) -> dict[str, list[Curve]]:
    kinds: defaultdict[str, list[Curve]] = defaultdict(list)
    for one in found:
        kinds[one.network].append(one)
    return {name: kinds[name] for name in TITLES if name in kinds}


def ends(found: Sequence[Curve], speed: Rows, scale: str) -> Rows:
    """A row a network: where its trainings ended."""
    rows = []
    for name, own in by_network(found).items():
        nats = [one.nats[-1] for one in own]
        deviation = f" ± {np.std(nats, ddof=1):.3f}" if len(own) > 1 else ""
        sizes = {row["parameters"] for row in speed if row["network"] == name and row["scale"] == scale}
        rows.append({
            "network": TITLES[name], "parameters": max(sizes, default=UNKNOWN), "seeds": len(own),
            "nats a note at the end": f"{np.mean(nats):.3f}{deviation}",
            "million notes": f"{np.mean([one.notes[-1] for one in own]) / 1e6:.2f}",
            "minutes of a core": f"{np.mean([one.core_s[-1] for one in own]) / 60:.1f}",
        })  # fmt: skip
    return rows


def race_rows(found: Sequence[Curve], speed: Rows, scale: str) -> Rows:
    """Seed by seed; times of a core and, by the most notes a second that a quiet machine of two cores learned from with
    any number of threads and any kernels, wall time."""
    kinds = by_network(found)
    if RIVAL not in kinds:
        return []
    rivals = {one.seed: one for one in kinds[RIVAL]}
    rates: defaultdict[str, float] = defaultdict(float)
    for r in speed:
        if r["scale"] == scale:
            rates[r["network"]] = max(rates[r["network"]], r["notes/s"])
    rows = []
    for name, own in kinds.items():
        reached = [(one.reached(rivals[one.seed].nats[-1]), rivals[one.seed]) for one in own if one.seed in rivals]
        there = [(at[1] / rival.core_s[-1], at[0] / rival.notes[-1]) for at, rival in reached if at]
        if not there:
            rows.append({"network": TITLES[name], **dict.fromkeys(("time of a core", "notes", WALL), MISSED)})
            continue
        cores, notes = (float(np.mean(column)) for column in zip(*there, strict=True))
        wall = f"{notes * rates[RIVAL] / rates[name]:.2f}" if {RIVAL, name} <= rates.keys() else UNKNOWN
        missed = f" ({len(reached) - len(there)} of {len(reached)} seeds not)" if len(there) < len(reached) else ""
        rows.append({"network": TITLES[name], "time of a core": f"{cores:.2f}{missed}", "notes": f"{notes:.2f}",
                     WALL: wall})  # fmt: skip
    return rows


def by_torchs_kernels(speed: Rows) -> str:
    """What the rival would take longer, had it no kernels of its own."""
    sentences = []
    for scale in ("3M", "12M"):
        at = {(r["network"], r["kernels"]): r["notes/s"] for r in speed if r["scale"] == scale and r["threads"] == 2}
        if {("ours", OWN), (RIVAL, OWN), (RIVAL, TORCHS)} <= at.keys():
            times = [at["ours", OWN] / at[RIVAL, kernels] for kernels in (OWN, TORCHS)]
            sentences.append(f"At {scale} and two threads midiex's own learns from {times[0]:.2f} times the notes a "
                             f"second of the {TITLES[RIVAL]}, and from {times[1]:.2f} times those that it learns from "
                             "by the kernels torch brings, as a project that begins with an LSTM would.")  # fmt: skip
    return " ".join(sentences)


def spread(rows: Rows) -> Rows:
    """Memory as a table: a row a network and way, a column a length of context."""
    chunks = sorted({row["chunks of context"] for row in rows})
    wide = []
    for written in ("all", "last"):
        for name in TITLES:
            own = {r["chunks of context"]: r["MB"] for r in rows if r["network"] == name and r["written"] == written}
            cells = {f"{n} chunk{'s' * (n > 1)}, MB": own[n] if isinstance(own[n], str) else f"{own[n]:.0f}"
                     for n in chunks if n in own}  # fmt: skip
            if cells:
                wide.append({"network": TITLES[name], "written": written, **cells})
    return wide


def _memory_ratio(rows: Rows) -> str:
    sentences = []
    for written in ("all", "last"):
        at = {r["network"]: r["MB"] for r in rows if r["chunks of context"] == 16 and r["written"] == written}
        if {"ours", RIVAL} <= at.keys() and not any(isinstance(at[n], str) for n in ("ours", RIVAL)):
            sentences.append(f"With 16 chunks of context and {written} written midiex's own takes "
                             f"{at['ours'] / at[RIVAL]:.2f} times what the {TITLES[RIVAL]} takes.")  # fmt: skip
    return " ".join(sentences)
