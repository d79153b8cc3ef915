"""The edge's routes: REST by the contracts' bindings, gRPC by service name, and a dialect's refusal for the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from gateway import bodies, pages, retries
from gateway.bindings import Binding
from gateway.settings import EdgeSettings
from services.common.dialects import BY_SERVICE
from services.common.dialects import DIALECTS as REGISTERED
from services.common.operations import CONTRACTS

Json = dict[str, Any]

TYPE: Final = "type.googleapis.com/envoy."

METHOD: Final = "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%"
"""The caller's method: what the transcoder makes of every call is a POST."""

ROUTER: Final = "router"
"""The cluster of the router's workers."""
LARGE: Final = "router_large"
"""The cluster of the routers that take large requests apart from small ones."""
TASKS: Final = "tasks"
"""The cluster of the task service."""

ACCOUNTS: Final = "accounts"
"""The cluster of the auth service's public port."""

READINESS: Final = "moa.router.v1.ReadinessService"
"""What answers `/ready`, on the public port and on the internal one."""

DIALECTS: Final[Mapping[str, str]] = {service: dialect.name for service, dialect in BY_SERVICE.items()}
"""Which dialect words the failures of each service's REST bindings. A service that is not here has no REST."""

_CLUSTERS: Final = (("moa.task.", TASKS), ("moa.account.", ACCOUNTS))
"""Who serves a package; the router serves the rest."""

_SAME_ORIGIN: Final = ("/account/", "/admin/", "/auth/")
"""Paths that no page of another origin may read: they show keys."""

_SHARED_SERVICE: Final = "moa.router.v1.OpenAIService"
"""Whose GET paths (`/v1/models`) other dialects have too: one whose header is there words the refusals."""
_BY_HEADER: Final = [dialect for dialect in REGISTERED.values() if dialect.header]

_MODELS: Final = ("/v1/models/", "/v1beta/models/", "/v1alpha/models/")
_UNKNOWN_METHOD: Final = "/v1(beta|alpha)?/models/.+:[A-Za-z]+"
"""A method of one of Google's models."""

_FILES: Final = "moa.router.v1.FilesService"
"""Stored objects, by signed links that pages of any origin may follow."""

_STRAYS: Final = sorted(
    ((prefix, dialect.name) for dialect in REGISTERED.values() for prefix in dialect.strays),
    key=lambda stray: (-len(stray[0]), stray),
)
"""Whose words a path that nobody serves is refused in, by prefix, the longest first."""

GRPC_PREFIXES: Final = (
    *(f"/{contract.service}/" for contract in CONTRACTS.values()),
    "/moa.router.v1.CatalogService/",
    "/moa.account.v1.AccountService/",
    "/moa.account.v1.AdminService/",
    "/moa.account.v1.TeamService/",
    "/moa.account.v1.BudgetService/",
    "/moa.account.v1.OidcService/",
    "/moa.account.v1.RequestLogService/",
    "/moa.account.v1.ProviderKeyService/",
    "/moa.router.v1.OperatorService/",
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
FREE_LIMIT: Final = "moa.free_limit"
JSON_LIMIT: Final = "moa.json_limit"
UPLOAD_LIMIT: Final = "moa.upload_limit"

_LARGE: Final = frozenset(
    (
        *(service for dialect in REGISTERED.values() for service in dialect.large),
        *(contract.service for contract in CONTRACTS.values()),
    )
)
"""Services whose requests may hold pictures. All others are sent a few fields: `bodies.FREE_BYTES` are plenty."""

_FORMS: Final = frozenset(("CreateImageEdit", "CreateImageVariation", "CreateFile"))
"""The methods that read multipart bodies."""

FIRST: Final = (
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/responses",
    "/v1/embeddings",
    "/openai/v1/chat/completions",
    "/openai/v1/responses",
    "/openai/v1/embeddings",
    "/v1/images/generations",
    "/openai/deployments/*/chat/completions",
    "/v1beta/{model=models/**}:streamGenerateContent",
    "/v1beta/{model=models/**}:generateContent",
)
"""Paths that are asked most, which are compared before all others: Envoy tries a route after the other, looks at its
headers before its path, and takes 0.2 us for each. Nothing else that is served is at one of them."""

_TALKS: Final = "/grpc.reflection."
"""Calls whose callers send more when they have heard something."""

_OVERWRITE: Final = "OVERWRITE_IF_EXISTS_OR_ADD"
OFF: Final[Json] = {"@type": f"{TYPE}config.route.v3.FilterConfig", "disabled": True}

_CORS_POLICY: Final[Json] = {
    "@type": f"{TYPE}extensions.filters.http.cors.v3.CorsPolicy",
    "allow_origin_string_match": [{"safe_regex": {"regex": ".*"}}],
    "allow_methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    # The star covers every header but Authorization, for callers without credentials; older browsers need the list.
    "allow_headers": "authorization, content-type, x-api-key, x-goog-api-key, x-goog-api-client, x-grpc-web, "
    "x-user-agent, grpc-timeout, idempotency-key, moa-fallback, moa-max-wait, moa-parameters, moa-tags, "
    "prefer, range, *",
    "expose_headers": "x-request-id, x-moa-provider, x-moa-model, x-moa-route, x-moa-cost, "
    "x-ratelimit-limit-tokens, "
    "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, x-ratelimit-limit-images, x-ratelimit-remaining-images, "
    "x-ratelimit-reset-images, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    "x-ratelimit-reset-requests, ratelimit, ratelimit-policy, x-moa-ignored, idempotent-replayed, deprecation, "
    "sunset, content-range, retry-after, grpc-status, grpc-message, grpc-status-details-bin, *",
    "max_age": "86400",
}

_NO_CORS: Final[Json] = {
    "@type": _CORS_POLICY["@type"],
    "filter_enabled": {"default_value": {"numerator": 0}, "runtime_key": "moa.cors"},
}


_ANOTHER: Final[Json] = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {"@type": f"{TYPE}extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
}
"""Has a call that is made again go to a worker that was not asked, where there is one."""

READY: Final[Json] = {
    "cluster": ROUTER,
    "timeout": "4s",
    "retry_policy": {
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": 1,
        "per_try_timeout": "1.9s",
        "retry_host_predicate": [_ANOTHER],
        "host_selection_retry_max_attempts": "5",
    },
}
"""Where the question leads whether requests are served: asked once more, of another router where there is one, and no
more, for it must be told when they are not."""


def route_config(bindings: list[Binding], settings: EdgeSettings) -> Json:
    """Return the public listener's routes. The first match serves."""
    known = [binding for binding in bindings if binding.service in DIALECTS]
    first = [binding for template in FIRST for binding in known if binding.template == template]
    routes = [
        *bodies.verdicts(_target(settings)),
        *_preflights(settings),
        *_rest(first, settings),
        _alive(),
        *_grpc(known, settings),
        *_rest([binding for binding in known if binding.template not in FIRST], settings),
        *_pages(settings),
        *_strays(),
    ]
    filters = {CORS: _CORS_POLICY, bodies.HOLD: bodies.NO_HOLD}
    host = {
        "name": "public",
        "domains": ["*"],
        "routes": routes,
        "typed_per_filter_config": filters,
        # Of every route that has none of its own: Envoy keeps one, where each route's takes 4 kB.
        "retry_policy": _retries(settings),
    }
    return {"name": "public", "virtual_hosts": [host]}


def _target(
    settings: EdgeSettings,
    service: str = "",
    *,
    repeatable: bool = False,
    streams: bool = False,
    silent_s: float = retries.READ_S,
) -> Json:
    """Return where a route leads.

    Args:
        settings: The edge's.
        service: Whose calls they are; of the router where it is not said.
        repeatable: They may be made twice.
        streams: Their answers may be long, and are read as slowly as the caller likes.
        silent_s: How long those that may be made twice may stay without a byte of an answer.
    """
    bounded = repeatable and not streams
    idle = f"{min(settings.stream_idle_s, silent_s) if bounded else settings.stream_idle_s:g}s"
    return {
        "cluster": next((cluster for package, cluster in _CLUSTERS if service.startswith(package)), ROUTER),
        # Envoy's default of 15 s would cut streams; silence is bounded instead.
        "timeout": "0s",
        "idle_timeout": idle,
        **({"retry_policy": _retries(settings, repeatable=True, bounded=bounded)} if repeatable else {}),
    }


def _retries(settings: EdgeSettings, *, repeatable: bool = False, bounded: bool = False) -> Json:
    """Return when a route's calls are made again, and where: at another worker, where there is one."""
    return {
        **retries.policy(settings, repeatable=repeatable, bounded=bounded),
        "retry_host_predicate": [_ANOTHER],
        "host_selection_retry_max_attempts": "5",
    }


def _alive() -> Json:
    """Return the route of `/health`: the edge runs, whatever stands behind it. `/ready` tells more."""
    return {
        "match": {"path": "/health", "headers": [_header(":method", {"safe_regex": {"regex": "GET|HEAD"}})]},
        "direct_response": {"status": 200, "body": {"inline_string": '{"status":"ok"}'}},
        "response_headers_to_add": [
            {"header": {"key": "content-type", "value": "application/json"}, "append_action": _OVERWRITE},
            {"header": {"key": "cache-control", "value": "no-store"}, "append_action": _OVERWRITE},
        ],
        "typed_per_filter_config": {TRANSCODER: OFF},
    }


def _preflights(settings: EdgeSettings) -> Iterable[Json]:
    """A browser's question needs a route with a target, or the CORS filter leaves it alone. It goes no further."""
    asks = [_header(":method", {"exact": "OPTIONS"})]
    asks += [{"name": name, "present_match": True} for name in ("origin", "access-control-request-method")]
    for prefix in _SAME_ORIGIN:
        yield _refusal({"prefix": prefix, "headers": asks}, 405, _dialect("native"), readable=False)
    yield {"match": {"prefix": "/", "headers": asks}, "route": _target(settings)}


def _grpc(bindings: list[Binding], settings: EdgeSettings) -> Iterable[Json]:
    """Native calls keep their trailers and their errors: no transcoder, and the server's own limit on messages."""
    speaks = [_header("content-type", {"prefix": "application/grpc", "ignore_case": True})]
    for prefix in GRPC_PREFIXES:
        service = prefix.strip("/")
        edge_metadata: Json = {"grpc": True, "served": True}
        filters = {TRANSCODER: OFF, TRAILERS: OFF}
        if service in _LARGE:
            edge_metadata["limit"] = settings.upload_limit_bytes
            filters[FREE_LIMIT] = OFF
        route: Json = {
            "name": service,
            "match": {"prefix": prefix, "headers": speaks},
            "route": _target(settings, service),
            "metadata": {"filter_metadata": {LUA: edge_metadata}},
            "typed_per_filter_config": filters,
        }
        if prefix.startswith(_TALKS):
            edge_metadata["talks"] = True
            yield route
        else:
            limit = edge_metadata.get("limit", bodies.FREE_BYTES)
            for method in sorted({each.method for each in bindings if each.keyed and each.service == service}):
                called = {**route, "match": {"path": prefix + method, "headers": speaks}}
                yield from bodies.timed(_keyed(called, settings, service), settings, limit=limit)
            yield from bodies.timed(route, settings, limit=limit, large_cluster=_large_cluster(route, settings, limit))
        yield _refusal({"prefix": prefix}, 415, _dialect("native"))


def _rest(bindings: list[Binding], settings: EdgeSettings) -> Iterable[Json]:
    """Routes of each binding, and behind all bindings of a path its refusal of other methods."""
    for _, group in groupby(bindings, key=lambda binding: binding.regex):
        same = list(group)
        path = same[0].match
        verbs = {binding.verb for binding in same}
        for binding in same:
            heads = binding.verb == "GET" and "HEAD" not in verbs and binding.service != READINESS
            yield from _of_binding(binding, path, settings, heads=heads)
        dialect = _dialect(DIALECTS[same[0].service])
        if same[0].template.startswith(_MODELS) and same[0].template.endswith("}"):
            # Behind the methods that there are: one that Google's API has, or nobody.
            asked = {"safe_regex": {"regex": _UNKNOWN_METHOD}, "headers": [_header(":method", {"exact": "POST"})]}
            yield _refusal(asked, 404, _dialect("google"))
        for unserved in BY_SERVICE[same[0].service].unserved:
            # A name that its vendor has there, and not one of what the path is for.
            if same[0].template != unserved and re.fullmatch(same[0].regex, unserved):
                yield _refusal({"path": unserved}, 404, dialect)
        yield _refusal(path, 405, dialect, allow=sorted(verbs | ({"HEAD"} if "GET" in verbs else set())))


def _of_binding(binding: Binding, path: Json, settings: EdgeSettings, *, heads: bool) -> Iterable[Json]:
    """Routes of a binding. `heads`: of HEAD too, which the script turns into GET, and whose body it takes away."""
    dialect = DIALECTS[binding.service]
    verb = _header(":method", {"safe_regex": {"regex": "GET|HEAD"}} if heads else {"exact": binding.verb})
    closed = binding.template.startswith(_SAME_ORIGIN) or binding.service == _FILES
    filters: Json = {CORS: _NO_CORS} if closed else {}
    route: Json = {
        "name": binding.template,
        "match": {**path, "headers": [verb]},
        "route": _target(settings, binding.service, repeatable=binding.repeatable, streams=binding.streams),
        "metadata": _dialect(dialect, served=True, heads=heads),
        "typed_per_filter_config": filters,
    }
    if binding.service == READINESS:
        route["route"] = READY
    if binding.service == _FILES:
        # One answer for all origins, which a cache between may keep: the CORS filter would name who asks.
        open_to_all = {"access-control-allow-origin": "*", "access-control-expose-headers": "*"}
        route["response_headers_to_add"] = [
            {"header": {"key": key, "value": value}, "append_action": _OVERWRITE} for key, value in open_to_all.items()
        ]
    if binding.keyed:
        yield from _of_body(binding, _keyed(route, settings, binding.service), settings)
    for other in _BY_HEADER if binding.service == _SHARED_SERVICE and binding.verb == "GET" else ():
        shared = {
            **route,
            "match": {**path, "headers": [verb, {"name": other.header, "present_match": True}]},
            "metadata": _dialect(other.name, served=True, heads=heads),
        }
        yield from bodies.timed(shared, settings)
    yield from _of_body(binding, route, settings)


def _keyed(route: Json, settings: EdgeSettings, service: str) -> Json:
    """Return the route of those of its calls that have an idempotency key: they are made again where a process dies."""
    match = {**route["match"], "headers": [*route["match"]["headers"], retries.KEYED]}
    return {**route, "match": match, "route": _target(settings, service, repeatable=True, silent_s=retries.KEYED_S)}


def _of_body(binding: Binding, route: Json, settings: EdgeSettings) -> Iterable[Json]:
    """Yield a route for each kind of body that its binding takes."""
    dialect, filters = DIALECTS[binding.service], route["typed_per_filter_config"]
    if not binding.takes_body or binding.service not in _LARGE:
        yield from bodies.timed(route, settings)
        return
    if binding.method in _FORMS:
        form = _header("content-type", {"prefix": "multipart/", "ignore_case": True})
        upload = {
            **route,
            "match": {**route["match"], "headers": [*route["match"]["headers"], form]},
            "metadata": _dialect(dialect, served=True, limit=settings.upload_limit_bytes),
            "typed_per_filter_config": {**filters, FREE_LIMIT: OFF, UPLOAD_LIMIT: bodies.ON},
        }
        limit = settings.upload_limit_bytes
        yield from bodies.timed(upload, settings, limit=limit, large_cluster=_large_cluster(route, settings, limit))
    plain = {
        **route,
        "metadata": _dialect(dialect, served=True, limit=settings.json_limit_bytes),
        "typed_per_filter_config": {**filters, FREE_LIMIT: OFF, JSON_LIMIT: bodies.ON},
    }
    limit = settings.json_limit_bytes
    yield from bodies.timed(plain, settings, limit=limit, large_cluster=_large_cluster(route, settings, limit))


def _large_cluster(route: Json, settings: EdgeSettings, limit: int) -> str:
    """Return the cluster that takes a route's large requests; empty where there is none but the route's."""
    takes = limit > bodies.FREE_BYTES and route["route"]["cluster"] == ROUTER
    return LARGE if takes and settings.large_router_addresses else ""


def _pages(settings: EdgeSettings) -> Iterable[Json]:
    for route in pages.routes(_target(settings, repeatable=True), {CORS: OFF}, _dialect("native", served=True)):
        yield from bodies.timed(route, settings)


def _strays() -> Iterable[Json]:
    for prefix, dialect in _STRAYS:
        for other in _BY_HEADER if dialect == DIALECTS[_SHARED_SERVICE] else ():
            # Clients of other vendors use this version too.
            headers = [{"name": other.header, "present_match": True}]
            yield _refusal({"prefix": prefix, "headers": headers}, 404, _dialect(other.name))
        yield _refusal({"prefix": prefix}, 404, _dialect(dialect))


def _refusal(match: Json, status: int, dialect: Json, *, allow: Iterable[str] = (), readable: bool = True) -> Json:
    route: Json = {
        "match": match,
        "direct_response": {"status": status},
        "metadata": dialect,
        "typed_per_filter_config": {TRANSCODER: OFF},
    }
    added = {"allow": ", ".join(allow)} if allow else {}
    # The CORS filter passes over answers without a target; a browser's caller should see what was wrong all the same.
    if readable:
        added["access-control-allow-origin"] = "*"
    route["response_headers_to_add"] = [{"header": {"key": k, "value": v}} for k, v in added.items()]
    return route


def _header(name: str, match: Json) -> Json:
    return {"name": name, "string_match": match}


def _dialect(name: str, **more: object) -> Json:
    if REGISTERED[name].request_id_header:
        more["request_id"] = REGISTERED[name].request_id_header
    return {"filter_metadata": {LUA: {"dialect": name, **more}}}
