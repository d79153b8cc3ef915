"""Large requests of strangers are not read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from services.catalogue import Catalogue
from services.common.errors import MoaError, Unauthenticated, Unavailable
from services.common.rpc.receiving import LARGE_BYTES
from services.common.rpc.server import Server
from services.router.refusals import Refusals

METHOD = "/moa.text.v1.TextService/CountTokens"


class Keys:
    """Knows one key."""

    failure: MoaError | None = None

    async def identify(self, key: str) -> SimpleNamespace:
        if self.failure:
            raise self.failure
        if key != "known":
            raise Unauthenticated("no such key")
        return SimpleNamespace(account_id="a-1")


class Text(text_service_pb2_grpc.TextServiceServicer):
    async def CountTokens(self, request: Any, context: Any) -> Any:
        return text_service_pb2.CountTokensResponse(prompt_tokens=7)

    def GenerateText(self, request: Any, context: Any) -> Any:
        raise AssertionError("not asked for")

    async def GenerateWholeText(self, request: Any, context: Any) -> Any:
        raise AssertionError("not asked for")


def unasked() -> Catalogue:
    raise AssertionError("not asked for")


async def told(keys: Keys, request: bytes, key: str) -> grpc.StatusCode:
    """Send bytes as a request; give the status."""
    server = Server(service_token=None, welcome=Refusals(keys, unasked).welcome)
    text_service_pb2_grpc.add_TextServiceServicer_to_server(Text(), server.grpc)
    port = await server.start("127.0.0.1:0")
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(METHOD)
            try:
                await call(request, metadata=(("x-api-key", key),), timeout=20)
            except grpc.aio.AioRpcError as failure:
                return failure.code()
            return grpc.StatusCode.OK
    finally:
        await server.stop(0)


UNREADABLE = b"\xff" * (LARGE_BYTES + 1)
READABLE = text_service_pb2.CountTokensRequest(model="m" * LARGE_BYTES).SerializeToString()


@pytest.mark.parametrize(
    ("request_bytes", "key", "code"),
    [
        (UNREADABLE, "unknown", grpc.StatusCode.UNAUTHENTICATED),
        (UNREADABLE, "known", grpc.StatusCode.INVALID_ARGUMENT),
        (READABLE, "unknown", grpc.StatusCode.UNAUTHENTICATED),
        (READABLE, "known", grpc.StatusCode.OK),
        # A small one is read first: one call then admits and reserves.
        (UNREADABLE[:100], "unknown", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_strangers_large_request_is_not_read(request_bytes: bytes, key: str, code: grpc.StatusCode) -> None:
    """Whoever has no valid key is refused before the bytes are looked at; others are served."""
    assert await told(Keys(), request_bytes, key) is code


async def test_who_cannot_be_told_is_not_refused() -> None:
    """With auth away a large request goes on to its operation, which knows how to say so, or has a grant still."""
    keys = Keys()
    keys.failure = Unavailable("auth is away")
    assert await told(keys, READABLE, "known") is grpc.StatusCode.OK
