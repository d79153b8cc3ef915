"""How Envoy traces: each request's trace begins at the edge, or goes on from the caller's."""

from __future__ import annotations

from typing import Final

from gateway.address import Address
from gateway.routes import METHOD, TYPE, Json
from services.common.otlp import Collector

CLUSTER: Final = "otlp"
"""The cluster of the collector."""

_SAMPLERS: Final = f"{TYPE}extensions.tracers.opentelemetry.samplers.v3."
_DETECTORS: Final = f"{TYPE}extensions.tracers.opentelemetry.resource_detectors.v3."
_MILLION: Final = 1_000_000


def tracing(collector: Collector) -> Json:
    """Return the `tracing` of a connection manager."""
    return {
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": _tracer(collector)},
        # The sampler decides, by the share that is wanted: a caller's own flag does not count.
        "random_sampling": {"value": 100},
        "overall_sampling": {"value": 100},
        "spawn_upstream_span": False,
        # A path names what it asks for, and its query may hold a key: the route's name tells enough.
        "max_path_tag_length": 0,
        "operation": f"{METHOD} %ROUTE_NAME%",
        "custom_tags": [
            {"tag": "http.request.method", "value": METHOD},
            {"tag": "http.route", "value": "%ROUTE_NAME%"},
            {"tag": "moa.request_id", "value": "%REQ(X-REQUEST-ID)%"},
        ],
    }


def _tracer(collector: Collector) -> Json:
    kind = "trace_id_ratio_based"
    share = {"numerator": round(collector.share * _MILLION), "denominator": "MILLION"}
    sampler = {"@type": f"{_SAMPLERS}TraceIdRatioBasedSamplerConfig", "sampling_percentage": share}
    detector = {"@type": f"{_DETECTORS}StaticConfigResourceDetectorConfig", "attributes": {"service.namespace": "moa"}}
    return {
        "@type": f"{TYPE}config.trace.v3.OpenTelemetryConfig",
        "service_name": "moa-edge",
        "grpc_service": {
            "envoy_grpc": {"cluster_name": CLUSTER},
            "timeout": "5s",
            "initial_metadata": [{"key": key, "value": value} for key, value in collector.headers],
        },
        "sampler": {"name": f"envoy.tracers.opentelemetry.samplers.{kind}", "typed_config": sampler},
        "resource_detectors": [
            {"name": "envoy.tracers.opentelemetry.resource_detectors.static_config", "typed_config": detector}
        ],
    }


def transport(collector: Collector) -> Json:
    """Return what the collector's cluster adds: HTTP/2, and TLS where it is wanted."""
    added: Json = {
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    if collector.trusted is not None:
        added["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TYPE}extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": collector.host,
                "common_tls_context": {
                    "validation_context": {
                        "trusted_ca": {"filename": str(collector.trusted)},
                        "match_typed_subject_alt_names": [_named(collector.host)],
                    }
                },
            },
        }
    return added


def runtime(collector: Collector) -> Json:
    """Return the switches of Envoy that say when it tells its spans."""
    return {"tracing.opentelemetry.flush_interval_ms": collector.delay_ms}


def address(collector: Collector) -> Address:
    """Return where the collector is."""
    return Address(collector.host, collector.port)


def _named(host: str) -> Json:
    kind = "IP_ADDRESS" if Address(host, 1).is_ip else "DNS"
    return {"san_type": kind, "matcher": {"exact": host}}
