"""The egress guard: the only way in which a URL that a caller gave is called.

https alone by default. A URL's host is read by our own rules (`services.common.hosts`), and the client must read the
same. A name's addresses are resolved once, every one of them must be public, and the connection goes to exactly those:
a name that changes between check and use changes nothing. Odd spellings of addresses (decimal, octal, hexadecimal,
short) are refused as they stand; IPv4 inside IPv6 is judged by what is inside. Redirects are followed for fetches only,
each checked like a first URL. Time and size are bounded. Operators may allow more hosts by name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from services.common.errors import InvalidField, TooLarge, UpstreamFailed, UpstreamTimeout
from services.common.hosts import NoHost, agrees, destination_of, is_public

MAX_URL: Final = 8192
MAX_REDIRECTS: Final = 5
CONNECT_S: Final = 5.0
_CHUNK: Final = 64 * 1024
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


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


Lookup = Callable[[str, int, int], Awaitable[list[tuple[int, str]]]]
"""Asks for a host's addresses, by host, port and family; gives (family, address)."""


async def _system(host: str, port: int, family: int) -> list[tuple[int, str]]:
    loop = asyncio.get_running_loop()
    result = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    return [(kind, str(place[0])) for kind, _, _, _, place in result]


class _Public(AbstractResolver):
    """Resolves names to public addresses, or refuses. What it gives is what is connected to."""

    def __init__(self, allowed: frozenset[str], lookup: Lookup) -> None:
        self._allowed = allowed
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        result = await self._lookup(host, port, family)
        free = host.lower() in self._allowed or f"{host.lower()}:{port}" in self._allowed
        results: list[ResolveResult] = []
        for kind, address in result:
            if not free and not is_public(ipaddress.ip_address(address.partition("%")[0])):
                # One private address among public ones is enough: which is used is a matter of luck.
                raise RefusedUrl("this host is not on the public internet")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=kind,
                    proto=socket.IPPROTO_TCP,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        """Nothing is kept."""


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
        self._session: aiohttp.ClientSession | None = None

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
        try:
            async with asyncio.timeout(timeout_s):
                for _ in range(MAX_REDIRECTS + 1):
                    async with self._open().get(target, allow_redirects=False) as response:
                        if response.status in _REDIRECTS and "location" in response.headers:
                            target = self._redirected(target, response.headers["location"], param)
                            continue
                        return await _read(response, limit_bytes, param)
        except TimeoutError:
            raise UpstreamTimeout(f"{param}: the URL did not answer in time", param=param) from None
        except RefusedUrl as refused:
            # The resolver knows no field.
            raise refused if refused.param else RefusedUrl(f"{param}: {refused.message}", param=param) from None
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise _error_of(error, param) from None
        raise InvalidField(f"{param}: more than {MAX_REDIRECTS} redirects", param=param)

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
        """Post a body and give the answer's status. Redirects are not followed, and the answer's body is not read.

        Raises Refused, UpstreamTimeout or UpstreamFailed.
        """
        target = self.check(url, param="url")
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._open().post(target, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return response.status
        except TimeoutError:
            raise UpstreamTimeout("the receiver did not answer in time") from None
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise _error_of(error, "url") from None

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_Public(self._allowed, self._lookup), use_dns_cache=False, force_close=True, limit=64
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                # A proxy of the environment would resolve names by itself.
                trust_env=False,
                # A bomb stays small: what is not asked for compressed is not unpacked.
                headers={"user-agent": "moa", "accept-encoding": "identity"},
                auto_decompress=False,
            )
        return self._session

    def _redirected(self, at: URL, location: str, param: str) -> URL:
        try:
            return self.check(str(at.join(URL(location))), param=param)
        except ValueError:
            raise RefusedUrl(f"{param}: the URL redirects to an invalid URL", param=param) from None


async def _read(response: aiohttp.ClientResponse, limit_bytes: int, param: str) -> Fetched:
    if response.status >= 500:
        raise UpstreamFailed(f"{param}: the URL answered {response.status}", param=param)
    if response.status != 200:
        raise InvalidField(f"{param}: the URL answered {response.status}", param=param)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidField(f"{param}: the URL answered in an encoding that was not asked for", param=param)
    if (response.content_length or 0) > limit_bytes:
        raise TooLarge(f"{param}: more than {limit_bytes >> 20} MB", param=param)
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_chunked(_CHUNK):
        size += len(piece)
        if size > limit_bytes:
            raise TooLarge(f"{param}: more than {limit_bytes >> 20} MB", param=param)
        pieces.append(piece)
    return Fetched(b"".join(pieces), response.content_type)


def _error_of(error: Any, param: str) -> Exception:
    """Return what a failed connection means. The refusal of our own resolver comes wrapped."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RefusedUrl):
            return RefusedUrl(f"{param}: {seen.message}", param=param)
        seen = seen.__cause__ or seen.__context__
    return UpstreamFailed(f"{param}: the URL cannot be reached", param=param)
