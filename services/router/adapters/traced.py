"""One call to a target as a span, by OpenTelemetry's conventions for generative models.

opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans names the attributes. What a caller wrote and what a model
answered is in none of them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic

from moa.common.v1 import usage_pb2
from services.catalogue import Model
from services.common import tracing
from services.common.errors import MoaError, error_of, word
from services.providers.telemetry import SYSTEMS
from services.router.domain.operation import Operation, R
from services.router.domain.ports import M, MessageStream

if TYPE_CHECKING:
    from services.common.tracing import Span


def call_span(operation: Operation[R, M], request: R, model: Model, adapter: str) -> Span | None:
    """Begin the span of a call."""
    name = model.upstream or model.id
    span = tracing.calling(
        f"{operation.span} {name}",
        {
            "gen_ai.operation.name": operation.span,
            "gen_ai.provider.name": SYSTEMS.get(adapter, adapter),
            "gen_ai.request.model": name,
            "moa.provider": model.provider,
            "moa.model": model.id,
        },
    )
    if span is not None:
        span.note(operation.noted(request))
    return span


class Traced(Generic[M]):
    """A stream whose span ends with it."""

    __slots__ = ("_began", "_ended", "_operation", "_reasons", "_span", "_stream")

    def __init__(self, stream: MessageStream[M], span: Span, operation: Operation[Any, M]) -> None:
        self._stream: MessageStream[M] = stream
        self._operation = operation
        self._span = span
        self._began: float | None = time.perf_counter()
        """None once something was read."""
        self._reasons: list[str] = []
        self._ended = False

    async def read(self) -> M | None:
        """As the stream's."""
        try:
            message = await self._stream.read()
        except MoaError as error:
            self._end(word(error.reason))
            raise
        except BaseException:
            self._end("cancelled")
            raise
        if message is None:
            self._end()
            return None
        if self._began is not None and message.events:
            self._span.note({"gen_ai.response.time_to_first_chunk": time.perf_counter() - self._began})
            self._began = None
        for event in message.events:
            self._watch(event)
        return message

    def cancel(self) -> None:
        """As the stream's."""
        self._stream.cancel()
        self._end("cancelled")

    def close(self) -> None:
        """As the stream's."""
        self._stream.close()
        self._end()

    def _watch(self, event: Any) -> None:
        kind = event.WhichOneof("event")
        if kind == "finished":
            self._span.note(_usage(event.finished.usage))
        elif kind == "error":
            self._end(word(error_of(event.error).reason))
        elif outcome := self._operation.outcome(event, kind):
            self._reasons.append(outcome)

    def _end(self, failure: str = "") -> None:
        if self._ended:
            return
        self._ended = True
        if self._reasons:
            self._span.note({"gen_ai.response.finish_reasons": tuple(self._reasons)})
        self._span.end(failure)


def _usage(usage: usage_pb2.Usage) -> dict[str, tracing.Value]:
    attributes: dict[str, tracing.Value] = {}
    if usage.prompt_tokens or usage.completion_tokens:
        attributes["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        attributes["gen_ai.usage.output_tokens"] = usage.completion_tokens
    if usage.cached_tokens:
        attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.reasoning_tokens:
        attributes["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    if usage.images:
        attributes["moa.images"] = usage.images
    return attributes
