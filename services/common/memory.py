"""How a process that large images pass through holds its memory."""

from __future__ import annotations

import ctypes
from typing import Final

# malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 1 << 20


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
