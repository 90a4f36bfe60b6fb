"""A process that makes songs: a job as a line of JSON on standard input, its outcome as a line on standard output.

    python -m midiex.batch.worker MEMORY_BYTES

It keeps the model and the soundfont between jobs, and ends when its input does, in the midst of a song too: then nobody
waits for it any more. Whatever libraries print goes nowhere. Results are whole files or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path, PurePosixPath
from queue import Queue
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, MidiexError
from .inputs import read
from .jobs import DONE, FAILED, REFUSED, Job, Outcome, Settings

if TYPE_CHECKING:
    from ..extend import Model
    from ..render import Renderer

PART = ".midiex-part"  # how files end that are not whole yet


class Maker:
    """Does jobs, one after another."""

    def __init__(self) -> None:
        self._model: tuple[str, Model] | None = None
        self._renderer: tuple[str, Renderer] | None = None

    def do(self, job: Job) -> Outcome:
        """Makes a song's outputs. Never raises but for what ends the process."""
        begun = time.perf_counter()
        if job.item.problem:
            return Outcome(REFUSED, f"{job.item.url} cannot be used: {job.item.problem}.")
        folder = ""
        try:
            data = read(job.item.url)
            with tempfile.TemporaryDirectory(prefix="midiex-") as folder:
                song = Path(folder) / PurePosixPath(job.item.place).name
                song.write_bytes(data)
                made, music_s = self._make(song, job)
                outputs = {place: _deliver(path, job.settings.out, place) for place, path in made.items()}
        except BadInput as error:
            return Outcome(REFUSED, str(error).replace(f"{folder}{os.sep}", ""))
        except MidiexError as error:  # something is missing here, not in the song
            return Outcome(FAILED, str(error))
        except MemoryError:
            return Outcome(FAILED, f"{job.item.url} needs more memory than it may have; allow more with --memory.")
        except Exception as error:  # whatever it is, the other songs go on
            why = f"{type(error).__name__}: {error}".replace("\n", " ")
            return Outcome(FAILED, f"{job.item.url} could not be made ({why}); try it by itself to see why.")
        wall_s = round(time.perf_counter() - begun, 3)
        return Outcome(DONE, "", hashlib.sha256(data).hexdigest(), outputs, round(music_s, 3), wall_s)

    def _make(self, song: Path, job: Job) -> tuple[dict[str, Path], float]:
        """Files beside the song, by their places, and the seconds of music in the result."""
        settings, places = job.settings, job.outputs()
        made: dict[str, Path] = {}
        music_s, midi = 0.0, song
        if "midi" in places:
            from ..extend import start

            midi = song.with_name("made.mid")
            model = self.model(settings)
            passage = start(song, settings.seconds, model=model, seed=settings.seed, **settings.options)
            for _ in passage.chunks():
                pass
            made[places["midi"]] = passage.save(midi)
            music_s = passage.length_s
        if "audio" in places:
            from ..render import check_stems, stems_folder

            audio = midi.with_suffix(settings.audio)
            info = self.renderer(settings).render(midi, audio, stems=settings.stems)
            music_s = info.seconds
            stems = {stems_folder(PurePosixPath(places["audio"])) / path.name: path for path in info.stems}
            if "://" not in settings.out:
                check_stems([Path(settings.out, place) for place in stems])
            made |= {places["audio"]: audio} | {str(place): path for place, path in stems.items()}
        return made, music_s

    def model(self, settings: Settings) -> Model:
        if self._model is None or self._model[0] != settings.model:
            from ..extend import load

            self._model = settings.model, load(settings.model or None)
        return self._model[1]

    def renderer(self, settings: Settings) -> Renderer:
        if self._renderer is None or self._renderer[0] != settings.soundfont:
            from ..render import Renderer

            if self._renderer:
                self._renderer[1].close()
            self._renderer = settings.soundfont, Renderer(settings.soundfont or None)
        return self._renderer[1]


def _deliver(path: Path, out: str, place: str) -> str:
    """Puts a file under its name in the output, whole or not at all; returns its SHA-256."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if "://" in out:  # objects appear when they are whole
        import fsspec

        filesystem, root = fsspec.core.url_to_fs(out)
        target = f"{root.rstrip('/')}/{place}"
        filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
        filesystem.put_file(str(path), target)
        return digest
    whole = Path(out, place)
    whole.parent.mkdir(parents=True, exist_ok=True)
    part = whole.with_name(f".{hashlib.sha256(place.encode()).hexdigest()[:16]}-{os.getpid()}{PART}")
    try:
        shutil.copyfile(path, part)
        os.replace(part, whole)
    finally:
        part.unlink(missing_ok=True)
    return digest


def _hold_memory(limit_bytes: int) -> None:
    """No more memory than this (Linux; elsewhere systems do not keep to it)."""
    if sys.platform == "linux" and limit_bytes:
        import resource

        with contextlib.suppress(ValueError, OSError):  # a lower limit is in force already
            resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def main(limit_bytes: int) -> None:
    """Serves until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    _hold_memory(limit_bytes)
    jobs: Queue[str] = Queue()

    def listen() -> None:
        for line in sys.stdin:
            jobs.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    from ..process import settle

    settle()
    maker = Maker()
    while True:
        outcome = maker.do(Job.from_json(jobs.get()))
        answers.write(outcome.to_json() + "\n")
        answers.flush()


def _arguments(arguments: list[str]) -> Any:
    return int(arguments[0]) if arguments else 0


if __name__ == "__main__":
    main(_arguments(sys.argv[1:]))
