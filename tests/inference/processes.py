"""The inference process as a process: started, asked, killed."""

from __future__ import annotations

import os
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests import forking
from tests.inference.harness import TOKEN, Client


async def started(port: int, **more: str) -> forking.Begun:
    """Start the process on a port, with more of its settings."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"gen{os.pathsep}.",
        "MOA_SERVICE_TOKEN": TOKEN,
        "MOA_LISTEN": f"127.0.0.1:{port}",
        "MOA_TORCH_THREADS": "1",
        "MOA_LOG_LEVEL": "error",
        **more,
    }
    return await forking.begun("inference", environment)


async def serving(client: Client) -> None:
    """Wait until the process behind a client serves."""
    stub = health_pb2_grpc.HealthStub(client.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=120)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def drained(call: Any) -> None:
    """Read a call to its end."""
    while await call.read() is not grpc.aio.EOF:
        pass
