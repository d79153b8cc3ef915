"""A gateway with a played cloud provider and a painter, and a person at its console in headless Chromium."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import msgspec
import requests

from deploy.build.console import SOURCES
from deploy.local.ports import Ports
from deploy.local.stack import REPOSITORY, Stack
from services.common.pages import FOLDER
from tests import stacks
from tests.e2e import browser
from tests.emulators.openai import OpenAIEmulator
from tests.emulators.painter import painting
from tests.emulators.script import Script

PASSWORD: Final = "correct horse battery"
PAGES: Final = ("", "chat", "images", "models", "keys", "usage", "tasks", "account")
ADMIN_PAGES: Final = (
    "accounts",
    "teams",
    "budgets",
    "invitations",
    "providers",
    "routes",
    "catalogue",
    "inference",
    "requests",
    "audit",
)
MARKUP: Final = (
    "<img src=x onerror=\"window.broken='image'\"><script>window.broken='script'</script>"
    "<svg onload=\"window.broken='svg'\"></svg> [link](javascript:window.broken='link')"
)
"""What would run, were it ever taken for markup."""


_WORD: Final = re.compile(r'(\w+): ("(?:[^"\\]|\\.)*")')


_HOLD: Final = """(() => {
  const real = window.fetch, gate = new Promise(open => window.release = open);
  window.answered = [];
  window.fetch = async (path, init) => {
    const method = init?.method ?? 'GET', held = %(which)s;
    if (held && !%(answer)s) await gate;
    const answer = await real(path, init);
    if (held) await gate;
    window.answered.push(`${method} ${path}`);
    return answer;
  };
})()"""


@dataclass(frozen=True)
class House:
    """The gateway, and its provider."""

    stack: Stack
    port: int
    """Where the provider listens, while a test plays it."""
    gates: Path
    """The folder of gates of the painter."""

    def claimed(self, email: str) -> None:
        """Set the first administrator's address, and `PASSWORD`."""
        token = self.stack.first_login_url().partition("#setup=")[2]
        body = {"setup_token": token, "email": email, "password": PASSWORD}
        requests.post(self.stack.url + "/account/setup", json=body, timeout=20).raise_for_status()

    def administrator(self) -> str:
        """Make an administrator whose password is `PASSWORD`; return the email."""
        email = f"{uuid4().hex}@example.com"
        body = {"email": email, "password": PASSWORD, "role": "ROLE_ADMIN"}
        headers = {"X-API-Key": self.stack.api_key}
        requests.post(f"{self.stack.url}/admin/accounts", json=body, headers=headers, timeout=20).raise_for_status()
        return email

    def grant(self, account_id: str) -> None:
        """Let an account use every model."""
        headers = {"X-API-Key": self.stack.api_key}
        url = f"{self.stack.url}/admin/accounts/{account_id}/rules"
        rule = {"rule": {"provider": "*", "model": "*"}}
        requests.post(url, json=rule, headers=headers, timeout=20).raise_for_status()

    @asynccontextmanager
    async def played(self, *scripts: Script) -> AsyncIterator[OpenAIEmulator]:
        """Play the provider, in the test's own loop."""
        upstream = OpenAIEmulator()
        upstream.scripts.extend(scripts)
        await upstream.start(self.port)
        try:
            yield upstream
        finally:
            await upstream.stop()


@contextmanager
def house(
    root: Path, *, environment: dict[str, str] | None = None, engine: bool = False, spare: bool = False
) -> Iterator[House]:
    """Yield a running gateway whose sign-ups and log-ins are its own: they are counted by address.

    With `engine`, the models that ship run in an inference service; else a painter answers for those of images. With
    `spare`, there is a second provider, which has no key yet, and a virtual model over both.
    """
    shipped = msgspec.yaml.decode((REPOSITORY / "gateway" / "catalogue.yaml").read_bytes())
    port = Ports().any()
    cloud = {
        "id": "cloud",
        "adapter": "openai",
        "makes": "text",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "credentials": {"api_key": "CLOUD_KEY"},
    }
    model = {"provider": "cloud", "context_tokens": 128_000, "capabilities": ["tools", "vision", "json_schema"]}
    local = [
        row for row in shipped["models"] if row["id"] == "moa-tiny-image" or (engine and row["id"] == "moa-tiny-chat")
    ]
    for row in local:
        _rooted(row["load"])
    models = [
        {**model, "id": "gpt-4o-mini", "prices": {"input": 0.15, "output": 0.6}},
        {**model, "id": "gpt-4o", "prices": {"input": 2.5, "output": 10.0}},
        *local,
    ]
    used = {row["provider"] for row in local}
    providers = [cloud, *(row for row in shipped["providers"] if row["id"] in used)]
    rows: dict[str, Any] = {"providers": providers, "models": models}
    if spare:
        providers.append({**cloud, "id": "spare", "credentials": {"api_key": "SPARE_KEY"}})
        models.append({**model, "provider": "spare", "id": "o4-mini"})
        targets = [{"model": "spare/o4-mini", "weight": 3}, {"model": "cloud/gpt-4o", "weight": 1}]
        rows["routes"] = [{"id": "best", "strategy": "weighted", "targets": targets}]
    catalogue = root / "catalogue.yaml"
    catalogue.write_bytes(msgspec.yaml.encode(rows))
    state, gates = root / "state", root / "gates"
    gates.mkdir()
    stacks.begun(state)
    given = {"MOA_CATALOGUE": str(catalogue), "CLOUD_KEY": "sk-good", **(environment or {})}
    names = ("auth", "text", "router", "tasks", "edge", *(("inference", "desk") if engine else ()))
    with ExitStack() as held:
        if not engine:
            given["MOA_INFERENCE_ADDRESS"] = held.enter_context(painting(stacks.token_of(state), gates))
        yield House(held.enter_context(stacks.gateway(state, environment=given, processes=names)), port, gates)


def _rooted(load: dict[str, Any]) -> None:
    """Make the paths of a model's files absolute: the catalogue lies elsewhere."""
    load["source"] = str((REPOSITORY / "gateway" / load["source"]).resolve())


class Console:
    """A person at the console."""

    def __init__(self, page: browser.Page, url: str, language: str = "en") -> None:
        self.page = page
        self.url = url
        self.words = words(language)

    async def sees(self, text: str, within: str = "body") -> None:
        """Wait until a text is to be seen."""
        await self.page.until(f"document.querySelector({json.dumps(within)})?.innerText.includes({json.dumps(text)})")

    async def there(self, selector: str) -> Any:
        """Wait for an element; return its text."""
        return await self.page.until(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    async def visit(self, path: str) -> None:
        """Go to a page of the console, and wait until it has what it asked for."""
        # The page hears of it later than the script ends: until then it is the one before, complete.
        await self.page.run(
            f"(to => new Promise(done => {{ if (new URL(to, location).hash === location.hash) return done();"
            f" addEventListener('hashchange', () => done(), {{ once: true }}); location.hash = to; }}))('#/{path}')"
        )
        await self.page.until("document.querySelector('main h1') && !document.querySelector('[data-loading]')")

    async def button(self, text: str, *, within: str = "main") -> None:
        """Click the button of a text, once it is there."""
        shown = f"[...document.querySelectorAll({json.dumps(within + ' button')})]"
        found = f"{shown}.find(one => one.textContent.trim() === {json.dumps(text)} && !one.disabled)"
        await self.page.until(f"(one => one !== undefined && (one.click(), true))({found})")

    async def tap(self, selector: str, text: str = "") -> None:
        """Click by the mouse what a selector finds, with a text where one is given; nothing may lie over it."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})].filter(one => !one.disabled"
        found += f" && one.textContent.trim() === {json.dumps(text)})[0]" if text else ")[0]"
        reached = (
            "(one => { if (!one) return null; one.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const box = one.getBoundingClientRect(), x = box.left + box.width / 2, y = box.top + box.height / 2;"
            " return one.contains(document.elementFromPoint(x, y)) ? [x, y] : null; })(" + found + ")"
        )
        x, y = await self.page.until(reached)
        await self.page.mouse((x, y))

    async def set(self, label: str, value: str, *, within: str = "dialog[open]") -> None:
        """Write into the field of a label, or of a selector that begins with a dot or #, as a person does."""
        if label.startswith((".", "#")):
            found = f"document.querySelector({json.dumps(label)})"
        else:
            shown = f"[...document.querySelectorAll({json.dumps(within + ' label')})]"
            found = f"{shown}.find(one => one.textContent.trim() === {json.dumps(label)})?.control"
        await self.page.until(
            f"(field => {{ if (!field) return false; field.value = {json.dumps(value)};"
            f" for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, {{bubbles: true}}));"
            f" return true; }})({found})"
        )

    async def fetched(self, path: str) -> Any:
        """Return what a path answers the page with."""
        return await self.page.run(
            f"fetch('{path}', {{headers: {{'moa-console': '1'}}}}).then(answer => answer.json())"
        )

    async def speak(self, language: str) -> None:
        """Have the page in a language."""
        if await self.page.run("document.documentElement.lang") != language:
            await self.page.click("#language")
        await self.page.until(f"document.documentElement.lang === '{language}'")

    async def sign_up(self, house: House | None = None) -> str:
        """Sign up; return the email. With a house, every model may be used."""
        email = f"{uuid4().hex}@example.com"
        await self.page.click("#to-signup")
        await self._enter("#signup", {"name": MARKUP[:90], "email": email, "password": PASSWORD})
        if house is not None:
            house.grant((await self.fetched("/account/me"))["account"]["account_id"])
            while not any(model["owned_by"] == "cloud" for model in (await self.fetched("/v1/models"))["data"]):
                await asyncio.sleep(0.1)
            await self.page.go(f"{self.url}/?again")
            await self.page.until("document.querySelector('#logout') !== null")
        return email

    async def log_in(self, email: str) -> None:
        """Log in."""
        await self._enter("#login", {"email": email, "password": PASSWORD})

    async def _enter(self, form: str, values: dict[str, Any]) -> None:
        """Send a form that leads in; where too many tries came from here lately, again when the page says."""
        page, told = self.page, "(document.querySelector('#door-error')?.innerText ?? '')"
        await page.until(f"document.querySelector({json.dumps(form)}) !== null")
        while True:
            await page.fill(form, values)
            await page.until(f"document.querySelector('#logout') !== null || {told}")
            if not (refused := await page.run(told)):
                return
            assert "too many tries from this address" in refused
            await asyncio.sleep(int(re.findall(r"\d+", refused)[-1]))

    @asynccontextmanager
    async def held(self, which: str, *, answer: bool = False, anew: bool = False) -> AsyncIterator[None]:
        """Hold the requests of which a script of `method` and `path` says so, or their answers, until the block's end.

        With `anew`, from the begin of the page that is loaded within the block; else from now on.
        """
        script = _HOLD % {"which": which, "answer": json.dumps(answer)}
        if anew:
            added = await self.page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
            yield
            await self.page.call("Page.removeScriptToEvaluateOnNewDocument", **added)
        else:
            await self.page.run(script)
            yield
        # What waited has been drawn once another turn of the page's loop has come.
        await self.page.run("(window.release(), new Promise(done => setTimeout(done)))")

    async def ask(self, text: str) -> None:
        """Send a message in the chat."""
        await self.page.until(
            "document.querySelector('#draft') !== null && document.querySelector('#model option') !== null"
        )
        await self.page.run("document.querySelector('#draft').focus()")
        await self.page.write(text)
        await self.page.press("Enter")

    async def unharmed(self) -> None:
        """Fail where anything ran that was sent as text, or the content policy had to stop something."""
        assert await self.page.run("window.broken ?? null") is None
        assert self.page.dialogs == []
        assert self.page.errors == []


@asynccontextmanager
async def at(
    house: House, *, path: str = "", link: str = "", width: int = 1280, language: str = "en", host: str = ""
) -> AsyncIterator[Console]:
    """Open the console in a browser of its own; with `host`, at that name, which stands for this machine."""
    flags = (f"--host-resolver-rules=MAP {host} 127.0.0.1",) if host else ()
    url = house.stack.url.replace("127.0.0.1", host) if host else house.stack.url
    async with browser.browser("about:blank", *flags) as page:
        await page.size(width, 900)
        await page.call("Page.addScriptToEvaluateOnNewDocument", source=f"localStorage.language ??= '{language}'")
        await page.go(link or f"{url}/{path}")
        await page.until("document.querySelector('main form, main h1') !== null")
        yield Console(page, url, language)


@cache
def words(language: str) -> dict[str, str]:
    """Return the words of the console in a language, by name."""
    text = (SOURCES / "src" / "lib" / f"words.{language}.ts").read_text()
    return {name: json.loads(word) for name, word in _WORD.findall(text)}


def first_load() -> dict[str, Path]:
    """Return the files that a browser reads before it shows the console."""
    text = (FOLDER / "index.html").read_text()
    names = [part.split('"')[0] for part in text.split('src="/')[1:] + text.split('href="/')[1:]]
    return {"index.html": FOLDER / "index.html", **{name: FOLDER / name for name in names}}


def filled(word: str, **values: str) -> str:
    """Return a word with what it leaves open."""
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], word)


def time_of(text: str) -> datetime:
    """Return the time that an answer names."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
