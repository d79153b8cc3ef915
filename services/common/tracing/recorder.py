"""Spans as OpenTelemetry's SDK records and sends them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span as OpenSpan
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.common.scrub import know, scrub
from services.common.tracing.exporter import Exporter

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from services.common.otlp import Collector
    from services.common.tracing import Value

_CLOSING_S: Final = 2.0
"""How long a process that ends waits for a collector."""
_FAULTS: Final = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))
"""gRPC codes that are the server's fault (opentelemetry.io/docs/specs/semconv/rpc/grpc)."""
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Span:
    """A span that is running."""

    __slots__ = ("_span", "headers")

    def __init__(self, span: OpenSpan) -> None:
        self._span = span
        self.headers = _headers(span.get_span_context())
        """The metadata by which others continue it."""

    @property
    def trace_id(self) -> str:
        """The trace's id, 32 hexadecimal digits."""
        return format_trace_id(self._span.get_span_context().trace_id)

    @property
    def context(self) -> Context:
        """OpenTelemetry's context with this span."""
        return set_span_in_context(self._span)

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes."""
        self._span.set_attributes(_scrubbed(attributes))

    def answered(self, code: str) -> None:
        """End the span of a call that was served, by its gRPC code."""
        self._span.set_attribute("rpc.response.status_code", code)
        if code != "OK":
            self._span.set_attribute("error.type", code)
        if code in _FAULTS:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def end(self, failure: str = "") -> None:
        """End it; `failure`: the kind of error, from a small set, never a message."""
        if failure:
            self._span.set_attribute("error.type", scrub(failure))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Recorder:
    """Records this process's spans and sends them in batches, from a thread of its own.

    What cannot be sent is dropped: a collector that is away holds up nothing. Traces begin at the edge, which decides
    whether one is recorded; what belongs to none that is, is not recorded here either.
    """

    def __init__(self, process: str, collector: Collector) -> None:
        resource = Resource.create(
            {"service.name": f"moa-{process}", "service.namespace": "moa", "service.instance.id": uuid4().hex}
        )
        know(*(value for _, value in collector.headers))
        self._provider = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(Exporter(collector)))
        self._tracer = self._provider.get_tracer("moa")

    def serving(self, method: str, metadata: Mapping[str, str | bytes]) -> Span | None:
        """Begin the span of a served call; none where its caller's is not recorded."""
        given = {name: str(value) for name in ("traceparent", "tracestate") if (value := metadata.get(name))}
        name = method.lstrip("/")
        return self._continued(name, given, SpanKind.SERVER, {"rpc.system.name": "grpc", "rpc.method": name})

    def working(self, name: str, parent: str) -> Span | None:
        """Begin the span of work that a call has left behind."""
        return self._continued(name, {"traceparent": parent}, SpanKind.CONSUMER, {})

    def child(self, name: str, parent: Span, attributes: Mapping[str, Value], *, calls: bool) -> Span:
        """Begin a span within another; `calls`: it is a call to somebody else."""
        kind = SpanKind.CLIENT if calls else SpanKind.INTERNAL
        return Span(self._tracer.start_span(name, parent.context, kind=kind, attributes=_scrubbed(attributes)))

    def _continued(
        self, name: str, given: Mapping[str, str], kind: SpanKind, attributes: Mapping[str, Value]
    ) -> Span | None:
        context = _PROPAGATOR.extract(given)
        parent = get_current_span(context).get_span_context()
        if not parent.is_valid or not parent.trace_flags.sampled:
            return None
        return Span(self._tracer.start_span(name, context, kind=kind, attributes=_scrubbed(attributes)))

    def close(self) -> None:
        """Send the rest, and give up on it soon."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSING_S)


def _scrubbed(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {
        name: scrub(value)
        if isinstance(value, str)
        else tuple(map(scrub, value))
        if isinstance(value, tuple)
        else value
        for name, value in attributes.items()
    }


def _headers(context: SpanContext) -> tuple[tuple[str, str], ...]:
    traceparent = f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"
    state = context.trace_state.to_header() if context.trace_state else ""
    return (("traceparent", traceparent), ("tracestate", state)) if state else (("traceparent", traceparent),)
