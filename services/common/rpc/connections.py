"""Whether the process at a channel's other end is there, or is being started again and worth waiting for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import grpc

PATIENCE_S: Final = 30.0
"""How long a process that went is waited for, from when it went. One that never was there is not waited for."""


class ConnectionWatch:
    """Watches a channel's connections, and keeps them up while nothing is asked. Needs a running loop when first asked.

    Args:
        channel: To one process or to several alike; it is there as long as one of them is.
        clock: Monotonic seconds.
    """

    def __init__(self, channel: grpc.aio.Channel, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._channel = channel
        self._clock = clock
        self._there = asyncio.Event()
        self._was_there = False
        self._lost_at: float | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def is_restarting(self) -> bool:
        """Return whether the process was there and is not, for no longer than `PATIENCE_S`."""
        self.watch()
        return self._lost_at is not None and self._clock() - self._lost_at < PATIENCE_S

    async def returned(self) -> None:
        """Return when the process is there, or is not waited for any longer."""
        self.watch()
        if self._lost_at is None:
            return
        left_s = self._lost_at + PATIENCE_S - self._clock()
        if left_s > 0:
            try:
                await asyncio.wait_for(self._there.wait(), left_s)
            except TimeoutError:
                return

    async def aclose(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def watch(self) -> None:
        """Begin to watch. Asking does too, but then nothing is known of before."""
        if self._watching is None:
            self._note(self._channel.get_state(try_to_connect=True))
            self._watching = asyncio.get_running_loop().create_task(self._follow(), name="reach")

    async def _follow(self) -> None:
        while True:
            state = self._channel.get_state(try_to_connect=True)
            self._note(state)
            if state is grpc.ChannelConnectivity.SHUTDOWN:
                return
            await self._channel.wait_for_state_change(state)

    def _note(self, state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            self._was_there, self._lost_at = True, None
            self._there.set()
        elif self._was_there and self._lost_at is None:
            self._lost_at = self._clock()
            self._there.clear()
