"""A server that wastes its caller's time and memory, and points where nobody outside should get."""

from __future__ import annotations

import itertools
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.emulators.pictures import png

_DRIP_S = 0.1
_PIECE = 1 << 16


class Hostile:
    """Listens on a free loopback port; GET and POST behave alike.

    `/slow` drips bytes, `/endless` pours them, `/huge` promises a terabyte, `/silent` says nothing, `/redirect/<n>`
    leads to the nth of `inside`; `/image.png` is an image. `left` counts the callers of each that hung up.

    Args:
        inside: Where redirects lead.
    """

    def __init__(self, *inside: str) -> None:
        self.asked: list[str] = []
        self.left: list[str] = []
        self.poured_bytes = 0
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.close_connection = True
                try:
                    getattr(self, "_" + self.path.split("/")[1].partition(".")[0])()
                except OSError:
                    outer.left.append(self.path)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", "0")))
                self.do_GET()

            def _begin(self, status: int, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

            def _slow(self) -> None:
                self._begin(200, content_type="image/png", content_length="100000")
                for byte in itertools.cycle(png()):
                    self.wfile.write(bytes([byte]))
                    if outer._over.wait(_DRIP_S):
                        return

            def _endless(self) -> None:
                self._begin(200, content_type="image/png", transfer_encoding="chunked")
                while not outer._over.is_set():
                    self.wfile.write(b"%x\r\n" % _PIECE + bytes(_PIECE) + b"\r\n")
                    outer.poured_bytes += _PIECE

            def _huge(self) -> None:
                self._begin(200, content_type="image/png", content_length=str(1 << 40))
                while not outer._over.is_set():
                    self.wfile.write(bytes(_PIECE))
                    outer.poured_bytes += _PIECE

            def _silent(self) -> None:
                self.connection.settimeout(60)
                if not self.connection.recv(1):
                    raise ConnectionResetError

            def _redirect(self) -> None:
                self._begin(307, location=inside[int(self.path.rpartition("/")[2])], content_length="0")

            def _image(self) -> None:
                self._begin(200, content_type="image/png", content_length=str(len(png())))
                self.wfile.write(png())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
