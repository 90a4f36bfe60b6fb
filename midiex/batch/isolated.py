"""Worker processes seen from outside: given one job after another, replaced when they die, take too long or too much.

Knows processes; knows no music.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time

from .jobs import FAILED, Job, Limits, Outcome

_SONGS_A_WORKER = 500  # after which it is replaced, lest small leaks of libraries add up


class Worker:
    """One process. For one thread, but for `kill`."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._process: subprocess.Popen[str] | None = None
        self._served = 0
        self._killed = False

    def do(self, job: Job) -> Outcome:
        """What came of a job, whatever it did to the process."""
        begun = time.perf_counter()
        process = self._running()
        too_long = threading.Event()

        def give_up() -> None:
            too_long.set()
            process.kill()

        timer = threading.Timer(self.limits.seconds, give_up)
        timer.start()
        answer = ""
        with contextlib.suppress(OSError):  # it died before it could listen
            if process.stdin and process.stdout:
                process.stdin.write(job.to_json() + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
        timer.cancel()
        if answer.endswith("\n"):
            self._served += 1
            outcome = Outcome.from_json(answer)
            if outcome.result == FAILED or self._served >= _SONGS_A_WORKER:
                self._end()  # after an error that nobody foresaw it may not be what it was
            return outcome
        code = self._end()
        wall_s = round(time.perf_counter() - begun, 3)
        if too_long.is_set():
            limit = f"{self.limits.seconds:g} s"
            return Outcome(
                FAILED, f"{job.item.url} took longer than {limit}; allow more with --timeout.", wall_s=wall_s
            )
        told = f"signal {-code}" if code < 0 else f"code {code}"
        return Outcome(
            FAILED, f"{job.item.url} made its process end ({told}); try it by itself to see why.", wall_s=wall_s
        )

    def kill(self) -> None:
        """End at once, from any thread, and for good."""
        self._killed = True
        if self._process:
            self._process.kill()

    def close(self) -> None:
        """End when nothing is being done."""
        self._end()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", "midiex.batch.worker", str(self.limits.memory_bytes)]
            # a session of its own: Ctrl-C is for us, who decide what becomes of it
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                encoding="utf-8", start_new_session=True,
            )  # fmt: skip
            self._served = 0
            if self._killed:
                self._process.kill()
        return self._process

    def _end(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):  # what could not be written any more
                    pipe.close()
        return process.wait()
