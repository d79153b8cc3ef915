"""Whole answers go in one of gRPC's operations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from services.common.errors import NotFound
from services.common.rpc import at_once
from services.common.rpc.at_once import keep_headers, send_answer
from services.common.rpc.server import Server

PATH = "/moa.text.v1.TextService/"
HEADERS = (("x-moa-cost", "tokens=3"),)
WHOLE = text_service_pb2.GenerateTextResponse


class Text(text_service_pb2_grpc.TextServiceServicer):
    async def GenerateText(self, request: Any, context: Any) -> None:  # type: ignore[override]
        await send_answer(context, HEADERS, WHOLE())
        if request.model == "fails":
            raise NotFound("too late to be told")

    async def CountTokens(self, request: Any, context: Any) -> Any:
        await keep_headers(context, HEADERS)
        if request.model == "fails":
            raise NotFound("no such model")
        return text_service_pb2.CountTokensResponse(prompt_tokens=7)

    async def GenerateWholeText(self, request: Any, context: Any) -> Any:
        raise AssertionError("not asked for")


@pytest.fixture
async def channel() -> AsyncIterator[Any]:
    server = Server(service_token=None)
    text_service_pb2_grpc.add_TextServiceServicer_to_server(Text(), server.grpc)
    port = await server.start("127.0.0.1:0")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The operations of the server that sent something, each with its parts."""
    result: list[list[str]] = []
    execute = at_once.execute

    def noted(call: Any, operations: tuple[Any, ...], loop: Any) -> Any:
        names = [type(each).__name__.removesuffix("Operation") for each in operations]
        if any(name.startswith("Send") for name in names):
            result.append(names)
        return execute(call, operations, loop)

    monkeypatch.setattr(at_once, "execute", noted)
    return result


async def told(call: Any) -> tuple[list[Any], dict[str, Any], grpc.StatusCode]:
    """Return a call's messages, its headers and its status."""
    messages = []
    with suppress(grpc.aio.AioRpcError):
        while (message := await call.read()) is not grpc.aio.EOF:
            messages.append(message)
    return messages, dict(await call.initial_metadata()), await call.code()


async def text(channel: Any, model: str = "") -> Any:
    request = text_service_pb2.GenerateTextRequest(model=model).SerializeToString()
    return await told(channel.unary_stream(PATH + "GenerateText")(request, timeout=20))


async def count(channel: Any, model: str = "") -> Any:
    request = text_service_pb2.CountTokensRequest(model=model).SerializeToString()
    return await told(channel.unary_stream(PATH + "CountTokens")(request, timeout=20))


async def test_one_operation(channel: Any, sent: list[list[str]]) -> None:
    """Headers, message and status of an answer that a handler writes are sent together."""
    messages, headers, code = await text(channel)
    assert (messages, headers["x-moa-cost"], code) == ([WHOLE().SerializeToString()], "tokens=3", grpc.StatusCode.OK)
    server = [each for each in sent if "SendCloseFromClient" not in each]
    assert server == [["SendInitialMetadata", "SendMessage", "SendStatusFromServer"]]


async def test_after_the_answer(channel: Any, sent: list[list[str]]) -> None:
    """What fails after an answer was sent changes nothing of it."""
    messages, _, code = await text(channel, "fails")
    assert (len(messages), code) == (1, grpc.StatusCode.OK)


async def test_returned(channel: Any, sent: list[list[str]]) -> None:
    """So are those of an answer that a handler returns."""
    messages, headers, code = await count(channel)
    assert (len(messages), headers["x-moa-cost"], code) == (1, "tokens=3", grpc.StatusCode.OK)
    assert [each for each in sent if "SendCloseFromClient" not in each] == [
        ["SendInitialMetadata", "SendMessage", "SendStatusFromServer"]
    ]


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
