"""How the parts are that the pipeline calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from moa.desk.v1 import desk_pb2
from services.common.errors import MoaError, NotFound
from services.common.store import Store, object_name
from services.desk.adapters.naver import Naver

_TIMEOUT_S = 2.0

OPTIONAL = frozenset(("shopping",))
"""The parts without which a desk is made all the same."""

Check = Callable[[], Awaitable[str]]
"""Gives what is wrong in one sentence; empty when nothing is."""


async def ask_all(checks: Mapping[str, Check]) -> list[desk_pb2.Dependency]:
    """Ask every part, all at once, for two seconds at most."""
    return list(await asyncio.gather(*(_ask(name, check) for name, check in checks.items())))


class _NotConfigured(Exception):
    """The operator has not set a part up. The message says what is missing."""


async def _ask(name: str, check: Check) -> desk_pb2.Dependency:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            detail = await check()
    except TimeoutError:
        detail = "it does not answer"
    except MoaError as error:
        detail = error.message
    except _NotConfigured as found:
        return desk_pb2.Dependency(name=name, detail=str(found), optional=name in OPTIONAL, not_configured=True)
    return desk_pb2.Dependency(name=name, healthy=not detail, detail=detail, optional=name in OPTIONAL)


def of_service(channel: grpc.aio.Channel, name: str) -> Check:
    """Ask a process about one of its gRPC services, by its full name."""
    stub = health_pb2_grpc.HealthStub(channel)

    async def check() -> str:
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.NOT_FOUND:
                return "this gateway has none"
            return f"it cannot be reached ({failure.code().name.lower()})"
        return "" if answer.status == health_pb2.HealthCheckResponse.SERVING else "it is not ready"

    return check


def of_store(store: Store) -> Check:
    """Ask the store for what it cannot have: that it says so shows that it works."""

    async def check() -> str:
        try:
            await store.head(object_name("healthcheck", "png"))
        except NotFound:
            return ""
        return "it has what nobody stored"

    return check


def of_shops(naver: Naver) -> Check:
    """Return whether the shopping search is configured. It is not asked: each question counts against a daily limit."""

    async def check() -> str:
        if not naver.configured:
            raise _NotConfigured("it has no credentials (MOA_NAVER_CLIENT_ID, MOA_NAVER_CLIENT_SECRET)")
        return ""

    return check
