"""Three people's days at the console, on a phone in Korean and at a desk in English: `make browser` runs these."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import requests

from deploy.build.console import SOURCES
from tests.e2e import consoles
from tests.e2e.consoles import ADMIN_PAGES, MARKUP, PAGES, PASSWORD, Console, House
from tests.emulators.script import Script

pytestmark = pytest.mark.long

BOSS = "boss@example.com"
AXE = SOURCES / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("people")) as begun:
        token = begun.stack.first_login_url().partition("#setup=")[2]
        body = {"setup_token": token, "email": BOSS, "password": PASSWORD}
        requests.post(begun.stack.url + "/account/setup", json=body, timeout=20).raise_for_status()
        yield begun


@pytest.fixture(params=[("ko", 360), ("en", 1280)], ids=["phone", "desk"])
async def visitor(house: House, request: pytest.FixtureRequest) -> AsyncIterator[Console]:
    """Somebody who is not logged in."""
    language, width = request.param
    async with consoles.at(house, width=width, language=language) as console:
        yield console


async def words_of(console: Console) -> dict[str, str]:
    return consoles.words(await console.page.run("document.documentElement.lang"))


async def well(console: Console) -> None:
    """Fail where axe finds something, something is wider than the screen, or a text was run."""
    await console.page.run(AXE.read_text() + ";0")
    found = await console.page.run(
        "axe.run().then(result => result.violations.map(one => [one.id, one.nodes.map(node => node.html)]))"
    )
    assert found == []
    assert await console.page.run("document.documentElement.scrollWidth <= innerWidth")
    await console.unharmed()


async def test_a_caller(house: House, visitor: Console) -> None:
    """Sign up, ask, stop, ask again, make a picture and a key, read the bill, change the password's field, log out."""
    page, words = visitor.page, await words_of(visitor)
    held = Script(text=("First ", "half"), hold_at=1)
    async with house.played(held, Script(), Script()):
        await visitor.sign_up(house)
        await well(visitor)
        await visitor.visit("chat")
        await page.until("document.querySelector('#model option') !== null")
        await well(visitor)
        await visitor.ask("안녕")
        await visitor.sees("First", ".answer")
        await visitor.tap("#stop")
        await visitor.sees(words["stopped"], ".answer")
        await visitor.tap(".answer button", words["regenerate"])
        await visitor.there("[data-facts]")
        await visitor.sees("2 / 2", ".messages")
        await well(visitor)
        # Another page, and the page anew, show the same conversation again.
        await visitor.visit("models")
        await visitor.sees("gpt-4o-mini", "main")
        await visitor.visit("chat")
        await visitor.sees("Hello 안녕 🌍!", ".answer")
        await page.go(f"{visitor.url}/?anew#/chat")
        await visitor.sees("Hello 안녕 🌍!", ".answer")
        await visitor.ask("And?")
        await page.until("document.querySelectorAll('.answer').length === 2 && document.querySelector('#send')")

    await visitor.visit("images")
    await page.until("document.querySelector('#draw select option') !== null")
    await visitor.tap("#prompt")
    await page.write("빨간 원")
    await visitor.tap("#make")
    await page.until("document.querySelector('#gallery img')?.naturalWidth > 0")
    await visitor.tap("#gallery button")
    await well(visitor)
    await page.press("Escape")

    await visitor.visit("keys")
    await visitor.tap("#create-key")
    await page.until("document.activeElement?.name === 'name'")
    await page.write("노트북 <b>laptop</b>")
    await visitor.tap("#key-form summary", words["ownLimits"])
    await visitor.set(words["requests_per_minute"], "many", within="#key-form")
    await well(visitor)
    await visitor.tap("#key-form button.main")
    await visitor.set(words["requests_per_minute"], "30", within="#key-form")
    assert await page.run("document.querySelector('#key-form').elements.name.value") == "노트북 <b>laptop</b>"
    await visitor.tap("#key-form button.main")
    key = await visitor.there("[data-secret]")
    await well(visitor)
    # Over plain HTTP a page has no clipboard of its own: the button copies all the same.
    await page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    await page.run("Object.defineProperty(window, 'isSecureContext', {value: false})")
    await visitor.tap("dialog[open] button", words["copy"])
    await page.until(f"document.querySelector('dialog[open]').innerText.includes({json.dumps(words['copied'])})")
    assert await page.run("navigator.clipboard.readText()") == key
    await visitor.tap("dialog[open] button", words["haveKept"])
    await visitor.sees("30", "#keys")

    await visitor.visit("usage")
    await page.until("document.querySelector('#spend tbody tr') !== null")
    await well(visitor)
    await visitor.tap("#logout")
    await page.until("document.querySelector('form#login') !== null")
    assert key not in await page.run("document.documentElement.outerHTML + JSON.stringify({...localStorage})")
    await visitor.unharmed()


async def test_a_lead(house: House, visitor: Console) -> None:
    """An owner invites, limits a member, makes the team's key, sets warnings, and sees what the team used."""
    page, words = visitor.page, await words_of(visitor)
    headers = {"X-API-Key": house.stack.api_key}

    def ask(path: str, body: object) -> dict[str, dict[str, str]]:
        answer = requests.post(house.stack.url + path, json=body, headers=headers, timeout=20)
        answer.raise_for_status()
        found: dict[str, dict[str, str]] = answer.json()
        return found

    team = ask("/admin/teams", {"name": f"연구팀 {MARKUP[:60]}", "limits": {"usd_a_month": "9"}})["team"]["team_id"]
    await visitor.sign_up(house)
    account = (await visitor.fetched("/account/me"))["account"]["account_id"]
    ask(f"/admin/teams/{team}/members", {"account_id": account, "role": "TEAM_ROLE_OWNER"})
    await page.go(f"{visitor.url}/?member#/team")
    await visitor.sees("연구팀", "main h1")
    await well(visitor)
    await visitor.tap("main button", words["invite"])
    await visitor.there("[data-secret]")
    await visitor.tap("dialog[open] button", words["haveKept"])
    await visitor.tap("main li button", words["change"])
    await page.until("document.querySelector('dialog[open] form') !== null")
    await visitor.set(words["requests_per_minute"], "12")
    await well(visitor)
    await visitor.tap("dialog[open] button.main")
    await page.until("document.querySelector('dialog[open]') === null")
    member = (await visitor.fetched(f"/account/teams/{team}/members"))["members"][0]
    assert member["account"]["limits"]["requests_per_minute"] == 12
    await visitor.set(words["emails"], "lead@example.com", within="main")
    await visitor.set(words["webhookUrl"], "https://<script>window.broken=1</script>", within="main")
    shown = "[...document.querySelectorAll('main label')]"
    warnings = f"{shown}.find(one => one.textContent.trim() === {json.dumps(words['emails'])})"
    await page.run(f"{warnings}.control.form.requestSubmit()")
    await page.until("document.querySelector('.notice.bad, input:invalid') !== null")
    assert await page.run(f"{warnings}.control.value") == "lead@example.com"
    await visitor.visit("usage")
    await visitor.set(words["whose"], "team", within="main")
    await page.until("document.querySelector('main .empty, #spend') !== null")
    await well(visitor)


async def test_an_operator(house: House, visitor: Console) -> None:
    """Every page of administration opens by the menu, by touch or mouse; an account is made, disabled and enabled."""
    page, words = visitor.page, await words_of(visitor)
    # An address within the console stays until one is logged in.
    await page.go(f"{visitor.url}/?deep#/audit")
    await visitor.log_in(BOSS)
    await visitor.sees(words["audit"], "main h1")
    phone = await page.run("innerWidth") < 600
    for path in (*PAGES, *ADMIN_PAGES):
        if phone:
            await visitor.tap(".burger")
        await visitor.tap(f"nav a[href='#/{path}']")
        await page.until(f"location.hash === '#/{path}'")
        await page.until("document.querySelector('main h1') && !document.querySelector('[data-loading]')")
        assert await page.run("document.activeElement?.id") == "main", path
    await visitor.visit("accounts?new=1")
    await page.until("document.querySelector('#account-form') !== null")
    await well(visitor)
    email = f"colleague-{'phone' if phone else 'desk'}@example.com"
    await page.fill("#account-form", {"name": MARKUP[:90], "email": email, "key": True, "everything": True})
    key = await visitor.there("[data-secret]")
    await visitor.tap("dialog[open] button", words["haveKept"])
    sent = {"X-API-Key": key}
    for label, status in ((words["disable"], 401), (words["enable"], 200)):
        await visitor.tap(f"button[aria-label={json.dumps(f'{label}: {email}')}]")
        if status == 401:
            await visitor.tap("dialog[open] button.danger, dialog[open] button.main")
        async with asyncio.timeout(60):
            while (
                await asyncio.to_thread(requests.get, visitor.url + "/account/me", headers=sent, timeout=20)
            ).status_code != status:
                await asyncio.sleep(0.1)
    await well(visitor)


async def test_a_session_that_ends_costs_no_message(house: House, tmp_path: Path) -> None:
    """What was asked when the session had ended is there after logging in, with what to do; two tabs go together."""
    async with house.played(Script(), Script()), consoles.at(house) as console:
        page = console.page
        email = await console.sign_up(house)
        await console.visit("chat")
        await console.ask("Hello")
        await console.there("[data-facts]")
        async with page.tab(console.url + "/#/models") as other:
            await other.until("document.querySelector('main h1') !== null")
            await page.run("fetch('/account/logout', {method: 'POST', headers: {'moa-console': '1'}, body: '{}'})")
            await console.ask("Are you still there?")
            await console.sees("Your session has ended", "main")
            await other.until("document.querySelector('form#login') !== null")
            await console.log_in(email)
            await other.until("document.querySelector('main h1') !== null && !document.querySelector('form#login')")
        await console.sees("Are you still there?", ".messages")
        await console.sees("Hello 안녕 🌍!", ".messages")
        await console.tap(".answer [role=alert] button")
        await page.until("document.querySelectorAll('[data-facts]').length === 2")
        await console.unharmed()


async def test_nothing_is_asked_of_anybody_else(house: House, tmp_path: Path) -> None:
    """Addresses in answers, names of files, links and errors are texts: no other origin is asked, and nothing runs."""
    evil = "https://evil.example/x.png"
    text = (
        f"![picture]({evil}) <img src='{evil}'> [a]({evil}) [b](data:text/html,<script>1</script>) {evil}\n\n"
        f"| {MARKUP} | b |\n|---|---|\n| [c](javascript:window.broken=1) | {MARKUP} |\n\n"
        f"# {MARKUP}\n\n> {MARKUP}\n\n- {MARKUP}\n\n```{MARKUP}\n{MARKUP}\n```\n"
    )
    async with house.played(Script(text=(text,), reasoning=(text,))), consoles.at(house) as console:
        page = console.page
        await page.call("Network.enable")
        await console.sign_up(house)
        await console.visit("chat")
        binary = tmp_path / "<img src=x onerror=window.broken=2>.bin"
        binary.write_bytes(b"\0\1")
        await page.choose(".composer input[type=file]", binary)
        await console.sees("<img src=x onerror=window.broken=2>.bin", ".host")
        await console.ask(text[:300])
        await console.there("[data-facts]")
        made = "document.querySelectorAll('.messages img, .messages script, [href^=\"data:\"]').length"
        assert await page.run(made) == 0
        await page.run(f"location.hash = '#/teams/' + encodeURIComponent({json.dumps(MARKUP)})")
        await page.until("document.querySelector('main h1') !== null")
        await page.run(f"location.hash = '#/' + {json.dumps(MARKUP)}")
        await page.until("document.querySelector('main h1') !== null")
        await page.click("#logout")
        await page.until("document.querySelector('form#login') !== null")
        await page.run(f"location.hash = '#oidc=failed:' + encodeURIComponent({json.dumps(MARKUP)})")
        await console.sees(MARKUP[:30], "#door-error")
        others = [url for url in page.requested if not url.startswith((console.url, "data:"))]
        assert others == []
        assert len(page.requested) > 20
        await console.unharmed()
