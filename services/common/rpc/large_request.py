"""Calls with a large request: it is written when its turn has come, and what was sent is not held to the call's end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from services.common.rpc import call as calls
from services.common.rpc.call import Metadata


def with_large_request(channel: Any, shape: str, path: str, serialize: Any, deserialize: Any) -> Callable[..., Any]:
    """Return what makes calls of a method, from a request and how many bytes it has, about.

    Args:
        channel: A gRPC channel.
        shape: How its method is called there: `unary_unary` or `unary_stream`.
        path: The full method.
        serialize: Makes a request's bytes.
        deserialize: Makes an answer of its bytes.
    """
    made = getattr(channel, shape.replace("unary_", "stream_", 1))(
        path, request_serializer=lambda held: serialize(held.pop()), response_deserializer=deserialize
    )

    def begin(request: Any, size: int, *, metadata: Metadata = (), timeout: float | None = None) -> Any:
        sized = (*metadata, (calls.BODY_BYTES_KEY, str(size)))
        return made(_in_turn([request], calls.current()), metadata=sized, timeout=timeout)

    return begin


async def _in_turn(held: list[Any], call: calls.Call) -> AsyncIterator[list[Any]]:
    async with call.turn():
        # It is asked to go on once that is written.
        yield held
