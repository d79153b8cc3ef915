"""What is replaced inside grpcio takes effect, and calls go on without it.

Where one of these fails after an upgrade of grpcio, read `services/common/rpc/internals` beside the new release: each
replacement is made to fit, or removed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import structlog.testing

from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from services.common.errors import NotFound
from services.common.rpc.internals import accept, batch, library, wakeup
from services.common.rpc.internals.batch import defer_headers, send_answer
from services.common.rpc.server import Server

_WOKEN = """
import asyncio, grpc
from services.common.rpc import threads
from services.common.rpc.internals import wakeup

read = []

class End(wakeup.End):
    def recv(self, size):
        read.append(super().recv(size))
        return read[-1]

wakeup.End = End

async def main():
    async with threads.late(), grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        try:
            await channel.unary_unary("/nobody/Answers")(b"")
        except grpc.aio.AioRpcError:
            print(len(b"".join(read)))

asyncio.run(main())
"""
PATH = "/moa.text.v1.TextService/"
HEADERS = (("x-moa-cost", "tokens=3"),)
WHOLE = text_service_pb2.GenerateTextResponse


class Text(text_service_pb2_grpc.TextServiceServicer):
    async def GenerateText(self, request: Any, context: Any) -> None:  # type: ignore[override]
        await send_answer(context, HEADERS, WHOLE())
        if request.model == "fails":
            raise NotFound("too late to be told")

    async def CountTokens(self, request: Any, context: Any) -> Any:
        await defer_headers(context, HEADERS)
        if request.model == "fails":
            raise NotFound("no such model")
        return text_service_pb2.CountTokensResponse(prompt_tokens=7)

    async def GenerateWholeText(self, request: Any, context: Any) -> Any:
        raise AssertionError("not asked for")


@pytest.fixture
async def channel() -> AsyncIterator[grpc.Channel]:
    """A channel that is not grpc.aio's: of a call that was refused before its headers were read, that tells none."""
    server = Server(service_token=None)
    text_service_pb2_grpc.add_TextServiceServicer_to_server(Text(), server.grpc)
    port = await server.start("127.0.0.1:0")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The operations of the server that sent something, each with its parts."""
    result: list[list[str]] = []
    execute = batch.execute

    def noted(call: Any, operations: tuple[Any, ...], loop: Any) -> Any:
        names = [type(each).__name__.removesuffix("Operation") for each in operations]
        if any(name.startswith("Send") for name in names):
            result.append(names)
        return execute(call, operations, loop)

    monkeypatch.setattr(batch, "execute", noted)
    return result


def told(channel: grpc.Channel, method: str, model: str) -> tuple[list[Any], dict[str, Any], grpc.StatusCode]:
    """Return a call's messages, its headers and its status."""
    # Both requests have the model in their first field.
    request = text_service_pb2.CountTokensRequest(model=model).SerializeToString()
    ask: Any = channel.unary_unary(PATH + method)
    try:
        message, call = ask.with_call(request, timeout=60)
    except grpc.RpcError as failure:
        refused: Any = failure
        return [], dict(refused.initial_metadata()), refused.code()
    return [message], dict(call.initial_metadata()), call.code()


async def text(channel: grpc.Channel, model: str = "") -> Any:
    return await asyncio.to_thread(told, channel, "GenerateText", model)


async def count(channel: grpc.Channel, model: str = "") -> Any:
    return await asyncio.to_thread(told, channel, "CountTokens", model)


def test_grpcio_is_the_release_that_was_checked() -> None:
    """After an upgrade: set `library.CHECKED`; then the tests below say what has no effect any more."""
    assert library.unusable(library.LIBRARY, grpc.__version__) == ""


@pytest.mark.parametrize(
    ("version", "why"), [("1.85.9", "it has no RPCState, "), ("1.850.1", "checked with"), ("2.85.1", "checked with")]
)
def test_nothing_is_replaced_of_another_release(version: str, why: str) -> None:
    """Of a release that nobody has checked, or without a name that is needed, all is left as it is, and it is said."""
    assert library.unusable(SimpleNamespace(), version).startswith(why)


def test_what_is_not_replaced_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of the log says that calls go gRPC's own way, which is left to it."""
    names = vars(library.LIBRARY).copy()
    monkeypatch.setattr(grpc, "__version__", "9.0.0")
    library.usable.cache_clear()
    try:
        with structlog.testing.capture_logs() as lines:
            accept.install()
            batch.install()
            with wakeup.pipes():
                assert vars(library.LIBRARY) == names
    finally:
        library.usable.cache_clear()
    assert [(line["event"], line["version"]) for line in lines] == [("grpc.not_replaced", "9.0.0")]


async def test_answers_go_grpcs_own_way_where_it_is_not_replaced(channel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the same, in more operations."""
    monkeypatch.setattr(library.LIBRARY, "execute_batch", batch.execute)
    for ask in (text, count):
        messages, headers, code = await ask(channel)
        assert (len(messages), headers["x-moa-cost"], code) == (1, "tokens=3", grpc.StatusCode.OK)


async def test_the_next_call_is_waited_for_by_itself(channel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """grpc.aio's server asks `accept` to wait, for one task at a time."""
    waited: list[int] = []
    wait = library.LIBRARY.asyncio.wait
    assert wait is accept.wait_first

    async def noted(tasks: Any, **how: Any) -> Any:
        waited.append(len(tasks))
        return await wait(tasks, **how)

    monkeypatch.setattr(library.LIBRARY.asyncio, "wait", noted)
    for _ in range(2):
        await text(channel)
    assert waited
    assert set(waited) == {1}


def test_the_loop_is_woken_by_a_pipe() -> None:
    """The end of a call is told to the loop by the pipe that gRPC was given in place of its sockets."""
    told = subprocess.run([sys.executable, "-c", _WOKEN], check=True, capture_output=True, text=True).stdout
    assert int(told) > 0


def test_a_pipe_is_read_empty() -> None:
    """However much has ended, it is read at once; a loop that comes too late finds nothing, and no failure."""
    reading, writing = wakeup.pipe()
    try:
        os.write(writing.fileno(), b"111")
        assert reading.recv(1) == b"111"
        assert reading.recv(1) == b""
    finally:
        reading.close()
        writing.close()


async def test_one_operation(channel: Any, sent: list[list[str]]) -> None:
    """Headers, message and status of an answer that a handler writes are sent together."""
    messages, headers, code = await text(channel)
    assert (messages, headers["x-moa-cost"], code) == ([WHOLE().SerializeToString()], "tokens=3", grpc.StatusCode.OK)
    assert sent == [["SendInitialMetadata", "SendMessage", "SendStatusFromServer"]]


async def test_after_the_answer(channel: Any, sent: list[list[str]]) -> None:
    """What fails after an answer was sent changes nothing of it."""
    messages, _, code = await text(channel, "fails")
    assert (len(messages), code) == (1, grpc.StatusCode.OK)


async def test_returned(channel: Any, sent: list[list[str]]) -> None:
    """So are those of an answer that a handler returns."""
    messages, headers, code = await count(channel)
    assert (len(messages), headers["x-moa-cost"], code) == (1, "tokens=3", grpc.StatusCode.OK)
    assert sent == [["SendInitialMetadata", "SendMessage", "SendStatusFromServer"]]


async def test_refused(channel: Any, sent: list[list[str]]) -> None:
    """A handler that fails after it has told its headers has its error told, with them."""
    messages, headers, code = await count(channel, "fails")
    assert (messages, headers["x-moa-cost"], code) == ([], "tokens=3", grpc.StatusCode.NOT_FOUND)


async def test_another_context() -> None:
    """Where the context is none of gRPC's the answer goes its way."""

    told: list[Any] = []

    async def tell(what: Any) -> None:
        told.append(what)

    await send_answer(SimpleNamespace(send_initial_metadata=tell, write=tell), HEADERS, b"whole")
    assert told == [HEADERS, b"whole"]
