"""Processes that are started with the first request that is for them, as those see it who take such requests."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Final

import grpc

START_S: Final = 30.0
"""How long a process that was asked for is waited for."""


class Postponed:
    """Asks whoever starts processes, once.

    Args:
        fd: An open file whose reader starts them; None: nobody is asked, they run.
    """

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def want(self) -> None:
        """Ask, unless that was done. Who cannot be asked any more is stopping."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            os.write(self._fd, b"1")
        self._fd = None


class PostponedCallee:
    """A process that this one calls, and that may be started for the first call.

    Args:
        channel: To it.
        fd: As `Postponed` takes it.
    """

    def __init__(self, channel: grpc.aio.Channel, fd: int | None) -> None:
        self._channel = channel
        self._process = Postponed(fd)
        self._awaits_start = fd is not None

    async def there(self) -> None:
        """Have it started, before a call of it; return when it is reached, or was waited for long enough.

        Whoever calls it after that finds it, or is refused at once, as where it was started with all others.
        """
        if not self._awaits_start:
            return
        self._process.want()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                await self._channel.channel_ready()
        self._awaits_start = False
