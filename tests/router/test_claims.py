"""Claims of idempotency keys, at a real gRPC server that keeps none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from moa.idempotency.v1 import idempotency_service_pb2 as pb
from moa.idempotency.v1 import idempotency_service_pb2_grpc
from services.common.errors import NotFound, Unavailable
from services.common.rpc import server
from services.common.rpc.client import channel
from services.router.adapters.claims import Claims

TOKEN = "a-service-token-for-tests"
TIMEOUT_S = 20


class Keeper(idempotency_service_pb2_grpc.IdempotencyServiceServicer):
    """Notes what is renewed; fails as often as it is told to."""

    def __init__(self) -> None:
        self.renewed: asyncio.Queue[set[str]] = asyncio.Queue()
        self.failing = 0

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewResponse:
        self.renewed.put_nowait(set(request.claim_ids))
        if self.failing:
            self.failing -= 1
            raise Unavailable("away")
        return pb.RenewResponse()

    async def Claim(self, request: pb.ClaimRequest, context: Any) -> pb.ClaimResponse:
        raise NotImplementedError

    async def Keep(self, request: pb.KeepRequest, context: Any) -> pb.KeepResponse:
        raise NotImplementedError

    async def Free(self, request: pb.FreeRequest, context: Any) -> pb.FreeResponse:
        raise NotImplementedError

    async def Read(self, request: pb.ReadRequest, context: Any) -> pb.ReadResponse:
        raise NotFound("gone")


@pytest.fixture
async def keeper() -> AsyncIterator[tuple[Keeper, Claims]]:
    keeper, running = Keeper(), server.Server(service_token=TOKEN)
    idempotency_service_pb2_grpc.add_IdempotencyServiceServicer_to_server(keeper, running.grpc)
    port = await running.start("127.0.0.1:0")
    async with channel(f"127.0.0.1:{port}") as link:
        claims = Claims(link, service_token=TOKEN)
        yield keeper, claims
        await claims.aclose()
    await running.stop(0)


def begun(name: str) -> pb.Begun:
    """A claim that lasts for some milliseconds."""
    made = pb.Begun(claim_id=name)
    made.expires_in.FromMilliseconds(30)
    return made


async def test_a_claim_is_renewed_until_its_work_ends(keeper: tuple[Keeper, Claims]) -> None:
    """With all others in one call; that one renewal fails ends nothing, and later work is renewed anew."""
    kept, claims = keeper
    kept.failing = 1
    async with asyncio.timeout(TIMEOUT_S):
        async with claims.renewed(begun("a")):
            assert await kept.renewed.get() == {"a"}
            async with claims.renewed(begun("b")):
                while await kept.renewed.get() != {"a", "b"}:
                    pass
            while await kept.renewed.get() != {"a"}:
                pass
        async with claims.renewed(begun("c")):
            while await kept.renewed.get() != {"c"}:
                pass


async def test_failures_are_told_as_such(keeper: tuple[Keeper, Claims]) -> None:
    """By their reasons, as auth named them."""
    with pytest.raises(NotFound):
        await keeper[1].read("a")
