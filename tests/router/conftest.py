"""The router's handlers behind the real edge."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import structlog

from deploy.local.ports import Ports
from deploy.local.stack import Stack
from services.common.rpc import replicas
from services.router.adapters import dependencies, listed, model_states, operator_store, provider_states
from tests import forking
from tests.router.rig import Played, Rig, picture


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = picture(30, 20) if self.path == "/picture.png" else b"<html>"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep what the tests' own servers log out of a test's output; other tests look at what is logged."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for whoever answers, however busy the machine: the seconds of the router's own questions are few."""
    for asking in (dependencies, listed, model_states, operator_store, provider_states, replicas):
        monkeypatch.setattr(asking, "WAIT_S", 60.0)


@pytest.fixture(scope="package")
def site() -> Iterator[str]:
    """Return the URL of a server on loopback, which the handlers may fetch from; `/picture.png` is one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pictures)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="package")
def edge_port() -> int:
    """Return the port of the edge in front of the router, which its links name."""
    return Ports().any()


@pytest.fixture(scope="package")
def rig(tmp_path_factory: pytest.TempPathFactory, site: str, edge_port: int) -> Iterator[Rig]:
    """Return the running router."""
    folder, url = tmp_path_factory.mktemp("rig") / "objects", f"http://127.0.0.1:{edge_port}"
    with Rig(folder, public_url=url, allow=site.removeprefix("http://")) as running:
        yield running


@pytest.fixture(scope="package")
def url(rig: Rig, tmp_path_factory: pytest.TempPathFactory, edge_port: int) -> Iterator[str]:
    """Return the public URL of an edge in front of it."""
    environment = {"MOA_ROUTER_ADDRESSES": f"127.0.0.1:{rig.port}"}
    folder = tmp_path_factory.mktemp("edge")
    with Stack(folder, port=edge_port, processes=["edge"], start=forking.spawn, environment=environment) as stack:
        yield stack.url


@pytest.fixture
def played(rig: Rig) -> Played:
    """Return what is played behind the handlers, with no memory of earlier tests."""
    rig.played.reset()
    return rig.played
