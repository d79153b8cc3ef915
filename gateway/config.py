"""Envoy's whole configuration, with its listeners and filters."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gateway import access, bodies, clusters, limits, pages, routes, script, tracing, zones
from gateway.bindings import Binding
from gateway.routes import TYPE, Json
from gateway.settings import EdgeSettings
from moa.common.v1 import error_pb2
from services.common.otlp import Collector

_FILTERS: Final = f"{TYPE}extensions.filters.http."


def bootstrap(
    settings: EdgeSettings, bindings: list[Binding], lua: str, *, contracts: Path, collector: Collector | None = None
) -> Json:
    """Return the configuration.

    `lua` is the script's text, `contracts` the transcoder's descriptor set, `collector` is told the traces.
    """
    public = _public_http(settings, bindings, lua, contracts)
    services = [*clusters.of_edges(settings), *clusters.of_services(settings)]
    runtime = limits.RUNTIME
    if collector is not None:
        runtime = {**runtime, **tracing.runtime(collector)}
        public["tracing"] = tracing.tracing(collector)
        public["access_log"] = [access.log(settings.log_level, trace_id="%TRACE_ID%")]
        traces = clusters.cluster(tracing.CLUSTER, [tracing.address(collector)])
        services.append({**traces, **tracing.transport(collector)})
    return {
        "admin": {"address": {"pipe": {"path": clusters.ADMIN_SOCKET.format(1)}}},
        "layered_runtime": {"layers": [{"name": "moa", "static_layer": runtime}]},
        "overload_manager": limits.overload(settings),
        "watchdogs": limits.WATCHDOGS,
        "memory_allocator_manager": limits.RELEASE,
        # Nothing is sent anywhere; by default all is added up every five seconds.
        "stats_flush_on_admin": True,
        **zones.manager(settings),
        "static_resources": {
            "listeners": [_public(settings, public), _internal(settings, bindings, contracts)],
            "clusters": services,
        },
    }


def _public(settings: EdgeSettings, manager: Json) -> Json:
    chain: Json = {
        "filters": [_network(manager)],
        "transport_socket_connect_timeout": "10s",
    }
    if settings.tls_cert is not None and settings.tls_key is not None:
        certificate = {
            "certificate_chain": {"filename": str(settings.tls_cert.resolve())},
            "private_key": {"filename": str(settings.tls_key.resolve())},
        }
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate]},
            },
        }
    return {
        "name": "public",
        "address": clusters.socket(settings.listen),
        "filter_chains": [chain],
        # Told to drain, this one closes; metrics and readiness are answered to the end.
        "traffic_direction": "INBOUND",
        "per_connection_buffer_limit_bytes": limits.BUFFER_BYTES,
    }


def _public_http(settings: EdgeSettings, bindings: list[Binding], lua: str, contracts: Path) -> Json:
    return {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public",
        "server_name": "moa",
        "use_remote_address": True,
        "xff_num_trusted_hops": settings.trusted_hops,
        # A caller on this machine is a caller like any other: its x-envoy-* headers are not obeyed.
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "192.0.2.0", "prefix_len": 32}]},
        "normalize_path": True,
        "merge_slashes": True,
        # Envoy makes an id for every request; the script puts a caller's own in its place, where it is one.
        "early_header_mutation_extensions": [_kept_request_id()],
        "generate_request_id": True,
        "always_set_request_id_in_response": True,
        "stream_idle_timeout": f"{settings.stream_idle_s:g}s",
        # Half a request is a connection without a request.
        "request_headers_timeout": f"{min(10.0, settings.connection_idle_s):g}s",
        "drain_timeout": f"{min(5.0, settings.connection_idle_s):g}s",
        "request_timeout": f"{settings.request_s:g}s",
        "max_request_headers_kb": limits.HEADERS_KIB,
        "common_http_protocol_options": {
            "idle_timeout": f"{settings.connection_idle_s:g}s",
            "max_headers_count": limits.HEADERS,
        },
        "http2_protocol_options": limits.CALLERS,
        "local_reply_config": _local_replies(),
        "access_log": [access.log(settings.log_level)],
        "http_filters": [*_filters(settings, bindings, lua, contracts)],
        "route_config": routes.route_config(bindings, settings),
    }


def _kept_request_id() -> Json:
    """Keep the id that a caller gave before Envoy replaces it. What a caller writes under inner names goes.

    A header that the script itself changes has the route looked up again.
    """
    kept = {
        "header": {"key": script.CALLERS_ID, "value": "%REQ(X-REQUEST-ID)%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{TYPE}extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            # The deployment is what the script finds in the path.
            "mutations": [{"remove": script.CALLERS_ID}, {"append": kept}, {"remove": script.DEPLOYMENT}],
        },
    }


def _local_replies() -> Json:
    """Mark what Envoy itself answers; word what the script does not: broken HTTP, answers to gRPC callers."""
    unreadable = {"json_format": {"detail": "the request is not HTTP that can be read", "code": "malformed"}}
    sentence = script.sentence(error_pb2.REASON_UNAVAILABLE)
    absent = {"text_format_source": {"inline_string": sentence}}
    # What is refused for want of memory is refused before a route, and so a dialect, is looked for.
    overloaded = {"json_format": {"detail": sentence, "code": "unavailable"}}
    # A request that did not arrive whole in time.
    late = "the request did not arrive in time"
    mark = _header("x-moa-edge", "1")
    mistaken = [mark, _header("x-moa-reason", "malformed"), _header("grpc-message", late)]
    silent = {"response_flag_filter": {"flags": ["SI"]}}
    typed = {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}}
    return {
        "mappers": [
            {"filter": {"response_flag_filter": {"flags": ["DPE"]}}, "body_format_override": unreadable},
            {
                "filter": {"and_filter": {"filters": [_status("EQ", 503), typed]}},
                "headers_to_add": [mark],
                "body_format_override": absent,
            },
            {
                "filter": _status("EQ", 503),
                "headers_to_add": [mark, _header("retry-after", "1")],
                "body_format_override": overloaded,
            },
            # An answer that was silent for too long. A body that was, is a 408.
            {
                "filter": {"and_filter": {"filters": [silent, _status("EQ", 504)]}},
                "headers_to_add": [mark],
            },
            {
                # A REST caller's too: the transcoder has made a gRPC call of it by then.
                "filter": {"and_filter": {"filters": [_status("EQ", 408), typed]}},
                "headers_to_add": mistaken,
                "body_format_override": {"text_format_source": {"inline_string": late}},
            },
            {
                "filter": _status("EQ", 408),
                "headers_to_add": mistaken,
            },
            {"filter": _status("GE", 400), "headers_to_add": [mark]},
        ]
    }


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _status(op: str, status: int) -> Json:
    value = {"default_value": status, "runtime_key": f"moa.status_{status}"}
    return {"status_code_filter": {"comparison": {"op": op, "value": value}}}


def _filters(settings: EdgeSettings, bindings: list[Binding], lua: str, contracts: Path) -> Iterable[Json]:
    """The order is the order of a request; answers pass it backwards, so the script has the last word."""
    yield _filter(
        routes.LUA,
        "lua.v3.Lua",
        default_source_code={"inline_string": lua},
    )
    yield _ready()
    yield _filter(routes.CORS, "cors.v3.Cors")
    # Inside, x-moa-* is believed. Nobody outside may say it.
    strip = {"remove_on_match": {"key_matcher": {"prefix": "x-moa-", "ignore_case": True}}}
    original = [{"remove": f"x-envoy-original-{part}"} for part in ("path", "method")]
    yield _filter(
        "envoy.filters.http.header_mutation",
        "header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": [strip, *original]},
    )
    # A REST caller over HTTP/2 would see the trailers of the gRPC call behind its answer.
    leftovers = [{"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in ("grpc-", "x-moa-")]
    yield _filter(
        routes.TRAILERS, "header_mutation.v3.HeaderMutation", mutations={"response_trailers_mutations": leftovers}
    )
    yield bodies.gate(routes.ROUTER, settings)
    if settings.asks_for_room:
        yield bodies.room(routes.LARGE)
    size = "body_size_limit.v3.BodySizeLimit"
    yield _filter(routes.FREE_LIMIT, size, max_request_bytes=bodies.FREE_BYTES)
    for name, limit in (
        (routes.JSON_LIMIT, settings.json_limit_bytes),
        (routes.UPLOAD_LIMIT, settings.upload_limit_bytes),
    ):
        yield {**_filter(name, size, max_request_bytes=limit), "disabled": True}
    yield bodies.hold()
    yield bodies.counted()
    yield _filter("envoy.filters.http.grpc_web", "grpc_web.v3.GrpcWeb")
    yield _transcoder(settings, bindings, contracts)
    yield _filter("envoy.filters.http.router", "router.v3.Router", suppress_envoy_headers=True)


def _transcoder(
    settings: EdgeSettings, bindings: list[Binding], contracts: Path, *, tells_status: bool = False
) -> Json:
    """Return what makes gRPC of HTTP. `tells_status`: an error's body is its status, where no filter makes another."""
    fields: set[str] = set().union(*(binding.fields for binding in bindings))
    return _filter(
        routes.TRANSCODER,
        "grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor=str(contracts.resolve()),
        services=sorted({binding.service for binding in bindings} & {*routes.DIALECTS, pages.SERVICE}),
        convert_grpc_status=tells_status,
        print_options={"preserve_proto_field_names": True, "always_print_primitive_fields": True},
        # The route was chosen by the caller's path, which the transcoder rewrites.
        match_incoming_request_route=True,
        ignore_unknown_query_parameters=True,
        # A query parameter would override what the path or the body bound.
        ignored_query_parameters=sorted(fields | {"content_type", "data", "extensions"}),
        url_unescape_spec="ALL_CHARACTERS",
        query_param_unescape_plus=True,
        request_validation_options={"reject_unknown_method": True, "reject_binding_body_field_collisions": True},
        # The limit filters refuse first, with a dialect's 413; the default here is 1 MiB.
        max_request_body_size=settings.upload_limit_bytes + 2**20,
        max_response_body_size=256 * 2**20,
    )


def _filter(name: str, kind: str, **fields: object) -> Json:
    return {"name": name, "typed_config": {"@type": _FILTERS + kind, **fields}}


def _network(manager: Json) -> Json:
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _internal(settings: EdgeSettings, bindings: list[Binding], contracts: Path) -> Json:
    """Prometheus's listener: each process's metrics, and whether requests can be served."""
    served = [
        {
            "match": {"path": f"/metrics/{name}"},
            "route": {"cluster": f"metrics_{name}", "prefix_rewrite": "/metrics", "timeout": "5s"},
            "typed_per_filter_config": {routes.TRANSCODER: routes.OFF},
        }
        for name in settings.metrics_targets
    ]
    own = [
        {
            "match": {"path": f"/metrics/{'edge' if number == 1 else f'edge-{number}'}"},
            "route": {"cluster": f"{clusters.ADMIN}_{number}", "prefix_rewrite": "/stats/prometheus", "timeout": "5s"},
            "typed_per_filter_config": {routes.TRANSCODER: routes.OFF},
        }
        for number in range(1, settings.edge_processes + 1)
    ]
    ready = {
        "match": {"path": "/ready"},
        "route": routes.READY,
        "request_headers_to_add": [_header("x-moa-internal", "1")],
    }
    host = {"name": "internal", "domains": ["*"], "routes": [ready, *own, *served]}
    answers = [binding for binding in bindings if binding.service == routes.READINESS]
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "internal",
        "http_filters": [
            _ready(),
            _transcoder(settings, answers, contracts, tells_status=True),
            _filter("envoy.filters.http.router", "router.v3.Router"),
        ],
        "route_config": {"name": "internal", "virtual_hosts": [host]},
    }
    chain = {"filters": [_network(manager)]}
    return {"name": "internal", "address": clusters.socket(settings.internal_listen), "filter_chains": [chain]}


def _ready() -> Json:
    """Answer HEAD of `/ready`: 200 where a router can be reached, else 503. GET is a router's to answer."""
    return _filter(
        "envoy.filters.http.health_check",
        "health_check.v3.HealthCheck",
        pass_through_mode=False,
        headers=[
            {"name": ":path", "string_match": {"exact": "/ready"}},
            {"name": ":method", "string_match": {"exact": "HEAD"}},
        ],
        cluster_min_healthy_percentages={routes.ROUTER: {"value": 1}},
    )
