"""Calls that were being answered when their process died: which of them the edge sends to another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from deploy.local.stack import Stack
from tests import waiting
from tests.edge.upstream import Upstream
from tests.links import Links

WAITS = {"act": "sse", "held": True, "events": 1}
"""What an upstream answers when it is let go."""


class Services:
    """An edge before three task services, each reached by a link of its own, and what is asked of them."""

    def __init__(self, edge: Stack, all_of_them: dict[str, tuple[Upstream, ExitStack]], links: Links) -> None:
        self._edge = edge
        self._alive = all_of_them
        self._links = links
        self._threads = ThreadPoolExecutor(8)

    def calls(self) -> int:
        """Return how many calls have come to those that are reached."""
        return sum(each.held.calls for each, _ in self._alive.values())

    def until(self, calls: int) -> None:
        """Return when so many calls have come."""
        pauses = waiting.pauses()
        while self.calls() < calls:
            time.sleep(next(pauses))

    def ask(self, keys: list[str | None]) -> list[Future[requests.Response]]:
        """Ask with each key at once, and return when each is with a task service."""
        for each, _ in self._alive.values():
            each.held.reset()
        url = self._edge.url + "/v1/predictions"
        headers = [{"X-API-Key": "moa-known", **({} if key is None else {"Idempotency-Key": key})} for key in keys]
        asked = [self._threads.submit(requests.post, url, json=WAITS, headers=each, timeout=60) for each in headers]
        self.until(len(keys))
        return asked

    def lose(self, *, stopped: bool = False) -> int:
        """Lose one amid its calls, by its connection or because it is stopped; return how many it was at."""
        address = next(address for address, (each, _) in self._alive.items() if each.held.calls)
        victim, stop = self._alive.pop(address)
        if stopped:
            stop.close()
        else:
            self._links.between("edge", address).cut()
        return victim.held.calls

    def let_go(self) -> None:
        """Have all calls answered."""
        for each, _ in self._alive.values():
            for _ in range(each.held.calls):
                each.held.go.release()


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with ExitStack() as ending:
        alive = {}
        for _ in range(4):
            stop = ending.enter_context(ExitStack())
            upstream = stop.enter_context(Upstream())
            alive[f"127.0.0.1:{upstream.port}"] = (upstream, stop)
        links = ending.enter_context(Links({"edge": ("MOA_TASKS_ADDRESSES",)}).carrying())
        environment = {"MOA_ROUTER_ADDRESSES": next(iter(alive)), "MOA_TASKS_ADDRESSES": ",".join(alive)}
        edge = ending.enter_context(Stack(tmp_path, processes=["edge"], start=links.spawn, environment=environment))
        yield Services(edge, alive, links)


def test_what_a_lost_task_service_was_at_is_done_by_another_where_a_key_says_which_it_is(services: Services) -> None:
    """Six predictions with idempotency keys wait at the task services and one of those is lost, by kill or at a stop:
    all are answered. Those without a key, or with a blank one, that it was at fail, and nobody else is asked."""
    # First, while nobody is gone: on a link whose end the edge has not found out such a call is lost as well.
    asked = services.ask([None, "", ",k", None, "", None])
    lost = services.lose()
    services.let_go()
    assert sorted(each.result().status_code for each in asked) == [200] * (6 - lost) + [503] * lost
    assert services.calls() == 6 - lost
    for stopped in (False, True):
        asked = services.ask([f"k{number}" for number in range(6)])
        assert services.lose(stopped=stopped) >= 1
        services.until(6)
        services.let_go()
        assert [each.result().status_code for each in asked] == [200] * 6, [each.result().text for each in asked]
