"""Channels to other Moa services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from services.common import tracing
from services.common.rpc import call as calls
from services.common.rpc.server import MAX_MESSAGE_BYTES
from services.common.rpc.target import target_of

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # What really bounds the answer to a keepalive's ping (grpcio 1.85); a minute by default.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # With the probe a stream may run megabytes ahead of a reader that has stopped; services are near each other.
    ("grpc.http2.bdp_probe", 0),
    # Reconnect quickly to a service that was restarted.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    # In spite of its name, how long one attempt to connect may take: a busy machine needs more than a moment.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # gRPC shares connections by address within a process, and with them the back-off after a failure: a server that is
    # new at an old address would seem dead.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's transparent retries would replay a generation.
    ("grpc.enable_retries", 0),
    # Several replicas behind one name are used in turn.
    ("grpc.service_config", '{"loadBalancingConfig":[{"round_robin":{}}]}'),
)


def channel(address: str) -> grpc.aio.Channel:
    """Open a channel to `address` (`host:port`; several with commas between are called in turn). Raises ValueError."""
    return grpc.aio.insecure_channel(target_of(address), options=_OPTIONS)


def metadata(
    service_token: str, request_id: str, *more: tuple[str, str], span: tracing.Span | None = None
) -> tuple[tuple[str, str], ...]:
    """Return the metadata of an internal call: the credential, the request's id, its trace, and `more`.

    `span` is the call's own; None: the call belongs to the current one.
    """
    known = ((calls.SERVICE_KEY, service_token), (calls.REQUEST_ID_KEY, request_id))
    return (*known, *tracing.outgoing(span), *more)
