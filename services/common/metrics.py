"""Prometheus metrics that every process has, and the port that they are read from."""

from __future__ import annotations

import socket
import threading
from socketserver import ThreadingMixIn
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import Counter, Gauge, Histogram, make_wsgi_app

from services.common.settings import ServiceSettings

_LOOK_S: Final = 86_400.0
"""How often the server looks whether it was asked to end, which it never is."""

RPC_ENDED = Counter("moa_rpc_ended_total", "Calls served, by method and gRPC code.", ["method", "code"])
RPC_REFUSED = Counter("moa_rpc_refused_total", "Calls that failed for a known reason.", ["method", "reason"])
CALLERS_REFUSED = Counter(
    "moa_callers_refused_total",
    "Calls of what is no process of this gateway that may call this one, by its certificate or credential.",
    ["why"],
)
RPC_RUNNING = Gauge("moa_rpc_running", "Calls being served.")
RPC_DURATION = Histogram(
    "moa_rpc_duration_seconds",
    "Time from a call's start to its end.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)


class _Running:
    """Counts the calls that are being served: a gauge takes a lock each time."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


RUNNING: Final = _Running()
RPC_RUNNING.set_function(lambda: RUNNING.count)
CERTIFICATE_EXPIRES = Gauge(
    "moa_certificate_expires_timestamp_seconds",
    "When the certificate expires by which other processes know this one; 0: it has none.",
)


def serve(config: ServiceSettings) -> None:
    """Answer `GET /metrics` where the settings say, from a thread of its own; without a port do nothing.

    A taken port ends the process with a sentence.
    """
    if not config.metrics_port:
        return
    if config.metrics_fd is not None:
        held = socket.socket(fileno=config.metrics_fd)
    else:
        host, port = config.metrics_host, config.metrics_port
        try:
            held = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise SystemExit(f"cannot listen on {host}:{port} for metrics: {error.strerror}") from None
    server = _Server(held.getsockname()[:2], _Handler, bind_and_activate=False)
    server.take(held)
    threading.Thread(target=server.serve_forever, args=(_LOOK_S,), name="metrics", daemon=True).start()


class _Server(ThreadingMixIn, WSGIServer):
    """Answers at a bound socket: its own, or one that another process holds and keeps bound when this one ends."""

    daemon_threads = True

    def take(self, held: socket.socket) -> None:
        """Listen at a bound socket in place of one's own."""
        self.socket.close()
        self.socket = held
        host, port = held.getsockname()[:2]
        self.server_name, self.server_port = host, port
        self.setup_environ()
        self.set_app(make_wsgi_app())
        self.server_activate()


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """Log nothing."""
