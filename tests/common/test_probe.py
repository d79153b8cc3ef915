"""Containers' health checks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.common.probe import serves


@pytest.mark.parametrize(
    ("status", "said"),
    [(health_pb2.HealthCheckResponse.SERVING, True), (health_pb2.HealthCheckResponse.NOT_SERVING, False)],
)
def test_grpc(status: health_pb2.HealthCheckResponse.ServingStatus.ValueType, said: bool) -> None:
    """A process that says it serves is healthy, one that says otherwise or is gone is not."""
    server = grpc.server(ThreadPoolExecutor(1))
    told = health.HealthServicer()
    told.set("", status)
    health_pb2_grpc.add_HealthServicer_to_server(told, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        assert serves(address) is said
    finally:
        server.stop(0).wait()
    assert not serves(address)
