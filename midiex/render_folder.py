"""A folder of MIDI files as audio, several at a time, each in a process that keeps its soundfont open.

A file that cannot be rendered is told and the others go on, even where it takes its process down with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .audiofile import FORMATS
from .errors import BadInput, MidiexError
from .render import DEFAULT, RenderConfig, Renderer, RenderInfo

MIDI_SUFFIXES = (".mid", ".midi", ".kar", ".rmi")
CRASHED = "{} made the renderer crash; write it anew with a MIDI editor."


@dataclass(frozen=True)
class Job:
    """A file to render, and where to."""

    midi: Path
    audio: Path


def jobs_in(folder: Path, out: Path | None = None, suffix: str = ".ogg") -> list[Job]:
    """Every MIDI file under `folder`, each with an audio file at the same place under `out` (default: beside it).

    Raises BadInput: no such folder, nothing in it, `out` is a file, or no known suffix.
    """
    out = out or folder
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give one that holds MIDI files.")
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file; name a folder for the audio of a folder.")
    if suffix not in FORMATS:
        raise BadInput(f"There is no audio format {suffix}; use one of {', '.join(FORMATS)}.")
    midis = sorted(path for path in folder.rglob("*") if path.suffix.lower() in MIDI_SUFFIXES and path.is_file())
    if not midis:
        raise BadInput(f"{folder} holds no MIDI file ({', '.join(MIDI_SUFFIXES)}); give a folder that does.")
    places = [out / path.relative_to(folder) for path in midis]
    taken = Counter(place.with_suffix("") for place in places)
    return [
        Job(path, place.with_suffix(suffix) if taken[place.with_suffix("")] == 1 else Path(f"{place}{suffix}"))
        for path, place in zip(midis, places, strict=True)
    ]


def render_jobs(
    jobs: list[Job],
    soundfont: str | Path | None = None,
    config: RenderConfig = DEFAULT,
    processes: int | None = None,
    stems: bool = False,
) -> Iterator[tuple[Job, RenderInfo | str]]:
    """Renders the files, `processes` at a time (default: one for each core), and yields each as it is done with what
    came out, or with the sentence that says why nothing did. Closing the iterator stops those that are not done.

    Starts processes anew (spawn): a script that calls this needs `if __name__ == "__main__":`.
    Raises MissingPart before any work: no FluidSynth, no soundfont.
    """
    Renderer(soundfont, config).close()
    workers = min(processes or os.cpu_count() or 1, len(jobs))
    lost: list[Job] = []
    for job, result in _in_pool(jobs, workers, soundfont, config, stems):
        if isinstance(result, BrokenProcessPool):
            lost.append(job)
        else:
            yield job, result
    for job in lost:  # one of them broke the pool; each gets its own
        for _, result in _in_pool([job], 1, soundfont, config, stems):
            yield job, CRASHED.format(job.midi) if isinstance(result, BrokenProcessPool) else result


def _in_pool(
    jobs: list[Job], workers: int, *settings: Any
) -> Iterator[tuple[Job, RenderInfo | str | BrokenProcessPool]]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(workers, context, _begin, (stop, *settings)) as pool:
        try:
            waiting: dict[Future[RenderInfo | str], Job] = {}
            for job in jobs:
                try:
                    waiting[pool.submit(_render, job)] = job
                except BrokenProcessPool as error:
                    yield job, error
            for future in as_completed(waiting):
                try:
                    yield waiting[future], future.result()
                except BrokenProcessPool as error:
                    yield waiting[future], error
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# ---- in the processes ------------------------------------------------------------------------------------------------

_state: dict[str, Any] = {}


class _Stopped(Exception):
    pass


def _begin(stop: Any, soundfont: Any, config: RenderConfig, stems: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and stops us when nothing is half-written
    _state.update(stop=stop, stems=stems, renderer=Renderer(soundfont, config))


def _render(job: Job) -> RenderInfo | str:
    try:
        _go_on(0.0)
        job.audio.parent.mkdir(parents=True, exist_ok=True)
        info: RenderInfo = _state["renderer"].render(job.midi, job.audio, _go_on, _state["stems"])
        return info
    except MidiexError as error:
        return str(error)
    except OSError as error:
        return f"{job.audio} cannot be written ({error.strerror}); choose a folder you may write to."
    except _Stopped:
        return "stopped"
    except Exception as error:  # whatever it is, the other files go on
        return f"{job.midi} cannot be rendered ({type(error).__name__}: {error}); render it by itself to see why."


def _go_on(_seconds: float) -> None:
    if _state["stop"].is_set():
        raise _Stopped
