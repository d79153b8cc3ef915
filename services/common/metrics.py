"""Prometheus metrics that every process has, and the port that they are read from."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, start_http_server

RPC_ENDED = Counter("moa_rpc_ended_total", "Calls served, by method and gRPC code.", ["method", "code"])
RPC_REFUSED = Counter("moa_rpc_refused_total", "Calls that failed for a known reason.", ["method", "reason"])
RPC_RUNNING = Gauge("moa_rpc_running", "Calls being served.")
RPC_DURATION = Histogram(
    "moa_rpc_duration_seconds",
    "Time from a call's start to its end.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)


def serve(port: int, host: str) -> None:
    """Answer `GET /metrics` at `host:port`, from a thread of its own; a taken port ends the process with a sentence."""
    try:
        start_http_server(port, addr=host)
    except OSError as error:
        raise SystemExit(f"cannot listen on {host}:{port} for metrics: {error.strerror}") from None
