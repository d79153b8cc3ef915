"""The dashboard's files, served by Envoy from `gateway/web`."""

from __future__ import annotations

from collections.abc import Iterable
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

_HEADERS: Final = {
    # The page runs its own scripts and nobody else's, talks to its own origin, and is framed by nobody.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
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
    if DOCUMENT.is_file():
        served[f"/{DOCUMENT.name}"] = server(DOCUMENT.parent)
    for path, files in served.items():
        for verb in ("GET", "HEAD"):
            yield {
                "match": {"path": path, "headers": [{"name": ":method", "string_match": {"exact": verb}}]},
                "direct_response": {"status": 404},
                "typed_per_filter_config": {
                    **dict.fromkeys(disabled, off),
                    FILES: files,
                    HEADERS: _headers(),
                },
            }


def _headers() -> Json:
    """Add the pages' headers. A route's own `response_headers_to_add` passes over what a filter answers."""
    added = [
        {"append": {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
        for key, value in _HEADERS.items()
    ]
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
        "mutations": {"response_mutations": added},
    }
