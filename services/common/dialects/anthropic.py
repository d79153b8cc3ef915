"""The errors of Anthropic's Messages API. Its names of requests' fields stand beside the bodies, in the router."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from moa.common.v1 import error_pb2
from services.common.dialects.shape import BAD_REQUEST, MESSAGE, REQUEST_ID, Dialect, Header, StreamEnd
from services.common.errors import HTTP_STATUS

VERSION_KEY: Final = "anthropic-version"
"""The header that this vendor's clients send with every request."""
_OURS: Final = "x-ratelimit-"
_UNITS: Final = ("requests", "tokens")
_WHOLE: Final = "conversations are not kept here; use POST /v1/messages with all messages"


def _limits(headers: Iterable[Header]) -> list[Header]:
    """Return what is left of requests and tokens in Anthropic's names, whose resets are times."""
    made: list[Header] = []
    for name, value in headers:
        what, _, unit = name.removeprefix(_OURS).partition("-")
        if not name.startswith(_OURS) or unit not in _UNITS:
            continue
        if what == "reset":
            at = datetime.now(UTC) + timedelta(seconds=int(value.removesuffix("s")))
            value = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        made.append((f"anthropic-ratelimit-{unit}-{what}", value))
    return made


ANTHROPIC: Final = Dialect(
    name="anthropic",
    services=("moa.router.v1.AnthropicService", "moa.task.v1.MessageBatchService"),
    large=("moa.router.v1.AnthropicService", "moa.task.v1.MessageBatchService"),
    strays=("/v1/messages",),
    header=VERSION_KEY,
    request_id_header="request-id",
    places_faults=True,
    limits=_limits,
    unserved={
        "/v1/messages": "use POST /v1/messages or POST /v1/messages/count_tokens",
        "/v1/skills": "skills are not kept here; send tools with each request",
        "/v1/agents": _WHOLE,
        "/v1/sessions": _WHOLE,
        "/v1/environments": _WHOLE,
    },
    envelope={
        "type": "error",
        "error": {"type": "$type", "message": MESSAGE},
        "request_id": REQUEST_ID,
    },
    statuses={**dict.fromkeys(BAD_REQUEST, 400), error_pb2.REASON_UPSTREAM_OVERLOADED: 529},
    words={
        "type": {
            error_pb2.REASON_UNAUTHENTICATED: "authentication_error",
            error_pb2.REASON_PERMISSION_DENIED: "permission_error",
            error_pb2.REASON_NOT_FOUND: "not_found_error",
            error_pb2.REASON_MODEL_NOT_FOUND: "not_found_error",
            error_pb2.REASON_MODEL_RETIRED: "not_found_error",
            error_pb2.REASON_PROVIDER_NOT_CONFIGURED: "not_found_error",
            error_pb2.REASON_TOO_LARGE: "request_too_large",
            error_pb2.REASON_QUOTA_EXHAUSTED: "rate_limit_error",
            error_pb2.REASON_RATE_LIMITED: "rate_limit_error",
            error_pb2.REASON_UPSTREAM_RATE_LIMITED: "rate_limit_error",
            error_pb2.REASON_NO_CREDIT: "billing_error",
            **dict.fromkeys((r for r, s in HTTP_STATUS.items() if s >= 500), "api_error"),
            error_pb2.REASON_UPSTREAM_OVERLOADED: "overloaded_error",
            error_pb2.REASON_UPSTREAM_TIMEOUT: "timeout_error",
            error_pb2.REASON_DEADLINE_EXCEEDED: "timeout_error",
        },
    },
    defaults={"type": "invalid_request_error"},
    # The last event is `message_stop`, which the answer itself has.
    stream_end=StreamEnd(failure_event="error"),
)
"""Anthropic's: `{"type": "error", "error": {"type", "message"}, "request_id"}`."""
