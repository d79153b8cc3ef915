"""A call's context for work that outlives the call: what is written is handed on, and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

from moa.idempotency.v1 import idempotency_service_pb2 as pb

_AHEAD: Final = 8
"""How many messages the work is ahead of a caller who reads slowly."""
_OF_NOW: Final = "ratelimit"
"""What the names of headers hold that are told anew with every answer."""


class RecordingMemory:
    """How many bytes all recordings of this process may have together."""

    def __init__(self, most_bytes: int) -> None:
        self.left = most_bytes

    def take(self, count: int) -> bool:
        """Take some of it; tell whether there was as much."""
        if count > self.left:
            return False
        self.left -= count
        return True

    def give_back(self, count: int) -> None:
        """Give some of it back."""
        self.left += count


@dataclass(frozen=True, slots=True)
class Step:
    """What the work did: it sent headers, or a message, or ended, by an error or not."""

    headers: Any = None
    message: Any = None
    ended: bool = False
    error: BaseException | None = None


class Recording:
    """Stands in for an RPC's context.

    The work's deadline is none: who asks again later wants the answer that was begun.

    Args:
        metadata: The call's.
        memory: What all recordings have together.
        most_bytes: How much of an answer is remembered.
    """

    def __init__(self, metadata: Any, *, memory: RecordingMemory, most_bytes: int) -> None:
        self._metadata = metadata
        self._memory = memory
        self._most_bytes = most_bytes
        self._taken = 0
        self._answer = pb.StoredAnswer()
        self._steps: asyncio.Queue[Step] = asyncio.Queue(_AHEAD)
        self._left = False
        self.overflowed = False
        """Whether the answer is larger than is remembered."""

    def invocation_metadata(self) -> Any:
        """Return the call's metadata."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Return None: the caller's deadline is not the work's."""
        return None

    async def send_initial_metadata(self, headers: Any) -> None:
        """Send the response's headers."""
        kept = [pb.Header(name=name, value=value) for name, value in headers if _OF_NOW not in name]
        self._answer.headers.extend(kept)
        await self._hand_on(Step(headers=headers))

    async def write(self, message: Any) -> None:
        """Send a message. One without content is a sign of life."""
        self.note(message)
        await self._hand_on(Step(message=message))

    async def write_sign(self, sign: Any) -> None:
        """Send a sign of life, which is no part of the answer."""
        await self._hand_on(Step(message=sign))

    def note(self, message: Any) -> None:
        """Remember a message, as far as there is room. Raises CancelledError when nobody needs it any more."""
        if not self.overflowed and (size := message.ByteSize()):
            if self._taken + size <= self._most_bytes and self._memory.take(size):
                self._taken += size
                self._answer.messages.append(message.SerializeToString())
                return
            self.overflowed = True
            self.forget()
        if self.overflowed and self._left:
            raise asyncio.CancelledError

    def answer(self) -> pb.StoredAnswer:
        """Return what is remembered."""
        return self._answer

    def forget(self) -> None:
        """Give back the memory that the answer took."""
        self._memory.give_back(self._taken)
        self._taken = 0
        self._answer = pb.StoredAnswer()

    async def end(self, result: Any = None, error: BaseException | None = None) -> None:
        """Tell the call that the work has ended: with a message to return, without one, or with an error."""
        await self._hand_on(Step(message=result, ended=True, error=error))

    async def steps(self) -> AsyncGenerator[Step, None]:
        """Yield what the work does, until it has ended."""
        while True:
            step = await self._steps.get()
            yield step
            if step.ended:
                return

    def leave(self) -> None:
        """Note that nobody reads any more; the work goes on."""
        self._left = True
        while not self._steps.empty():
            self._steps.get_nowait()

    async def _hand_on(self, step: Step) -> None:
        if not self._left:
            await self._steps.put(step)
