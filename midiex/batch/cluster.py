"""The same jobs on many machines: Dask carries them to its workers, each of which keeps a process as isolated.py does.

Optional (`pip install midiex[cluster]`). Inputs and outputs must be where all machines see them: shared folders under
the same path, or object storage by URL. A job that was under way on a worker that is lost is done by another.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from ..errors import BadInput, MissingPart
from .inputs import from_root
from .isolated import Worker
from .jobs import FAILED, Job, Limits, Outcome

RETRIES = 3  # of a job whose worker was lost
ANSWER_S = 10.0  # that a scheduler has to answer
_kept = threading.local()


class Cluster:
    """A Dask cluster: its scheduler's address, or "" for what Dask's own configuration says (SLURM, Kubernetes …)."""

    def __init__(self, scheduler: str, limits: Limits):
        """Raises MissingPart without Dask, BadInput where no scheduler answers."""
        try:
            from distributed import Client
        except ImportError:
            raise MissingPart(
                "Running on a cluster needs Dask, which is not installed; run `pip install midiex[cluster]`."
            ) from None
        self.limits = limits
        try:
            self.client = Client(scheduler or None, timeout=ANSWER_S)
        except (OSError, ValueError, TimeoutError) as error:
            raise BadInput(f"No Dask scheduler answers at {scheduler} ({error}); check its address.") from None

    def outcomes(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Outcome], None, None]:
        from distributed import as_completed

        by_key: dict[str, Job] = {}
        futures: list[Any] = []
        for number, job in enumerate(jobs):
            key = f"midiex-{number}-{job.item.place}"
            by_key[key] = job
            futures.append(
                self.client.submit(
                    do_job, _from_root(job).to_json(), self.limits.seconds, self.limits.memory_bytes,
                    key=key, pure=False, retries=RETRIES,
                )
            )  # fmt: skip
        try:
            for future in as_completed(futures):
                job = by_key[future.key]
                try:
                    outcome = Outcome.from_json(future.result())
                except Exception as error:  # its workers died again and again
                    why = f"{job.item.url} lost its workers ({type(error).__name__})"
                    outcome = Outcome(FAILED, f"{why}; try it by itself.")
                future.release()
                yield job, outcome
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self.client.cancel(futures, force=True)

    def close(self) -> None:
        self.client.close()


def _from_root(job: Job) -> Job:
    """A job that means the same to workers, which run in folders of their own."""
    item, told = job.item, job.settings
    model, soundfont = (from_root(path) if os.path.exists(path) else path for path in (told.model, told.soundfont))
    settings = replace(told, out=from_root(told.out), model=model, soundfont=soundfont)
    return Job(replace(item, url=from_root(item.url)), settings)


def do_job(job: str, seconds: float, memory_bytes: int) -> str:
    """On a worker of the cluster: a job and its outcome as JSON."""
    limits = Limits(seconds, memory_bytes)
    if getattr(_kept, "limits", None) != limits:
        _kept.limits, _kept.worker = limits, Worker(limits)
    worker: Worker = _kept.worker
    return worker.do(Job.from_json(job)).to_json()
