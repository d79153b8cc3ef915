"""Logged requests sent to a collector by OTLP over gRPC (opentelemetry.io/docs/specs/otlp), without what was said.

A collector that is away or slow holds up nothing: so many requests wait in memory, and what is more is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from prometheus_client import Counter

from moa.requestlog.v1 import request_log_pb2 as pb
from services.auth.domain.request_log import line
from services.common import logs, otlp
from services.common.cancelling import cancel_and_wait
from services.common.scrub import know

_log = logs.get("otlp_logs")

DROPPED: Final = Counter("moa_request_log_otlp_dropped_total", "Logged requests that no OTLP collector took.")

QUEUE: Final = 8192
_AT_ONCE: Final = 512
EXPORT_S: Final = 10.0
"""How long a batch is tried."""
_LAST_S: Final = 2.0
"""How long a process that ends waits for the collector."""
EVERY_S: Final = 1.0
_NAMES: Final = {
    "operation": "gen_ai.operation.name",
    "finish_reason": "gen_ai.response.finish_reasons",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "error": "error.type",
    "status": "http.response.status_code",
}
"""The conventions' names of what has one; all else is `moa.…`."""


class OtlpLogs:
    """Sends logged requests while its context is open."""

    def __init__(self, collector: otlp.Collector) -> None:
        know(*(value for _, value in collector.headers))
        if collector.trusted is None:
            self._channel = grpc.aio.insecure_channel(collector.address)
        else:
            credentials = grpc.ssl_channel_credentials(collector.trusted.read_bytes())
            self._channel = grpc.aio.secure_channel(collector.address, credentials)
        self._stub: Any = logs_service_pb2_grpc.LogsServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._headers = collector.headers
        self._waiting: deque[pb.LoggedRequest] = deque()
        self._came = asyncio.Event()
        self._failing = False

    def __call__(self, requests: Sequence[pb.LoggedRequest]) -> None:
        """Take requests, as far as there is room."""
        room = QUEUE - len(self._waiting)
        self._waiting.extend(requests[:room])
        if len(requests) > room:
            DROPPED.inc(len(requests) - room)
        self._came.set()

    async def run(self) -> None:
        """Send what comes, for ever."""
        while True:
            await self._came.wait()
            await asyncio.sleep(EVERY_S)
            self._came.clear()
            while self._waiting:
                await self._send(EXPORT_S)

    async def close(self) -> None:
        """Send the rest, and give up on it soon."""
        if self._waiting:
            await self._send(_LAST_S)
        DROPPED.inc(len(self._waiting))
        await self._channel.close()

    async def _send(self, within_s: float) -> None:
        batch = list(islice(self._waiting, _AT_ONCE))
        try:
            await self._stub.Export(exported(batch), timeout=within_s, metadata=self._headers, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            DROPPED.inc(len(batch))
            if not self._failing:
                _log.warning("request_logs.dropped", code=error.code().name, requests=len(batch))
            self._failing = True
        else:
            self._failing = False
        for _ in batch:
            self._waiting.popleft()


@asynccontextmanager
async def exporting(collector: otlp.Collector) -> AsyncIterator[OtlpLogs]:
    """Send logged requests to a collector; yield what takes them."""
    sending = OtlpLogs(collector)
    running = asyncio.create_task(sending.run(), name="otlp logs")
    try:
        yield sending
    finally:
        await cancel_and_wait(running)
        await sending.close()


def exported(requests: Iterable[pb.LoggedRequest]) -> logs_service_pb2.ExportLogsServiceRequest:
    """Return requests as records of a log."""
    records = [_record(each) for each in requests]
    resource = Resource(attributes=[_pair("service.name", "moa"), _pair("service.namespace", "moa")])
    scope = logs_pb2.ScopeLogs(log_records=records)
    return logs_service_pb2.ExportLogsServiceRequest(
        resource_logs=[logs_pb2.ResourceLogs(resource=resource, scope_logs=[scope])]
    )


def _record(request: pb.LoggedRequest) -> logs_pb2.LogRecord:
    failed = bool(request.error)
    told = line(request)
    told["attempts"] = [f"{each.model} {each.error}".rstrip() for each in request.attempts]
    return logs_pb2.LogRecord(
        time_unix_nano=request.at.ToNanoseconds(),
        observed_time_unix_nano=time.time_ns(),
        severity_number=logs_pb2.SEVERITY_NUMBER_WARN if failed else logs_pb2.SEVERITY_NUMBER_INFO,
        severity_text="WARN" if failed else "INFO",
        event_name="moa.request.finished",
        body=AnyValue(string_value="request.finished"),
        attributes=[
            _pair(_NAMES.get(name, f"moa.{name}"), value) for name, value in told.items() if value not in (None, "", [])
        ],
    )


def _pair(key: str, value: Any) -> KeyValue:
    return KeyValue(key=key, value=_value(value))


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))
    return AnyValue(string_value=str(value))
