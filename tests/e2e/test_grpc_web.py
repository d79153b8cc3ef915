"""gRPC-Web from a page of another origin, in a real browser."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from moa.text.v1 import text_service_pb2
from tests.e2e import browser
from tests.e2e.conftest import Gateway
from tests.e2e.test_grpc import ask

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")

PAGE = Path(__file__).with_name("grpc_web.html").read_bytes()
PATH = "/moa.text.v1.TextService/GenerateText"


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Return the URL of the page, which the gateway does not serve."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


async def call(page: browser.Page, gateway: Gateway, key: str, model: str = "moa-tiny-chat") -> dict[str, Any]:
    message = base64.b64encode(ask("Hi", model).SerializeToString()).decode()
    arguments = ", ".join(json.dumps(each) for each in (gateway.url, PATH, key, message))
    got: dict[str, Any] = await page.run(f"run({arguments})")
    return got


async def test_text_streams_into_a_page(gateway: Gateway, origin: str) -> None:
    """Messages reach the page, `finished` last, and the trailers say that all went well. That none waits for the next
    one, `tests/edge/test_grpc.py` sees."""
    async with browser.browser(origin) as page:
        await page.until("typeof run === 'function'")
        got = await call(page, gateway, gateway.key)
        assert await page.run("document.getElementById('said').textContent") == f"{len(got['messages'])} messages"
        assert page.errors == []
    messages = [text_service_pb2.GenerateTextResponse.FromString(base64.b64decode(m)) for m in got["messages"]]
    kinds = [event.WhichOneof("event") for message in messages for event in message.events]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert kinds.count("text") > 2
    assert "grpc-status:0" in got["trailers"].replace(" ", "")


@pytest.mark.parametrize(("key", "model", "status"), [("moa-none", "moa-tiny-chat", 16), ("", "none-such", 5)])
async def test_failures_reach_a_page(gateway: Gateway, origin: str, key: str, model: str, status: int) -> None:
    """A page of another origin reads the status of a refused call and its words."""
    async with browser.browser(origin) as page:
        await page.until("typeof run === 'function'")
        got = await call(page, gateway, key or gateway.key, model)
    assert got["messages"] == []
    assert f"grpc-status:{status}" in got["trailers"].replace(" ", "")
    assert "grpc-message:" in got["trailers"]
