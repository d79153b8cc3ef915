"""A cheap HTTP/1.1 load generator: N kept connections, each with one request under way, for so many seconds.

It reads no more of an answer than it must: the status, where the answer ends, how many events it had.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

import uvloop

from bench.paced import STAMP, STAMP_BYTES, now_us

GRACE_S: Final = 10.0
"""How long answers are waited for that had begun."""


@dataclass
class Result:
    """What was measured. Times in seconds."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    """From each request to the first byte of its answer."""
    events: int = 0
    """Server-sent events."""
    lags: list[float] = field(default_factory=list)
    """From the upstream's writing of a token that says when that was, to its being read."""
    broken: int = 0
    """Connections that broke."""
    unfinished: int = 0
    """Connections whose last answer was not whole when it was waited for no longer."""

    @property
    def requests(self) -> int:
        """How many answers came."""
        return len(self.latencies)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds

    @property
    def events_per_second(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def clean(self) -> bool:
        """Whether every answer was a 200."""
        return not self.broken and not self.unfinished and set(self.statuses) == {200}

    def percentile(self, share: float) -> float:
        """Return the latency that `share` (0 to 1) of the answers did not exceed, in milliseconds."""
        return _percentile(self.latencies, share)

    def lag(self, share: float) -> float:
        """Return the lag that `share` (0 to 1) of the tokens did not exceed, in milliseconds."""
        return _percentile(self.lags, share)


def _percentile(seconds: Sequence[float], share: float) -> float:
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Connection(asyncio.Protocol):
    """Asks again and again until its time is over, and notes what it finds."""

    def __init__(
        self, request: bytes, result: Result, until: float, ended: asyncio.Future[None], *, stamped: bool
    ) -> None:
        self._request = request
        self._result = result
        self._until = until
        self._ended = ended
        self._kept = STAMP_BYTES if stamped else 7
        """Of what was read, so many bytes are kept: what begins in them may end in the next read."""
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0
        self._reset()

    def _reset(self) -> None:
        self._head = b""
        self._in_body = False
        self._left = -1
        """Bytes of the body that are still to come; -1: chunked."""
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it broke, unless it had ended."""
        if not self._ended.done():
            self._result.broken += 1
            self._ended.set_result(None)

    def _send(self) -> None:
        assert self._transport is not None
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note what has come of an answer; once it is whole, ask again."""
        if not self._in_body:
            if not self._head:
                self._result.first.append(time.perf_counter() - self._sent)
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            self._in_body = True
            self._result.statuses[int(head[9:12])] += 1
            _, has_length, length = head.lower().partition(b"\r\ncontent-length:")
            self._left = int(length.partition(b"\r\n")[0]) if has_length else -1
        if self._left >= 0:
            self._left -= len(data)
            if self._left <= 0:
                self._done()
            return
        # An event's first bytes, a stamp or the last chunk may be split over two reads.
        joined = self._tail + data
        self._result.events += joined.count(b"data: ") - self._tail.count(b"data: ")
        if self._kept == STAMP_BYTES:
            now = now_us()
            stamps = [found for found in STAMP.finditer(joined) if found.end() > len(self._tail)]
            self._result.lags += [(now - int(found[1])) / 1e6 for found in stamps]
        self._tail = joined[-self._kept :]
        if self._tail.endswith(b"\r\n0\r\n\r\n"):
            self._done()

    def _done(self) -> None:
        now = time.perf_counter()
        self._result.latencies.append(now - self._sent)
        if now >= self._until:
            if not self._ended.done():
                self._ended.set_result(None)
            assert self._transport is not None
            self._transport.close()
            return
        self._reset()
        self._send()


async def _run(
    url: str, body: bytes, headers: Mapping[str, str], connections: int, seconds: float, spread_s: float
) -> Result:
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    request = "\r\n".join(lines).encode() + body
    loop = asyncio.get_running_loop()
    result = Result()
    started = time.perf_counter()
    ends: list[asyncio.Future[None]] = []
    opened: list[asyncio.Transport] = []
    for _ in range(connections):
        await asyncio.sleep(spread_s / connections)
        ended: asyncio.Future[None] = loop.create_future()
        ends.append(ended)
        transport, _ = await loop.create_connection(
            lambda ended=ended: Connection(  # type: ignore[misc]
                request, result, started + seconds, ended, stamped=spread_s > 0
            ),
            parts.hostname or "127.0.0.1",
            parts.port or 80,
        )
        opened.append(transport)
    _, left = await asyncio.wait(ends, timeout=started + seconds + GRACE_S - time.perf_counter())
    result.unfinished = len(left)
    for end in left:
        end.cancel()
    for transport in opened:
        transport.abort()
    result.seconds = time.perf_counter() - started
    return result


def run(
    url: str,
    body: object,
    *,
    headers: Mapping[str, str] | None = None,
    connections: int = 16,
    seconds: float = 2.0,
    spread_s: float = 0.0,
) -> Result:
    """Ask `url` with the JSON `body` over `connections` connections at once for `seconds`.

    With `spread_s` they begin one after another in so much time, and tokens that say when they were written are timed.
    """
    return uvloop.run(_run(url, json.dumps(body).encode(), headers or {}, connections, seconds, spread_s))
