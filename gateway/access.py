"""The access log: one line a request, as far as the level asks for it."""

from __future__ import annotations

from typing import Final

from gateway.routes import METHOD, TYPE, Json

_LINE: Final = {
    "event": "request.finished",
    "process": "edge",
    "timestamp": "%START_TIME%",
    "method": METHOD,
    # Queries may hold keys: they are never logged.
    "path": "%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "grpc": "%GRPC_STATUS%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "upstream": "%UPSTREAM_HOST%",
}
_FAILED: Final = ("UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
"""What is no fault of the caller's. A gRPC answer is HTTP 200 whatever came of it."""
_BROKEN: Final = ("UNKNOWN", "INTERNAL", "DATA_LOSS")


def log(level: str, **more: str) -> Json:
    """Return the access log for a level, `more` being added to each line.

    `warning` is told what failed for no fault of the caller's (5xx), `error` what went wrong in the gateway (500).
    """
    formatter = {
        "name": "envoy.formatter.req_without_query",
        "typed_config": {"@type": f"{TYPE}extensions.formatter.req_without_query.v3.ReqWithoutQuery"},
    }
    made: Json = {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": f"{TYPE}extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"json_format": {**_LINE, **more}, "formatters": [formatter]},
        },
    }
    if level == "warning":
        made["filter"] = _either(_status("GE", 500), _grpc(_FAILED))
    elif level == "error":
        made["filter"] = _either(_status("EQ", 500), _grpc(_BROKEN))
    return made


def _either(*filters: Json) -> Json:
    return {"or_filter": {"filters": list(filters)}}


def _status(op: str, status: int) -> Json:
    value = {"default_value": status, "runtime_key": f"moa.logged_{status}"}
    return {"status_code_filter": {"comparison": {"op": op, "value": value}}}


def _grpc(statuses: tuple[str, ...]) -> Json:
    """Match answers to gRPC callers with these statuses. One without, as over REST, is taken for UNKNOWN."""
    typed = _header({"name": "content-type", "string_match": {"prefix": "application/grpc"}})
    # The transcoder makes a gRPC call of a REST caller's, and keeps the path.
    own = _header({"name": "x-envoy-original-path", "present_match": False})
    return {"and_filter": {"filters": [typed, own, {"grpc_status_filter": {"statuses": list(statuses)}}]}}


def _header(matcher: Json) -> Json:
    return {"header_filter": {"header": matcher}}
