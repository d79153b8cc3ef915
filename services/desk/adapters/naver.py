"""Naver's shopping search: https://developers.naver.com/docs/serviceapi/search/shopping/shopping.md."""

from __future__ import annotations

import asyncio
import html
import re
from importlib import import_module
from typing import Any, Final

import msgspec

from moa.desk.v1 import desk_pb2
from services.common import logs
from services.common.errors import (
    ProviderNotConfigured,
    UpstreamAuth,
    UpstreamBroken,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamTimeout,
)

_log = logs.get("desk.naver")

PATH: Final = "/v1/search/shop.json"
NO_MALL: Final = "네이버"
_TIMEOUT_S: Final = 5.0
_MOST_BYTES: Final = 1 << 20
_AT_ONCE: Final = 4
_PAUSES_S: Final = (0.2, 0.6)
_TAG: Final = re.compile(r"<[^>]*>")
_LINK: Final = re.compile(r"https?://", re.IGNORECASE)


class _Item(msgspec.Struct):
    """One item of the answer. Prices are strings of digits; an item without a price has an empty one."""

    title: str
    link: str
    image: str = ""
    lprice: str = ""
    mallName: str = ""  # noqa: N815  # the API's spelling
    category3: str = ""
    category4: str = ""


class _Answer(msgspec.Struct):
    items: list[_Item]


_DECODER: Final = msgspec.json.Decoder(_Answer)


def offers_of(data: bytes) -> list[desk_pb2.Offer]:
    """Read an answer: the cheapest first, without markup, without what has no price. Raises UpstreamBroken."""
    try:
        result = _DECODER.decode(data).items
    except msgspec.DecodeError:
        raise UpstreamBroken("the shop's answer cannot be read") from None
    offers = [_offer(item) for item in result if item.lprice.isascii() and item.lprice.isdigit() and int(item.lprice)]
    return sorted(offers, key=lambda offer: offer.price_won)


def _offer(item: _Item) -> desk_pb2.Offer:
    return desk_pb2.Offer(
        title=plain(item.title),
        price_won=int(item.lprice),
        mall=plain(item.mallName) or NO_MALL,
        category3=plain(item.category3),
        category4=plain(item.category4),
        link=item.link if _LINK.match(item.link) else "",
        image=item.image if _LINK.match(item.image) else "",
    )


def plain(text: str) -> str:
    """Take the markup out of a title: `<b>` around what was searched for, and entities."""
    return " ".join(html.unescape(_TAG.sub("", text)).split())


class Naver:
    """The shopping search API.

    Args:
        url: Its base, without a path.
        client_id: The application's id; empty: not configured.
        client_secret: Its secret.
        count: How many offers are asked for.
    """

    def __init__(self, url: str, *, client_id: str, client_secret: str, count: int) -> None:
        self._url = url.rstrip("/") + PATH
        self._headers = {"X-Naver-Client-Id": client_id, "X-Naver-Client-Secret": client_secret}
        self._count = count
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._session: Any = None
        """An `aiohttp.ClientSession`."""

    @property
    def configured(self) -> bool:
        """Whether it has credentials."""
        return all(self._headers.values())

    async def search(self, name: str) -> list[desk_pb2.Offer]:
        """Return offers for an item, the cheapest first. A rate limit is waited out briefly. Raises MoaError."""
        if not self.configured:
            raise ProviderNotConfigured("the shopping search has no credentials on this gateway")
        for pause_s in (*_PAUSES_S, None):
            try:
                async with self._turns:
                    return offers_of(await self._asked(name))
            except (UpstreamRateLimited, UpstreamTimeout, UpstreamFailed) as error:
                if pause_s is None:
                    _log.warning("search.failed", item=name, why=error.message)
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def _asked(self, name: str) -> bytes:
        # Few gateways have a shop, and the client is 17 MB of a process.
        aiohttp: Any = await asyncio.to_thread(import_module, "aiohttp")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,  # a company's proxy
            )
        # Used goods, rentals and purchases abroad are cheaper, and not what is looked for.
        given = {
            "query": name,
            "display": str(self._count),
            "start": "1",
            "sort": "asc",
            "exclude": "used:rental:cbshop",
        }
        try:
            async with self._session.get(
                self._url, params=given, headers=self._headers, allow_redirects=False
            ) as response:
                data: bytes = await response.content.read(_MOST_BYTES)
                if response.status != 200:
                    raise _refused(response.status)
                return data
        except TimeoutError:
            raise UpstreamTimeout("the shop did not answer in time") from None
        except aiohttp.ClientError as error:
            raise UpstreamFailed("the shop cannot be reached") from error


def _refused(status: int) -> UpstreamFailed | UpstreamAuth | UpstreamRateLimited | UpstreamBroken:
    if status in (401, 403):
        return UpstreamAuth("the shop refused the gateway's credentials")
    if status == 429:
        return UpstreamRateLimited("the shop limits the gateway's rate")
    if status >= 500:
        return UpstreamFailed(f"the shop answered {status}")
    return UpstreamBroken(f"the shop answered {status}")
