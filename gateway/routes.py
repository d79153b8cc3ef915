"""The edge's routes: REST by the contracts' bindings, gRPC by service name, and a dialect's refusal for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from gateway import pages, script
from gateway.bindings import Binding
from gateway.settings import EdgeSettings

Json = dict[str, Any]

TYPE: Final = "type.googleapis.com/envoy."

METHOD: Final = "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%"
"""The caller's method: what the transcoder makes of every call is a POST."""

ROUTER: Final = "router"
"""The cluster of the router's workers."""
TASKS: Final = "tasks"
"""The cluster of the task service."""

ACCOUNTS: Final = "accounts"
"""The cluster of the auth service's public port."""

DIALECTS: Final[Mapping[str, str]] = {
    "moa.router.v1.NativeService": "native",
    "moa.router.v1.OpenAIService": "openai",
    "moa.router.v1.GoogleService": "google",
    "moa.router.v1.FilesService": "native",
    "moa.account.v1.AccountService": "native",
    "moa.account.v1.AdminService": "native",
    "moa.task.v1.TaskService": "native",
    "moa.task.v1.WebhookService": "native",
    "moa.task.v1.ImageTaskService": "task",
    "moa.task.v1.ImageTaskQueryService": "task_query",
    "moa.task.v1.PredictionService": "predictions",
    "moa.task.v1.DeskTaskService": "desk",
}
"""Which dialect words the failures of each service's REST bindings. A service that is not here has no REST."""

_CLUSTERS: Final = (("moa.task.", TASKS), ("moa.account.", ACCOUNTS))
"""Who serves a package; the router serves the rest."""

_SAME_ORIGIN: Final = ("/account/", "/admin/")
"""Paths that no page of another origin may read: they show keys."""

_SHARED_SERVICE: Final = "moa.router.v1.OpenAIService"
"""Whose GET paths (`/v1/models`) are Google's too."""

_STRAYS: Final = (("/v1/", "openai"), ("/v1beta/", "google"), ("/", "native"))
"""Whose words a path that nobody serves is refused in, by prefix."""

GRPC_PREFIXES: Final = (
    "/moa.text.v1.TextService/",
    "/moa.image.v1.ImageService/",
    "/moa.embedding.v1.EmbeddingService/",
    "/moa.router.v1.CatalogService/",
    "/moa.account.v1.AccountService/",
    "/moa.account.v1.AdminService/",
    "/moa.task.v1.TaskService/",
    "/moa.task.v1.WebhookService/",
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1alpha.ServerReflection/",
    "/grpc.reflection.v1.ServerReflection/",
)
"""What gRPC and gRPC-Web callers reach."""

LUA: Final = "envoy.filters.http.lua"
CORS: Final = "envoy.filters.http.cors"
TRANSCODER: Final = "envoy.filters.http.grpc_json_transcoder"
TRAILERS: Final = "moa.trailers"
JSON_LIMIT: Final = "moa.json_limit"
UPLOAD_LIMIT: Final = "moa.upload_limit"

_OFF: Final[Json] = {"@type": f"{TYPE}config.route.v3.FilterConfig", "disabled": True}
_ON: Final[Json] = {"@type": f"{TYPE}config.route.v3.FilterConfig", "config": {}}
_LUA_GRPC: Final[Json] = {"@type": f"{TYPE}extensions.filters.http.lua.v3.LuaPerRoute", "name": script.GRPC}

_CORS_POLICY: Final[Json] = {
    "@type": f"{TYPE}extensions.filters.http.cors.v3.CorsPolicy",
    "allow_origin_string_match": [{"safe_regex": {"regex": ".*"}}],
    "allow_methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    # The star covers every header but Authorization, for callers without credentials; older browsers need the list.
    "allow_headers": "authorization, content-type, x-api-key, x-goog-api-key, x-goog-api-client, x-grpc-web, "
    "x-user-agent, grpc-timeout, idempotency-key, moa-fallback, prefer, range, *",
    "expose_headers": "x-request-id, x-moa-provider, x-moa-model, x-moa-cost, x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, x-ratelimit-limit-images, x-ratelimit-remaining-images, "
    "x-ratelimit-reset-images, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, ratelimit, ratelimit-policy, x-moa-ignored, deprecation, sunset, content-range, "
    "retry-after, grpc-status, grpc-message, grpc-status-details-bin, *",
    "max_age": "86400",
}

_NO_CORS: Final[Json] = {
    "@type": _CORS_POLICY["@type"],
    "filter_enabled": {"default_value": {"numerator": 0}, "runtime_key": "moa.cors"},
}


def route_config(bindings: list[Binding], settings: EdgeSettings) -> Json:
    """Give the public listener's routes. The first match serves."""
    known = [binding for binding in bindings if binding.service in DIALECTS]
    routes = [
        *_preflights(settings),
        *_grpc(settings),
        *_rest(known, settings),
        *pages.routes(_OFF, (CORS, TRANSCODER)),
        *_strays(),
    ]
    host = {"name": "public", "domains": ["*"], "routes": routes, "typed_per_filter_config": {CORS: _CORS_POLICY}}
    return {"name": "public", "virtual_hosts": [host]}


def _target(settings: EdgeSettings, service: str = "") -> Json:
    idle = f"{settings.stream_idle_s:g}s"
    return {
        "cluster": next((cluster for package, cluster in _CLUSTERS if service.startswith(package)), ROUTER),
        # Envoy's default of 15 s would cut streams; silence is bounded instead.
        "timeout": "0s",
        "idle_timeout": idle,
        # Only what surely reached nobody. A replayed generation would be charged twice.
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream",
            "num_retries": 2,
            # Another worker, where there is one.
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": f"{TYPE}extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "host_selection_retry_max_attempts": "5",
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        },
    }


def _preflights(settings: EdgeSettings) -> Iterable[Json]:
    """A browser's question needs a route with a target, or the CORS filter leaves it alone. It goes no further."""
    asks = [_header(":method", {"exact": "OPTIONS"})]
    asks += [{"name": name, "present_match": True} for name in ("origin", "access-control-request-method")]
    for prefix in _SAME_ORIGIN:
        yield _refusal({"prefix": prefix, "headers": asks}, 405, _dialect("native"), readable=False)
    yield {"match": {"prefix": "/", "headers": asks}, "route": _target(settings)}


def _grpc(settings: EdgeSettings) -> Iterable[Json]:
    """Native calls keep their trailers: a smaller script, no transcoder, and the server's own limit on messages."""
    filters = {LUA: _LUA_GRPC, TRANSCODER: _OFF, JSON_LIMIT: _OFF, TRAILERS: _OFF}
    speaks = [_header("content-type", {"prefix": "application/grpc", "ignore_case": True})]
    for prefix in GRPC_PREFIXES:
        match = {"prefix": prefix, "headers": speaks}
        target = _target(settings, prefix.strip("/"))
        yield {"name": prefix.strip("/"), "match": match, "route": target, "typed_per_filter_config": filters}
        yield _refusal({"prefix": prefix}, 415, _dialect("native"))


def _rest(bindings: list[Binding], settings: EdgeSettings) -> Iterable[Json]:
    """One route a binding, and behind all bindings of a path its refusal of other methods."""
    for regex, group in groupby(bindings, key=lambda binding: binding.regex):
        same = list(group)
        dialect = _dialect(DIALECTS[same[0].service])
        path = {"safe_regex": {"regex": regex}}
        for binding in same:
            verb = _header(":method", {"exact": binding.verb})
            target = _target(settings, binding.service)
            route: Json = {
                "name": binding.template,
                "match": {**path, "headers": [verb]},
                "route": target,
                "metadata": dialect,
            }
            if binding.template.startswith(_SAME_ORIGIN):
                route["typed_per_filter_config"] = {CORS: _NO_CORS}
            if binding.service == _SHARED_SERVICE and binding.verb == "GET":
                # The same path in two vendors' APIs: Google's key header decides whose words a refusal has.
                google = [verb, {"name": "x-goog-api-key", "present_match": True}]
                yield {**route, "match": {**path, "headers": google}, "metadata": _dialect("google")}
            if binding.takes_body:
                form = _header("content-type", {"prefix": "multipart/", "ignore_case": True})
                limits = {JSON_LIMIT: _OFF, UPLOAD_LIMIT: _ON}
                filters = {**route.get("typed_per_filter_config", {}), **limits}
                yield {**route, "match": {**path, "headers": [verb, form]}, "typed_per_filter_config": filters}
            yield route
        yield _refusal(path, 405, dialect, allow=sorted({binding.verb for binding in same}))


def _strays() -> Iterable[Json]:
    for prefix, dialect in _STRAYS:
        yield _refusal({"prefix": prefix}, 404, _dialect(dialect))


def _refusal(match: Json, status: int, dialect: Json, *, allow: Iterable[str] = (), readable: bool = True) -> Json:
    route: Json = {
        "match": match,
        "direct_response": {"status": status},
        "metadata": dialect,
        "typed_per_filter_config": {TRANSCODER: _OFF},
    }
    added = {"allow": ", ".join(allow)} if allow else {}
    # The CORS filter passes over answers without a target; a browser's caller should see what was wrong all the same.
    if readable:
        added["access-control-allow-origin"] = "*"
    route["response_headers_to_add"] = [{"header": {"key": k, "value": v}} for k, v in added.items()]
    return route


def _header(name: str, match: Json) -> Json:
    return {"name": name, "string_match": match}


def _dialect(name: str) -> Json:
    return {"filter_metadata": {LUA: {"dialect": name}}}
