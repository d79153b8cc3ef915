"""Wait until processes can serve: by gRPC health, or by the edge's `/ready`."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from concurrent.futures import Future

    from grpc_health.v1 import health_pb2

_ASK_AGAIN_S: Final = 0.02
_LONGEST: Final = 2000
"""Bytes of an answer that are read."""
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
)


class NotReady(Exception):
    """A process did not become ready. The message says which, and why when that is known."""


def await_grpc(address: str, *, until: float, alive: Callable[[], None], certificate: Path | None = None) -> None:
    """Return when the server at `address` says that it serves.

    Args:
        address: `host:port`.
        until: Monotonic time at which NotReady is raised.
        alive: Called every now and then; raises when waiting is no use any more.
        certificate: The folder of the server's own certificate, where it speaks TLS.
    """
    # A launcher has this done by another process, and is spared the library.
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from services.common.probe import own_channel

    with own_channel(address, certificate, _OPTIONS) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            left = until - time.monotonic()
            if left <= 0:
                raise NotReady(f"nothing answers at {address}")
            answer: Future[health_pb2.HealthCheckResponse] = stub.Check.future(
                health_pb2.HealthCheckRequest(), timeout=min(left, 0.25), wait_for_ready=True
            )
            try:
                if answer.result().status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass
            else:
                time.sleep(_ASK_AGAIN_S)
            alive()


def await_http(port: int, path: str, *, until: float, alive: Callable[[], None]) -> None:
    """Return when the loopback `port` answers `path` with 200. Arguments as for `await_grpc`."""
    while (fault := _fault(port, path)) is not None:
        if time.monotonic() > until:
            raise NotReady(f"nothing is ready behind port {port}" + (f": {fault}" if fault else ""))
        alive()
        time.sleep(_ASK_AGAIN_S)


def _fault(port: int, path: str) -> str | None:
    """Return what is said in place of an answer with 200; None of one. By hand: the library would be loaded for it."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
            link.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            with link.makefile("rb") as answer:
                status, _, body = answer.read(_LONGEST).partition(b"\r\n\r\n")
                return None if status.split()[1:2] == [b"200"] else _message(body)
    except OSError:
        return ""


def _message(body: bytes) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(body)["message"])
    return ""
