"""The documented upload page, in a browser, from an origin of its own."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e import browser
from tests.e2e.conftest import Gateway
from tests.e2e.test_samples import SAMPLES, SWAPS

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture
def page_url(gateway: Gateway, tmp_path: Path) -> Iterator[str]:
    """Serve the page with host, key and names swapped."""
    text = (SAMPLES / "upload.html").read_text()
    for printed, ours in SWAPS.items():
        text = text.replace(printed, ours.format(url=gateway.url, key=gateway.key))
    (tmp_path / "upload.html").write_text(text)
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/upload.html"
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


async def test_a_chosen_file_is_edited(page_url: str, tmp_path: Path) -> None:
    """A person chooses a photograph, presses the button, and the page reads the edited picture across origins."""
    photo = tmp_path / "photo.jpg"
    Image.effect_noise((96, 80), 60).convert("RGB").save(photo)
    async with browser.browser(page_url) as page:
        await page.until("document.getElementById('imageInput') !== null")
        await page.run("console.log = (...said) => { window.said = said; }")
        document = await page.call("DOM.getDocument")
        found = await page.call("DOM.querySelector", nodeId=document["root"]["nodeId"], selector="#imageInput")
        await page.call("DOM.setFileInputFiles", nodeId=found["nodeId"], files=[str(photo)])
        await page.run("document.querySelector('button').click()")
        await page.until("window.said !== undefined")
        assert await page.run("window.said[0]") == "편집 결과:"
        assert await page.run("window.said[1].status") == "success"
        assert await page.run("window.said[1].images.length") == 1
        assert page.errors == []
