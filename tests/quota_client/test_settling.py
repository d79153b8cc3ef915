"""Settlements while neither auth nor the journal's disk takes them."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from moa.quota.v1 import quota_pb2, quota_service_pb2
from services.quota_client import _settling
from services.quota_client._journal import Journal
from services.quota_client._settling import Settling


class Auth:
    """Books settlements, when it is there."""

    def __init__(self) -> None:
        self.away = True
        self.refused = 0
        self.calls = 0
        self.booked: list[str] = []
        self.returned: list[str] = []

    async def Settle(self, request: quota_service_pb2.SettleRequest, **_: Any) -> quota_service_pb2.SettleResponse:
        if self.away:
            self.refused += 1
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        self.calls += 1
        ids = [settlement.reservation_id for settlement in request.settlements]
        self.booked += ids
        return quota_service_pb2.SettleResponse(booked=ids)

    async def ReturnLeases(
        self, request: quota_service_pb2.ReturnLeasesRequest, **_: Any
    ) -> quota_service_pb2.ReturnLeasesResponse:
        self.returned += [piece.return_id for piece in request.returns]
        return quota_service_pb2.ReturnLeasesResponse()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(90):
        while not true():
            await asyncio.sleep(0.01)


def no_room(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("first", ["auth", "disk"])
async def test_what_can_be_neither_booked_nor_kept_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """With auth away and the disk full, nothing more is admitted; either coming back is enough, and nothing is lost."""
    auth: Any = Auth()
    settling = Settling(auth, service_token="token", folder=tmp_path, holder="one")
    settling.start()
    settling.opened("kept")
    settling.settled(quota_pb2.Settlement(reservation_id="kept"))
    await until(lambda: auth.refused > 1)
    assert not settling.overwhelmed, "the journal has it"
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", no_room)
        settling.settled(quota_pb2.Settlement(reservation_id="in memory"))
        await until(lambda: settling.overwhelmed)
        assert settling.recording == (os.strerror(errno.ENOSPC), True)
        if first == "auth":
            auth.away = False
            await until(lambda: not settling.overwhelmed)
            assert auth.booked == ["kept", "in memory"]
    await until(lambda: not settling.overwhelmed)
    if first == "disk":
        (kept,) = tmp_path.glob("*.journal")
        await until(lambda: b"in memory" in kept.read_bytes())
        await settling.stop(within_s=0)
        (left,) = Journal(tmp_path, "successor").left()
        found = [quota_pb2.Settlement.FromString(settlement).reservation_id for settlement in left.settlements]
        assert found == ["kept", "in memory"]
    else:
        await settling.stop(within_s=5)


async def test_a_disk_that_has_room_again_is_noticed_though_nothing_is_booked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router tells that it cannot write its journal, and why, as long as the disk is full, whatever small files it
    takes; it is asked nothing meanwhile, and looks by itself."""
    monkeypatch.setattr(_settling, "LOOKED_S", 0.01)
    auth: Any = Auth()
    auth.away = False
    settling = Settling(auth, service_token="token", folder=tmp_path, holder="one")
    settling.start()
    looks = 0

    def full(file: int, data: bytes) -> int:
        nonlocal looks
        looks += 1
        if not data:
            return 0
        return no_room()

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        settling.opened("one")
        settling.released("one")
        await until(lambda: looks > 5)
        assert settling.recording == (os.strerror(errno.ENOSPC), False), "auth books it all the same"
    await until(lambda: settling.recording == ("", False))
    await settling.stop(within_s=5)


def settled(settling: Settling, *names: str) -> None:
    for name in names:
        settling.settled(quota_pb2.Settlement(reservation_id=name))


async def test_settlements_that_follow_each_other_are_booked_together(tmp_path: Path) -> None:
    """The first is booked at once; the next wait until there is a batch of 500, which is one call."""
    auth: Any = Auth()
    auth.away = False
    settling = Settling(auth, service_token="token", folder=tmp_path, holder="one", every_s=3600)
    settling.start()
    settled(settling, "first")
    await until(lambda: auth.booked == ["first"])
    settled(settling, *map(str, range(499)))
    await asyncio.sleep(0.2)  # four times as long as the first waited for others
    assert auth.calls == 1
    settled(settling, "499")
    await until(lambda: len(auth.booked) == 501)
    assert auth.calls == 2
    await settling.stop(within_s=5)


async def test_quota_that_goes_back_waits_for_no_batch(tmp_path: Path) -> None:
    """Others may need it: what is settled goes along with it."""
    auth: Any = Auth()
    auth.away = False
    settling = Settling(auth, service_token="token", folder=tmp_path, holder="one", every_s=3600)
    settling.start()
    settled(settling, "first")
    await until(lambda: auth.booked == ["first"])
    settled(settling, "second")
    settling.give_back([(quota_pb2.LeaseReturn(return_id="r"), float("inf"))])
    await until(lambda: auth.returned == ["r"])
    assert auth.booked == ["first", "second"]
    await settling.stop(within_s=5)


async def test_what_waits_for_a_batch_is_booked_at_the_end_and_after_a_kill(tmp_path: Path) -> None:
    """A process that drains books it, and one that is killed leaves it to its successor."""
    auth: Any = Auth()
    auth.away = False
    killed = Settling(auth, service_token="token", folder=tmp_path, holder="killed", every_s=3600)
    settled(killed, "of the killed")
    await killed.stop(within_s=0)  # books nothing
    drained = Settling(auth, service_token="token", folder=tmp_path, holder="drained", every_s=3600)
    drained.start()
    await until(lambda: auth.booked == ["of the killed"])
    settled(drained, "waiting")
    await drained.stop(within_s=5)
    assert auth.booked == ["of the killed", "waiting"]
    assert not list(tmp_path.iterdir())


async def test_who_has_no_journal_waits_for_no_batch() -> None:
    """What waits in memory alone would be lost with the process: it is booked at once, each time."""
    auth: Any = Auth()
    auth.away = False
    settling = Settling(auth, service_token="token", folder=None, holder="one", every_s=3600)
    settling.start()
    for name in ("first", "second", "third"):
        settled(settling, name)
        await until(lambda name=name: auth.booked[-1:] == [name])  # type: ignore[misc]
    await settling.stop(within_s=5)


async def test_a_word_on_a_call_that_was_left_is_waited_for_while_auth_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend's word reaches auth once it is back: what the router says in its place comes later than that."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    auth: Any = Auth()
    settling = Settling(auth, service_token="token", folder=None, holder="one", deferred_s=8.0)
    settling.deferred(quota_pb2.Settlement(reservation_id="left"), lambda *_: None)
    now += 7.0
    settling.failed()
    for passed_s, decided in ((7.9, False), (0.2, True)):
        now += passed_s
        for _ in range(3):
            await asyncio.sleep(0)
        assert bool(settling.waiting) is decided
    await settling.stop(within_s=0)


class Failing(Auth):
    """Books settlements, but those that are named bad."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.mended = False

    async def Settle(self, request: quota_service_pb2.SettleRequest, **_: Any) -> quota_service_pb2.SettleResponse:
        ids = [settlement.reservation_id for settlement in request.settlements]
        good = [name for name in ids if not name.startswith("bad") or self.mended]
        self.booked += good
        return quota_service_pb2.SettleResponse(booked=good)


async def test_settlements_that_auth_fails_on_keep_no_other_back() -> None:
    """However many there are, all others are booked meanwhile, and they themselves once auth can."""
    auth: Any = Failing()
    settling = Settling(auth, service_token="token", folder=None, holder="one")
    settling.start()
    for name in [*(f"bad {number}" for number in range(300)), *map(str, range(300))]:
        settling.settled(quota_pb2.Settlement(reservation_id=name))
    await until(lambda: len(auth.booked) == 300)
    auth.mended = True
    await until(lambda: len(auth.booked) == 600)
    await settling.stop(within_s=5)


async def test_a_journal_that_cannot_be_read_is_kept(tmp_path: Path) -> None:
    """A record that this version cannot read ends no start: what can be read is booked, and the journal stays."""
    left = Journal(tmp_path, "gone")
    left.settled(b"\xff\xff not a settlement")
    left.settled(quota_pb2.Settlement(reservation_id="fine").SerializeToString())
    left.close(keep=True)
    auth: Any = Auth()
    auth.away = False
    settling = Settling(auth, service_token="token", folder=tmp_path, holder="one")
    settling.start()
    await until(lambda: auth.booked == ["fine"])
    await settling.stop(within_s=5)
    assert [path.name for path in tmp_path.iterdir()] == ["gone.journal"]


async def test_a_successor_finds_nothing_open_that_a_settlement_names(tmp_path: Path) -> None:
    """What was lent to a request while it ran is settled with it, in the journal too."""
    auth: Any = Auth()
    gone = Settling(auth, service_token="token", folder=tmp_path, holder="gone")
    for name in ("first", "further", "open"):
        gone.opened(name)
    gone.settled(quota_pb2.Settlement(reservation_id="first", further=["further"]))
    await gone.stop(within_s=0)
    settling = Settling(auth, service_token="token", folder=tmp_path, holder="one")
    assert settling.start() == ["open"]
    await settling.stop(within_s=0)


async def test_no_journal_is_left_of_a_request_that_was_lent_more(tmp_path: Path) -> None:
    """Once it is settled and booked nothing of it is open, its further reservations included."""
    auth: Any = Auth()
    auth.away = False
    settling = Settling(auth, service_token="token", folder=tmp_path, holder="one")
    settling.start()
    for name in ("first", "further"):
        settling.opened(name)
    settling.settled(quota_pb2.Settlement(reservation_id="first", further=["further"]))
    settling.covered(["further"])
    await until(lambda: auth.booked == ["first"])
    await settling.stop(within_s=5)
    assert not list(tmp_path.iterdir())
