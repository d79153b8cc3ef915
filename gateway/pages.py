"""The routes of web pages: each path that has a file leads to the router, which reads it. No other path does.

Envoy could serve files itself (`envoy.filters.http.file_server`), but that filter is not hardened against untrusted
callers, and a fixed answer in the configuration is copied whole for each caller who asks for it and reads slowly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from services.common.pages import pages

Json = dict[str, Any]

SERVICE: Final = "moa.router.v1.PagesService"
"""What reads the files."""


def routes(target: Json, filters: Json, metadata: Json) -> Iterable[Json]:
    """Yield a route for each page and method."""
    for path in pages():
        for verb in ("GET", "HEAD"):
            yield {
                "name": path,
                "match": {"path": path, "headers": [{"name": ":method", "string_match": {"exact": verb}}]},
                "route": target,
                "metadata": metadata,
                "typed_per_filter_config": filters,
            }
