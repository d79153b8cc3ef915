"""Keep a call's stream alive: in its silences signs of life are written between its messages."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from services.common.own_task import in_own_task

T = TypeVar("T")

PIECE_BYTES: Final = 1 << 20
"""The most that one message carries: gRPC refuses one of 72 MiB, and a message is copied on its way."""


class Writer(Protocol):
    """What is needed of an RPC's context."""

    async def write(self, message: Any) -> None:
        """Send a message."""


class Heartbeat(ABC):
    """A call's messages, with a sign of life wherever none was written for a while. An async context manager.

    One timer a call is moved forward rather than made anew for every message. A sign never comes between the parts of
    a message, nor while one waits for a caller who reads slowly.

    Args:
        context: Where messages are written; one that has a `write_sign` is given signs of life by that.
        first_s: Silence before the first message or sign.
        every_s: Silence after it.
    """

    __slots__ = ("_busy", "_context", "_every_s", "_last", "_loop", "_sending", "_timer", "_wait_s")

    def __init__(self, context: Writer, *, first_s: float, every_s: float) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._wait_s, self._every_s = first_s, every_s
        self._last = 0.0
        self._busy = False
        """Whether a message is being written, and so is no silence."""
        self._sending: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def beating(self) -> bool:
        """Whether signs are still to come."""
        return self._timer is not None

    @abstractmethod
    def sign(self) -> Any | None:
        """Return the sign of life that is due; None where there is nothing to tell."""

    async def write(self, message: Any) -> None:
        """Send a message."""
        while self._sending is not None:  # behind one that took long another may be due
            await self._sending
        self._busy = True
        await self._context.write(message)
        self._busy = False
        self._last = self._loop.time()
        self._wait_s = self._every_s

    async def relay(
        self, read: Callable[[], Awaitable[T | None]], render: Callable[[T], bytes], make: Callable[..., Any]
    ) -> None:
        """Send what a source gives, until it gives None.

        Args:
            read: Returns the source's next message.
            render: Returns a message's bytes; empty where there is nothing to send, of which `passed_over` is told.
            make: Makes what is sent, of the bytes, or of a piece of many, as its `data`.
        """
        await in_own_task(self._relayed(read, render, make))

    async def _relayed(
        self, read: Callable[[], Awaitable[T | None]], render: Callable[[T], bytes], make: Callable[..., Any]
    ) -> None:
        send, now = self._context.write, self._loop.time
        while (message := await read()) is not None:
            if not (data := render(message)):
                self.passed_over(message)
                continue
            while self._sending is not None:
                await self._sending
            self._busy = True
            if len(data) <= PIECE_BYTES:
                await send(make(data=data))
            else:
                for at in range(0, len(data), PIECE_BYTES):
                    await send(make(data=data[at : at + PIECE_BYTES]))
            self._busy = False
            self._last = now()
            self._wait_s = self._every_s

    def passed_over(self, message: Any) -> None:  # noqa: B027  # most have nothing to tell
        """Note a message of which nothing is sent."""

    async def write_sign(self, sign: Any) -> None:
        """Send a sign of life."""
        await getattr(self._context, "write_sign", self._context.write)(sign)

    def send_sign(self) -> None:
        """Write a sign of life now, unless something is being written."""
        if self._busy or self._sending is not None:
            return
        self._last = self._loop.time()
        self._wait_s = self._every_s
        if (sign := self.sign()) is not None:
            self._sending = self._loop.create_task(self._sent(sign))

    async def _sent(self, sign: Any) -> None:
        try:
            await self.write_sign(sign)
        except Exception:
            # The call has ended: its handler hears of that itself.
            self._stop()
        finally:
            self._sending = None
            self._last = self._loop.time()

    def _check(self) -> None:
        left_s = self._last + self._wait_s - self._loop.time()
        if left_s <= 0:
            self.send_sign()
            left_s = self._every_s
        self._timer = self._loop.call_later(left_s, self._check)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def __aenter__(self) -> Self:
        self._last = self._loop.time()
        self._timer = self._loop.call_later(self._wait_s, self._check)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._stop()
        if self._sending is not None:
            if error is not None and not isinstance(error, Exception):
                self._sending.cancel()
            else:
                await self._sending
        return False
