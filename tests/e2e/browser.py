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

_SERVER_ERROR = -32000
"""What a script is answered whose page is gone before its end (and some mistakes of a caller are)."""


class DevToolsError(AssertionError):
    """A method of the protocol was refused."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: aiohttp.ClientSession, port: str) -> None:
        self._socket = socket
        self._session = session
        self._port = port
        self._ids = itertools.count(1)
        self.errors: list[str] = []
        """Exceptions of the page, and what its content policy stopped."""
        self.requested: list[str] = []
        """The addresses that were asked, while `Network` is enabled."""
        self.dialogs: list[str] = []
        """What a script of the page put into a box of the browser's own."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a DevTools method. Raises DevToolsError."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async for message in self._socket:
            got = json.loads(message.data)
            self._noted(got)
            if got.get("id") == number:
                if "error" in got:
                    raise DevToolsError(got["error"]["code"], got["error"]["message"])
                found: dict[str, Any] = got["result"]
                return found
        raise AssertionError("the browser is gone")

    def _noted(self, got: dict[str, Any]) -> None:
        params = got.get("params", {})
        match got.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params))
            case "Log.entryAdded" if params["entry"]["source"] == "security":
                self.errors.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])
            case "Page.javascriptDialogOpening":
                self.dialogs.append(params["message"])

    async def run(self, script: str) -> Any:
        """Evaluate an expression, awaiting it; give its value."""
        got = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    async def until(self, script: str, *, within_s: float = 90.0) -> Any:
        """Wait for an expression to be true; give its value."""
        try:
            async with asyncio.timeout(within_s):
                while not (value := await self._seen(script)):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never true: {script}\n{self.errors}\n{await self._shown()}") from None
        return value

    async def _shown(self) -> Any:
        """Return what is to be read on the page."""
        return await self._seen("location.href + '\\n' + document.body?.innerText")

    async def _seen(self, script: str) -> Any:
        """Return an expression's value; None where the page goes to another address meanwhile."""
        try:
            return await self.run(script)
        except DevToolsError as error:
            if error.code != _SERVER_ERROR:
                raise
            return None

    async def go(self, url: str) -> None:
        """Load an address."""
        await self.call("Page.navigate", url=url)

    @asynccontextmanager
    async def tab(self, url: str) -> AsyncIterator[Page]:
        """Open an address in another tab of the same browser."""
        async with self._session.put(f"http://127.0.0.1:{self._port}/json/new?about:blank") as answer:
            target = json.loads(await answer.text())["webSocketDebuggerUrl"]
        async with attached(target, self._session, self._port) as page:
            await page.go(url)
            yield page

    async def size(self, width: int, height: int, *, scale: float = 1) -> None:
        """Have the window of a phone, a desk, …"""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    async def prefer(self, scheme: str) -> None:
        """Have a light or a dark theme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def press(self, key: str, *, modifiers: int = 0) -> None:
        """Press a key, as a person does: `Tab`, `Enter`, a letter."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}
        text = {"Enter": "\r", "Tab": "", "Escape": ""}.get(key, key if len(key) == 1 else "")
        sent = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": codes.get(key, 0)}
        await self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **sent)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **sent)

    async def write(self, text: str) -> None:
        """Write into the field that has the focus."""
        await self.call("Input.insertText", text=text)

    async def paste(self) -> None:
        """Put what was copied into the field that has the focus."""
        await self.call("Input.dispatchKeyEvent", type="rawKeyDown", key="v", modifiers=2, commands=["paste"])
        await self.call("Input.dispatchKeyEvent", type="keyUp", key="v", modifiers=2)

    async def save_into(self, folder: Path) -> None:
        """Have files saved in a folder."""
        await self.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    async def fill(self, form: str, values: dict[str, str | bool]) -> None:
        """Fill the named fields of a form as a person does, and send it."""
        script = """(() => {
          const form = document.querySelector(%s);
          for (const [name, value] of Object.entries(%s)) {
            const field = form.elements[name];
            if (typeof value === 'boolean') { if (field.checked !== value) field.click(); continue; }
            field.value = value;
            for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, { bubbles: true }));
          }
          form.requestSubmit();
        })()"""
        await self.run(script % (json.dumps(form), json.dumps(values)))

    async def click(self, selector: str) -> None:
        """Click what a selector finds, once it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        # In one script: between two, the page may draw itself anew.
        await self.until(f"(one => one !== null && !one.disabled && (one.click(), true))({found})")

    async def mouse(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place, draw it over the others, and release it."""
        for kind, at in [
            ("mousePressed", places[0]),
            *(("mouseMoved", at) for at in places),
            ("mouseReleased", places[-1]),
        ]:
            await self.call(
                "Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", buttons=1, clickCount=1
            )

    async def box(self, selector: str) -> tuple[float, float, float, float]:
        """Scroll an element into view; return its left, top, width and height there."""
        found = f"document.querySelector({json.dumps(selector)})"
        await self.until(f"{found} !== null")
        left, top, width, height = await self.run(
            f"(one => {{ one.scrollIntoView({{block: 'center', behavior: 'instant'}});"
            f" const box = one.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; }})({found})"
        )
        return left, top, width, height

    async def choose(self, selector: str, *paths: Path) -> None:
        """Choose files in a field for files, as the browser's own dialog does."""
        await self.until(f"document.querySelector({json.dumps(selector)}) !== null")
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        node = (await self.call("DOM.querySelector", nodeId=root, selector=selector))["nodeId"]
        await self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    async def screenshot(self, path: Path) -> None:
        """Write what is to be seen as a PNG."""
        got = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(got["data"]))


@asynccontextmanager
async def attached(target: str, session: aiohttp.ClientSession, port: str) -> AsyncIterator[Page]:
    """Attach to a tab."""
    async with session.ws_connect(target, max_msg_size=2**26) as socket:
        page = Page(socket, session, port)
        for domain in ("Runtime", "Page", "Log"):
            await page.call(f"{domain}.enable")
        yield page


async def _first_tab(session: aiohttp.ClientSession, port: str) -> str | None:
    async with session.get(f"http://127.0.0.1:{port}/json") as answer:
        tabs = json.loads(await answer.text())
    return next((tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"), None)


@asynccontextmanager
async def browser(url: str, *flags: str) -> AsyncIterator[Page]:
    """Open a page in a browser of its own."""
    assert CHROMIUM, (
        "Chromium is missing: apt-get install chromium (`python3 -m deploy.build.tools` tells of all tools)"
    )
    with tempfile.TemporaryDirectory(prefix="moa-browser-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM,
            *_FLAGS,
            *flags,
            f"--user-data-dir={profile}",
            url,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port_file = Path(profile) / "DevToolsActivePort"
            async with asyncio.timeout(90):
                while not (port_file.exists() and port_file.read_text().strip()):
                    await asyncio.sleep(0.05)
            port = port_file.read_text().split()[0]
            async with aiohttp.ClientSession() as session:
                async with asyncio.timeout(90):
                    # The browser answers before it has its first tab.
                    while (target := await _first_tab(session, port)) is None:
                        await asyncio.sleep(0.05)
                async with attached(target, session, port) as page:
                    yield page
        finally:
            process.kill()
            await process.wait()
