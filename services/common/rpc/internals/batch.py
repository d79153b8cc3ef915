"""Whole answers in one of gRPC's operations: headers, message and status.

grpc.aio has an operation for each of them where an answer has headers of its own, and waits for each: its thread is
woken, which wakes the loop, and the connection is written to, which wakes the edge.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final

from services.common.rpc.call import Metadata
from services.common.rpc.internals.library import LIBRARY, usable

execute: Final[Any] = getattr(LIBRARY, "execute_batch", None)
"""Does operations of a call: a coroutine, that ends with them."""
# Where one of them is absent (`usable`), no context is gRPC's, and answers go its own way.
_Context: Final[Any] = getattr(LIBRARY, "_ServicerContext", None)
_State: Final[Any] = getattr(LIBRARY, "RPCState", None)
_Read: Final[Any] = getattr(LIBRARY, "ReceiveMessageOperation", None)
_Status: Final[Any] = getattr(LIBRARY, "SendStatusFromServerOperation", None)


async def send_answer(context: Any, headers: Metadata, message: Any) -> None:
    """Send a whole answer and its status, which is OK: whatever the handler does after that changes neither.

    It is on its way when this returns, and is waited for after the handler: what that does until its next pause is done
    before anybody in this process can have read the answer.

    Where a call is none of grpc.aio's own, or `install` was not called, its headers and message alone are sent.
    """
    if type(context) is not _Context:
        await context.send_initial_metadata(headers)
        await context.write(message)
        return
    answer = _Batch()
    _BATCH.set(answer)
    await context.send_initial_metadata(headers)
    await context.write(message)
    answer.send()


async def defer_headers(context: Any, headers: Metadata) -> None:
    """Send an answer's headers with the message that the handler returns, or with the error that it raises."""
    if type(context) is _Context:
        _BATCH.set(_Batch())
    await context.send_initial_metadata(headers)


def install() -> None:
    """Have grpc.aio, which has no such way, ask here for each operation."""
    if usable():
        LIBRARY.execute_batch = _operate


def _operate(call: Any, operations: tuple[Any, ...], loop: Any) -> Awaitable[None]:
    """Do operations of a call, as grpc.aio does, or keep them."""
    if type(call) is _State and (answer := _BATCH.get()) is not None:
        return answer.operate(call, operations, loop)
    result: Awaitable[None] = execute(call, operations, loop)
    return result


class _Done:
    """What has been done."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE: Final = _Done()


class _Started:
    """Operations that have started, until they are waited for."""

    __slots__ = ("_coroutine", "_future")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._future = coroutine.send(None)

    def __await__(self) -> Generator[Any, None, None]:
        try:
            yield self._future
        except BaseException as error:
            self._coroutine.throw(error)
        else:
            with suppress(StopIteration):
                self._coroutine.send(None)


class _Batch:
    """What is sent of an answer, until all of it is."""

    __slots__ = ("_call", "_is_sent", "_loop", "_operations", "_started")

    def __init__(self) -> None:
        self._operations: tuple[Any, ...] = ()
        self._call: Any = None
        self._loop: Any = None
        self._is_sent = False
        self._started: Awaitable[None] = _DONE

    def operate(self, call: Any, operations: tuple[Any, ...], loop: Any) -> Awaitable[None]:
        """Keep what is to be sent; with a status send it. Nothing follows that: it is waited for."""
        if type(operations[0]) is _Read:
            result: Awaitable[None] = execute(call, operations, loop)
            return result
        if self._is_sent:
            started, self._started = self._started, _DONE
            return started
        self._operations += operations
        self._call, self._loop = call, loop
        return self._sent() if type(operations[-1]) is _Status else _DONE

    def send(self) -> None:
        """Begin to send what there is, and that it is all."""
        if self._operations:
            self._operations += (_Status((), 0, "", 0),)
            self._started = _Started(self._sent())

    def _sent(self) -> Coroutine[Any, Any, None]:
        self._is_sent = True
        call, self._call = self._call, None
        operations, self._operations = self._operations, ()
        result: Coroutine[Any, Any, None] = execute(call, operations, self._loop)
        return result


_BATCH: Final = ContextVar[_Batch | None]("moa_answer_batch", default=None)
"""Of the call that is being served, once it is sent at once."""
