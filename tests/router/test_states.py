"""How far the gateway's own models are, from the inference service to the listing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from inference.packages import Packages, Standing
from inference.registry import Registry
from inference.states import ModelServicer
from moa.inference.v1 import model_service_pb2_grpc
from services.catalogue import Load, Watched
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
    states = ModelStates(inference, service_token=TOKEN, clock=lambda: time[0])

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
