"""Processes that were asked to stop."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.rpc.client import channel


async def drains(address: str) -> None:
    """Return when a process takes no more calls."""
    async with channel(address) as opened:
        check = health_pb2_grpc.HealthStub(opened).Check
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (await check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING:
                await asyncio.sleep(0.01)
