"""Several router workers behind one edge."""

from __future__ import annotations

import re
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from tests import forking, waiting
from tests.edge.upstream import Upstream, mortal

LARGE_BYTES = 5_000_000
"""More than any buffer on the way holds, so that a request is sent anew only where it was kept."""


def healthy(stack: Stack) -> int:
    """Return how many routers the edge takes for well."""
    told = requests.get(stack.internal_url + "/metrics/edge", timeout=20).text
    found = re.search(r'^envoy_cluster_membership_healthy\{envoy_cluster_name="router"\} (\d+)$', told, re.MULTILINE)
    assert found
    return int(found[1])


def test_workers_share_and_stand_in(tmp_path: Path) -> None:
    """Workers take requests in turn over one connection; when one is gone the other answers all, and none fails."""
    with Upstream() as staying:
        with Upstream() as leaving:
            addresses = f"127.0.0.1:{staying.port},127.0.0.1:{leaving.port}"
            stack = Stack(
                tmp_path, processes=["edge"], start=forking.spawn, environment={"MOA_ROUTER_ADDRESSES": addresses}
            ).start()
            with requests.Session() as session:
                for _ in range(40):
                    assert session.post(stack.url + "/generate/text", json={}, timeout=20).status_code == 200
            assert min(staying.held.calls, leaving.held.calls) >= 10
            assert healthy(stack) == 2
        try:
            # A request on a connection whose end the edge has not read yet fails, and must: it may have been served.
            until = time.monotonic() + 90
            while healthy(stack) == 2:
                assert time.monotonic() < until, "the edge does not let go of the worker that is gone"
                # Whoever is left out for a request is left out at once; it is looked at by itself each ten seconds.
                requests.post(stack.url + "/generate/text", json={}, timeout=20)
            with requests.Session() as session:
                before = staying.held.calls
                for _ in range(20):
                    assert session.post(stack.url + "/generate/text", json={}, timeout=20).status_code == 200
            assert staying.held.calls == before + 20
        finally:
            stack.stop()


def retries(stack: Stack) -> int:
    """Return how often the edge has sent requests for the router again."""
    told = requests.get(stack.internal_url + "/metrics/edge", timeout=20).text
    found = re.search(r'^envoy_cluster_upstream_rq_retry\{envoy_cluster_name="router"\} (\d+)$', told, re.MULTILINE)
    return int(found[1]) if found else 0


def test_a_request_waits_for_a_router_that_is_started_again(tmp_path: Path) -> None:
    """The only router is killed: requests that come then, small, large and more than a few at once, are answered by its
    successor."""
    port = Ports().any()
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{port}", "MOA_EDGE_RETRIES": "200"}
    answers: list[Any] = []

    def ask(size: int) -> None:
        body = {"filler": "x" * size}
        answers.append(requests.post(stack.url + "/generate/text", json=body, headers=key, timeout=110))

    key = {"X-API-Key": "moa-known"}
    with ExitStack() as ending:
        process = ending.enter_context(mortal(port))
        stack = ending.enter_context(Stack(tmp_path, processes=["edge"], start=forking.spawn, environment=environment))
        process.kill()
        process.wait()
        threads = [threading.Thread(target=ask, args=(size,)) for size in (0,) * 10 + (LARGE_BYTES,)]
        for thread in threads:
            thread.start()
        pauses = waiting.pauses()
        while retries(stack) < 3 * len(threads):
            time.sleep(next(pauses))
        with mortal(port):
            for thread in threads:
                thread.join()
    assert [answer.status_code for answer in answers] == [200] * len(threads), [a.text[:200] for a in answers]
    assert max(answer.json()["size"] for answer in answers) > LARGE_BYTES
