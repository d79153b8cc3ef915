"""gRPC and gRPC-Web on the public port."""

from __future__ import annotations

import contextlib
import http.client
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import requests
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from deploy.local.stack import Stack
from moa.common.v1 import error_pb2
from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from tests.edge.upstream import TIMEOUT_S, Upstream


@pytest.fixture
def channel(edge: Stack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{edge.port}") as opened:
        yield opened


def test_stream(channel: grpc.Channel, upstream: Upstream) -> None:
    """A typed stream passes with its messages whole and its status OK."""
    stub = text_service_pb2_grpc.TextServiceStub(channel)
    call = stub.GenerateText(text_service_pb2.GenerateTextRequest(model="any"), timeout=TIMEOUT_S)
    assert [event.text.text for message in call for event in message.events] == ["Hello", "안녕"]
    assert call.code() is grpc.StatusCode.OK


def test_typed_error(channel: grpc.Channel, upstream: Upstream) -> None:
    """A failure keeps its status, its details and its trailers: the edge's script leaves gRPC callers alone."""
    stub = text_service_pb2_grpc.TextServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.GenerateText(text_service_pb2.GenerateTextRequest(model="absent"), timeout=TIMEOUT_S))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    metadata: Any = caught.value.trailing_metadata()
    trailers: dict[str, Any] = dict(metadata)
    rich = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    detail = error_pb2.ErrorDetail()
    assert rich.details[0].Unpack(detail)
    assert (detail.reason, detail.param) == (error_pb2.REASON_MODEL_NOT_FOUND, "model")
    assert trailers["x-moa-reason"] == "model_not_found"


def test_internal_metadata_is_stripped(channel: grpc.Channel, upstream: Upstream) -> None:
    """A gRPC caller cannot send the service credential's header either."""
    stub = text_service_pb2_grpc.TextServiceStub(channel)
    answer = stub.CountTokens(
        text_service_pb2.CountTokensRequest(), metadata=(("x-moa-service", "token"),), timeout=TIMEOUT_S
    )
    assert answer.prompt_tokens == 7


@pytest.mark.parametrize(("given", "kept"), [("mine-1", True), ("m" * 129, False), ("m y", False)])
def test_a_callers_request_id_is_kept(channel: grpc.Channel, upstream: Upstream, given: str, kept: bool) -> None:
    """As over REST: where it is up to 128 visible ASCII characters."""
    stub = text_service_pb2_grpc.TextServiceStub(channel)
    request = text_service_pb2.GenerateTextRequest(model="absent")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.GenerateText(request, metadata=(("x-request-id", given),), timeout=TIMEOUT_S))
    metadata: Any = caught.value.trailing_metadata()
    detail = error_pb2.ErrorDetail()
    status_pb2.Status.FromString(dict(metadata)["grpc-status-details-bin"]).details[0].Unpack(detail)
    assert detail.request_id
    assert (detail.request_id == given) == kept


@pytest.mark.parametrize("method", ["/moa.quota.v1.QuotaService/Admit", "/moa.router.v1.NativeService/ListProviders"])
def test_internal_services_are_hidden(channel: grpc.Channel, method: str) -> None:
    """What is not public is UNIMPLEMENTED, as gRPC wants it."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details()
    metadata: Any = caught.value.trailing_metadata()
    assert dict(metadata)["x-moa-reason"] == "not_found"
    assert "x-moa-edge" not in dict(metadata)


@pytest.mark.parametrize("method", ["GenerateText", "CountTokens"])
def test_garbage_is_refused_in_our_words(channel: grpc.Channel, upstream: Upstream, method: str) -> None:
    """Bytes that are no message are INVALID_ARGUMENT with our reason; no name of a class or a field gets out."""
    call: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/moa.text.v1.TextService/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(b"\xff" * 100, timeout=TIMEOUT_S))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "the request's message cannot be read"
    metadata: Any = caught.value.trailing_metadata()
    assert dict(metadata)["x-moa-reason"] == "malformed"


def test_health_and_reflection(channel: grpc.Channel, upstream: Upstream) -> None:
    """Health answers for the public services, and reflection names them."""
    health = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service="moa.text.v1.TextService")
    assert health.Check(asked, timeout=TIMEOUT_S).status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asks = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answer = next(iter(stub.ServerReflectionInfo(asks, timeout=TIMEOUT_S)))
    names = {service.name for service in answer.list_services_response.service}
    assert {"moa.text.v1.TextService", "moa.image.v1.ImageService"} <= names


@pytest.mark.parametrize(("model", "status", "texts"), [("any", b"0", 2), ("absent", b"5", 0)])
def test_grpc_web(edge: Stack, upstream: Upstream, model: str, status: bytes, texts: int) -> None:
    """A browser's gRPC-Web call gets its messages and, in the body's last frame, its trailers."""
    message = text_service_pb2.GenerateTextRequest(model=model).SerializeToString()
    answer = requests.post(
        f"{edge.url}/moa.text.v1.TextService/GenerateText",
        data=struct.pack(">BI", 0, len(message)) + message,
        headers={
            "content-type": "application/grpc-web+proto",
            "x-grpc-web": "1",
            "origin": "https://a.b",
        },
        timeout=TIMEOUT_S,
    )
    assert answer.status_code == 200
    assert "grpc-status" in answer.headers["access-control-expose-headers"]
    messages, trailers = frames(answer.content)
    if not messages and "grpc-status" in answer.headers:  # a failure before any message may come as headers alone
        trailers = f"grpc-status:{answer.headers['grpc-status']}".encode()
    assert len(messages) == texts
    assert b"grpc-status:" + status in trailers.replace(b" ", b"")


def test_a_grpc_web_message_comes_before_the_next_is_made(edge: Stack, upstream: Upstream) -> None:
    """The router makes the second once the first was read."""
    message = text_service_pb2.GenerateTextRequest(model="held").SerializeToString()
    link = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=TIMEOUT_S)
    with contextlib.closing(link):
        link.request(
            "POST",
            "/moa.text.v1.TextService/GenerateText",
            struct.pack(">BI", 0, len(message)) + message,
            {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
        )
        upstream.held.go.release()
        answer = link.getresponse()
        said = []
        for _ in range(2):
            flags, size = struct.unpack(">BI", answer.read(5))
            assert flags == 0
            events = text_service_pb2.GenerateTextResponse.FromString(answer.read(size)).events
            said += [event.text.text for event in events]
            upstream.held.go.release()
        assert b"grpc-status:0" in answer.read().replace(b" ", b"")
    assert said == ["Hello", "안녕"]


def frames(body: bytes) -> tuple[list[bytes], bytes]:
    messages, trailers = [], b""
    while body:
        flags, size = struct.unpack(">BI", body[:5])
        piece, body = body[5 : 5 + size], body[5 + size :]
        if flags & 0x80:
            trailers = piece
        else:
            messages.append(piece)
    return messages, trailers
