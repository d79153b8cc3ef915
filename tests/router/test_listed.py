"""What providers list, from the services that ask them to the catalogue that routers go by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from moa.provider.v1 import listing_service_pb2 as pb
from moa.provider.v1 import listing_service_pb2_grpc
from services.catalogue import Catalogue, Model, Provider, UnknownModel
from services.common.errors import UpstreamFailed
from services.common.rpc.client import channel
from services.common.rpc.server import Server
from services.router.adapters.listed import ListedModels
from services.router.domain.listing import Listing
from tests.router.test_any_model import world_of

TOKEN = "a-service-token-for-tests"
PROVIDER = Provider(id="p", adapter="x", makes="text", base_url="x")
OTHER = Provider(id="q", adapter="x", makes="text", base_url="x")


class Service(listing_service_pb2_grpc.ListingServiceServicer):
    """Plays a service that asks providers."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.asked: list[pb.ListProviderModelsRequest] = []
        self.fails = False
        self.unavailable = ""

    async def ListProviderModels(self, request: Any, context: Any) -> pb.ListProviderModelsResponse:
        self.asked.append(request)
        if self.fails:
            raise UpstreamFailed("away")
        version = ",".join(self.ids) + self.unavailable
        models = [] if request.known.get("p") == version else [pb.ListedModel(id=name) for name in self.ids]
        entry = pb.ProviderModels(
            provider="p", version=version, unchanged=not models, models=models, unavailable=self.unavailable
        )
        return pb.ListProviderModelsResponse(providers=[entry] if self.ids else [])


class Rig:
    """A router's view of one provider."""

    def __init__(self, port: int, service: Service) -> None:
        self.service = service
        self.catalogue = Catalogue(
            [PROVIDER, OTHER], [Model(id="*", provider="p"), Model(id="*", provider="q")], frozenset("pq")
        )
        self.channel = channel(f"127.0.0.1:{port}")
        self.listed = ListedModels({"text": self.channel}, service_token=TOKEN, catalogue=lambda: self.catalogue)

    async def ask(self) -> None:
        """Ask the service as a router does every few seconds."""
        await self.listed.ask(0)

    @property
    def ids(self) -> list[str]:
        """What is discovered now."""
        return [model.full_id for model in self.listed.now().discovered]


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    service = Service()
    server = Server(service_token=TOKEN)
    listing_service_pb2_grpc.add_ListingServiceServicer_to_server(service, server.grpc)
    made = Rig(await server.start("127.0.0.1:0"), service)
    yield made
    await made.channel.close()
    await server.stop(0)


async def test_a_catalogue_is_joined_with_what_is_listed(rig: Rig) -> None:
    """A snapshot stays the same object until the file or a list changes; a new file is joined with the same lists."""
    assert rig.listed.now() is rig.catalogue
    rig.service.ids = ["a", "b"]
    await rig.ask()
    first = rig.listed.now()
    assert rig.ids == ["p/a", "p/b"]
    assert first.find("a").full_id == "p/a", "q may have it too, and p lists it"
    await rig.ask()
    assert rig.listed.now() is first
    assert dict(rig.service.asked[-1].known) == {"p": "a,b"}
    rig.catalogue = Catalogue([PROVIDER], [Model(id="*", provider="p", deny=("a",))], frozenset("p"))
    assert rig.ids == ["p/b"]


@pytest.mark.parametrize("failure", ["fails", "tells nothing"])
async def test_what_was_listed_stays_when_nothing_is_told(rig: Rig, failure: str) -> None:
    """A service that is away, or was started again and knows no list yet, takes nothing from callers."""
    rig.service.ids = ["a"]
    await rig.ask()
    rig.service.fails, rig.service.ids = failure == "fails", []
    await rig.ask()
    assert rig.ids == ["p/a"]


async def test_services_without_wildcard_rows_are_not_asked(rig: Rig) -> None:
    """Where the file names every model nobody is asked for lists."""
    rig.catalogue = Catalogue([PROVIDER], [Model(id="a", provider="p")], frozenset("p"))
    await rig.ask()
    assert not await rig.listed.refreshed()
    assert not rig.service.asked


async def test_unknown_names_ask_for_fresh_lists_once(rig: Rig) -> None:
    """However many callers make up names: one question in ten seconds, with the age that a list may have."""
    rig.service.ids = ["a"]
    assert await asyncio.gather(*(rig.listed.refreshed() for _ in range(20))) == [True] * 20
    assert [request.max_age_s for request in rig.service.asked] == [10]
    assert not await rig.listed.refreshed()
    assert len(rig.service.asked) == 1


async def test_a_name_that_came_out_since_is_found(rig: Rig) -> None:
    """A name that two providers may have is looked for in fresh lists before its caller is told that it is unknown."""
    world: Any = world_of()
    world.catalogue = rig.catalogue

    async def relisted() -> bool:
        changed = await rig.listed.refreshed()
        world.catalogue = rig.listed.now()
        return changed

    with pytest.raises(UnknownModel):
        await world.ask(model="a")
    world.relisted = relisted
    rig.service.ids = ["a"]
    assert (await world.ask(model="a"))[2].model.full_id == "p/a"


async def test_a_model_whose_server_is_away_is_told_so(rig: Rig) -> None:
    """It stays listed, with the reason, until the server is back; a model of another provider is not concerned."""
    rig.service.ids = ["m"]
    nobody: Any = None
    listing = Listing(operations={}, catalogue=rig.listed.now, admission=nobody)
    for why in ("", "the provider cannot be reached", ""):
        rig.service.unavailable = why
        await rig.ask()
        assert rig.ids == ["p/m"]
        told = {"status": "unavailable", "detail": why} if why else {}
        assert await listing.readiness(rig.listed.now().find("p/m")) == told
        assert await listing.readiness(rig.listed.now().find("q/m")) == {}
