"""The way of a run: inputs are found, what is done is left out, the rest is given to workers, the manifest told.

Workers here are threads that each hold a process (isolated.py); cluster.py has them on other machines. Prints nothing.
"""

from __future__ import annotations

import hashlib
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from .. import __version__
from ..errors import BadInput
from .inputs import address, find
from .isolated import Worker
from .jobs import DONE, FAILED, REFUSED, Job, Limits, Outcome, Settings
from .manifest import Manifest
from .worker import PART


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    jobs: tuple[Job, ...]  # in the order in which they are begun
    done: int  # songs that are made already
    refused: tuple[tuple[str, str], ...]  # place and sentence of songs that could not be used, and are as they were
    others: int  # songs of other shards

    def __len__(self) -> int:
        return len(self.jobs)


@dataclass
class Tally:
    """What came of a run so far."""

    results: Counter[str] = field(default_factory=Counter)
    reasons: list[tuple[str, str]] = field(default_factory=list)  # place and sentence of what is not done
    music_s: float = 0.0
    stopped: bool = False

    def add(self, job: Job, outcome: Outcome) -> None:
        self.results[outcome.result] += 1
        self.music_s += outcome.music_s
        if outcome.result != DONE:
            self.reasons.append((job.item.place, outcome.reason))


class Workers(Protocol):
    """Whoever does jobs."""

    def outcomes(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Outcome], None, None]:
        """Yields each as it is done, in any order; closing the generator gives up those under way."""

    def close(self) -> None:
        """Nothing more is wanted."""


def made_by(settings: Settings) -> str:
    """What besides the song and the settings outputs depend on: version, weights, soundfont.

    Raises MissingPart when the model or, for audio, the soundfont or FluidSynth is not there.
    """
    parts = [__version__]
    if settings.kind == "extend":
        from ..checkpoint import fingerprint

        parts.append(fingerprint(settings.model or None))
    if settings.audio:
        from ..render import find_soundfont, fluidsynth_version

        soundfont = Path(find_soundfont(settings.soundfont or None))
        parts += [fluidsynth_version(), soundfont.name, str(soundfont.stat().st_size)]
    return " ".join(parts)


def plan(
    inputs: Sequence[str],
    settings: Settings,
    manifest: Manifest,
    *,
    force: bool = False,
    shuffle: bool = False,
    shard: tuple[int, int] = (1, 1),
) -> Plan:
    """What is still to be done. `shard` (i, n) is the i-th of n parts, by the songs' places, so that n machines that
    are given the same inputs share them; `shuffle` changes the order, not the results.

    Raises BadInput for inputs that are nothing, or that results would replace.
    """
    exists = _exists(settings.out)
    jobs = [Job(item, settings) for item in find(inputs, settings.out if settings.kind == "extend" else "")]
    _keep_songs(jobs, settings.out)
    mine = [job for job in jobs if _part_of(job.item.place, shard[1]) == shard[0] - 1]
    places = {job.item.place for job in mine if not force and manifest.is_done(job, exists)}
    left = [job for job in mine if job.item.place not in places]
    if shuffle:
        random.Random(settings.seed).shuffle(left)
    before = [manifest.known[place] for place in sorted(places)]
    refused = tuple((line["place"], line["reason"]) for line in before if line["result"] == REFUSED)
    return Plan(tuple(left), len(places) - len(refused), refused, len(jobs) - len(mine))


def _keep_songs(jobs: Sequence[Job], out: str) -> None:
    """Raises BadInput where a result would replace a song; names that differ in case alone are one on some systems."""
    results = address(out)
    made = {f"{results}/{place}".casefold() for job in jobs for place in job.outputs().values()}
    for url in (job.item.url for job in jobs):
        if address(url).casefold() in made:
            raise BadInput(f"{url} would be replaced by a result; choose an output folder other than the songs' own.")


def _part_of(place: str, parts: int) -> int:
    return int.from_bytes(hashlib.sha256(place.encode(errors="replace")).digest()[:8], "big") % parts


def _exists(out: str) -> Callable[[str], bool]:
    if "://" not in out:
        return lambda place: Path(out, place).is_file()
    import fsspec

    filesystem, root = fsspec.core.url_to_fs(out)
    try:
        there = set(filesystem.find(root))  # asked once: ten thousand questions would take minutes
    except OSError:
        there = set()
    return lambda place: f"{root.rstrip('/')}/{place}" in there


def run(
    jobs: Sequence[Job],
    workers: Workers,
    manifest: Manifest,
    on_done: Callable[[Job, Outcome, Tally], None] = lambda job, outcome, tally: None,
) -> Tally:
    """Does the jobs and tells the manifest of each. KeyboardInterrupt, which may come at any moment, gives up those
    under way and ends the run; the tally says so.

    Raises BadInput when another run writes the same manifest.
    """
    tally = Tally()
    with manifest.writing():
        outcomes = workers.outcomes(jobs)
        try:
            for job, outcome in outcomes:
                manifest.add(job, outcome)
                tally.add(job, outcome)
                on_done(job, outcome, tally)
        except KeyboardInterrupt:
            tally.stopped = True
        finally:
            outcomes.close()
    return tally


class Local:
    """`count` processes on this machine."""

    def __init__(self, count: int, limits: Limits):
        self.count, self.limits = max(1, count), limits
        self._workers: list[Worker] = []
        self._stopped = threading.Event()

    def outcomes(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Outcome], None, None]:
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[Job, Outcome]] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        self._workers = [Worker(self.limits) for _ in range(min(self.count, len(jobs)))]
        threads = [threading.Thread(target=self._serve, args=(w, waiting, done)) for w in self._workers]
        for thread in threads:
            thread.start()
        try:
            for _ in jobs:
                while True:  # with a timeout, so that Ctrl-C is heard on every system
                    with suppress(queue.Empty):
                        yield done.get(timeout=0.5)
                        break
        finally:
            self.close()
            for thread in threads:
                thread.join()

    def close(self) -> None:
        self._stopped.set()
        for worker in self._workers:
            worker.kill()

    def _serve(self, worker: Worker, waiting: Any, done: Any) -> None:
        while not self._stopped.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                outcome = worker.do(job)
            except OSError as error:  # such as no more processes
                outcome = Outcome(FAILED, f"{job.item.url} got no process ({error.strerror}); free some and run again.")
            if not self._stopped.is_set():
                done.put((job, outcome))
        worker.close()


def prepare_out(settings: Settings, folder: Path) -> None:
    """Makes the output and the manifest's folder, and clears away what a run that was killed left half-written.

    Raises BadInput when they cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if "://" not in settings.out:
            out = Path(settings.out)
            out.mkdir(parents=True, exist_ok=True)
            for part in out.rglob(f".*{PART}"):
                part.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(
            f"{error.filename} cannot be made ({error.strerror}); choose a folder you may write to."
        ) from error


def with_made_by(settings: Settings) -> Settings:
    """The settings, complete."""
    return replace(settings, made_by=made_by(settings))
