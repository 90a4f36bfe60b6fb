"""How a process that composes uses the machine. Called by commands; the library leaves its process as it is."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # of mallopt in glibc's malloc.h


def settle() -> None:
    """One thread, and a heap that does not break up.

    A second thread gains little on an idle machine, and on a busy one each step waits for it. glibc moves arrays of
    megabytes into its heap once some were given back, where small things that stay keep them from being given back
    again: memory would grow by a megabyte a minute of music. With a fixed threshold they stay outside.
    """
    import torch

    torch.set_num_threads(1)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another libc
            ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, 128 << 10)
