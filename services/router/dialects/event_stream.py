"""A REST answer in pieces: its headers, its events, and its signs of life in between.

Nothing is written before the first event is in hand, so that an early failure has a status of its own; but not for
longer than `FIRST_SIGN_S`. Then 200 is committed, and what fails before the first event is the stream's one error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final

import grpc
from google.api import httpbody_pb2
from msgspec.structs import replace

from services.common import errors
from services.common.dialects import Dialect
from services.common.rpc import call as calls
from services.common.rpc.heartbeat import Heartbeat
from services.common.rpc.status import error_from_rpc
from services.router.dialects.reply import Context, failure, sse_body
from services.router.domain.answer import Answer
from services.router.domain.caller import Caller

FIRST_SIGN_S = 10.0
"""After so long without an event the answer is begun without one."""
SIGN_EVERY_S = 15.0
"""How long an answer that has begun is silent at most."""
HEARD_S: Final = 1.0
"""How often signs of life of whoever answers are passed on, at most."""

COMMENT: Final = sse_body(data=b": keep-alive\n\n")
"""Readers of event streams pass over comments."""


class EventStream(Heartbeat):
    """Writes one answer. Use it as `async with EventStream(…) as stream`, around the whole of the operation.

    Args:
        dialect: Whose names a failure's field has.
        failed: Renders a failure as all that is left of the stream; none: as the dialect's event streams end.
        ignored: Parameters that were taken without effect, told by the headers of a stream that begins early.
        sign: What is written in silences.
    """

    __slots__ = ("_begun", "_committed", "_dialect", "_failed", "_ignored", "_rpc", "_sign")

    def __init__(
        self,
        context: Context,
        dialect: Dialect,
        failed: Callable[[errors.MoaError], httpbody_pb2.HttpBody] | None = None,
        *,
        ignored: Iterable[str] = (),
        sign: httpbody_pb2.HttpBody = COMMENT,
    ) -> None:
        super().__init__(context, first_s=FIRST_SIGN_S, every_s=SIGN_EVERY_S)
        self._rpc = context
        self._dialect = dialect
        self._failed = failed or (lambda error: sse_body(data=failure(dialect, error)))
        self._ignored = ignored
        self._sign = sign
        self._committed = False
        """Whether the response's headers were sent."""
        self._begun = False
        """Whether the answer has begun, and so renders its failures itself."""

    def caller(self, caller: Caller) -> Caller:
        """Return the caller, with whom signs of life of whoever answers are shared."""
        return replace(caller, heard=self.heard)

    def heard(self) -> None:
        """Pass on that whoever answers has shown that it works, once the caller was told anything."""
        if self._committed and self._loop.time() - self._last >= HEARD_S:
            self.send_sign()

    async def begin(self, headers: list[tuple[str, str]]) -> None:
        """Begin the answer, whose first event is in hand, with these headers, if it can still have any."""
        if self._sending is not None:
            await self._sending
        self._begun = True
        if not self._committed:
            self._committed = True
            self._busy = True
            await self._rpc.send_initial_metadata(headers)
            self._busy = False

    async def answer(self, answer: Answer[Any], render: Callable[[Any], bytes]) -> None:
        """Send an answer's messages as server-sent events, which `render` makes of each; empty where none shows."""
        await self.relay(answer.next, render, sse_body)

    def passed_over(self, message: Any) -> None:
        """Pass on a sign of life."""
        if not message.events:
            self.heard()

    def sign(self) -> httpbody_pb2.HttpBody:
        """Return what is written in a silence."""
        return self._sign

    async def write_sign(self, sign: Any) -> None:
        """Send a sign of life, after the response's headers."""
        if not self._committed:
            self._committed = True
            names = ", ".join(self._ignored)
            await self._rpc.send_initial_metadata([("x-moa-ignored", names)] if names else [])
        await super().write_sign(sign)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        await super().__aexit__(kind, error, trace)
        if self._begun or not self._committed or not isinstance(error, Exception):
            return False
        call = calls.current()
        cause = error_from_rpc(error) if isinstance(error, grpc.aio.AioRpcError) else error
        known = isinstance(cause, errors.MoaError)
        if not isinstance(cause, errors.MoaError):
            cause = errors.Internal(f"internal error (request {call.request_id})")
        cause.param = self._dialect.spelled(cause.param)
        call.broken = True
        call.fields["broken"] = errors.word(cause.reason)
        await self._rpc.write(self._failed(cause))
        return known
