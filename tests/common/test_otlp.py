"""Where traces go, by OpenTelemetry's own variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.common import otlp, tracing
from services.common.otlp import BadTracing, Collector, read

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PLAIN = {ENDPOINT: "http://collector:4317"}


def collector(environ: dict[str, str]) -> Collector:
    found = read(environ)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {ENDPOINT: ""},
        {**PLAIN, "OTEL_SDK_DISABLED": "TRUE"},
        {**PLAIN, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_SAMPLER": "nonsense"},
    ],
)
def test_they_are_off(environ: dict[str, str]) -> None:
    assert read(environ) is None


def test_what_is_not_said_is_as_opentelemetry_has_it() -> None:
    assert collector({ENDPOINT: "http://collector"}) == Collector(
        host="collector", port=4317, trusted=None, headers=(), share=1.0, delay_ms=5000
    )


def test_traces_may_have_variables_of_their_own() -> None:
    found = collector({**PLAIN, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[::1]:5000/"})
    assert (found.host, found.port, found.address) == ("::1", 5000, "[::1]:5000")


def test_headers_are_decoded() -> None:
    found = collector({**PLAIN, "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20YTpi==, x-team = a%2Cb ,"})
    assert found.headers == (("authorization", "Basic YTpi=="), ("x-team", "a,b"))


@pytest.mark.parametrize(
    ("sampler", "argument", "share"),
    [
        ("always_on", "0.1", 1.0),
        ("parentbased_always_off", "", 0.0),
        ("traceidratio", "", 1.0),
        ("parentbased_traceidratio", "0.25", 0.25),
    ],
)
def test_samplers(sampler: str, argument: str, share: float) -> None:
    environ = {**PLAIN, "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert collector(environ).share == share


def test_tls_by_the_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("…")
    found = collector({ENDPOINT: "https://collector:443", "OTEL_EXPORTER_OTLP_CERTIFICATE": str(file)})
    assert (found.port, found.trusted) == (443, file)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({ENDPOINT: "collector:4317"}, ENDPOINT),
        ({ENDPOINT: "ftp://collector"}, ENDPOINT),
        ({ENDPOINT: "http://"}, ENDPOINT),
        ({ENDPOINT: "http://collector:99999"}, ENDPOINT),
        ({ENDPOINT: "http://[collector"}, ENDPOINT),
        ({ENDPOINT: "http://collector:4318/v1/traces"}, ENDPOINT),
        ({ENDPOINT: "https://c", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere"}, "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        ({**PLAIN, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
        ({**PLAIN, "OTEL_EXPORTER_OTLP_HEADERS": "secret"}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({**PLAIN, "OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({**PLAIN, "OTEL_BSP_SCHEDULE_DELAY": "0"}, "OTEL_BSP_SCHEDULE_DELAY"),
        ({**PLAIN, "OTEL_BSP_SCHEDULE_DELAY": "5s"}, "OTEL_BSP_SCHEDULE_DELAY"),
        ({**PLAIN, "OTEL_TRACES_SAMPLER": "jaeger_remote"}, "OTEL_TRACES_SAMPLER"),
        ({**PLAIN, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, "OTEL_TRACES_SAMPLER_ARG"),
        ({**PLAIN, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "x"}, "OTEL_TRACES_SAMPLER_ARG"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(environ: dict[str, str], named: str) -> None:
    """And no value is repeated: it may be a secret."""
    with pytest.raises(BadTracing, match=f"^{named}: ") as refused:
        read(environ)
    assert "secret" not in str(refused.value)


def test_a_process_does_not_start_with_a_bad_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "collector")
    with pytest.raises(SystemExit, match=ENDPOINT):
        tracing.configure("router")


def test_without_a_collector_there_are_no_spans() -> None:
    assert otlp.read({}) is None
    assert tracing.serving("/a.B/C", {"traceparent": f"00-{'1' * 32}-{'1' * 16}-01"}) is None
    assert tracing.calling("POST", {}) is None
    assert (tracing.outgoing(), tracing.parent(), tracing.is_on()) == ((), "", False)
