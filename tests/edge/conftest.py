"""The real Envoy, started once, in front of a router that does what a test asks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from deploy.local.stack import Stack
from tests.edge.upstream import Upstream


@pytest.fixture(scope="session")
def _running() -> Iterator[Upstream]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with Upstream() as running:
        yield running
    structlog.configure(**before)


@pytest.fixture
def upstream(_running: Upstream) -> Upstream:
    """The router behind the edge, with no memory of earlier tests."""
    _running.held.reset()
    return _running


@pytest.fixture(scope="session")
def edge(_running: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The edge alone, calling `upstream`."""
    root: Path = tmp_path_factory.mktemp("edge")
    address = f"127.0.0.1:{_running.port}"
    environment = {"MOA_ROUTER_ADDRESSES": address, "MOA_TASKS_ADDRESSES": address}
    with Stack(root, processes=["edge"], environment=environment) as stack:
        yield stack
