"""When the edge sends a request again: what nobody has seen, and what may be made twice by its contract.

All else stays with its caller: a generation that is replayed is paid twice."""

from __future__ import annotations

from typing import Any, Final

from gateway.settings import EdgeSettings
from services.common import idempotency

Json = dict[str, Any]

_UNSENT: Final = ("connect-failure", "refused-stream", "reset-before-request")
"""Failures after which nobody has seen the request."""

_UNBEGUN: Final[Json] = {"name": "grpc-message", "string_match": {"exact": "CANCELLED"}}
"""Of an answer without a message by gRPC's own words: a router that stops resets so what has arrived and no handler has
begun. Ours are other words."""

_STOPPED: Final = ("cancelled",)
"""What a process that is being stopped answers, which may have seen the request."""

_ENDED: Final[Json] = {"name": "grpc-message", "string_match": {"exact": "Cancelling all calls"}}
"""gRPC's own words of a call that has outlasted the time which a process that is being stopped gives it."""

_DIED: Final = ("reset",)
"""The failure of a process that dies, or that stands still until its connection is given up, which takes half a minute
each time: whoever asks for this retry bounds the whole."""

READ_S: Final = 45.0
"""How long a call that may be made twice may stay without a byte of its answer, however often it is made again: a
process that stands still is given up after 35 to 40 s, and another then has time to answer. Services take less than
half of it."""
KEYED_S: Final = 60.0 + READ_S
"""The same of a call with an idempotency key, which may wait for what it has made: a prediction for up to a minute."""

KEYED: Final[Json] = {
    "name": idempotency.HEADER.lower(),
    "string_match": {"safe_regex": {"regex": r"[ \t]*[^ \t,].*"}},
}
"""Of a request with an idempotency key. A blank one is none, nor is one that stands behind a blank one."""

KEPT_BYTES: Final = 6 * 2**20
"""The largest request that is kept for another try. Envoy keeps a copy of its own beside what it sends, until the
answer begins: of sixteen uploads of 9 MB another 144 MB."""


def policy(settings: EdgeSettings, *, repeatable: bool = False, bounded: bool = False) -> Json:
    """Return the policy of a call.

    Args:
        settings: The edge's.
        repeatable: It may be made twice.
        bounded: Its time is bounded, tries and all.
    """
    seen = (*_STOPPED, *(_DIED if bounded else ())) if repeatable else ()
    return {
        "retry_on": ",".join((*_UNSENT, "retriable-headers", *seen)),
        "retriable_headers": [_UNBEGUN, *([_ENDED] if repeatable and bounded else ())],
        **_tries(settings),
    }


def of_filter(settings: EdgeSettings) -> Json:
    """Return the policy of the short calls that a filter makes, which change nothing. It knows no headers."""
    return {"retry_on": ",".join((*_UNSENT, *_STOPPED, *_DIED)), **_tries(settings)}


def _tries(settings: EdgeSettings) -> Json:
    return {
        "num_retries": settings.edge_retries,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.5s"},
    }
