"""A server that wastes its caller's time and memory, and points where nobody outside should get."""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.emulators.pictures import png

_DRIP_S = 0.1
_PIECE = 1 << 16
SENDING_BYTES = 1 << 18
"""The buffer of a pouring socket: by this much what its caller has read is told too high at the most."""


class Hostile:
    """Listens on a free loopback port; GET and POST behave alike.

    `/slow` drips bytes, `/endless` pours them, `/huge` promises a terabyte, `/silent` says nothing, `/redirect/<n>`
    leads to the nth of `inside`; `/image.png` is an image. `left` names the callers of each that hung up, `read_bytes`
    how much of each was read by its callers: what only waits in the kernel's buffers is not.

    Args:
        inside: Where redirects lead.
    """

    def __init__(self, *inside: str) -> None:
        self.asked: list[str] = []
        self.left: list[str] = []
        self.read_bytes: Counter[str] = Counter()
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
                self._pour(b"%x\r\n" % _PIECE + bytes(_PIECE) + b"\r\n")

            def _huge(self) -> None:
                self._begin(200, content_type="image/png", content_length=str(1 << 40))
                self._pour(bytes(_PIECE))

            def _pour(self, piece: bytes) -> None:
                # Half of what is set here, or the kernel would let it grow to megabytes; it doubles it (socket(7)).
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENDING_BYTES // 2)
                poured = 0
                while not outer._over.is_set():
                    self.wfile.write(piece)
                    poured += len(piece)
                    unread = _unread(self.connection)
                    if unread is not None:
                        outer.read_bytes[self.path] = max(outer.read_bytes[self.path], poured - unread)

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


def _unread(connection: socket.socket) -> int | None:
    """Return how many bytes lie in the buffers of both ends of a loopback connection; None once one end is gone.

    Both ends are rows of /proc/net/tcp (proc(5)): local address, remote address, state (01 is established), queues.
    """
    here, there = (f"0100007F:{name[1]:04X}" for name in (connection.getsockname(), connection.getpeername()))
    queued: dict[str, int] = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state, queues = line.split()[1:5]
        if (local, remote) in ((here, there), (there, here)) and state == "01":
            queued[local] = sum(int(each, 16) for each in queues.split(":"))
    return sum(queued.values()) if len(queued) == 2 else None
