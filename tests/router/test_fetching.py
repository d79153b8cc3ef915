"""Images that requests link to: fetched only once quota is set aside, and within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from moa.common.v1 import media_pb2
from moa.image.v1 import image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import errors, images
from services.router.adapters.fetching import AN_ACCOUNT_AT_ONCE, Fetching
from services.router.domain.caller import Caller
from services.router.domain.operations import MOST_LINKS
from services.router.domain.ports import Linked
from services.router.operations.text import TextCall
from tests.router.rig import picture
from tests.router.world import World

LINK = "https://pictures.example/a.png"
SMALL = picture(64, 64)
SEES = {"capabilities": {"vision"}}


class Site:
    """Reads links; holds those that are asked for while it is shut."""

    def __init__(self, data: bytes = b"x" * 1000) -> None:
        self.data = data
        self.open = asyncio.Event()
        self.running = self.most = self.asked = 0

    async def read(self, url: str, *, account_id: str, param: str) -> tuple[bytes, str]:
        self.asked += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
        finally:
            self.running -= 1
        return self.data, "image/png"


def links(count: int) -> list[Linked]:
    return [Linked(f"images[{n}]", media_pb2.ImageInput(url=LINK)) for n in range(count)]


async def settled() -> None:
    """Let every task run as far as it can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def hold(fetcher: Fetching, count: int, account: str, done: asyncio.Event) -> None:
    async with fetcher.fetched(links(count), account_id=account, owner=account):
        await done.wait()


async def test_an_account_fetches_four_at_once_and_keeps_no_other_waiting() -> None:
    """Sixteen links of one account go four at a time, whatever the number of its requests; another account's go at
    once. All arrive."""
    site, done = Site(), asyncio.Event()
    fetcher = Fetching(site)
    tasks = [asyncio.create_task(hold(fetcher, 8, "one", done)) for _ in range(2)]
    await settled()
    assert site.running == AN_ACCOUNT_AT_ONCE
    tasks.append(asyncio.create_task(hold(fetcher, 2, "two", done)))
    await settled()
    assert site.running == AN_ACCOUNT_AT_ONCE + 2
    site.open.set()
    done.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    assert (site.asked, site.most) == (18, AN_ACCOUNT_AT_ONCE + 2)
    assert fetcher.idle


async def test_a_process_holds_no_more_bytes_than_it_may() -> None:
    """What is being fetched counts as the largest image, what has come as its size, until its request is sent on; who
    finds no room waits, and is told when that takes too long."""
    site, done = Site(), asyncio.Event()
    site.open.set()
    fetcher = Fetching(site, process_bytes=images.MAX_BYTES + 1500, wait_s=0.05)
    tasks = [asyncio.create_task(hold(fetcher, 1, f"account {n}", done)) for n in range(2)]
    await settled()
    # 2,000 bytes are held, and so there is no room for a third that may be 10 MB.
    with pytest.raises(errors.Unavailable, match=r"images\[0\]") as refused:
        await hold(fetcher, 1, "third", done)
    assert refused.value.param == "images[0]"
    done.set()
    await asyncio.gather(*tasks)
    await hold(fetcher, 1, "third", done)
    assert fetcher.idle


async def test_the_links_of_a_request_come_to_32_mb_at_most() -> None:
    """Four of ten megabytes are too many: the rest is left, and all room is given back."""
    site = Site(bytes(images.MAX_BYTES))
    site.open.set()
    fetcher = Fetching(site)
    with pytest.raises(errors.TooLarge, match="32 MB together"):
        await hold(fetcher, 6, "one", asyncio.Event())
    assert fetcher.idle
    assert site.running == 0


async def test_who_leaves_gives_everything_back() -> None:
    """A request that is cancelled while it waits or fetches holds nothing."""
    site = Site()
    fetcher = Fetching(site)
    task = asyncio.create_task(hold(fetcher, 9, "one", asyncio.Event()))
    await settled()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert fetcher.idle
    assert site.running == 0


class Seeing(World):
    """A world whose links are fetched by the test."""

    def __init__(self, data: bytes = SMALL, **more: Any) -> None:
        super().__init__(a=SEES | {"fallback": ()}, **more)
        self.fetches: list[int] = []
        self.data = data
        self.fails: BaseException | None = None

    @asynccontextmanager
    async def _fetched(self, linked: list[Linked]) -> AsyncIterator[None]:
        self.fetches.append(len(linked))
        assert self.ledger.open, "nothing is fetched before quota is set aside"
        if self.fails is not None:
            raise self.fails
        for _, image in linked:
            image.data = self.data
        yield

    def fetched(self, linked: Any, *, account_id: str, owner: str) -> Any:
        return self._fetched(linked)

    async def look(self, count: int = 1, **fields: Any) -> Any:
        """Ask about so many linked images."""
        request = text_service_pb2.GenerateTextRequest(model="a", stream=True, max_tokens=10, **fields)
        turn = request.messages.add(role=text_pb2.ROLE_USER)
        turn.parts.add(text="what is this?")
        for _ in range(count):
            turn.parts.add().image.url = LINK
        answer = await self.operations.begin(TextCall(request), Caller(key="k", request_id="rid"))
        async with answer:
            while await answer.next() is not None:
                pass
        return answer


async def test_nothing_is_fetched_for_who_has_no_quota() -> None:
    """An account with a token left is refused before anybody looks at its links."""
    world = Seeing()

    async def reserve(*_: Any, **__: Any) -> Any:
        raise errors.QuotaExhausted("no")

    world.ledger.reserve = reserve  # type: ignore[method-assign]
    with pytest.raises(errors.QuotaExhausted):
        await world.look()
    request = image_service_pb2.GenerateImageRequest(model="a", prompt="x")
    request.images.add(url=LINK)
    assert world.fetches == []


async def test_a_linked_picture_is_reserved_at_its_most_and_then_at_its_size() -> None:
    """Before it is fetched a picture may be as large as any; its header then tells what it costs at most."""
    world = Seeing()
    asked: list[int] = []
    reserve = world.ledger.reserve

    async def noting(key: str, **more: Any) -> Any:
        asked.append(more["need"].tokens)
        return await reserve(key, **more)

    world.ledger.reserve = noting  # type: ignore[method-assign]
    answer = await world.look()
    [most] = asked
    rule = answer.model.picture_rule
    assert most >= rule.most()
    assert answer.reservation.tokens <= most - rule.most() + rule.of(64, 64)


async def test_a_link_that_fails_costs_nothing() -> None:
    """The reservation is given back, also when the caller leaves meanwhile."""
    for failure in (errors.UpstreamFailed("no"), asyncio.CancelledError()):
        world = Seeing()
        world.fails = failure
        with pytest.raises(type(failure)):
            await world.look()
        assert world.ledger.rows == [("r1", 0, 0, "released")]
        assert world.asked == []


async def test_seventeen_links_are_too_many() -> None:
    """They are refused by name before anything is reserved or fetched."""
    world = Seeing()
    with pytest.raises(errors.InvalidField, match="at most 16"):
        await world.look(MOST_LINKS + 1)
    assert (world.fetches, world.ledger.rows) == ([], [])
    await world.look(MOST_LINKS)
    assert world.fetches == [MOST_LINKS]
