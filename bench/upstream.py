"""A very cheap OpenAI-compatible upstream: it answers from bytes made beforehand, so that it costs next to nothing.

`python -m bench.upstream` prints its port on the first line of standard output and serves until it is ended.
Tokens of a stream are written one at a time, each in a write of its own, as a model makes them: as fast as they go, or,
where the request has the word of `bench.paced`, at a model's pace.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final, cast

import uvloop

from bench import paced

TOKENS: Final = 200
"""Tokens of a streamed answer."""
MODEL: Final = "gpt-4o-mini"


def _whole() -> bytes:
    message = {"role": "assistant", "content": "Hello! How can I help you today?", "refusal": None}
    answer = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
    }
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    value = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return _chunk(b"data: " + json.dumps({**value, "choices": choices, **more}).encode() + b"\n\n")


def _choice(delta: dict[str, str], finish: str | None = None) -> list[dict[str, object]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]


def _stamped() -> bytes:
    return _event(_choice({"content": paced.stamp()}))


_LOOKED_AT: Final = 8_192
"""Bytes of a request, at each end."""
WHOLE: Final = _whole()
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + _event(
    _choice({"role": "assistant", "content": ""})
)
TOKEN: Final = _event(_choice({"content": " token"}))
_TURN: Final = tuple(_event(_choice({"content": f" token{n}"})) for n in range(10))
"""Tokens that are written in turn: LiteLLM ends a stream that repeats one a hundred times."""
TAIL: Final = (
    _event(_choice({}, "stop"))
    + _event([], usage={"prompt_tokens": 9, "completion_tokens": TOKENS, "total_tokens": 9 + TOKENS})
    + _chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


def _looked_at(request: bytearray) -> bytes:
    """Return what of a request says how it is to be answered: its beginning and its end, no megabytes of picture."""
    return bytes(request if len(request) < 2 * _LOOKED_AT else request[:_LOOKED_AT] + request[-_LOOKED_AT:])


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pace: paced.Pace) -> None:
        self._loop = loop
        self._pace = pace
        self._buffer = bytearray()
        self._wanted = 0
        """Bytes of the request that is coming; 0: its head is not whole."""
        self._left = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop writing."""
        self._transport = None
        self._pace.discard(self._write_stamped)

    def data_received(self, data: bytes) -> None:
        """Answer once a request is whole."""
        # A large request comes in hundreds of pieces: what came before is neither copied nor searched again.
        self._buffer += data
        if not self._wanted:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            _, _, length = bytes(self._buffer[:end]).lower().partition(b"content-length:")
            self._wanted = end + 4 + int(length.partition(b"\r\n")[0] or b"0")
        if len(self._buffer) < self._wanted:
            return
        request, self._buffer, self._wanted = self._buffer, bytearray(), 0
        assert self._transport is not None
        words = _looked_at(request)
        if b'"stream":true' in words or b'"stream": true' in words:
            self._transport.write(HEAD)
            if paced.WORD in words:
                self._left = paced.TOKENS
                self._pace.add(self._write_stamped)
            else:
                self._left = TOKENS
                self._loop.call_soon(self._write_token)
        else:
            self._transport.write(WHOLE)

    def _write_token(self) -> None:
        if self._transport is None:
            return
        if self._left == 0:
            self._transport.write(TAIL)
            return
        self._left -= 1
        self._transport.write(_TURN[self._left % len(_TURN)])
        self._loop.call_soon(self._write_token)

    def _write_stamped(self) -> None:
        assert self._transport is not None
        if self._left == 0:
            self._pace.discard(self._write_stamped)
            self._transport.write(TAIL)
            return
        self._left -= 1
        self._transport.write(_stamped())


async def serve() -> None:
    """Serve on a free port until cancelled."""
    loop = asyncio.get_running_loop()
    pace = paced.Pace(loop)
    server = await loop.create_server(lambda: Upstream(loop, pace), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
