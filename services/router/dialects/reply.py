"""How an answer reaches the wire: the response's headers, JSON bodies and server-sent events."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache, partial
from typing import Any, Final, Protocol
from urllib.parse import quote

import msgspec
from google.api import httpbody_pb2

from moa.common.v1 import usage_pb2
from services.catalogue import Retirement
from services.common.dialects import Dialect
from services.common.errors import MoaError
from services.common.rpc import call as calls
from services.quota_client import ratelimit
from services.router.domain.answer import Answer

JSON = "application/json"
SSE = "text/event-stream"
STATUS_KEY = "x-moa-status"
"""The header in which the edge is told a status that gRPC cannot say."""

encode = msgspec.json.Encoder().encode
"""Writes a value as JSON; bytes in it as base64, in half of the time and memory that a text of them would take."""


class Context(Protocol):
    """What a handler needs of the RPC's context."""

    def invocation_metadata(self) -> Any:
        """Return the request's headers."""

    async def write(self, message: Any) -> None:
        """Send a message."""

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Send the response's headers."""


def json_body(value: Any) -> httpbody_pb2.HttpBody:
    """Make a JSON response body."""
    return httpbody_pb2.HttpBody(content_type=JSON, data=encode(value))


async def tagged_body(context: Context, value: Any) -> httpbody_pb2.HttpBody:
    """Make a JSON response body with its tag, and tell its headers; nothing but a 304 for a caller who has it."""
    data = encode(value)
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    asked = dict(context.invocation_metadata() or ()).get("if-none-match", "")
    headers = [("etag", tag), ("cache-control", "private, no-cache")]
    if {tag, "*"}.isdisjoint(each.strip().removeprefix("W/") for each in str(asked).split(",")):
        await context.send_initial_metadata(headers)
        return httpbody_pb2.HttpBody(content_type=JSON, data=data)
    await context.send_initial_metadata([(STATUS_KEY, "304"), *headers])
    return httpbody_pb2.HttpBody(content_type=JSON)


json_piece: Final = partial(httpbody_pb2.HttpBody, content_type=JSON)
"""Makes a piece of a JSON response body, of its `data`."""

sse_body: Final = partial(httpbody_pb2.HttpBody, content_type=SSE)
"""Makes a piece of an event stream, of its `data`."""


def frame(value: Any) -> bytes:
    """Make one server-sent event of a JSON value."""
    return b"data: " + encode(value) + b"\n\n"


def end_mark(dialect: Dialect) -> bytes:
    """Return what a dialect's event stream has behind the whole answer; empty where it just ends."""
    return b"data: %b\n\n" % dialect.stream_end.mark.encode() if dialect.stream_end.mark else b""


def failure(dialect: Dialect, error: MoaError) -> bytes:
    """Return a failure of the call that is being served as all that is left of a dialect's event stream."""
    end, body = dialect.stream_end, dialect.render(error, request_id=calls.current().request_id)
    event = frame({end.failure_field: body} if end.failure_field else body)
    if end.failure_event:
        event = b"event: %b\n%b" % (end.failure_event.encode(), event)
    return event + end_mark(dialect) if end.marks_failure else event


def headers(
    answer: Answer[Any],
    *,
    cost: usage_pb2.Usage | None = None,
    ignored: Iterable[str] = (),
    dialect: Dialect | None = None,
    images: int = 0,
) -> list[tuple[str, str]]:
    """Return the headers that tell who answered, what is left, and, once it is known, what it cost.

    `images` were made beside an answer of text. `ignored` are parameters that were taken without effect, by the
    dialect's documented rule, beside those that whoever answers told of, which are spelled as the dialect does: nothing
    is lost in silence.
    """
    results = [("x-moa-provider", answer.model.provider), ("x-moa-model", answer.model.id)]
    if answer.route:
        results.append(("x-moa-route", answer.route))
    if cost is not None:
        results.append(("x-moa-cost", _with_images(cost_of(cost), images) if images else cost_of(cost)))
    if answer.ending is not None:
        results.extend(_ending(answer.ending))
    if ignored or answer.ignored:
        names = dict.fromkeys((*ignored, *(_spelled(name, dialect) for name in answer.ignored)))
        results.append(("x-moa-ignored", ", ".join(names)))
    left = ratelimit.headers(answer.reservation.verified_key.remaining())
    results.extend(left if dialect is None else dialect.with_limits(left))
    return results


def _spelled(name: str, dialect: Dialect | None) -> str:
    """Return the caller's name of an ignored field, and the value that was used in the place of its own."""
    if dialect is None:
        return name
    field, used, value = name.partition("=")
    return dialect.spelled(field) + used + value


@lru_cache(maxsize=1024)
def _ending(ending: Retirement) -> tuple[tuple[str, str], ...]:
    """Tell that the model that was asked for is or will be gone (RFC 9745, RFC 8594), and what to use instead."""
    over = datetime.combine(ending.date, datetime.min.time(), UTC)
    announced = datetime.combine(ending.announced or ending.date, datetime.min.time(), UTC)
    return (
        ("deprecation", f"@{int(announced.timestamp())}"),
        ("sunset", format_datetime(over, usegmt=True)),
        ("link", f'</v1/models/{quote(ending.successor, safe="/")}>; rel="successor-version"'),
    )


def cost_of(usage: usage_pb2.Usage) -> str:
    """Write a cost as the `x-moa-cost` header has it: `tokens=60` or `images=2`."""
    if usage.images:
        return f"images={usage.images}"
    return f"tokens={usage.prompt_tokens + usage.completion_tokens}"


def _with_images(cost: str, images: int) -> str:
    """Return a cost with images beside it, which were made for the same answer."""
    return f"{cost}, images={images}"
