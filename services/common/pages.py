"""Which web pages there are: the path of each file, its type, who may keep it, and what it may do in a browser.

The edge has a route for each path; the router reads the file. A page of several files (a built console) is a folder
below `FOLDER`: its `index.html` is had by the folder's own path, the rest by their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = _ROOT / "gateway" / "web"
DOCUMENT: Final = _ROOT / "build" / "openapi.json"
"""The API's description (`make proto` writes it); without it `/openapi.json` is not there."""
RENDERER: Final = ("swagger-ui.css", "swagger-ui-bundle.js")
"""The files of Swagger UI that `/docs` needs."""

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
_COMPRESSED: Final = frozenset((".ico", ".png", ".webp", ".woff2"))
"""What gets no smaller."""
_HASHED: Final = re.compile(r"[.-](?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{8,}\.[a-z0-9]+$", re.ASCII)
"""Names that a bundler makes from a file's content: such a file never changes."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; {}; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""A page runs its own scripts and nobody else's, talks to its own origin, and is framed by nobody."""
# `data:` shows what a person attaches and draws before it is sent: such a picture asks nobody.
_OWN_POLICY: Final = _POLICY.format("style-src 'self'; img-src 'self' data:; font-src 'self'")
_POLICIES: Final = {
    # Swagger UI sets styles on elements and carries its pictures in its own files.
    "/docs": _POLICY.format("style-src 'self' 'unsafe-inline'; img-src 'self' data:"),
}


@dataclass(frozen=True)
class Page:
    """A file that browsers may read."""

    path: str
    file: Path

    @property
    def content_type(self) -> str:
        """Return its media type."""
        return _TYPES.get(self.file.suffix, "application/octet-stream")

    @property
    def shrinks(self) -> bool:
        """Return whether it is worth compressing."""
        return self.file.suffix not in _COMPRESSED

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that do not depend on its content."""
        kept = "public, max-age=31536000, immutable" if _HASHED.search(self.path) else "no-cache"
        return {
            "content-security-policy": _POLICIES.get(self.path, _OWN_POLICY),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": kept,
        }


def pages(folder: Path = FOLDER, *, others: bool = True) -> Mapping[str, Page]:
    """Return the pages by path: those of `folder`, and with `others` the API's description and what shows it.

    Links, and names that begin with a dot, are none.
    """
    files = {f"/{file.relative_to(folder).as_posix()}": file for file in _files(folder)}
    for path, file in [item for item in files.items() if item[1].name == "index.html"]:
        del files[path]
        files[path.removesuffix("/index.html") or "/"] = file
    if others:
        files |= {f"/{name}": _renderer() / name for name in RENDERER}
        if DOCUMENT.is_file():
            files[f"/{DOCUMENT.name}"] = DOCUMENT
    return {path: Page(path, file) for path, file in sorted(files.items())}


def _files(folder: Path) -> list[Path]:
    results = []
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or entry.name.startswith("."):
            continue
        results += _files(entry) if entry.is_dir() else [entry]
    return results


def _renderer() -> Path:
    """Return the folder that Swagger UI's files are in: a package that is nothing but files is never imported."""
    result = find_spec("drf_spectacular_sidecar")
    if result is None or result.origin is None:
        raise SystemExit("the package drf-spectacular-sidecar is missing; `make setup` installs it")
    return Path(result.origin).parent / "static" / "drf_spectacular_sidecar" / "swagger-ui-dist"
