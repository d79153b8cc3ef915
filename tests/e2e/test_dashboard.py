"""The dashboard at `/`, used by a person in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from tests import stacks
from tests.e2e import browser
from tests.e2e.conftest import Gateway
from tests.e2e.test_native import DRAW

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")

FILL = """(() => {
  const form = document.getElementById('%s');
  for (const [name, value] of Object.entries(%s)) form.elements[name].value = value;
  form.requestSubmit();
})()"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Return a gateway of its own: sign-ups and log-ins are counted by address, and all tests have the same."""
    root = tmp_path_factory.mktemp("dashboard")
    stacks.begun(root)
    with stacks.painted(root) as stack:
        yield Gateway(stack)


async def test_a_person_signs_up_makes_a_key_and_revokes_it(gateway: Gateway, tmp_path: Path) -> None:
    """Sign up, make a key that works, see limits, usage and webhook secret, revoke it, switch languages, come back."""
    email = f"{uuid4().hex}@example.com"
    async with browser.browser(gateway.url + "/") as page:
        await page.until("document.querySelector('#outside:not([hidden])') !== null")
        await page.run(FILL % ("signup", f"{{name: '모아', email: '{email}', password: 'correct horse battery'}}"))
        await page.until("!document.getElementById('inside').hidden && document.querySelectorAll('meter').length === 2")
        await page.run("document.querySelector('#new-key [name=priority]').checked = true")
        await page.run("document.querySelector('#new-key [name=manages]').checked = true")
        await page.run(FILL % ("new-key", "{name: '<b>laptop</b>'}"))
        key = await page.until("document.getElementById('secret-value').textContent")
        answer = requests.post(gateway.url + "/create/image", json=DRAW, headers={"X-API-Key": key}, timeout=60)
        assert answer.status_code == 200

        # A name is text, whatever it looks like.
        assert await page.run("document.querySelector('#keys td').textContent") == "<b>laptop</b>"
        assert await page.run("document.querySelectorAll('#keys b').length") == 0

        await page.run("document.getElementById('secret-done').click()")
        assert await page.run("document.getElementById('secret-value').textContent") == ""
        assert key not in await page.run("document.documentElement.outerHTML")

        await page.run("document.getElementById('webhook-show').click()")
        shown = await page.until("document.getElementById('webhook-secret').textContent")
        found = requests.get(gateway.url + "/account/webhook-secret", headers={"X-API-Key": key}, timeout=20)
        assert shown == found.json()["key"]

        for language, title, first, state, priority in (
            ("ko", "API 키", "토큰", "사용 중, 낮음, 계정 관리", "보통"),
            ("en", "API keys", "Tokens", "active, low, manages the account", "normal"),
        ):
            if await page.run("document.documentElement.lang") != language:
                await page.run("document.getElementById('language').click()")
            await page.until(f"document.documentElement.lang === '{language}'")
            assert await page.run("document.getElementById('keys-title').textContent") == title
            await page.until(f"document.querySelector('#limits dt').textContent === '{first}'")
            await page.until(f"document.querySelector('#keys td:nth-child(5)').textContent === '{state}'")
            assert await page.run("document.querySelector('#limits dd:last-child').textContent") == priority
            assert await page.run("document.getElementById('outside').offsetHeight") == 0
            await page.screenshot(tmp_path / f"dashboard-{language}.png")

        await page.run("window.confirm = () => true")
        await page.run("document.querySelector('#keys tr td:last-child button:last-child').click()")
        await page.until("document.querySelectorAll('#keys tr td:last-child button').length === 0")
        await page.run("document.getElementById('logout').click()")
        await page.until("!document.getElementById('outside').hidden")
        await page.run(FILL % ("login", f"{{email: '{email}', password: 'wrong horse battery'}}"))
        await page.until("document.getElementById('error').textContent")
        await page.run(FILL % ("login", f"{{email: '{email}', password: 'correct horse battery'}}"))
        await page.until("!document.getElementById('inside').hidden")
        assert page.errors == []


async def test_the_first_administrator_comes_by_the_link(gateway: Gateway) -> None:
    """The link asks for address and password, leaves the address bar, logs in, and is told to be of no use again."""
    link = gateway.stack.first_login_url()
    email = f"{uuid4().hex}@example.com"
    async with browser.browser(link) as page:
        await page.until("document.querySelector('#setup-section:not([hidden])') !== null")
        assert await page.run("document.getElementById('outside').hidden")
        assert "setup" not in await page.run("location.href")
        await page.run(FILL % ("setup", f"{{email: '{email}', password: 'correct horse battery'}}"))
        await page.until("!document.getElementById('inside').hidden && document.getElementById('who').textContent")
        assert email in await page.run("document.getElementById('who').textContent")
        await page.run("document.getElementById('logout').click()")
        await page.until("!document.getElementById('outside').hidden")
        assert await page.run("document.getElementById('setup-section').hidden")

        await page.run(f"location.hash = '{link.partition('#')[2]}'")
        await page.until("!document.getElementById('setup-section').hidden")
        await page.run(FILL % ("setup", "{email: 'late@example.com', password: 'correct horse battery'}"))
        await page.until("document.getElementById('error').textContent && !document.getElementById('outside').hidden")
        assert page.errors == []
    assert gateway.stack.first_login_url() == ""


async def test_every_control_has_a_name(gateway: Gateway) -> None:
    """What assistive technology reads: each input has a label, each button a text, the page a language."""
    async with browser.browser(gateway.url + "/") as page:
        await page.until("document.querySelector('#outside:not([hidden])') !== null")
        unnamed = await page.run(
            "[...document.querySelectorAll('input')].filter(i => !i.labels.length || !i.labels[0].textContent.trim())"
            ".concat([...document.querySelectorAll('button')].filter(b => !b.textContent.trim())).length"
        )
        assert unnamed == 0
        assert await page.run("document.documentElement.lang") in ("en", "ko")
