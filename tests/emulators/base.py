"""What all emulators share: a server on a free port, what it saw, what it shall say next, and its bad manners."""

from __future__ import annotations

import abc
import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from tests.emulators.script import Script


@dataclass(frozen=True)
class Seen:
    """A request that was good."""

    path: str
    headers: dict[str, str]
    body: Any
    peer: tuple[str, int]


class Emulator(abc.ABC):
    """A provider. Use it as `async with Emulator() as upstream`."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.refused: list[tuple[int, str]] = []
        """Requests that were wrong: status and why."""
        self.scripts: deque[Script] = deque()
        """What to answer next; when empty, the plain script."""
        self.port = 0
        self._runner: web.AppRunner | None = None

    @abc.abstractmethod
    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen."""
        app = web.Application(client_max_size=128 * 2**20)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection and the port."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def next_script(self) -> Script:
        """Return what to answer now."""
        return self.scripts.popleft() if self.scripts else Script()

    def note(self, request: web.Request, body: Any) -> None:
        """Remember a good request."""
        peer = request.transport.get_extra_info("peername") if request.transport else ("", 0)
        headers = {k.lower(): v for k, v in request.headers.items()}
        self.seen.append(Seen(request.path_qs, headers, body, peer))

    async def whole(self, request: web.Request, script: Script, response: web.Response) -> web.StreamResponse:
        """Answer at once, with the script's bad manners."""
        try:
            if script.hold_at is not None:
                script.held.set()
                await script.gate.wait()
        except asyncio.CancelledError:
            script.left.set()
            raise
        if script.cut_at is not None:
            body = response.body
            assert isinstance(body, bytes)
            partial = web.StreamResponse(status=response.status, headers={"Content-Type": response.content_type})
            partial.content_length = len(body)
            await partial.prepare(request)
            await partial.write(body[: len(body) // 2])
            _break(request)
            return partial
        if script.malformed_at is not None:
            assert isinstance(response.body, bytes)
            response.body = b"<" + response.body[1:]
        if script.write_bytes:
            return await self._torn(request, script, response)
        return response

    @staticmethod
    async def _torn(request: web.Request, script: Script, response: web.Response) -> web.StreamResponse:
        assert isinstance(response.body, bytes)
        torn = web.StreamResponse(status=response.status, headers=response.headers)
        await torn.prepare(request)
        await _write(torn, response.body, script)
        await torn.write_eof()
        return torn

    async def stream(
        self,
        request: web.Request,
        script: Script,
        pieces: Sequence[bytes],
        *,
        opening: Sequence[bytes] = (),
        closing: Sequence[bytes] = (),
        malformed: bytes = b"",
        failure: bytes = b"",
        headers: dict[str, str],
    ) -> web.StreamResponse:
        """Answer in pieces, with the script's bad manners."""
        response = web.StreamResponse(headers=headers)
        try:
            if script.hold_at == -1:
                await _held(script)
            await response.prepare(request)
            begun = opening
            if script.together and script.hold_at is not None:
                script.delivered = max(0, script.hold_at)
                begun = [b"".join([*opening, *pieces[: script.delivered]])]
            for data in begun:
                await _write(response, data, script)
            for index, data in list(enumerate([*pieces, b""]))[script.delivered :]:
                if script.hold_at == index:
                    await _held(script)
                if script.cut_at == index:
                    _break(request)
                    return response
                if script.clip_at == index:
                    await response.write_eof()
                    return response
                if script.fail_at == index:
                    await _write(response, failure, script)
                    await response.write_eof()
                    return response
                if script.malformed_at == index:
                    await _write(response, malformed, script)
                if data:
                    await _write(response, data, script)
                    script.delivered += 1
            for data in closing:
                await _write(response, data, script)
            script.reported = True
            if script.linger:
                await _held(script)
            await response.write_eof()
        except (asyncio.CancelledError, ConnectionResetError):
            script.left.set()
            raise
        return response


async def _held(script: Script) -> None:
    script.held.set()
    await script.gate.wait()


async def _write(response: web.StreamResponse, data: bytes, script: Script) -> None:
    step = script.write_bytes or len(data)
    for start in range(0, len(data), step):
        await response.write(data[start : start + step])


def _break(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()
