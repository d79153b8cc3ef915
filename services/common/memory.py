"""How a process that large images pass through holds its memory."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from typing import Final

# malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 1 << 20
_SERVED_S: Final = 2.0
"""After this most requests have been served, so that what is collected is what they left."""


class Collecting:
    """Has the collector come after so many bytes of requests.

    It counts objects, and a request of megabytes is a few: what hung in a cycle would wait for thousands of others. A
    request leaves none that are known; this is for those that are not.

    Args:
        every_bytes: How many bytes of requests may have been read since it came.
    """

    def __init__(self, every_bytes: int = 64 << 20) -> None:
        self._every_bytes = every_bytes
        self._seen = 0

    def saw(self, size: int) -> None:
        """Note a request of so many bytes that is about to be served."""
        self._seen += size
        if self._seen >= self._every_bytes:
            self._seen = 0
            asyncio.get_running_loop().call_later(_SERVED_S, gc.collect)


def give_back_freed(*, heaps: int | None = None) -> None:
    """Have glibc return large blocks as they are freed. Other systems' allocators do well.

    Its threshold grows with the first large block that is freed unless it was set, and from then on images lie in its
    heaps, which keep the holes. Not for processes that compute: there a large block is needed again at once.

    Args:
        heaps: How many it has at most, for a process with many threads: it would make one for each, up to eight times
            the cores, and smaller blocks leave holes in all of them. Threads wait for each other at a heap.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    if heaps is not None:
        mallopt(_M_ARENA_MAX, heaps)
