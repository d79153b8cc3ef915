"""Whether a process on this machine serves: `python -m services.common.probe ADDRESS`, for containers' health checks.

An address with `http://` is read and must answer 200; another is asked by gRPC's health protocol.
"""

from __future__ import annotations

import sys
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_LIMIT_S = 4.0


def serves(address: str) -> bool:
    """Return whether what listens at an address serves."""
    try:
        if address.startswith("http://"):
            with urllib.request.urlopen(address, timeout=_LIMIT_S) as answer:  # noqa: S310  # the scheme is checked
                return bool(answer.status == 200)
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answered = stub.Check(health_pb2.HealthCheckRequest(), timeout=_LIMIT_S)
            return bool(answered.status == health_pb2.HealthCheckResponse.SERVING)
    except (OSError, grpc.RpcError):
        return False


if __name__ == "__main__":
    sys.exit(0 if serves(sys.argv[1]) else 1)
