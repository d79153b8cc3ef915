"""Processes that are started with the first request that is for them."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from pathlib import Path

from deploy.local.ports import Ports
from deploy.local.postponed import Postponed, Postponements
from services.common.rpc.client import channel
from services.common.rpc.postponed import Postponed as Asking
from services.common.rpc.postponed import PostponedCallee
from services.common.rpc.server import Server
from tests.local.test_plan import told


def test_they_are_started_once_a_request_has_come() -> None:
    """However many come, to however many processes; and never without one."""
    started: list[str] = []
    asked = threading.Event()

    def start() -> None:
        started.append("largerouter")
        asked.set()

    postponed = Postponed(start)
    for processes in (Asking(postponed.fd), Asking(postponed.fd)):
        processes.want()
        processes.want()
    asked.wait()  # the test's own time limit ends this, and what waits below
    postponed.close()
    Postponed(start).close()
    assert started == ["largerouter"]


def test_whoever_cannot_be_asked_harms_nobody() -> None:
    """Neither a launcher that has gone, nor none, costs a request anything."""
    postponed = Postponed(lambda: None)
    gone = Asking(postponed.fd)
    postponed.close()
    gone.want()
    Asking(None).want()


def test_each_group_waits_for_its_own_request() -> None:
    """And none is started once the gateway is being stopped."""
    started: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
    groups = Postponements(started.put)
    large, desk, late = (groups.leave(names) for names in (("largetext", "largerouter"), ("desk",), ("late",)))
    for fd, names in ((desk, ("desk",)), (large, ("largetext", "largerouter"))):
        Asking(fd).want()
        assert started.get() == names
    groups.end()
    Asking(late).want()
    groups.close()
    assert started.empty()
    assert groups.unstarted == {"late"}


async def test_the_first_call_waits_until_who_is_called_is_there() -> None:
    """Later ones wait for nothing, nor does one of a process that was started with all others."""
    ports = Ports()
    address = f"127.0.0.1:{ports.any()}"
    ports.close()
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def start() -> None:
        loop.call_soon_threadsafe(asked.set)

    postponed = Postponed(start)
    server = Server(service_token="s" * 32)
    async with channel(address) as link:
        await PostponedCallee(link, None).there()
        assert not asked.is_set()
        callee = PostponedCallee(link, postponed.fd)
        calls = [asyncio.create_task(callee.there()) for _ in range(2)]
        await asked.wait()
        assert not any(call.done() for call in calls)
        await server.start(address)
        await asyncio.gather(*calls)
        await server.stop(0)
        await callee.there()
    postponed.close()


def test_who_takes_such_requests_is_told_how_to_ask(tmp_path: Path) -> None:
    """Nobody else is; and nobody where all are started together."""
    names = "text largetext router largerouter desk tasks"
    told_of = {name: each for name, each in told(tmp_path, names)[1].items() if "MOA_DESK_FD" in each}
    assert told_of == {}
    fds = {"MOA_LARGE_FD": 7, "MOA_DESK_FD": 8}
    environment = told(tmp_path, names, {"router": 2}, asked_by=fds)[1]
    assert {name: each["MOA_LARGE_FD"] for name, each in environment.items() if "MOA_LARGE_FD" in each} == {
        "router": "7",
        "router-2": "7",
    }
    assert {name: each["MOA_DESK_FD"] for name, each in environment.items() if "MOA_DESK_FD" in each} == {"tasks": "8"}
