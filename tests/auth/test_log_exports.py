"""Exports of logged requests: by OTLP, and the task that puts objects."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest

from moa.requestlog.v1.request_log_pb2 import LoggedRequest
from services.auth.adapters import otlp_logs
from services.auth.adapters.otlp_logs import DROPPED, OtlpLogs, exporting
from services.auth.log_exporter import LogExporter
from services.common import otlp
from services.common.errors import Unavailable
from services.common.otlp import Collector
from tests.counters import count_of
from tests.emulators.collector import LogCollector

PROMPT = "the plans of the tower by the sea"


def request(**more: Any) -> LoggedRequest:
    """Return a logged request."""
    given = {"model": "p/m", "team_id": "team_1", "operation": "text", "status": 200, "nano_usd": 12}
    return LoggedRequest(**{**given, **more}, log_id=f"log_{secrets.token_hex(16)}")


def address(port: int) -> Collector:
    return Collector(host="127.0.0.1", port=port, trusted=None, headers=(("x-key", "k"),), share=1.0)


async def until(condition: Any) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(90):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that wait for nothing."""
    monkeypatch.setattr(otlp_logs, "EVERY_S", 0.0)


async def test_a_collector_has_each_request_by_its_facts() -> None:
    """Under the conventions' names where there are any; what was said is in no byte."""
    collector = LogCollector()
    async with collector.serving(), exporting(address(collector.port)) as sending:
        failed = request(error="rate_limited", status=429, tags=["nightly"])
        failed.usage.prompt_tokens = 7
        failed.attempts.add(model="p/m", error="upstream_rate_limited")
        failed.content.text_request.messages.add().parts.add(text=PROMPT)
        sending([failed])
        await until(lambda: collector.records)
        sending([request()])
        await until(lambda: len(collector.records) == 2)
        # One that the end of the process cuts off is sent again.
        (name, told), (_, other) = list(collector.records)
    assert name == "moa.request.finished"
    assert (told["error.type"], told["http.response.status_code"], told["moa.tags"]) == (
        "rate_limited",
        429,
        ["nightly"],
    )
    assert (told["gen_ai.usage.input_tokens"], told["moa.nano_usd"], told["moa.log_id"]) == (7, 12, failed.log_id)
    assert told["moa.attempts"] == ["p/m upstream_rate_limited"]
    assert "error.type" not in other
    assert PROMPT.encode() not in b"".join(collector.raw)
    assert collector.metadata[0]["x-key"] == "k"


async def test_what_no_collector_takes_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever logs waits for nothing; beyond the room for those that wait, and after the time of a try."""
    monkeypatch.setattr(otlp_logs, "QUEUE", 3)
    monkeypatch.setattr(otlp_logs, "EXPORT_S", 0.05)
    collector = LogCollector()
    async with collector.serving():
        pass
    before = count_of(DROPPED)
    async with exporting(address(collector.port)) as sending:
        sending([request() for _ in range(5)])
        assert count_of(DROPPED) - before == 2
        await until(lambda: count_of(DROPPED) - before == 5)
        async with collector.serving():
            monkeypatch.setattr(otlp_logs, "EXPORT_S", 30)
            sending([request()])
            await until(lambda: collector.records)
            assert len(collector.records) == 1


async def test_the_end_of_a_process_sends_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last requests reach a collector that is there."""
    monkeypatch.setattr(otlp_logs, "EVERY_S", 60)
    collector = LogCollector()
    async with collector.serving():
        async with exporting(address(collector.port)) as sending:
            assert isinstance(sending, OtlpLogs)
            sending([request()])
        assert len(collector.records) == 1


def test_requests_go_to_a_collector_only_where_that_is_said() -> None:
    """A collector of traces alone has none of them; a bad word stops the start with the variable's name."""
    traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://traces:4317"}
    assert otlp.read_logs(traces) is None
    assert otlp.read_logs({"OTEL_LOGS_EXPORTER": "otlp"}) is None
    assert otlp.read_logs({**traces, "OTEL_LOGS_EXPORTER": "none"}) is None
    same = otlp.read_logs({**traces, "OTEL_LOGS_EXPORTER": "otlp"})
    assert same is not None
    assert same.address == "traces:4317"
    own = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs:4317", "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "a=b"}
    apart = otlp.read_logs({**traces, **own, "OTEL_LOGS_EXPORTER": "otlp"})
    assert apart is not None
    assert (apart.address, apart.headers) == ("logs:4317", (("a", "b"),))
    for bad, named in (
        ({"OTEL_LOGS_EXPORTER": "console"}, "OTEL_LOGS_EXPORTER"),
        (
            {**own, "OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
        ),
    ):
        with pytest.raises(otlp.BadTracing, match=named):
            otlp.read_logs(bad)


async def test_objects_are_put_until_nothing_waits_whatever_fails_before() -> None:
    """A database that is away, and a bug, end the round and not the task."""
    left: list[Any] = [Unavailable("away"), RuntimeError("a bug"), True, True, False, True, False]
    done = asyncio.Event()

    class Waiting:
        async def round(self) -> bool:
            result = left.pop(0)
            if not left:
                done.set()
                left.append(False)
            if isinstance(result, Exception):
                raise result
            return bool(result)

    waiting: Any = Waiting()
    async with LogExporter(waiting, every_s=0.001):
        await asyncio.wait_for(done.wait(), 90)
