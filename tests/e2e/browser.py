"""A headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--window-size=1100,1400",
)


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.errors: list[str] = []
        """Exceptions and console errors of the page."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a DevTools method."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async for message in self._socket:
            got = json.loads(message.data)
            if got.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(got["params"]))
            if got.get("id") == number:
                assert "error" not in got, got
                found: dict[str, Any] = got["result"]
                return found
        raise AssertionError("the browser is gone")

    async def run(self, script: str) -> Any:
        """Evaluate an expression, awaiting it; give its value."""
        got = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    async def until(self, script: str, *, within_s: float = 90.0) -> Any:
        """Wait for an expression to be true; give its value."""
        async with asyncio.timeout(within_s):
            while not (value := await self.run(script)):
                await asyncio.sleep(0.05)
        return value

    async def screenshot(self, path: Path) -> None:
        """Write what is to be seen as a PNG."""
        got = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(got["data"]))


@asynccontextmanager
async def browser(url: str) -> AsyncIterator[Page]:
    """Open a page in a browser of its own."""
    assert CHROMIUM
    with tempfile.TemporaryDirectory(prefix="moa-browser-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM,
            *_FLAGS,
            f"--user-data-dir={profile}",
            url,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port_file = Path(profile) / "DevToolsActivePort"
            async with asyncio.timeout(30):
                while not (port_file.exists() and port_file.read_text().strip()):
                    await asyncio.sleep(0.05)
            port = port_file.read_text().split()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    tabs = json.loads(await answer.text())
                target = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(target, max_msg_size=2**26) as socket:
                    page = Page(socket)
                    await page.call("Runtime.enable")
                    await page.call("Page.enable")
                    yield page
        finally:
            process.kill()
            await process.wait()
