"""What one caller, and all of them together, may take of the edge: buffers, windows, connections, memory.

Envoy's own defaults bound the rest: reset, ping, settings, priority and window-update frames, empty and continuation
frames, the header table.
"""

from __future__ import annotations

from typing import Final

from gateway.routes import TYPE, Json
from gateway.settings import EdgeSettings

BUFFER_BYTES: Final = 32 * 2**10
"""Of each connection. Envoy stops to read a peer once it holds twice this for a receiver who is slow, or for a request
whose key is still being looked up."""

HEADERS_KIB: Final = 60
HEADERS: Final = 100
"""Of a request, in size and number."""

CALLERS: Final[Json] = {
    "max_concurrent_streams": 250,
    "initial_stream_window_size": 64 * 2**10,
    "initial_connection_window_size": 2**20,
    "connection_keepalive": {"interval": "60s", "timeout": "20s"},
}
"""HTTP/2 with callers. By default a stream may send 16 MiB ahead of whoever reads it."""

RUNTIME: Final[Json] = {
    # Off by default: what ends a chunk's data is CR LF and nothing else.
    "envoy.reloadable_features.strict_chunk_parsing": True,
}
"""Envoy's own switches."""

RELEASE: Final[Json] = {"soft_memory_limit_bytes": 80 * 2**20, "max_per_cpu_cache_size_bytes": 2**20}
"""Beyond so much, memory that is free goes back to the system: at rest Envoy has 42 MiB.

It is given back page by page by whichever thread asks for more, which serves nobody meanwhile: with 48 MiB pictures of
8 MB, each there twice while it is sent on, kept others waiting for up to 150 ms on a busy machine, with 80 MiB for 30.
Without it what fifty uploads took was kept for good, 550 MiB: Envoy's timers and its `shrink_heap` give back whole huge
pages, of which a heap in use has few.
"""

SERVICES: Final[Json] = {
    # What a slow caller does not read stays in its stream's window, and all streams of a worker share a connection's:
    # a smaller one would let a few slow callers stop all others.
    "initial_stream_window_size": 64 * 2**10,
    "initial_connection_window_size": 64 * 2**20,
    "connection_keepalive": {"interval": "30s", "timeout": "5s"},
}
"""HTTP/2 with services."""


WATCHDOGS: Final[Json] = {
    watchdog: {"miss_timeout": "20s", "megamiss_timeout": "60s"}
    for watchdog in ("main_thread_watchdog", "worker_watchdog")
}
"""Threads that hang are counted in `/metrics/edge` and logged. By default each is looked at ten times a second, which
is most of what an idle edge does."""


def overload(settings: EdgeSettings) -> Json:
    """Return a process's overload manager: beyond so many connections or so much memory, it refuses."""
    return {
        # Four looks a second were a third of what an idle edge takes.
        "refresh_interval": "0.5s",
        "resource_monitors": [
            _monitor(
                "global_downstream_max_connections",
                "downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=10_000 // settings.edge_processes,
            ),
            _monitor(
                "fixed_heap",
                "fixed_heap.v3.FixedHeapConfig",
                max_heap_size_bytes=settings.edge_heap_mb * 2**20 // settings.edge_processes,
            ),
        ],
        "actions": [
            _beyond("shrink_heap", 0.8),
            # A body waits here until it is whole.
            _beyond("stop_accepting_requests", 0.9),
            _beyond("disable_http_keepalive", 0.9),
        ],
    }


def _monitor(name: str, kind: str, **config: int) -> Json:
    return {
        "name": f"envoy.resource_monitors.{name}",
        "typed_config": {"@type": f"{TYPE}extensions.resource_monitors.{kind}", **config},
    }


def _beyond(action: str, share: float) -> Json:
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": share}}
    return {"name": f"envoy.overload_actions.{action}", "triggers": [trigger]}
