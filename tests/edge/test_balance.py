"""Several router workers behind one edge."""

from __future__ import annotations

import re
import time
from pathlib import Path

import requests

from deploy.local.stack import Stack
from tests.edge.upstream import Upstream


def connections(stack: Stack) -> int:
    """Give how many connections to routers the edge has."""
    told = requests.get(stack.internal_url + "/metrics/edge", timeout=20).text
    found = re.search(r'^envoy_cluster_upstream_cx_active\{envoy_cluster_name="router"\} (\d+)$', told, re.MULTILINE)
    assert found
    return int(found[1])


def test_workers_share_and_stand_in(tmp_path: Path) -> None:
    """Workers take requests in turn over one connection; when one is gone the other answers all, and none fails."""
    with Upstream() as staying:
        with Upstream() as leaving:
            addresses = f"127.0.0.1:{staying.port},127.0.0.1:{leaving.port}"
            stack = Stack(tmp_path, processes=["edge"], environment={"MOA_ROUTER_ADDRESSES": addresses}).start()
            with requests.Session() as session:
                for _ in range(40):
                    assert session.post(stack.url + "/generate/text", json={}, timeout=20).status_code == 200
            assert min(staying.held.calls, leaving.held.calls) >= 10
            both = connections(stack)
        try:
            # A request on a connection whose end the edge has not read yet fails, and must: it may have been served.
            until = time.monotonic() + 30
            while connections(stack) > both // 2:
                assert time.monotonic() < until, "the edge does not let go of the worker that is gone"
                time.sleep(0.02)
            with requests.Session() as session:
                before = staying.held.calls
                for _ in range(20):
                    assert session.post(stack.url + "/generate/text", json={}, timeout=20).status_code == 200
            assert staying.held.calls == before + 20
        finally:
            stack.stop()
