"""Keys in memory are read again a part at a time, however many are in use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest

from services.auth.adapters import cached
from services.auth.adapters.cached import CachedVerifiedKeys
from services.auth.domain.accounts import Owner, Standing, VerifiedKey
from services.common.errors import Unavailable
from tests.auth.asking import until

COUNT = 250


class _Stored:
    """Keys of ten accounts, read anew each time."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.micro_credits = 0
        self.away = False
        self.there = True

    async def by_digest(self, digest: bytes) -> VerifiedKey | None:
        if self.away:
            raise Unavailable("away")
        return _verified_key(int(digest), self.micro_credits) if self.there else None

    async def by_ids(self, key_ids: Sequence[str]) -> list[VerifiedKey]:
        self.asked.append(list(key_ids))
        return [_verified_key(int(name.removeprefix("key_")), self.micro_credits) for name in key_ids]


def _verified_key(number: int, micro_credits: int) -> VerifiedKey:
    account, key = f"acc_{number % 10}", f"key_{number}"
    return VerifiedKey(
        account_id=account,
        key_id=key,
        digest=str(number).encode(),
        ended=False,
        rules=(),
        unlimited=True,
        day=date(2099, 12, 31),
        resets_at=datetime(2100, 1, 1, tzinfo=UTC),
        standings=(
            Standing(owner=Owner.ACCOUNT, subject=account, limits={}, taken={}),
            Standing(owner=Owner.KEY, subject=key, limits={}, taken={}),
        ),
        micro_credits=micro_credits,
    )


async def test_keys_in_use_are_read_again_in_parts(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading all at once would hold up whoever is new. What has not changed stays the same object."""
    monkeypatch.setattr(cached, "REREAD_S", 0.2)
    # A database whose word comes late is one that is away, and all keys are forgotten once it is back.
    monkeypatch.setattr("services.auth.adapters.feed.ANSWER_S", 60)
    stored: Any = _Stored()
    names = [f"key_{number}" for number in range(COUNT)]
    async with CachedVerifiedKeys(stored, migrated) as verified_keys:
        async with asyncio.timeout(40):
            # What was read before the first word of the database is forgotten with it.
            while len(verified_keys.trusted(names)) < COUNT:
                await verified_keys.by_ids(names)
                await asyncio.sleep(0.01)
        first = {who.key_id: who for who in verified_keys.trusted(names)}
        stored.asked.clear()
        # To trust a key is to use it: asked for less often than it is read again, it would be left out.
        while len(verified_keys.trusted(names)) > len({n for asked in stored.asked for n in asked}):
            await asyncio.sleep(0.01)
        assert all(who is first[who.key_id] for who in verified_keys.trusted(names))
        stored.micro_credits = 7
        await until(lambda: all(who.micro_credits == 7 for who in verified_keys.trusted(names)))
        assert len(verified_keys.trusted(names)) == COUNT
    assert max(map(len, stored.asked)) <= cached.AT_ONCE


class _Feed:
    """A feed that the test speaks for."""

    def __init__(self, url: str, changed: Callable[[str | None], None]) -> None:
        self.changed = changed
        self.sure_at = time.monotonic()

    def used(self, now: float) -> None:
        """Hears nothing of it."""


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> list[_Feed]:
    """The feeds that were made, whoever made them."""
    made: list[_Feed] = []

    def make(url: str, changed: Callable[[str | None], None]) -> _Feed:
        made.append(_Feed(url, changed))
        return made[-1]

    monkeypatch.setattr(cached, "Feed", make)
    return made


async def test_a_feed_that_is_back_before_statements_are_refuses_nobody(
    feed: list[_Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was trusted while the database was away is trusted until it can be read again, and no longer than before."""
    stored: Any = _Stored()
    verified_keys = CachedVerifiedKeys(stored, "")
    assert await verified_keys.by_digest(b"1")
    stored.away, feed[0].sure_at = True, time.monotonic() - 20
    assert await verified_keys.by_digest(b"1")
    # What the feed does when it is back: what changed meanwhile is unknown, and from now on nothing is missed.
    feed[0].changed(None)
    feed[0].sure_at = time.monotonic()
    assert await verified_keys.by_digest(b"1")
    assert len(verified_keys.trusted(["key_1"])) == 1
    monkeypatch.setattr(cached, "AWAY_S", 10)
    with pytest.raises(Unavailable):
        await verified_keys.by_digest(b"1")
    assert not verified_keys.trusted(["key_1"])


async def test_a_key_that_changed_while_nobody_listened_is_read_before_it_is_taken_from_memory(
    feed: list[_Feed],
) -> None:
    """Being trusted while the database is away makes no key outlive a change once it is there."""
    stored: Any = _Stored()
    verified_keys = CachedVerifiedKeys(stored, "")
    await verified_keys.by_digest(b"1")
    feed[0].changed(None)
    stored.micro_credits = 7
    found = await verified_keys.by_digest(b"1")
    assert found is not None
    assert found.micro_credits == 7
    feed[0].changed(None)
    stored.there = False
    assert await verified_keys.by_digest(b"1") is None
    stored.away = True
    assert not verified_keys.trusted(["key_1"])
