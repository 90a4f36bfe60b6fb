"""What trainings left in their folders, as curves: nats a note on validation by notes seen and by time of a core.

Time is that of training alone: what validating and saving took is left out. Knows files; draws nothing.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from midiex.train import LOG_FILE, VALID_FILE

from .training import RUN_FILE, usual_minutes


@dataclass(frozen=True)
class Curve:
    """One training. Three lists of one length."""

    network: str
    scale: str
    seed: int
    alone: bool
    minutes: float  # of a core, validation included, that it was given
    notes: list[int]
    core_s: list[float]
    nats: list[float]  # a note, sources weighing alike

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
    run = json.loads((folder / RUN_FILE).read_text())
    logged = _columns(folder / LOG_FILE)
    took_s = np.diff(logged["notes"], prepend=0) / logged["notes_per_s"]
    valid: defaultdict[int, list[float]] = defaultdict(list)
    with (folder / VALID_FILE).open() as file:
        for row in csv.DictReader(file):
            valid[int(row["step"])].append(float(row["all"]))
    steps, before = sorted(valid), np.append(0, logged["step"])
    notes = np.interp(steps, before, np.append(0, logged["notes"]))
    core_s = np.interp(steps, before, np.append(0, np.cumsum(took_s)))
    return Curve(
        run["name"], run["scale"], run["seed"], run["alone"], run["minutes"], notes.astype(int).tolist(),
        core_s.round(1).tolist(), [round(float(np.mean(valid[step])), 4) for step in steps],
    )  # fmt: skip


def curves(runs: Path) -> list[dict[str, Any]]:
    """Of all trainings under a folder that came to their end, those of the search aside."""
    folders = sorted(path.parent for path in runs.glob(f"*/{VALID_FILE}"))
    return [asdict(curve(folder)) for folder in folders if _is_complete(folder)]


def _is_complete(folder: Path) -> bool:
    run = folder / RUN_FILE
    return run.exists() and _columns(folder / LOG_FILE)["wall_s"][-1] >= 60 * json.loads(run.read_text())["minutes"]


def _columns(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
