"""Containers' health checks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

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


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_http_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's proxy knows nothing of what listens in a container; 200 alone is healthy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with HTTPServer(("127.0.0.1", 0), _Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        assert serves(f"{base}/ready")
        assert not serves(f"{base}/else")
        server.shutdown()
