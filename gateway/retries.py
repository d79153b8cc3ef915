"""When the edge sends a request again: only what nobody has seen, since a generation that is replayed is paid twice."""

from __future__ import annotations

from typing import Any, Final

from gateway.settings import EdgeSettings

Json = dict[str, Any]

_UNSENT: Final = ("connect-failure", "refused-stream", "reset-before-request")
"""Failures after which nobody has seen the request."""

_UNBEGUN: Final[Json] = {"name": "grpc-message", "string_match": {"exact": "CANCELLED"}}
"""Of an answer without a message by gRPC's own words: a router that stops resets so what has arrived and no handler has
begun. Ours are other words."""

_SEEN: Final = ("reset", "cancelled")
"""Failures of a process that dies or is being stopped, which may have seen the request."""

KEPT_BYTES: Final = 6 * 2**20
"""The largest request that is kept for another try. Envoy keeps a copy of its own beside what it sends, until the
answer begins: of sixteen uploads of 9 MB another 144 MB."""


def policy(settings: EdgeSettings, *, reads: bool = False) -> Json:
    """Return the policy of a call. `reads`: it changes nothing, and may be made twice."""
    return {
        "retry_on": ",".join((*_UNSENT, "retriable-headers", *(_SEEN if reads else ()))),
        "retriable_headers": [_UNBEGUN],
        "num_retries": settings.edge_retries,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.5s"},
    }
