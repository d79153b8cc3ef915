"""How a request comes in: when there is room for it, from whom it may be, what it says, and whether it can be known.

Handlers of one request are served as if they took a stream: the request is received when this asks for it, so that a
large one waits for room before it is in this process, and nothing but its handler holds it afterwards. gRPC's own way
receives it first, and keeps its bytes until the answer has ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc
from google.api import httpbody_pb2
from google.protobuf.message import DecodeError

from services.common import errors
from services.common.byte_admission import ByteAdmission
from services.common.helper_process import HelperProcess
from services.common.large import LARGE_BYTES as HEAVY_BYTES
from services.common.large_turn import LargeTurns
from services.common.memory import Collecting
from services.common.rpc import call as calls
from services.common.rpc import known, rest, typed
from services.common.rpc.keys import key_of
from services.common.rpc.raw import RawBody

Handler = Callable[[Any, Any], Awaitable[Any]]

Receive = Callable[[calls.Call, Any], Awaitable[list[Any]]]
"""Returns the request of a call, in a list, so that whoever hands it on need not hold it.

A large one takes room of this process's memory until `Call.let_go`.
"""

Welcome = Callable[[Any, str], Awaitable[str]]
"""Gives whose a large request is, from the RPC's context and the full method; empty where that cannot be told. Raises
for callers who may not send one."""

LARGE_BYTES: Final = 64 * 1024
"""Reading a request of so many bytes costs no more than asking who sent it."""


class Receiving:
    """Receives the requests of a server.

    Args:
        public: Whether callers bring keys of their own, so that nothing in a request is believed.
        welcome: Asked before a request of more than `LARGE_BYTES` is read; None: whoever may call may send it.
        admission: Where requests of more than `HEAVY_BYTES` wait for their turn.
        helper: Where those are read that take longer than their bytes say; None: here.
    """

    def __init__(
        self,
        *,
        public: bool,
        welcome: Welcome | None = None,
        admission: ByteAdmission | None = None,
        helper: HelperProcess | None = None,
    ) -> None:
        self._public = public
        self._welcome = welcome
        self._admission = admission or ByteAdmission()
        self._helper = helper
        self._collecting = Collecting()
        self._turns = LargeTurns()

    def of(self, deserialize: Callable[[bytes], Any] | None, method: str) -> Receive:
        """Return what receives a method's requests."""
        complete, kind = rest.reader(method), rest.request_of(method)
        takes_body = kind is httpbody_pb2.HttpBody

        async def receive(call: calls.Call, context: Any) -> list[Any]:
            heavy = call.body_bytes > HEAVY_BYTES
            if heavy:
                await self._enter(context, call, call.body_bytes)
            data = await (_in_turn(context, call) if heavy else context.read())
            if data is grpc.aio.EOF:
                raise errors.Malformed("the call carries no request message")
            call.request_bytes = len(data)
            if len(data) <= LARGE_BYTES:
                return [self._read(data, context, deserialize, complete)]
            if not heavy and len(data) > HEAVY_BYTES:
                await self._enter(context, call, len(data))
            elif not heavy:
                await self._ask(context, call)
            self._collecting.saw(len(data))
            # Each is handed on without a name of its own here: what is done with is freed while the handler works.
            taken = [data]
            del data
            if len(taken[0]) <= HEAVY_BYTES:
                return [self._read(taken.pop(), context, deserialize, complete)]
            if takes_body:
                return [_raw(taken.pop())]
            if self._helper is not None and kind is not None:
                original = _original(context) if complete is not None else None
                return [
                    await self._helper.run(
                        typed.read, taken.pop(), call.account, kind, method, original, public=self._public
                    )
                ]
            return [self._read(taken.pop(), context, deserialize, complete)]

        return receive

    async def _enter(self, context: Any, call: calls.Call, size: int) -> None:
        await self._ask(context, call)
        call.room, call.turns = AsyncExitStack(), self._turns
        await call.room.enter_async_context(self._admission.entered(call.account, size, call.request_id))

    async def _ask(self, context: Any, call: calls.Call) -> None:
        if self._welcome is not None:
            call.account = await self._welcome(context, call.method)
        elif self._public:
            # Whose it is, nobody has asked yet; its key tells it from others'.
            with contextlib.suppress(errors.MoaError):
                call.account = key_of(calls.metadata_of(context))

    def _read(
        self, data: bytes, context: Any, deserialize: Callable[[bytes], Any] | None, complete: rest.Read | None
    ) -> Any:
        if deserialize is None:
            return data
        try:
            message = deserialize(data)
        except DecodeError:
            raise errors.Malformed("the request's message cannot be read") from None
        if complete is not None:
            original = _original(context)
            if original is not None:
                complete(message, original)
        if self._public:
            known.refuse_unknown(message)
        return message


async def _in_turn(context: Any, call: calls.Call) -> Any:
    async with call.turn():
        return await context.read()


def _original(context: Any) -> str | None:
    """Return the path and query that a REST caller asked for."""
    result = dict(context.invocation_metadata() or ()).get(rest.ORIGINAL_PATH)
    return None if result is None else str(result)


def _raw(data: bytes) -> RawBody:
    try:
        return RawBody(data)
    except DecodeError:
        raise errors.Malformed("the request's message cannot be read") from None
