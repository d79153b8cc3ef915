"""How far the gateway's own models are, from the inference service to the listing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from inference.packages import Packages, Standing
from inference.registry import Registry
from inference.states import ModelServicer
from moa.inference.v1 import model_service_pb2_grpc
from services.catalogue import Catalogue, Load, Model, Provider, Watched, inference_service
from services.common.rpc.client import channel
from services.common.rpc.server import Server
from services.router.adapters.model_states import ModelStates
from tests import shipped

TOKEN = "a-service-token-for-tests"
CHAT, TOY = "local-text/smollm2-135m", "local-text/moa-tiny-chat"


async def test_a_model_is_absent_then_loading_then_ready() -> None:
    """A fetch is told by its per cent, then the model is ready; the service is asked once a second at most, and what
    cannot be told is left out."""
    standing = [Standing("absent", detail="this machine is offline")]

    def stands(load: Load) -> Standing:
        return standing[0] if load.source.startswith("package:") else Standing("ready", 100)

    packages = cast(Packages, SimpleNamespace(standing=stands))
    registry = Registry(lambda model, report: pytest.fail("nothing is loaded"))
    catalogue = cast(Watched, SimpleNamespace(now=shipped.catalogue()))
    server = Server(service_token=TOKEN)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(catalogue, registry, packages), server.grpc)
    inference = channel(f"127.0.0.1:{await server.start('127.0.0.1:0')}")
    time = [0.0]
    states = ModelStates([inference], service_token=TOKEN, clock=lambda: time[0])

    async def told() -> Any:
        return (await states.now()).get(CHAT)

    assert await told() == {"status": "absent", "detail": "this machine is offline"}
    standing[0] = Standing("loading", 40)
    assert await told() == {"status": "absent", "detail": "this machine is offline"}
    time[0] = 1.0
    assert await told() == {"status": "loading", "percent": 40}
    assert (await states.now())[TOY] == {"status": "ready"}
    standing[0] = Standing("ready", 100)
    time[0] = 2.0
    assert await told() == {"status": "ready"}
    await server.stop(0)
    time[0] = 3.0
    assert await told() is None
    await inference.close()
    await registry.close()


async def test_each_pool_tells_of_its_own_models() -> None:
    """A process tells of the models whose provider names its pool, the router asks every pool, and calls go there."""
    providers = [
        Provider(id="local-image", adapter="inference", makes="image"),
        Provider(id="gpu-image", adapter="inference", makes="image", pool="gpu"),
    ]
    models = [
        Model(id=name, provider=provider, load=Load(source=name))
        for name, provider in (("small", "local-image"), ("big", "gpu-image"))
    ]
    catalogue = cast(Watched, SimpleNamespace(now=Catalogue(providers, models, frozenset())))
    registry = Registry(lambda model, report: pytest.fail("nothing is loaded"))
    packages = cast(Packages, SimpleNamespace(standing=lambda load: Standing("ready", 100)))
    servers, channels = [], []
    for pool in ("", "gpu"):
        server = Server(service_token=TOKEN)
        states = ModelServicer(catalogue, registry, packages, pool)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(states, server.grpc)
        channels.append(channel(f"127.0.0.1:{await server.start('127.0.0.1:0')}"))
        servers.append(server)
    asked = [await ModelStates([each], service_token=TOKEN).now() for each in channels]
    assert [set(each) for each in asked] == [{"local-image/small"}, {"gpu-image/big"}]
    assert set(await ModelStates(channels, service_token=TOKEN).now()) == {"local-image/small", "gpu-image/big"}
    assert [each.service for each in providers] == ["inference", inference_service("gpu")]
    for each in channels:
        await each.close()
    for server in servers:
        await server.stop(0)
    await registry.close()
