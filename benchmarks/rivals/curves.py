"""What trainings left in their folders, as curves: nats a note on validation by notes seen and by time of a core.

Time is that of training alone: what validating and saving took is left out. A core of one machine is not that of
another, so curves say where they are from. Knows files; draws nothing.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from midiex.train import LOG_FILE, VALID_FILE

from .training import RUN_FILE, usual_minutes

REMI_DROPS = ("micro", "instance")


@dataclass(frozen=True)
class Curve:
    """One training. Three lists of one length."""

    network: str
    scale: str
    seed: int
    alone: bool
    minutes: float  # of a core, validation included, that it was given
    cpu: str
    notes: list[int]
    core_s: list[float]
    nats: list[float]  # a note, sources weighing alike
    as_remi: float | None = None  # nats a note at the end of what REMI tells as well, where that can be told

    @property
    def training(self) -> tuple[str, str, int, bool, float, str]:
        """Which one it is."""
        return self.network, self.scale, self.seed, self.alone, self.minutes, self.cpu

    @property
    def is_short(self) -> bool:
        """Was it given less time than others of its kind?"""
        return self.minutes < usual_minutes(self.scale, self.alone)

    def reached(self, nats: float) -> tuple[float, float] | None:
        """Notes and core seconds at which the curve first was as low, by straight lines; None: it never was."""
        for i, value in enumerate(self.nats):
            if value <= nats:
                if i == 0:
                    return float(self.notes[0]), self.core_s[0]
                share = (self.nats[i - 1] - nats) / (self.nats[i - 1] - value)
                at = [before + share * (after - before) for before, after in
                      ((self.notes[i - 1], self.notes[i]), (self.core_s[i - 1], self.core_s[i]))]  # fmt: skip
                return at[0], at[1]
        return None


def curve(folder: Path) -> Curve:
    """Of the training in a folder, as far as it has come."""
    return _curve(folder, _columns(folder / LOG_FILE))


def finished(runs: Path) -> list[tuple[Path, Curve]]:
    """All trainings under a folder that came to their end, those of the search aside."""
    found = []
    for folder in sorted(path.parent for path in runs.glob(f"*/{VALID_FILE}")):
        logged = _columns(folder / LOG_FILE)
        one = _curve(folder, logged)
        if logged["wall_s"][-1] >= 60 * one.minutes:
            found.append((folder, one))
    return found


def by_machine(found: Iterable[Curve]) -> dict[str, list[Curve]]:
    """Curves by where they are from, the machine with most of them first."""
    found = list(found)
    return {cpu: [one for one in found if one.cpu == cpu] for cpu, _ in Counter(c.cpu for c in found).most_common()}


def _curve(folder: Path, logged: dict[str, np.ndarray]) -> Curve:
    run = json.loads((folder / RUN_FILE).read_text())
    took_s = np.diff(logged["notes"], prepend=0) / logged["notes_per_s"]
    valid: defaultdict[int, list[dict[str, str]]] = defaultdict(list)
    with (folder / VALID_FILE).open() as file:
        for row in csv.DictReader(file):
            valid[int(row["step"])].append(row)
    steps, before = sorted(valid), np.append(0, logged["step"])
    nats = [_mean(valid[step], "all") for step in steps]
    last = valid[steps[-1]]
    dropped = [_mean(last, field) for field in REMI_DROPS if field in last[0]]
    notes = np.interp(steps, before, np.append(0, logged["notes"]))
    core_s = np.interp(steps, before, np.append(0, np.cumsum(took_s)))
    return Curve(
        run["name"], run["scale"], run["seed"], run["alone"], run["minutes"], run["cpu"], notes.astype(int).tolist(),
        core_s.round(1).tolist(), [round(value, 4) for value in nats],
        round(nats[-1] - sum(dropped), 4) if dropped else None,
    )  # fmt: skip


def _mean(rows: list[dict[str, str]], name: str) -> float:
    return float(np.mean([float(row[name]) for row in rows]))


def _columns(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
