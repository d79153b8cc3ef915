"""The calls of the egress guard (`services.common.egress`): to addresses that were checked, and no others."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from typing import Any, Final, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from services.common.egress import Answered, Fetched, Lookup, RefusedUrl
from services.common.errors import InvalidField, TooLarge, UpstreamFailed, UpstreamTimeout
from services.common.hosts import is_public

MAX_REDIRECTS: Final = 5
CONNECT_S: Final = 5.0
_CHUNK: Final = 64 * 1024
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


class Check(Protocol):
    """What a URL passes before it is called."""

    def __call__(self, url: str, *, param: str) -> URL:
        """Return the parsed URL. Raises RefusedUrl."""


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


class Calls:
    """Calls URLs that were checked.

    Args:
        check: What a redirect's target passes, as a first URL did.
        allowed: Hosts, with or without a port, that may be wherever they are.
        lookup: Asks for addresses.
    """

    def __init__(self, *, check: Check, allowed: frozenset[str], lookup: Lookup) -> None:
        self._check = check
        self._allowed = allowed
        self._lookup = lookup
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, target: URL, *, limit_bytes: int, timeout_s: float, param: str) -> Fetched:
        """Get what a URL answers, as `Egress.fetch` tells."""
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

    async def ask(
        self,
        target: URL,
        *,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None,
        limit_bytes: int,
        timeout_s: float,
    ) -> Answered:
        """Get what a URL answers, or post a form to it, as `Egress.ask` tells."""
        method = "GET" if form is None else "POST"
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._open().request(method, target, data=form, headers=headers, allow_redirects=False) as response,
            ):
                return Answered(response.status, await _body(response, limit_bytes, "url"))
        except TimeoutError:
            raise UpstreamTimeout("the URL did not answer in time") from None
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise _error_of(error, "url") from None

    async def post(self, target: URL, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
        """Post a body and give the answer's status, as `Egress.post` tells."""
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
            return self._check(str(at.join(URL(location))), param=param)
        except ValueError:
            raise RefusedUrl(f"{param}: the URL redirects to an invalid URL", param=param) from None


async def _read(response: aiohttp.ClientResponse, limit_bytes: int, param: str) -> Fetched:
    if response.status >= 500:
        raise UpstreamFailed(f"{param}: the URL answered {response.status}", param=param)
    if response.status != 200:
        raise InvalidField(f"{param}: the URL answered {response.status}", param=param)
    return Fetched(await _body(response, limit_bytes, param), response.content_type)


async def _body(response: aiohttp.ClientResponse, limit_bytes: int, param: str) -> bytes:
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
    return b"".join(pieces)


def _error_of(error: Any, param: str) -> Exception:
    """Return what a failed connection means. The refusal of our own resolver comes wrapped."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RefusedUrl):
            return RefusedUrl(f"{param}: {seen.message}", param=param)
        seen = seen.__cause__ or seen.__context__
    return UpstreamFailed(f"{param}: the URL cannot be reached", param=param)
