"""How a body is let in: how large, from whom, how fast. `docs/decisions/0014-bodies.md` says why.

The script `body.lua` watches each body and gives a verdict; here is what Envoy makes of it: the question to the router
whose key a request carries, and a route for each verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from gateway import retries
from gateway.settings import EdgeSettings
from services.common.large import LARGE_BYTES
from services.common.rpc import call as calls

Json = dict[str, Any]

GATE: Final = "moa.gate"
"""The filter that asks the router about a key before a body is read."""
ROOM: Final = "moa.room"
"""The filter that asks the router for room before a large body is read."""
ROOM_BYTES: Final = 2**20
"""A body of more bytes waits there: its caller has the rest of it meanwhile."""
_ROOM_S: Final = 165.0
"""How long the router is waited for, which refuses a little sooner (`byte_admission.Bounds.unsent_s`)."""
HOLD: Final = "envoy.filters.http.buffer"
"""The filter that keeps a request here until it is whole."""
ENVELOPE_BYTES: Final = 2**20
"""What a message may have beyond its pictures. The filters that limit bodies refuse before `HOLD` does."""
FREE_BYTES: Final = 64 * 2**10
"""What is read of a body before anybody is asked whose it is, and the most that a path without a key takes."""
FLOOR_BYTES: Final = 16 * 2**10
"""What must come of a body in each window."""

_NAMESPACE: Final = "moa.body"
_SCRIPT: Final = Path(__file__).with_name("body.lua")
_TYPE: Final = "type.googleapis.com/envoy."
_HOLDS: Final = f"{_TYPE}extensions.filters.http.buffer.v3.BufferPerRoute"
ON: Final[Json] = {"@type": f"{_TYPE}config.route.v3.FilterConfig", "config": {}}
"""What a route needs of a filter that is off elsewhere."""
NO_HOLD: Final[Json] = {"@type": _HOLDS, "disabled": True}
"""What a host's other routes need of `HOLD`."""


def script(settings: EdgeSettings) -> str:
    """Return the text of the script that watches bodies."""
    numbers = {
        "free": FREE_BYTES,
        # Each worker counts for itself.
        "share": settings.unknown_bytes // (settings.edge_processes * settings.threads),
        "largest": 2 * settings.upload_limit_bytes,
        "largest_message": settings.upload_limit_bytes + ENVELOPE_BYTES,
        "window_ms": int(settings.body_window_s * 1000),
        "floor": FLOOR_BYTES,
        "large": LARGE_BYTES,
        "room": ROOM_BYTES,
        "room_read": ROOM_BYTES // 4,
    }
    text = _SCRIPT.read_text(encoding="utf-8")
    for name, number in numbers.items():
        text = text.replace("{{" + name + "}}", str(number))
    return text


def gate(cluster: str, settings: EdgeSettings) -> Json:
    """Return the filter that asks the router, from a request's headers alone, whether its key holds."""
    asked = ("x-api-key", "authorization", "x-goog-api-key", "content-length")
    return {
        "name": GATE,
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {
                "envoy_grpc": {"cluster_name": cluster},
                "timeout": "10s",
                "retry_policy": retries.of_filter(settings),
            },
            "status_on_error": {"code": "ServiceUnavailable"},
            "allowed_headers": {"patterns": [{"exact": name} for name in asked]},
            "filter_enabled_metadata": _says("ask", {"bool_match": True}),
        },
    }


def room(cluster: str) -> Json:
    """Return the filter that waits until the router has room for a large body, and keeps its caller from sending it.

    Where nobody answers, the body is read: the router waits for room then, and the edge holds it.
    """
    asked = ("x-api-key", "authorization", "x-goog-api-key", "content-length", "x-request-id")
    return {
        "name": ROOM,
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": f"{_ROOM_S:g}s"},
            "failure_mode_allow": True,
            "allowed_headers": {"patterns": [{"exact": name} for name in asked]},
            # Not before a caller has begun to send: who promises a body and sends none keeps nobody from the room.
            # (What came before it was known whose it is, Envoy counts twice.)
            "with_request_body": {
                "max_request_bytes": FLOOR_BYTES,
                "allow_partial_message": True,
                "pack_as_bytes": True,
            },
            "filter_enabled_metadata": _says("room", {"bool_match": True}),
        },
        "disabled": True,
    }


def hold() -> Json:
    """Return the filter `HOLD`."""
    return {
        "name": HOLD,
        "typed_config": {"@type": f"{_TYPE}extensions.filters.http.buffer.v3.Buffer", "max_request_bytes": 2**20},
    }


def counted() -> Json:
    """Return the filter that tells a service how large the request is, which is whole by then, before it takes it."""
    appended = {"header": {"key": calls.BODY_BYTES_KEY, "value": "%REQ(CONTENT-LENGTH)%"}}
    return {
        "name": "moa.counted",
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {
                "request_mutations": [{"append": {**appended, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}],
            },
        },
    }


def verdicts(target: Json) -> Iterable[Json]:
    """Yield the routes that end a request for its body: they come first, and nothing else reaches them."""
    over = _says("verdict", {"string_match": {"exact": "over"}})
    yield {"match": {"prefix": "/", "dynamic_metadata": [over]}, "direct_response": {"status": 408}}
    # Whoever waits for the answer before it sends the rest is told after a moment; whoever sends, when it has sent.
    # Amid a body, an idle timeout is the one thing that ends a request; it is counted anew at the next byte.
    for verdict, patience in (("refusing", "2s"), ("ended", "0.001s")):
        yield {
            "match": {"prefix": "/", "dynamic_metadata": [_says("verdict", {"string_match": {"exact": verdict}})]},
            "route": {**target, "idle_timeout": patience},
            "typed_per_filter_config": held(ENVELOPE_BYTES),
        }


def timed(route: Json, settings: EdgeSettings, *, limit: int = FREE_BYTES, large_cluster: str = "") -> Iterable[Json]:
    """Yield a route twice: for a request that is whole, and for one whose next byte must come in time.

    Nothing of a request goes further before it is whole, up to `limit` and an envelope; its route is fixed by then.

    Args:
        large_cluster: The cluster that takes those that are large; none: the route's own.
    """
    filters = {**route.get("typed_per_filter_config", {}), **held(limit + ENVELOPE_BYTES)}
    route = {**route, "typed_per_filter_config": filters}
    whole = {**route["match"], "dynamic_metadata": [_says("verdict", {"string_match": {"exact": "whole"}})]}
    # Not of one that is still coming: there it would bound what `HOLD` may hold, too.
    kept = {"request_body_buffer_limit": retries.KEPT_BYTES}
    if large_cluster:
        large = [*whole["dynamic_metadata"], _says("large", {"bool_match": True})]
        yield {
            **route,
            **kept,
            "match": {**whole, "dynamic_metadata": large},
            "route": {**route["route"], "cluster": large_cluster},
        }
    yield {**route, **kept, "match": whole}
    coming = {**route, "route": {**route["route"], "idle_timeout": f"{settings.body_window_s:g}s"}}
    if large_cluster and settings.asks_for_room:
        yield from _waiting(coming)
    yield coming


def _waiting(route: Json) -> Iterable[Json]:
    """Yield the routes of a request that waits for room, and of one that may have to, by what it says of its length.

    The filter costs a twentieth of what the edge does for a small chat, asked or not: no other route has it.
    """
    patient = {**route["match"], "dynamic_metadata": [_says("verdict", {"string_match": {"exact": "waiting"}})]}
    yield {**route, "match": patient, "route": {**route["route"], "idle_timeout": f"{_ROOM_S:g}s"}}
    long = {"name": "content-length", "string_match": {"safe_regex": {"regex": "[0-9]{7,}"}}}
    asking = {name: {**each, "room": True} for name, each in route["metadata"]["filter_metadata"].items()}
    yield {
        **route,
        "match": {**route["match"], "headers": [*route["match"].get("headers", ()), long]},
        "metadata": {"filter_metadata": asking},
        "typed_per_filter_config": {**route["typed_per_filter_config"], ROOM: ON},
    }


def held(limit: int) -> Json:
    """Return a route's configuration of `HOLD`."""
    return {HOLD: {"@type": _HOLDS, "buffer": {"max_request_bytes": limit}}}


def _says(key: str, value: Json) -> Json:
    return {"filter": _NAMESPACE, "path": [{"key": key}], "value": value}
