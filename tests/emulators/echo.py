"""A provider that repeats the gateway's credentials, in the spellings of real ones and of the proxies before them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from aiohttp import web

from tests.emulators.base import Emulator

SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "bearer": lambda key: f"Bearer {key}",
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(key.encode()).decode(),
    "basic": lambda key: "Basic " + base64.b64encode(f"operator:{key}".encode()).decode(),
    "within base64": lambda key: base64.b64encode(f'{{"k": "{key}", "n": 1}}'.encode()).decode(),
    "for URLs": lambda key: quote(key, safe=""),
    "hex": lambda key: key.encode().hex(),
    "lower case": str.lower,
    "cut": lambda key: key[:-4],
}


def traces_of(key: str) -> list[str]:
    """Return what shows that a key was repeated: eight characters of its middle, in each spelling, in lower case."""
    middle = key[len(key) // 2 - 6 : len(key) // 2 + 6]
    coded = [base64.b64encode(b"\0" * shift + middle.encode()).decode()[4:-4] for shift in range(3)]
    found = [middle, quote(middle, safe=""), middle.encode().hex(), *coded]
    return [trace.lower() for trace in (*found, *(each.translate(str.maketrans("+/", "-_")) for each in coded))]


@dataclass(frozen=True)
class Echo:
    """An answer, made of a spelling of the key."""

    name: str
    body: Callable[[str], bytes]
    status: int = 200
    content_type: str = "application/json"
    headers: Callable[[str], Mapping[str, str]] = field(default=lambda _: {})
    shown: bool = True
    """Whether the provider's words go on to the caller, without the key."""

    def __str__(self) -> str:
        return self.name


class EchoEmulator(Emulator):
    """Answers everything with `echo` of `key`."""

    def __init__(self) -> None:
        super().__init__()
        self.echo = Echo("nothing", lambda _: b"")
        self.key = ""

    def routes(self) -> list[web.RouteDef]:
        """Return the one route."""
        return [web.route("*", "/{path:.*}", self._answer)]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        body = self.echo.body(self.key)
        headers = {"Content-Type": self.echo.content_type, **self.echo.headers(self.key)}
        response = web.StreamResponse(status=self.echo.status, headers=headers)
        await response.prepare(request)
        # In two pieces, that part the key.
        for piece in (body[: len(body) // 2], body[len(body) // 2 :]):
            await response.write(piece)
        await response.write_eof()
        return response
