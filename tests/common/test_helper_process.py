"""Large requests are worked on in a helper process, one by one; accounts have turns, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextvars import Context
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from moa.common.v1.media_pb2 import ImageInput
from services.common.body import UnknownField
from services.common.errors import InvalidField, Unavailable
from services.common.helper_process import HelperProcess, Unforeseen, is_large_request
from services.common.large import LARGE_BYTES
from services.common.rpc import call as calls

LARGE = b"x" * 1000


# What is worked on: functions of a module, for the helper process imports them.


def where(data: bytes) -> tuple[int, int]:
    return os.getpid(), len(data)


def priority(data: bytes) -> tuple[int, bool]:
    return os.getpriority(os.PRIO_PROCESS, 0), os.getsid(0) == os.getpid()


def joined(data: bytes, text: str, *, times: int) -> bytes:
    return data + text.encode() * times


def resident(data: bytes) -> int:
    """Return the bytes of memory that the process has, the request included."""
    return int(psutil.Process().memory_info().rss)


def refused(data: bytes) -> None:
    raise UnknownField("too odd", param="messages[3]", retry_after_s=2.0)


def broken(data: bytes) -> None:
    raise ZeroDivisionError("nobody foresaw it")


def gone(data: bytes) -> None:
    os._exit(9)


def held(data: bytes, path: Path) -> str:
    """Take as long as a file is not there, then say which account asked."""
    while not path.exists():
        time.sleep(0.005)
    return data[:1].decode()


async def test_a_request_is_as_large_as_it_was_received() -> None:
    """With what was fetched for it; its message is counted only where nobody received it."""
    small, large = ImageInput(data=b"x"), ImageInput(data=b"x" * (LARGE_BYTES + 1))

    def outside() -> tuple[bool, bool]:
        calls.fetched(LARGE_BYTES)
        return is_large_request(small), is_large_request(large)

    # Of no call at all: each test has one.
    assert Context().run(outside) == (False, True)
    call = calls.begin("m", "r")
    call.request_bytes = LARGE_BYTES
    assert not is_large_request(large)
    calls.fetched(1)
    assert is_large_request(small)


# Starting a process takes a while: the tests share one, where they do not end it.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def helper() -> AsyncIterator[HelperProcess]:
    made = HelperProcess()
    yield made
    await made.aclose()
    assert made.pid is None


async def test_what_is_large_is_worked_on_in_another_process(helper: HelperProcess) -> None:
    """The same one again."""
    first, size = await helper.run(where, LARGE, "a")
    again, _ = await helper.run(where, LARGE, "b")
    assert first == again != os.getpid()
    assert size == len(LARGE)


async def test_it_lets_others_go_first(helper: HelperProcess) -> None:
    """Its priority is lower than this process's, once for all its work, in a session of its own."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    for _ in range(2):
        assert await helper.run(priority, LARGE, "a") == (min(19, before + 7), True)


async def test_what_it_is_given_and_gives_comes_whole(helper: HelperProcess) -> None:
    """More than a socket's buffers hold, both ways."""
    data = os.urandom(3 << 20)
    assert await helper.run(joined, data, "a", "한", times=2) == data + "한한".encode()


async def test_it_has_a_request_once(helper: HelperProcess) -> None:
    """What came is worked on where it was received: a copy of it would stay as long as that takes."""
    small = await helper.run(resident, b"x", "a")
    assert await helper.run(resident, bytes(32 << 20), "a") - small < 48 << 20


async def test_a_refusal_is_the_same_from_there(helper: HelperProcess) -> None:
    """Its kind in the tree of errors, wherever it is defined, its words, its field and its time."""
    with pytest.raises(InvalidField) as told:
        await helper.run(refused, LARGE, "a")
    assert (told.value.message, told.value.param, told.value.retry_after_s) == ("too odd", "messages[3]", 2.0)


async def test_a_fault_is_logged_here_with_its_place(helper: HelperProcess) -> None:
    """Whoever serves logs it as its own; the process goes on."""
    with pytest.raises(Unforeseen, match="ZeroDivisionError: nobody foresaw it"):
        await helper.run(broken, LARGE, "a")
    assert (await helper.run(where, LARGE, "a"))[1] == len(LARGE)


async def test_a_request_that_kills_it_is_refused_and_the_next_is_served(helper: HelperProcess) -> None:
    """Another process takes its place."""
    before, _ = await helper.run(where, LARGE, "a")
    with pytest.raises(Unavailable):
        await helper.run(gone, LARGE, "a")
    after, _ = await helper.run(where, LARGE, "a")
    assert before != after


async def test_one_that_was_killed_meanwhile_harms_nobody(helper: HelperProcess) -> None:
    """It is started again before it is given anything."""
    before, _ = await helper.run(where, LARGE, "a")
    psutil.Process(before).kill()
    async with asyncio.timeout(90):
        while helper.pid is not None:
            await asyncio.sleep(0.005)
    assert (await helper.run(where, LARGE, "a"))[0] != before


async def test_whoever_leaves_does_not_mix_up_the_answers(helper: HelperProcess, tmp_path: Path) -> None:
    """The next one is given its own answer, after the work that nobody waits for."""
    path = tmp_path / "go"
    leaving = asyncio.create_task(helper.run(held, b"a" + LARGE, "a", path))
    staying = asyncio.create_task(helper.run(held, b"b" + LARGE, "b", path))
    await asyncio.sleep(0)
    while helper.waiting == 0:
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    path.touch()
    assert await staying == "b"


async def test_accounts_have_turns(helper: HelperProcess, tmp_path: Path) -> None:
    """An account that sent many waits behind another's one."""
    path = tmp_path / "go"
    order: list[str] = []

    async def ask(name: str) -> None:
        order.append(await helper.run(held, name.encode() + LARGE, name, path))

    tasks = [asyncio.create_task(ask(name)) for name in "aaaab"]
    while helper.waiting < 4:
        await asyncio.sleep(0)
    path.touch()
    await asyncio.gather(*tasks)
    assert "".join(order) == "aabaa"


async def test_it_ends_when_nothing_comes() -> None:
    """Whoever has no large requests pays for no process."""
    helper = HelperProcess(idle_s=0.01)
    await helper.run(where, LARGE, "a")
    async with asyncio.timeout(90):
        while helper.pid is not None:
            await asyncio.sleep(0.005)
    assert (await helper.run(where, LARGE, "a"))[1] == len(LARGE)
    await helper.aclose()
