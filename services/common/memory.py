"""How a process that large images pass through holds its memory."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable
from typing import Final

# malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 1 << 20
# linux/prctl.h
_PR_SET_THP_DISABLE: Final = 41
_SERVED_S: Final = 2.0
"""After this most requests have been served, so that what is collected is what they left."""
_TRIM_EVERY_S: Final = 1.0
_TRIM_FOR_S: Final = 45.0
"""So long after a large request freed memory is looked for."""
_trim: Callable[[int], int] | None = None
"""glibc's, where `give_back_freed` was called."""


def give_back_now() -> None:
    """Have glibc return what it keeps of freed memory, where `give_back_freed` was called."""
    if _trim is not None:
        _trim(0)


class Collecting:
    """Has the collector come after so many bytes of requests, and freed memory go back to the system.

    The collector counts objects, and a request of megabytes is a few: what hung in a cycle would wait for thousands of
    others. A request leaves none that are known; this is for those that are not.

    gRPC reads a body in pieces of less than a megabyte, which glibc keeps in its heaps when they are freed: fifty
    uploads of 9 MB left 250 MB.

    Args:
        every_bytes: How many bytes of requests may have been read since the collector came.
    """

    def __init__(self, every_bytes: int = 64 << 20) -> None:
        self._every_bytes = every_bytes
        self._seen = 0
        self._trim_until = 0.0
        self._trimming = False

    def saw(self, size: int) -> None:
        """Note a request of so many bytes that is about to be served."""
        loop = asyncio.get_running_loop()
        self._seen += size
        if self._seen >= self._every_bytes:
            self._seen = 0
            loop.call_later(_SERVED_S, gc.collect)
        if _trim is not None and size >= _LARGE_BYTES:
            self._trim_until = loop.time() + _TRIM_FOR_S
            if not self._trimming:
                self._trimming = True
                loop.call_later(_TRIM_EVERY_S, self._trim, loop)

    def _trim(self, loop: asyncio.AbstractEventLoop) -> None:
        # In a thread: it takes some milliseconds, in which others only wait for the heap that is gone through.
        assert _trim is not None
        loop.run_in_executor(None, _trim, 0)
        self._trimming = loop.time() < self._trim_until
        if self._trimming:
            loop.call_later(_TRIM_EVERY_S, self._trim, loop)


def collect_seldom() -> None:
    """Have the collector leave what is there alone from now on, and come less often.

    What was imported lives as long as the process: it need not be walked at every pass, and the many short-lived
    objects of a request are freed by their counts.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def take_small_pages() -> None:
    """Have Linux give this process no large pages. For one without large blocks.

    The launcher and the images have glibc ask for them (`GLIBC_TUNABLES`), and its heaps grow by 2 MB at once then.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def give_back_freed(*, heaps: int | None = None) -> None:
    """Have glibc return large blocks as they are freed, and others soon after. Other systems' allocators do well.

    Its threshold grows with the first large block that is freed unless it was set, and from then on images lie in its
    heaps, which keep the holes. Not for processes that compute: there a large block is needed again at once.

    Args:
        heaps: How many it has at most, for a process with many threads: it would make one for each, up to eight times
            the cores, and smaller blocks leave holes in all of them. Threads wait for each other at a heap.
    """
    global _trim  # of the process, like the allocator
    libc = ctypes.CDLL(None)
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is None:
        return
    _trim = getattr(libc, "malloc_trim", None)
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    if heaps is not None:
        mallopt(_M_ARENA_MAX, heaps)
