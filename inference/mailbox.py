"""Carries events from an engine's thread to the task that serves a call."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Generic, TypeVar

E = TypeVar("E")


class Mailbox(Generic[E]):
    """A queue from any thread to one task of the running loop. What waits together is taken together."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: deque[E] = deque()
        self._filled = asyncio.Event()

    def put(self, event: E) -> None:
        """Add an event, from any thread. The task is woken once for all that arrive before it looks."""
        with self._lock:
            first = not self._waiting
            self._waiting.append(event)
        if first and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._filled.set)

    async def take(self) -> list[E]:
        """Wait for events and take all that are there, in order; at least one."""
        while True:
            self._filled.clear()
            with self._lock:
                taken = list(self._waiting)
                self._waiting.clear()
            if taken:
                return taken
            await self._filled.wait()
