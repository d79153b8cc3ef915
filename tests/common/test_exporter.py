"""Spans on their way to a collector."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from structlog.testing import capture_logs

from deploy.local.ports import Ports
from services.common.otlp import Collector as Address
from services.common.tracing import exporter
from tests.emulators.collector import Collector


class Hesitant(Collector):
    """Is unavailable for its first answers."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals

    def Export(self, request: Any, context: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return super().Export(request, context)


@pytest.fixture
def port() -> int:
    return Ports().any()


def address(port: int) -> Address:
    return Address(host="127.0.0.1", port=port, trusted=None, headers=(("x-key", "k"),), share=1.0)


def span() -> ReadableSpan:
    ended = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("work")
    ended.end()
    assert isinstance(ended, ReadableSpan)
    return ended


def test_a_collector_that_is_not_ready_is_asked_again(port: int) -> None:
    """What it refuses as unavailable, it is sent again, and has once."""
    collector = Hesitant(2)
    collector.start(f"127.0.0.1:{port}")
    sending = exporter.Exporter(address(port))
    try:
        assert sending.export([span()]) is SpanExportResult.SUCCESS
    finally:
        sending.shutdown()
        collector.stop()
    assert [told.name for told in collector.spans] == ["work"]
    assert collector.metadata[0]["x-key"] == "k"


def test_what_cannot_be_sent_is_dropped_and_told_once(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that is away costs a log line for the first batch, and none for the next."""
    monkeypatch.setattr(exporter, "EXPORT_S", 0.2)
    sending = exporter.Exporter(address(port))
    with capture_logs() as lines:
        assert [sending.export([span()]) for _ in range(2)] == [SpanExportResult.FAILURE] * 2
    sending.shutdown()
    assert [(line["event"], line["code"], line["spans"]) for line in lines] == [
        ("traces.dropped", "DEADLINE_EXCEEDED", 1)
    ]
