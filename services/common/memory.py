"""How a process that large images pass through holds its memory."""

from __future__ import annotations

import ctypes
from typing import Final

# malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 1 << 20
_ARENAS: Final = 2


def give_back_freed() -> None:
    """Have glibc return large blocks when they are freed, and keep few heaps. Other systems' allocators do well.

    Its threshold grows with the first large block that is freed unless it was set, and from then on images lie in its
    heaps, which keep the holes; and it makes such a heap for every thread, eight times the cores at most. Not for
    processes that compute: there a large block is needed again at once.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)
