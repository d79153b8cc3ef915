"""gRPC's own threads, which an idle process is woken by more than by anything else, and how they wake the loop."""

from __future__ import annotations

import ctypes
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any, Final

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # its stubs leave it out

LATE_S: Final = 0.1
_PR_SET_TIMERSLACK: Final = 29
"""linux/prctl.h. A thread gets it from the one that begins it."""
_NOWHERE: Final = "127.0.0.1:1"
_AT_ONCE: Final = 256
"""Bytes that are read at once, one for each thing that has ended."""


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
    with _pipes():
        channel = grpc.aio.insecure_channel(_NOWHERE)
    slacken(_PR_SET_TIMERSLACK, ctypes.c_ulong(0))
    async with channel:
        yield


@contextmanager
def _pipes() -> Iterator[None]:
    """Have gRPC take a pipe where it makes a pair of sockets to wake the loop by.

    Its thread writes a byte for each operation that has ended. gRPC reads one byte each time the loop is woken, and
    looks at all that have ended: of five, the loop is woken four times for nothing. A pipe that is read empty wakes it
    once, and costs half of what a pair of sockets does.
    """
    sockets = cygrpc.socket
    cygrpc.socket = SimpleNamespace(socketpair=pipe)
    try:
        yield
    finally:
        cygrpc.socket = sockets


def pipe() -> tuple[End, End]:
    """Return the ends of a pipe, the one that is read first."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    return End(reading), End(writing)


class End:
    """One end of a pipe, as far as gRPC asks it what a socket is asked."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def setblocking(self, blocking: bool) -> None:
        """Do nothing: the end that is read does not block."""

    def recv(self, _: Any) -> bytes:
        """Read what there is: gRPC looks what has ended only after that."""
        try:
            return os.read(self._descriptor, _AT_ONCE)
        except BlockingIOError:
            # A loop in another thread has read it, and tells this one what is its.
            return b""

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)
