"""gRPC's own threads, which an idle process is woken by more than by anything else."""

from __future__ import annotations

import ctypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc

from services.common.rpc.internals import wakeup

LATE_S: Final = 0.1
_PR_SET_TIMERSLACK: Final = 29
"""linux/prctl.h. A thread gets it from the one that begins it."""
_NOWHERE: Final = "127.0.0.1:1"


@asynccontextmanager
async def late() -> AsyncIterator[None]:
    """Within it gRPC's timers may end `LATE_S` late, but not those of this thread, which is woken by a pipe.

    Once a second one of gRPC's threads looks at its timers, and after that others look for work 15 ms later, 20, 25,
    and so on. The kernel has those that may be late end together with others. Calls wake them at once, as ever; that
    a deadline is over may be said a tenth of a second late, where the machine does nothing else.
    """
    slacken = getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)
    slacken(_PR_SET_TIMERSLACK, ctypes.c_ulong(round(LATE_S * 1e9)))
    # The first channel begins the threads, and they last while there is any. It connects to nobody unless it is asked.
    with wakeup.pipes():
        channel = grpc.aio.insecure_channel(_NOWHERE)
    slacken(_PR_SET_TIMERSLACK, ctypes.c_ulong(0))
    async with channel:
        yield
