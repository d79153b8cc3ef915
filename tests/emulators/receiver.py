"""A webhook receiver: keeps what arrives, answers what it is told to, and has each effect once, by the message's id."""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Receiver:
    """Listens on a free loopback port. Answers with 204, but where it is told to by `scripted`."""

    def __init__(self) -> None:
        self.arrived: list[tuple[dict[str, str], bytes]] = []
        self._scripts: dict[str, deque[int]] = {}
        self._numbers = itertools.count(1)
        self.files: dict[str, bytes] = {}
        """What it gives to those who ask, by path."""
        self.broken: set[str] = set()
        """Paths that it cannot serve now."""
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                outer.arrived.append(({k.lower(): v for k, v in self.headers.items()}, body))
                script = outer._scripts.get(self.path)
                self.send_response(script.popleft() if script else 204)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                found = outer.files.get(self.path)
                self.send_response(503 if self.path in outer.broken else 200 if found else 404)
                self.send_header("content-length", str(len(found or b"")))
                self.end_headers()
                self.wfile.write(found or b"")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    def scripted(self, *statuses: int) -> str:
        """Return an address of its own, which has these statuses for its next answers: no other's are among them."""
        path = f"/hook/{next(self._numbers)}"
        self._scripts[path] = deque(statuses)
        return f"http://127.0.0.1:{self.port}{path}"

    def of(self, task_id: str) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """Return what arrived about a task."""
        found = []
        for headers, body in list(self.arrived):
            value = json.loads(body)
            if task_id in (value.get("task_id"), value.get("id")):
                found.append((headers, value))
        return found

    def effects(self, task_id: str) -> int:
        """Count the messages about a task, each once however often it arrived."""
        return len({headers["webhook-id"] for headers, _ in self.of(task_id)})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
