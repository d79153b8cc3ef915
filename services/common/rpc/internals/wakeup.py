"""What gRPC's thread wakes the loop by."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final

from services.common.rpc.internals.library import LIBRARY, usable

_READ_BYTES: Final = 256
"""So many are read together, one for each operation that has ended."""


@contextmanager
def pipes() -> Iterator[None]:
    """Have gRPC take a pipe where it makes a pair of sockets to wake the loop by.

    Its thread writes a byte for each operation that has ended. gRPC reads one byte each time the loop is woken, and
    looks at all that have ended: of five, the loop is woken four times for nothing. A pipe that is read empty wakes it
    once, and costs half of what a pair of sockets does.
    """
    if not usable():
        yield
        return
    sockets = LIBRARY.socket
    LIBRARY.socket = SimpleNamespace(socketpair=pipe)
    try:
        yield
    finally:
        LIBRARY.socket = sockets


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
            return os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            # A loop in another thread has read it, and tells this one what is its.
            return b""

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)
