"""The egress guard: the only way in which a URL that a caller gave is called.

https alone by default. A URL's host is read by our own rules (`services.common.hosts`), and the client must read the
same. A name's addresses are resolved once, every one of them must be public, and the connection goes to exactly those:
a name that changes between check and use changes nothing. Odd spellings of addresses (decimal, octal, hexadecimal,
short) are refused as they stand; IPv4 inside IPv6 is judged by what is inside. Redirects are followed for fetches only,
each checked like a first URL. Time and size are bounded. Operators may allow more hosts by name.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from yarl import URL

from services.common.errors import InvalidField
from services.common.hosts import NoHost, agrees, destination_of

if TYPE_CHECKING:
    from services.common.egress_calls import Calls

MAX_URL: Final = 8192
_CALLS: Final = "services.common.egress_calls"
"""What calls. Its HTTP client is 17 MB of a process and 0.2 s of its start, and few ever call a URL of a caller's."""


class RefusedUrl(InvalidField):
    """The URL is never called, whatever happens."""

    reason = InvalidField.reason


class NotHttps(RefusedUrl):
    """The URL has another scheme than https."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a URL answered."""

    data: bytes
    content_type: str
    """As the server declared it; judge by the content."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a URL answered, whatever its status."""

    status: int
    data: bytes


Lookup = Callable[[str, int, int], Awaitable[list[tuple[int, str]]]]
"""Asks for a host's addresses, by host, port and family; gives (family, address)."""


async def _system(host: str, port: int, family: int) -> list[tuple[int, str]]:
    loop = asyncio.get_running_loop()
    result = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return [(kind, str(place[0])) for kind, _, _, _, place in result]


class Egress:
    """Calls URLs that callers gave.

    Args:
        allow: Hosts, with or without a port, that may be called over http too and wherever they are.
        lookup: Asks for addresses; the system's resolver by default.
    """

    def __init__(self, allow: Iterable[str] = (), *, lookup: Lookup = _system) -> None:
        self._lookup = lookup
        self._allowed = frozenset(entry.strip().lower() for entry in allow if entry.strip())
        """Hosts as URLs write them: IPv6 in brackets."""
        self._calls: Calls | None = None

    def check(self, url: str, *, param: str) -> URL:
        """Return the parsed URL. Raises Refused for what needs no asking: its scheme, form, or bare address."""
        if len(url) > MAX_URL:
            raise RefusedUrl(f"{param}: the URL is too long", param=param)
        try:
            place = destination_of(url)
            parsed = URL(url)
        except NoHost as wrong:
            raise RefusedUrl(f"{param}: {wrong}", param=param) from None
        except ValueError:
            raise RefusedUrl(f"{param}: not a URL", param=param) from None
        if not agrees(parsed, place):
            raise RefusedUrl(f"{param}: not a URL", param=param)
        host = f"[{place.host}]" if ":" in place.host else place.host
        if host in self._allowed or f"{host}:{place.port}" in self._allowed:
            return parsed
        if place.scheme != "https":
            raise NotHttps(f"{param}: an https URL is expected", param=param)
        if place.is_inside:
            raise RefusedUrl(f"{param}: this host is not on the public internet", param=param)
        return parsed

    async def fetch(self, url: str, *, limit_bytes: int, timeout_s: float, param: str) -> Fetched:
        """Get what a URL answers, at most `limit_bytes` within `timeout_s`, redirects included.

        Raises Refused, TooLarge, InvalidField where the URL answers no file, UpstreamTimeout or UpstreamFailed.
        """
        target = self.check(url, param=param)
        return await (await self._opened()).fetch(target, limit_bytes=limit_bytes, timeout_s=timeout_s, param=param)

    async def ask(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        limit_bytes: int,
        timeout_s: float,
    ) -> Answered:
        """Get what a URL answers, or post a form to it; at most `limit_bytes` within `timeout_s`, no redirect followed.

        Raises Refused, TooLarge, InvalidField for an encoding that was not asked for, UpstreamTimeout, UpstreamFailed.
        """
        target = self.check(url, param="url")
        calls = await self._opened()
        return await calls.ask(target, headers=headers or {}, form=form, limit_bytes=limit_bytes, timeout_s=timeout_s)

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
        """Post a body and give the answer's status. Redirects are not followed, and the answer's body is not read.

        Raises Refused, UpstreamTimeout or UpstreamFailed.
        """
        target = self.check(url, param="url")
        return await (await self._opened()).post(target, headers=headers, body=body, timeout_s=timeout_s)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._calls is not None:
            await self._calls.aclose()
            self._calls = None

    async def _opened(self) -> Calls:
        # In a thread: nobody else waits for the import.
        module: Any = await asyncio.to_thread(import_module, _CALLS)
        if self._calls is None:
            self._calls = module.Calls(check=self.check, allowed=self._allowed, lookup=self._lookup)
        return self._calls
