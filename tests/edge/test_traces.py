"""The edge's spans, told to a collector by TLS."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import requests

from deploy.local.ports import Ports
from deploy.local.stack import Stack, StackError
from services.common.otlp import Collector as Target
from services.common.tracing.recorder import Recorder
from tests import forking
from tests.edge.upstream import TIMEOUT_S, Upstream
from tests.emulators.collector import Collector

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def collector(certificate: tuple[Path, Path]) -> Iterator[tuple[Collector, int]]:
    """A collector with a certificate, and its port."""
    port = Ports().any()
    chain, key = (path.read_bytes() for path in certificate)
    running = Collector()
    running.start(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(key, chain)]))
    yield running, port
    running.stop()


@pytest.fixture(scope="module")
def traced(
    certificate: tuple[Path, Path],
    collector: tuple[Collector, int],
    _running: Upstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    environment = {
        "MOA_ROUTER_ADDRESSES": f"127.0.0.1:{_running.port}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{collector[1]}",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate[0]),
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer of-the-collector",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with Stack(
        tmp_path_factory.mktemp("traced"), processes=["edge"], start=forking.spawn, environment=environment
    ) as stack:
        yield stack


def test_by_tls_with_a_credential(traced: Stack, collector: tuple[Collector, int]) -> None:
    """The collector is told the edge's span, and the credential; callers' queries are not told."""
    answer = requests.get(
        f"{traced.url}/providers?key=nobodys-business", headers={"traceparent": PARENT}, timeout=TIMEOUT_S
    )
    assert answer.status_code == 200
    [span] = collector[0].trace(TRACE, bool)
    assert (span.service, span.name, span.parent_id) == ("moa-edge", "GET /providers", "00f067aa0ba902b7")
    assert span.attributes["http.request.method"] == "GET"
    assert b"nobodys-business" not in b"".join(collector[0].raw)
    assert collector[0].metadata[-1]["authorization"] == "Bearer of-the-collector"


def test_the_credential_is_nobody_elses_to_read(traced: Stack) -> None:
    files = [file for file in traced.root.rglob("*") if file.suffix in (".json", ".new")]
    assert any("of-the-collector" in file.read_text() for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_spans_are_told_as_soon_as_those_of_services(traced: Stack) -> None:
    """By OpenTelemetry's variable; Envoy by itself gathers them for five seconds."""
    configurations = [json.loads(file.read_text()) for file in traced.root.rglob("*.json")]
    layers = [layer for each in configurations for layer in each.get("layered_runtime", {}).get("layers", [])]
    assert {layer["static_layer"]["tracing.opentelemetry.flush_interval_ms"] for layer in layers} == {100}


def test_what_nobody_serves_is_a_span_too(traced: Stack, collector: tuple[Collector, int]) -> None:
    """Under a name that no caller chooses."""
    trace = TRACE[::-1]
    parent = f"00-{trace}-00f067aa0ba902b7-01"
    assert (
        requests.get(f"{traced.url}/what/ever", headers={"traceparent": parent}, timeout=TIMEOUT_S).status_code == 404
    )
    [span] = collector[0].trace(trace, bool)
    assert "ever" not in json.dumps([span.name, span.attributes])


def test_a_process_tells_by_tls_what_is_left_when_it_ends(
    certificate: tuple[Path, Path], collector: tuple[Collector, int]
) -> None:
    trace = "1" * 32
    target = Target(host="127.0.0.1", port=collector[1], trusted=certificate[0], headers=(("x-a", "b"),), share=0.0)
    recorder = Recorder("router", target)
    span = recorder.serving("/a.B/C", {"traceparent": f"00-{trace}-{'2' * 16}-01", "tracestate": "v=1"})
    assert span is not None
    assert dict(span.headers)["tracestate"] == "v=1"
    span.answered("INTERNAL")
    assert recorder.serving("/a.B/C", {"traceparent": f"00-{trace}-{'2' * 16}-00"}) is None
    assert recorder.serving("/a.B/C", {"traceparent": "nonsense"}) is None
    recorder.close()
    [told] = collector[0].trace(trace, bool)
    assert (told.service, told.name, told.failed) == ("moa-router", "a.B/C", True)


def test_a_bad_variable_ends_the_edge_with_a_sentence(tmp_path: Path) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"}
    with pytest.raises(StackError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment).start()
