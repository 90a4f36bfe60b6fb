"""Composing ahead of the music, in a thread of its own, and never further than is needed.

Knows passages and batches; knows no clock and no sound.
"""

from __future__ import annotations

import gc
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .stream import Batch, batches

if TYPE_CHECKING:
    from ..extend import Passage

AHEAD_S = 30.0  # of music that waits to be played; the batch that is written when it is reached comes on top


class Ahead:
    """A queue of batches that is full when it holds `limit_s` seconds of music; whoever puts more in waits."""

    def __init__(self, limit_s: float = AHEAD_S):
        self.limit_s = limit_s
        self._waiting: deque[Batch] = deque()
        self._seconds = 0.0
        self._change = threading.Condition()
        self._closed = False  # nobody will take any more
        self._ended = False  # nothing more will come
        self._error: BaseException | None = None

    @property
    def ahead_s(self) -> float:
        """Seconds of music that wait."""
        return self._seconds

    def put(self, batch: Batch) -> bool:
        """Add a batch once there is room; False when nobody wants it any more."""
        with self._change:
            self._change.wait_for(lambda: self._closed or self._seconds < self.limit_s)
            if self._closed:
                return False
            self._waiting.append(batch)
            self._seconds += batch.seconds
            self._change.notify_all()
            return True

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more will come; `error` says why, where that was not the plan."""
        with self._change:
            self._ended, self._error = True, error
            self._change.notify_all()

    def close(self) -> None:
        """Nothing more is wanted."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def ready(self, timeout_s: float) -> bool:
        """Would `take` answer at once? Waits for it, but no longer than `timeout_s`."""
        with self._change:
            return self._change.wait_for(lambda: bool(self._waiting) or self._ended, timeout_s)

    def take(self) -> Batch | None:
        """The next batch, None after the last one; waits for it. Raises what composing raised."""
        with self._change:
            self._change.wait_for(lambda: bool(self._waiting) or self._ended)
            if self._waiting:
                batch = self._waiting.popleft()
                self._seconds = sum(waiting.seconds for waiting in self._waiting)
                self._change.notify_all()
                return batch
        if self._error:
            raise self._error
        return None


@contextmanager
def composing(
    first: Passage, following: Callable[[int], Passage] | None = None, limit_s: float = AHEAD_S
) -> Iterator[Ahead]:
    """Compose a passage, and what `following` says lap 1, 2, … are without end, while the block runs. When it is left,
    the chunk that is being written is finished first: what a thread computes cannot be cut short."""
    ahead = Ahead(limit_s)

    def compose() -> None:
        try:
            passage = first
            for lap in itertools.count():
                for batch in batches(passage, again=lap > 0):
                    if not ahead.put(batch):
                        return
                if following is None:
                    break
                passage = following(lap + 1)
        except BaseException as error:  # raised again where the music is played
            ahead.end(error)
        else:
            ahead.end()

    thread = threading.Thread(target=compose, name="composing")
    # Python's collector stops every thread, for half a second where it looks at all that libraries have made.
    gc.collect()
    gc.freeze()
    thread.start()
    try:
        yield ahead
    finally:
        ahead.close()
        thread.join()
        gc.unfreeze()
