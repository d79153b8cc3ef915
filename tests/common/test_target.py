"""The addresses that settings name, as gRPC takes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc
import pytest

from moa.text.v1 import text_service_pb2, text_service_pb2_grpc
from services.common import settings
from services.common.rpc.client import channel, metadata
from services.common.rpc.server import Server
from services.common.rpc.target import Addresses, addresses_by_name, target_of

TOKEN = "a-service-token-for-tests"


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ("127.0.0.1:8101", "127.0.0.1:8101"),
        ("router:8101", "router:8101"),
        ("[::1]:8101", "[::1]:8101"),
        ("127.0.0.1:1,127.0.0.1:2", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        (" 10.0.0.1:1, 10.0.0.2:65535 ", "ipv4:10.0.0.1:1,10.0.0.2:65535"),
        ("[::1]:1,[fd00::2]:2", "ipv6:[::1]:1,[fd00::2]:2"),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        ("dns:///router.moa:8101", "dns:///router.moa:8101"),
        ("unix:/run/moa/router", "unix:/run/moa/router"),
    ],
)
def test_several_addresses_are_one_target(addresses: str, target: str) -> None:
    """A list becomes gRPC's own form; one address and what is a target already stay."""
    assert target_of(addresses) == target


@pytest.mark.parametrize(
    "addresses",
    [
        *("", "router", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", "a:1,b:2", "127.0.0.1:1,b:2"),
        *("127.0.0.1:1,[::1]:2", "127.0.0.1:1,", ",127.0.0.1:1", "[nonsense]:1", "a b:1", "http://router:8101"),
    ],
)
def test_what_cannot_be_called_is_refused(addresses: str) -> None:
    """Names in a list, kinds mixed, and what is no address: in words, before anything is called."""
    with pytest.raises(ValueError, match=r"one kind|host:port"):
        target_of(addresses)


def test_services_by_name() -> None:
    """Each has a name and an address; what is no such pair, or stands twice, is refused in words."""
    assert addresses_by_name("images=moa-images:8104, chat=[::1]:2,") == {
        "images": "moa-images:8104",
        "chat": "[::1]:2",
    }
    assert addresses_by_name("") == {}
    for wrong in ("images", "=a:1", "Images=a:1", "images=a", "images=a:1,images=b:1"):
        with pytest.raises(ValueError, match=r"name=host:port|host:port|stands twice"):
            addresses_by_name(wrong)


def test_a_bad_address_stops_the_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the name of its variable."""

    class Own(settings.ServiceSettings):
        router_address: Addresses = "127.0.0.1:8101"

    monkeypatch.setenv("MOA_SERVICE_TOKEN", TOKEN)
    monkeypatch.setenv("MOA_ROUTER_ADDRESS", "router-1:8101,router-2:8101")
    with pytest.raises(SystemExit):
        settings.read(Own)
    assert "MOA_ROUTER_ADDRESS" in capsys.readouterr().err


class _Counting(text_service_pb2_grpc.TextServiceServicer):
    def __init__(self, name: str, served: Counter[str]) -> None:
        self._name, self._served = name, served

    async def CountTokens(self, request: Any, context: Any) -> Any:
        self._served[self._name] += 1
        return text_service_pb2.CountTokensResponse(prompt_tokens=1)

    def GenerateText(self, request: Any, context: Any) -> Any:
        raise AssertionError("not asked for")

    async def GenerateWholeText(self, request: Any, context: Any) -> Any:
        raise AssertionError("not asked for")


async def test_calls_go_to_each_in_turn_and_on_when_one_is_gone() -> None:
    """Two servers share the calls evenly; when one stops, the other gets them all."""
    served: Counter[str] = Counter()
    servers: list[Server] = []
    addresses: list[str] = []
    for name in ("first", "second"):
        server = Server(service_token=TOKEN)
        text_service_pb2_grpc.add_TextServiceServicer_to_server(_Counting(name, served), server.grpc)
        addresses.append(f"127.0.0.1:{await server.start('127.0.0.1:0')}")
        servers.append(server)
    async with channel(",".join(addresses)) as opened, asyncio.timeout(60):
        stub = text_service_pb2_grpc.TextServiceStub(opened)

        async def ask() -> None:
            call: Any = stub.CountTokens
            await call(text_service_pb2.CountTokensRequest(), metadata=metadata(TOKEN, "r"), wait_for_ready=True)

        while min(served["first"], served["second"]) == 0:  # until both connections stand
            await ask()
        served.clear()
        for _ in range(10):
            await ask()
        assert served == {"first": 5, "second": 5}
        await servers[0].stop(0)
        served.clear()
        while served["second"] < 10:
            try:
                await ask()
            except grpc.aio.AioRpcError as failure:
                # It was on its way to the first when that ended.
                assert failure.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017  # a few may, and none has to
        assert served == {"second": 10}
    await servers[1].stop(0)
