"""Waiting for a page that says whether requests are served."""

from __future__ import annotations

import http.server
import threading
import time

import pytest

from deploy.local.readiness import NotReady, await_http


class _Refuses(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"code":14,"message":"no database"}' if self.path == "/ready" else b"?"
        self.send_response(503)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(("path", "says"), [("/ready", r"\d: no database$"), ("/other", r"\d$")])
def test_why_nobody_is_served_is_told(path: str, says: str) -> None:
    """Where the time is over, what the page said is in the error."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Refuses) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with pytest.raises(NotReady, match=says):
                await_http(server.server_port, path, until=time.monotonic(), alive=lambda: None)
        finally:
            server.shutdown()
            thread.join()
