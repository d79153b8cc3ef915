"""Unary is the stream drained: answer a unary call with a streaming handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from moa.text.v1 import text_service_pb2
from services.common.errors import error_of

Handler = Callable[[text_service_pb2.GenerateTextRequest, Any], Awaitable[None]]


class _Gathering:
    """Stands in for a stream's context, and keeps what is written."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.whole = text_service_pb2.GenerateWholeTextResponse()

    async def write(self, message: text_service_pb2.GenerateTextResponse) -> None:
        # The two have one field, of one number: its bytes say the same in both, and are copied in a quarter of the
        # time of its objects.
        self.whole.MergeFromString(message.SerializeToString())

    async def send_initial_metadata(self, metadata: Any) -> None:
        await self._context.send_initial_metadata(metadata)

    def invocation_metadata(self) -> Any:
        return self._context.invocation_metadata()

    def time_remaining(self) -> float | None:
        return self._context.time_remaining()  # type: ignore[no-any-return]  # grpc.aio's, untyped here


async def whole_text(
    generate: Handler, request: text_service_pb2.GenerateWholeTextRequest, context: Any
) -> text_service_pb2.GenerateWholeTextResponse:
    """Run the streaming handler to its end; give all events. Raises MoaError when the last one is an error."""
    gathering = _Gathering(context)
    request.request.stream = False
    await generate(request.request, gathering)
    whole = gathering.whole
    if whole.events and (last := whole.events[-1]).HasField("error"):
        raise error_of(last.error)
    return whole
