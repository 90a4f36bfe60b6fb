"""The record of a run: one line of JSON a song, written when its outputs stand under their names.

Lines are only ever added; of several about one song the last counts. A line that was cut off in the middle, when power
failed or the process was killed, is as if it had not been written. Knows files; knows no music.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from ..errors import BadInput
from .jobs import DONE, REFUSED, Job, Outcome

NAME = "midiex-manifest"


class Manifest:
    """One run's record, beside those of other shards in the same folder, which are read too."""

    def __init__(self, folder: Path, shard: str = ""):
        self.path = folder / f"{NAME}{shard and '-' + shard}.jsonl"
        self.known: dict[str, dict[str, Any]] = {}  # by place
        for path in sorted(folder.glob(f"{NAME}*.jsonl")):
            self.known |= {line["place"]: line for line in _lines(path)}
        self._file: TextIO | None = None

    def is_done(self, job: Job, exists: Any) -> bool:
        """Was this very job done before, by the same settings from the same song, and is all of it still there?"""
        line = self.known.get(job.item.place)
        if line is None or (line["version"], line["settings"]) != (job.item.version, job.settings.key):
            return False
        return line["result"] == REFUSED or (line["result"] == DONE and all(exists(place) for place in line["outputs"]))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """While the block runs lines can be added. Raises BadInput when another run is writing to it."""
        with self.path.open("a+", encoding="utf-8") as file:
            with suppress(ImportError):  # Windows has no such locks
                import fcntl

                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise BadInput(
                        f"Another run is writing {self.path}; wait for it, or choose another output folder."
                    ) from None
            file.seek(0)
            if (text := file.read()) and not text.endswith("\n"):
                file.write("\n")  # after a line that was cut off
            self._file = file
            try:
                yield
            finally:
                self._file = None

    def add(self, job: Job, outcome: Outcome) -> None:
        """Tell what came of a job, safe on the disk when this returns."""
        if self._file is None:
            raise RuntimeError("a manifest is written inside its `writing`")
        line = {
            "place": job.item.place, "url": job.item.url, "version": job.item.version, "settings": job.settings.key,
            "told": asdict(job.settings), "seed": job.settings.seed, "made_by": job.settings.made_by,
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"), **asdict(outcome),
        }  # fmt: skip
        self.known[job.item.place] = line
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a manifest."""
    needed = {"place", "version", "settings", "result", "reason", "outputs"}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                with suppress(ValueError):
                    line = json.loads(text)
                    if isinstance(line, dict) and needed <= line.keys():
                        yield line
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
