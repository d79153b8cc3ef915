"""How an answer reaches the wire, and how times look in JSON."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from google.api import httpbody_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from moa.common.v1 import error_pb2

JSON: Final = "application/json"
SSE: Final = "text/event-stream"

STILL_THERE: Final = b": still there\n\n"
"""A comment, which readers of event streams pass over."""

encode = msgspec.json.Encoder().encode


def json_body(value: Any) -> httpbody_pb2.HttpBody:
    """Make a JSON response body."""
    return httpbody_pb2.HttpBody(content_type=JSON, data=encode(value))


def sse_body(frames: bytes) -> httpbody_pb2.HttpBody:
    """Make a piece of an event stream."""
    return httpbody_pb2.HttpBody(content_type=SSE, data=frames)


def why(error: error_pb2.ErrorDetail) -> str:
    """Tell in one sentence why a task failed; of several given images, which it was."""
    which = error.param if error.param.startswith("images[") and error.param not in error.message else ""
    return f"{which}: {error.message}" if which else error.message


async def with_status(context: Any, status: int, *headers: tuple[str, str]) -> None:
    """Have the edge answer with another status than 200, and with those headers that say something."""
    await context.send_initial_metadata((("x-moa-status", str(status)), *(each for each in headers if each[1])))


def time_of(stamp: Timestamp) -> str:
    """Write a time as `2026-11-20T12:00:00.123456Z`."""
    return stamp.ToDatetime().isoformat(timespec="microseconds") + "Z"
