"""Naver's shopping search: the request, the mapping of its answer, and its failures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from services.common.errors import (
    ProviderNotConfigured,
    UpstreamAuth,
    UpstreamBroken,
    UpstreamFailed,
    UpstreamRateLimited,
)
from services.desk.adapters.naver import Naver as Client
from services.desk.adapters.naver import offers_of, plain
from tests.emulators.naver import CLIENT_ID, CLIENT_SECRET, Naver, shelf


@pytest.fixture
def naver() -> Iterator[Naver]:
    with Naver() as running:
        yield running


def client_of(naver: Naver, *, secret: str = CLIENT_SECRET) -> Client:
    return Client(naver.url, client_id=CLIENT_ID, client_secret=secret, count=10)


@pytest.fixture
async def client(naver: Naver) -> AsyncIterator[Client]:
    made = client_of(naver)
    yield made
    await made.aclose()


async def test_the_request_is_the_documented_one(naver: Naver, client: Client) -> None:
    """Korean query, cheapest first, no used goods; the emulator refuses anything that the API would refuse."""
    await client.search("마우스")
    [asked] = naver.asked
    assert asked == {
        "query": "마우스",
        "display": "10",
        "start": "1",
        "sort": "asc",
        "exclude": "used:rental:cbshop",
    }


async def test_every_field_is_mapped(naver: Naver, client: Client) -> None:
    """Titles without markup, prices as numbers and ascending, a missing mall is 네이버, nothing without a price."""
    offers = await client.search("마우스")
    prices = [offer.price_won for offer in offers]
    assert prices == sorted(prices)
    assert all(prices)
    by_link = {item["link"]: item for item in shelf("마우스")}
    for offer in offers:
        item = by_link[offer.link]
        assert offer.title == item["title"].replace("<b>", "").replace("</b>", "").replace("&amp;", "&")
        assert offer.price_won == int(item["lprice"])
        assert offer.mall == (item["mallName"] or "네이버")
        assert (offer.category3, offer.category4, offer.image) == (item["category3"], item["category4"], item["image"])


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("<b>무선</b> 마우스", "무선 마우스"),
        ("A &lt;B&gt; &quot;C&quot; &#39;D&#39;", "A <B> \"C\" 'D'"),
        ("  두   칸 ", "두 칸"),
        ("<script>alert(1)</script>x", "alert(1)x"),
        ("1 < 2", "1 < 2"),
    ],
)
def test_titles_lose_their_markup_once(given: str, shown: str) -> None:
    """Tags first, then entities: what was written as text stays text."""
    assert plain(given) == shown


async def test_a_rate_limit_is_waited_out(naver: Naver, client: Client) -> None:
    """Two refusals, then the answer."""
    naver.scripts.extend((429, 500))
    assert await client.search("키보드")
    assert len(naver.asked) == 3


@pytest.mark.parametrize(("status", "kind"), [(429, UpstreamRateLimited), (500, UpstreamFailed)])
async def test_a_lasting_failure_is_told(naver: Naver, client: Client, status: int, kind: type[Exception]) -> None:
    """After three tries it gives up."""
    naver.scripts.extend([status] * 3)
    with pytest.raises(kind):
        await client.search("키보드")


async def test_wrong_credentials_are_not_tried_again(naver: Naver) -> None:
    """The API's 401 is the gateway's fault, and stays so."""
    client = client_of(naver, secret="wrong")
    with pytest.raises(UpstreamAuth):
        await client.search("키보드")
    await client.aclose()


async def test_the_shop_is_asked_through_a_proxy(naver: Naver, monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTP_PROXY` holds for the shop as for providers: it is asked for the shop, whose name has no address here."""
    monkeypatch.setenv("HTTP_PROXY", naver.url)
    client = Client("http://shop.invalid", client_id=CLIENT_ID, client_secret=CLIENT_SECRET, count=10)
    assert await client.search("마우스")
    await client.aclose()


async def test_without_credentials_nothing_is_asked(naver: Naver) -> None:
    """A gateway without shopping says so."""
    client = client_of(naver, secret="")
    with pytest.raises(ProviderNotConfigured):
        await client.search("키보드")
    assert naver.asked == []


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"items": 5}', b'{"items": [{"link": 1}]}'])
def test_what_is_no_answer_is_broken(data: bytes) -> None:
    """An answer of another form is not guessed at."""
    with pytest.raises(UpstreamBroken):
        offers_of(data)


def test_links_of_other_schemes_are_left_out() -> None:
    """A shop cannot smuggle a script into a page that shows its link."""
    answer = b'{"items": [{"title": "x", "link": "javascript:alert(1)", "image": "data:x", "lprice": "5"}]}'
    [offer] = offers_of(answer)
    assert (offer.link, offer.image, offer.mall) == ("", "", "네이버")
