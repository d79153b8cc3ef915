"""A model hub on the loopback, with the routes that `huggingface_hub` uses: revisions, trees, small files, large files
behind a redirect, and parts of them. It can break off in the middle, and notes what it was asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".gguf")


@dataclass
class Repository:
    """A model's commits, oldest first; the last is `main`."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit; give its name."""
        name = hashlib.sha1(json.dumps([len(self.commits), sorted(files)]).encode()).hexdigest()
        self.commits[name] = files
        return name

    def at(self, revision: str) -> str | None:
        """Return the commit that a revision means."""
        if revision == "main":
            return list(self.commits)[-1]
        return revision if revision in self.commits else None


class Hub:
    """The hub. Use as a context; `cut` is how many bytes of a large file go out before the connection breaks."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and `Range` of each request."""
        self.cut = 0
        self.cuts = 0
        """How often it breaks off; -1: always."""
        hub = self

        class Handler(_Handler):
            at = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Be no more; again: no effect."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def fetched(self) -> list[str]:
        """List the names of the files whose content was asked for."""
        return [path for method, path, _ in self.asked if method == "GET" and not path.startswith("/api/")]


def files_of(folder: Path) -> dict[str, bytes]:
    """Read a folder as a commit's files."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


class _Handler(BaseHTTPRequestHandler):
    at: Hub

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Tell of a file."""
        self._answer()

    def do_GET(self) -> None:
        """Return a listing or a file."""
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.at.asked.append((self.command, path, self.headers.get("Range", "")))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self._listing(found[1], found[2] or "revision", found[3] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*found.groups())
        elif found := re.fullmatch(r"/large/([0-9a-f]{64})/.+", path):
            self._large(found[1])
        else:
            self._refuse(404, "EntryNotFound")

    def _commit(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return a commit's name and files; None once it was refused."""
        held = self.at.repositories.get(repository)
        if held is None:
            self._refuse(401, "RepoNotFound")
            return None
        if held.gated:
            self._refuse(403, "GatedRepo")
            return None
        name = held.at(revision)
        if name is None:
            self._refuse(404, "RevisionNotFound")
            return None
        return name, held.commits[name]

    def _listing(self, repository: str, kind: str, revision: str) -> None:
        found = self._commit(repository, revision)
        if found is None:
            return
        name, files = found
        if kind == "revision":
            siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
            self._json({"id": repository, "modelId": repository, "sha": name, "siblings": siblings, "tags": []})
            return
        entries: list[dict[str, Any]] = []
        for path, data in files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        self._json(entries)

    def _file(self, repository: str, revision: str, path: str) -> None:
        found = self._commit(repository, revision)
        if found is None:
            return
        name, files = found
        if path not in files:
            self._refuse(404, "EntryNotFound")
            return
        data = files[path]
        if not path.endswith(LARGE):
            self._send(200, data, {"X-Repo-Commit": name, "ETag": f'"{_oid(data)}"'})
            return
        # On another host, as the real one: redirects within the hub are followed when a file's facts are asked for.
        place = f"{self.at.url.replace('127.0.0.1', 'localhost')}/large/{_sha256(data)}/{path}"
        linked = {"X-Linked-ETag": f'"{_sha256(data)}"', "X-Linked-Size": str(len(data))}
        self._send(302, b"", {"X-Repo-Commit": name, "Location": place} | linked)

    def _large(self, sha256: str) -> None:
        everything = (d for r in self.at.repositories.values() for files in r.commits.values() for d in files.values())
        data = next(data for data in everything if _sha256(data) == sha256)
        start = 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked[1])
        if self.at.cuts and len(data) > self.at.cut and self.command == "GET":
            self.at.cuts -= self.at.cuts > 0
            self._send(206 if start else 200, data[start : self.at.cut], _part(data, start), length=len(data) - start)
            return
        self._send(206 if start else 200, data[start:], _part(data, start))

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code})

    def _send(self, status: int, data: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


def _part(data: bytes, start: int) -> dict[str, str]:
    return {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
