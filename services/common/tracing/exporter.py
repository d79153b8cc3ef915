"""Spans sent to a collector by OTLP over gRPC (opentelemetry.io/docs/specs/otlp).

OpenTelemetry's own exporter brings metrics of itself and every form of configuration; this one sends.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import grpc
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from services.common import logs

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from services.common.otlp import Collector

_log = logs.get("traces")

EXPORT_S: Final = 10.0
"""How long a batch is tried."""
_METHOD: Final = {"name": [{"service": "opentelemetry.proto.collector.trace.v1.TraceService"}]}
_RETRIES: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.5s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    # What the protocol calls retryable.
    "retryableStatusCodes": ["UNAVAILABLE", "ABORTED", "OUT_OF_RANGE", "DATA_LOSS"],
}
_OPTIONS: Final = (("grpc.service_config", json.dumps({"methodConfig": [{**_METHOD, "retryPolicy": _RETRIES}]})),)


class Exporter(SpanExporter):
    """Sends batches. One that cannot be sent in ten seconds is dropped; the first of several in a row is logged."""

    def __init__(self, collector: Collector) -> None:
        if collector.trusted is None:
            self._channel = grpc.insecure_channel(collector.address, options=_OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(collector.trusted.read_bytes())
            self._channel = grpc.secure_channel(collector.address, credentials, options=_OPTIONS)
        self._export = TraceServiceStub(self._channel).Export  # type: ignore[no-untyped-call]
        self._headers = collector.headers
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; called from the processor's own thread."""
        try:
            self._export(encode_spans(spans), timeout=EXPORT_S, metadata=self._headers, wait_for_ready=True)
        except grpc.RpcError as error:
            if not self._failing:
                _log.warning("traces.dropped", code=error.code().name, spans=len(spans))
            self._failing = True
            return SpanExportResult.FAILURE
        self._failing = False
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the connection; what is being sent is cut off."""
        self._channel.close()
