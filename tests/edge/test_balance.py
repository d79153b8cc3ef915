"""Several router workers behind one edge."""

from __future__ import annotations

from pathlib import Path

import requests

from deploy.local.stack import Stack
from tests.edge.upstream import Upstream


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
        try:
            with requests.Session() as session:
                before = staying.held.calls
                for _ in range(20):
                    assert session.post(stack.url + "/generate/text", json={}, timeout=20).status_code == 200
            assert staying.held.calls == before + 20
        finally:
            stack.stop()
