"""An OTLP collector that keeps what it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Told:
    """One span, as a collector is told it."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    failed: bool
    attributes: dict[str, Any]
    ended_at: int
    """In nanoseconds since 1970."""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Answers at a port of its own until it is stopped."""

    def __init__(self) -> None:
        self.spans: list[Told] = []
        self.raw: list[bytes] = []
        """Each message, as it came."""
        self.metadata: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def start(self, address: str, credentials: grpc.ServerCredentials | None = None) -> None:
        """Open the port; after a stop again, with what was told before."""
        self.address = address
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        if credentials is None:
            self._server.add_insecure_port(address)
        else:
            self._server.add_secure_port(address, credentials)
        self._server.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.stop(0).wait()

    def Export(self, request: Any, context: Any) -> Any:
        """Keep an export."""
        with self._changed:
            self.raw.append(request.SerializeToString())
            self.metadata.append(dict(context.invocation_metadata()))
            for resource in request.resource_spans:
                service = _attributes(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    self.spans.extend(_told(service, span) for span in scope.spans)
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str, until: Callable[[list[Told]], bool], within_s: float = 100.0) -> list[Told]:
        """Return a trace's spans once they are all that is waited for."""
        ends = time.monotonic() + within_s
        with self._changed:
            while not until(found := [span for span in self.spans if span.trace_id == trace_id]):
                left_s = ends - time.monotonic()
                assert left_s > 0, f"the trace is not whole: {[(s.service, s.name) for s in found]}"
                self._changed.wait(left_s)
        return found


@contextmanager
def collecting(address: str) -> Iterator[Collector]:
    """Run a collector."""
    collector = Collector()
    collector.start(address)
    try:
        yield collector
    finally:
        collector.stop()


def _told(service: str, span: trace_pb2.Span) -> Told:
    return Told(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        attributes=_attributes(span.attributes),
        ended_at=span.end_time_unix_nano,
    )


def _attributes(given: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in given}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


class LogCollector(logs_service_pb2_grpc.LogsServiceServicer):
    """An OTLP collector of logs that keeps the records that it is sent."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []
        """The name of each record's event, and its attributes."""
        self.raw: list[bytes] = []
        self.metadata: list[dict[str, Any]] = []
        self.port = 0

    async def Export(self, request: Any, context: Any) -> Any:
        """Keep an export."""
        self.raw.append(request.SerializeToString())
        self.metadata.append(dict(context.invocation_metadata()))
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                self.records.extend((record.event_name, _attributes(record.attributes)) for record in scope.log_records)
        return logs_service_pb2.ExportLogsServiceResponse()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve until the block ends, at the port that it had before or at any."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)
