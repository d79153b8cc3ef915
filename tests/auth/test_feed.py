"""The word of the database by which keys are taken from memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg
import pytest

from services.auth.adapters import feed as feeds
from services.auth.adapters.feed import Feed
from services.common import database


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine's word comes late: it is no lost connection, after which anything may have changed."""
    monkeypatch.setattr(feeds, "ANSWER_S", 60)


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[float]:
    """What a feed rests for, each time that it does; it would rest for an hour."""
    found: asyncio.Queue[float] = asyncio.Queue()
    spoken: Callable[..., object] = database.spoken

    async def noted(link: object, *, within_s: float, stirred: asyncio.Event) -> None:
        found.put_nowait(within_s)
        await spoken(link, within_s=3600, stirred=stirred)  # type: ignore[misc]

    monkeypatch.setattr(database, "spoken", noted)
    return found


async def test_a_feed_that_nobody_uses_rests(database_url: str, rests: asyncio.Queue[float]) -> None:
    """It asks again at the first use, and knows at once of every change until then."""
    async with Feed(database_url, lambda _: None) as feed:
        assert await rests.get() >= 1
        rested_at = feed.sure_at
        used_at = time.monotonic()
        feed.used(used_at)
        while feed.sure_at < used_at:  # the test's own time limit ends this
            await asyncio.sleep(0.01)
        assert rested_at < used_at


async def test_a_change_is_heard_at_rest(database_url: str, rests: asyncio.Queue[float]) -> None:
    """A revocation reaches a replica whose keys nobody uses now."""
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    async with Feed(database_url, heard.put_nowait):
        assert await heard.get() is None
        await rests.get()
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as link:
            await link.execute("notify moa_accounts, 'one'")
        assert await heard.get() == "one"


async def test_a_lost_connection_is_noticed_at_rest(database_url: str, rests: asyncio.Queue[float]) -> None:
    """Anything may have changed until it listens again."""
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    async with Feed(database_url, heard.put_nowait):
        assert await heard.get() is None
        await rests.get()
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as link:
            await link.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        assert await heard.get() is None


async def test_a_feed_in_use_is_sure_only_of_what_it_has_heard(database_url: str) -> None:
    """What was committed before it last asked has been told by then, in order, however much came at once."""
    heard: list[str | None] = []
    link = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
    async with link, Feed(database_url, heard.append) as feed:
        await _until_sure(feed)
        assert heard == [None]
        for turn in range(3):
            names = [f"{turn} {number}" for number in range(50)]
            await link.execute("select pg_notify('moa_accounts', one) from unnest(%s::text[]) one", (names,))
            await _until_sure(feed)
            assert heard[-50:] == names
        assert len(heard) == 151


async def _until_sure(feed: Feed) -> None:
    """Wait until a feed in use is sure up to now; the test's own time limit ends this."""
    now = time.monotonic()
    while feed.sure_at < now:
        feed.used(time.monotonic())
        await asyncio.sleep(0.01)


async def test_a_lost_connection_is_noticed_in_use(database_url: str) -> None:
    """It is sure of nothing until it listens again, and anything may have changed then."""
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    async with Feed(database_url, heard.put_nowait) as feed:
        for _ in range(2):
            assert await heard.get() is None
            await _until_sure(feed)
            async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as link:
                await link.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid()"
                )
        assert await heard.get() is None
