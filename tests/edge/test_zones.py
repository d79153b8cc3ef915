"""Routers in several zones behind an edge that knows its own."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path

import requests

from deploy.local.stack import Stack
from gateway import clusters
from gateway.envoy_supervisor import asked
from gateway.settings import EdgeSettings
from services.quota_client import Recording
from tests import forking, waiting
from tests.edge.upstream import Upstream

HEALTHY = re.compile(r"^router::127\.0\.0\.1:(\d+)::health_flags::healthy$", re.MULTILINE)
WELL, AWAY = Recording(), Recording("No space left on device", refuses=True)


def healthy(stack: Stack) -> set[int]:
    """Return the ports of the routers that the edge takes for well."""
    # By a short path: a socket's must fit in about 100 bytes.
    told = asked(f"/proc/{stack.pid('edge')}/cwd/{clusters.ADMIN_SOCKET.format(1)}", "GET", "/clusters")
    return set(map(int, HEALTHY.findall(told)))


def test_requests_stay_in_the_zone_as_far_as_it_can_take_them(tmp_path: Path) -> None:
    """A zone with its share of the routers gets all requests of its edges, with less what makes routers' shares alike,
    and with none that is well none; no request fails meanwhile."""
    with ExitStack() as ending:
        own, *others = routers = [ending.enter_context(Upstream()) for _ in range(4)]
        placed = (f"127.0.0.1:{each.port}@{'a' if each is own else 'b'}" for each in routers)
        environment = {
            "MOA_ZONE": "a",
            "MOA_ROUTER_ADDRESSES": ",".join(placed),
            "MOA_EDGE_ADDRESSES": "127.0.0.1:9@a,127.0.0.1:10@b",
            "MOA_EDGE_LOOK_S": "0.5",
        }
        stack = ending.enter_context(Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment))
        session = ending.enter_context(requests.Session())

        def ask() -> None:
            assert session.post(stack.url + "/generate/text", json={}, timeout=20).status_code == 200

        def shares(times: int, *well: Upstream) -> list[int]:
            """Return how many requests each router gets of so many, once the edge knows which of them are well."""
            for each in routers:
                each.held.recording = WELL if each in well else AWAY
            pauses = waiting.pauses()
            while healthy(stack) != {each.port for each in well}:
                ask()
                time.sleep(next(pauses))
            before = [each.held.calls for each in routers]
            for _ in range(times):
                ask()
            return [each.held.calls - count for each, count in zip(routers, before, strict=True)]

        # Half of the edges are here and half of the routers.
        assert shares(20, own, others[0]) == [20, 0, 0, 0]
        # A quarter of the routers: half of what comes here. By chance: 120 draws are further than 35 from it once in
        # 10**10 runs.
        here, *there = shares(120, *routers)
        assert 25 <= here <= 95
        assert min(there) > 0
        # Three of four are gone, whom Envoy by itself would ask again.
        assert shares(20, others[0]) == [0, 20, 0, 0]


def test_without_a_zone_of_its_own_an_edge_asks_all_alike() -> None:
    """Where its node tells none, what Envoy is told differs by where routers are alone, by which nothing goes then."""
    placed = {"router_addresses": "127.0.0.1:1@a,127.0.0.1:2@b", "edge_addresses": "127.0.0.1:9@a"}
    knowing, unknowing = (
        next(iter(clusters.of_services(EdgeSettings.model_validate({**placed, "zone": zone})))) for zone in ("a", "")
    )
    assert knowing.pop("common_lb_config")
    assert knowing == unknowing
    assert [each["locality"]["zone"] for each in unknowing["load_assignment"]["endpoints"]] == ["a", "b"]
