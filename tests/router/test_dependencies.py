"""What a router says that it cannot reach."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from moa.router.v1 import readiness_service_pb2, readiness_service_pb2_grpc
from services.common.errors import Unavailable
from services.common.rpc.client import channel
from services.common.rpc.server import Server
from services.router.adapters.dependencies import AUTH, WARM_S, Dependencies
from services.router.domain.ports import Missing
from services.router.readiness import ReadinessServicer
from tests.router.moody import TOKEN


class Around:
    """An auth and a text service, and a router that asks for them by a clock of its own."""

    def __init__(self) -> None:
        self.time = 0.0
        self.database = True
        self.auth = Server(service_token=TOKEN, database=lambda: self.database)
        self.text = Server(service_token=TOKEN)

    async def start(self) -> None:
        """Start both."""
        ports = {AUTH: await self.auth.start("127.0.0.1:0"), "text": await self.text.start("127.0.0.1:0")}
        self.channels = {name: channel(f"127.0.0.1:{port}") for name, port in ports.items()}
        self.dependencies = Dependencies(self.channels, service_token=TOKEN, clock=lambda: self.time)

    async def missing(self, after_s: float) -> Missing:
        """Return what is missing so much later."""
        self.time += after_s
        return await self.dependencies.missing()


@pytest.fixture
async def around() -> AsyncIterator[Around]:
    """Yield both, started."""
    made = Around()
    await made.start()
    yield made
    for each in made.channels.values():
        await each.close()
    for server in (made.auth, made.text):
        await server.stop(0)


async def test_what_is_missing_is_named(around: Around) -> None:
    """By the process, or as the database where auth is there; requests are refused once keys that were used lately
    cannot go on without it, and not for another service. It is asked once a second at most."""
    assert await around.missing(0) == Missing()
    around.database = False
    assert await around.missing(0.5) == Missing()
    assert await around.missing(1) == Missing(("database",))
    assert await around.missing(WARM_S) == Missing(("database",), refuses=True)
    around.database = True
    assert await around.missing(1) == Missing()
    await around.text.stop(0)
    assert await around.missing(WARM_S + 1) == Missing(("text",))
    await around.auth.stop(0)
    assert await around.missing(1) == Missing(("auth", "text"))
    assert await around.missing(WARM_S) == Missing(("auth", "text"), refuses=True)


async def test_a_router_that_never_saw_auth_is_not_ready(around: Around) -> None:
    """At the start of a gateway nothing is answered before auth is there, and that is what is said."""
    await around.auth.stop(0)
    router = Server(service_token=None)
    servicer = ReadinessServicer(lambda: "", missing=around.dependencies.missing)
    readiness_service_pb2_grpc.add_ReadinessServiceServicer_to_server(servicer, router.grpc)
    async with channel(f"127.0.0.1:{await router.start('127.0.0.1:0')}") as asked:
        stub = readiness_service_pb2_grpc.ReadinessServiceStub(asked)
        with pytest.raises(Exception, match="requests are refused: auth cannot be reached") as caught:
            await stub.GetReadiness(readiness_service_pb2.GetReadinessRequest(), timeout=20)
        assert not isinstance(caught.value, Unavailable), "it comes over the wire"
    await router.stop(0)
