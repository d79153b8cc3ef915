"""The dashboard's files and the API's description, served by Envoy."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

FILES: Final = "envoy.filters.http.file_server"
HEADERS: Final = "envoy.filters.http.header_mutation"

FOLDER: Final = Path(__file__).resolve().parent / "web"

DOCUMENT: Final = Path(__file__).resolve().parents[1] / "build" / "openapi.json"
"""The API's description (`make proto` writes it); without it `/openapi.json` is not there."""

_TYPES: Final = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
}

RENDERER: Final = ("swagger-ui.css", "swagger-ui-bundle.js")
"""The files of Swagger UI that `/docs` needs."""


def _renderer() -> Path:
    """Give the folder that Swagger UI's files are in: a package that is nothing but files is never imported."""
    found = find_spec("drf_spectacular_sidecar")
    if found is None or found.origin is None:
        raise SystemExit("the package drf-spectacular-sidecar is missing; `make setup` installs it")
    return Path(found.origin).parent / "static" / "drf_spectacular_sidecar" / "swagger-ui-dist"


_POLICY: Final = (
    "default-src 'none'; script-src 'self'; {}; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""A page runs its own scripts and nobody else's, talks to its own origin, and is framed by nobody."""

_POLICIES: Final = {
    # Swagger UI sets styles on elements and carries its pictures in its own files.
    "/docs": _POLICY.format("style-src 'self' 'unsafe-inline'; img-src 'self' data:"),
}
_OWN_POLICY: Final = _POLICY.format("style-src 'self'; img-src 'self'")

_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def server(folder: Path = FOLDER) -> Json:
    """Give the file server's settings: a folder and nothing above it."""
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.file_server.v3.FileServerConfig",
        "manager_config": {"thread_pool": {"thread_count": 1}},
        "path_mappings": [{"request_path_prefix": "/", "file_path_prefix": str(folder)}],
        "content_types": dict(_TYPES),
        "default_content_type": "application/octet-stream",
        "directory_behaviors": [{"default_file": "index.html"}],
    }


def routes(off: Json, disabled: Iterable[str]) -> Iterable[Json]:
    """Give a route for `/`, one for each file or folder with a page, and one for the API's description.

    No other path reaches the file server.

    `disabled` are the filters that have no part in it, `off` is what disables one.
    """
    names = ["", *(path.name for path in sorted(FOLDER.iterdir()) if path.name != "index.html")]
    served = {f"/{name}": server() for name in names}
    served |= {f"/{name}": server(_renderer()) for name in RENDERER}
    if DOCUMENT.is_file():
        served[f"/{DOCUMENT.name}"] = server(DOCUMENT.parent)
    for path, files in served.items():
        for verb in ("GET", "HEAD"):
            yield {
                "name": path,
                "match": {"path": path, "headers": [{"name": ":method", "string_match": {"exact": verb}}]},
                "direct_response": {"status": 404},
                "typed_per_filter_config": {
                    **dict.fromkeys(disabled, off),
                    FILES: files,
                    HEADERS: _headers(_POLICIES.get(path, _OWN_POLICY)),
                },
            }


def _headers(policy: str) -> Json:
    """Add the pages' headers. A route's own `response_headers_to_add` passes over what a filter answers."""
    headers = {"content-security-policy": policy, **_HEADERS}
    added = [
        {"append": {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
        for key, value in headers.items()
    ]
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
        "mutations": {"response_mutations": added},
    }
