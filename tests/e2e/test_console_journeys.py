"""The long journeys of people at the console: `make browser` runs them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest
import requests

from tests.e2e import consoles
from tests.e2e.accessible import NOTHING_SCROLLS, faults_of, passes
from tests.e2e.consoles import ADMIN_PAGES, MARKUP, PAGES, Console, House
from tests.emulators.script import Call, Script

pytestmark = pytest.mark.long

BOSS = "boss@example.com"

SOMEWHERE = pytest.mark.parametrize(("language", "width"), [("en", 1280), ("ko", 360), ("ko", 1280), ("en", 360)])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("journeys")) as begun:
        begun.claimed(BOSS)
        yield begun


@pytest.fixture
async def boss(house: House) -> AsyncIterator[Console]:
    """The first administrator, logged in."""
    async with consoles.at(house) as console:
        await console.log_in(BOSS)
        yield console


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
async def test_every_page_is_accessible(house: House, language: str, width: int, scheme: str) -> None:
    """axe finds nothing on any page, nothing is wider than the screen, and every word is in the language."""
    async with consoles.at(house, width=width, language=language) as console:
        page = console.page
        await page.prefer(scheme)
        await page.until("document.querySelector('form#login') !== null")
        assert await faults_of(console) == []
        await console.log_in(BOSS)
        for path in (*PAGES, *ADMIN_PAGES):
            await console.visit(path)
            await page.until("document.querySelector('nav [aria-current]') !== null")
            assert await faults_of(console) == [], path
            assert await page.run(NOTHING_SCROLLS), path
        await console.visit("keys")
        await page.click("#create-key")
        await page.until("document.querySelector('#key-form') !== null")
        assert await faults_of(console) == []
        assert page.errors == []


@SOMEWHERE
async def test_a_key_is_made_by_keyboard_alone(house: House, language: str, width: int) -> None:
    """From the page's start to a key that works, by Tab, Enter and letters; focus stays within an open dialog."""
    async with consoles.at(house, width=width, language=language) as console:
        await console.log_in(BOSS)
        await make_a_key_by_keyboard(console)


async def make_a_key_by_keyboard(boss: Console) -> None:
    """Make a key as somebody does who has no mouse."""
    page = boss.page

    async def to(selector: str) -> None:
        for _ in range(80):
            if await page.run(f"document.activeElement?.matches({json.dumps(selector)})"):
                return
            await page.press("Tab")
        raise AssertionError(f"{selector} is not reached by Tab")

    await page.run("document.activeElement?.blur()")
    await page.press("Tab")
    if await page.run("getComputedStyle(document.querySelector('.burger')).display !== 'none'"):
        await to(".burger")
        await page.press("Enter")
    await to("nav a[href='#/keys']")
    await page.press("Enter")
    await boss.there("#create-key")
    await to("#create-key")
    await page.press("Enter")
    await page.until("document.activeElement?.name === 'name'")
    await page.write("by keyboard")
    for _ in range(30):
        await page.press("Tab")
        assert await page.run(
            "document.querySelector('dialog[open]').contains(document.activeElement)"
            " || document.activeElement === document.body"
        )
    await to("#key-form button.main")
    await page.press("Enter")
    key = await boss.there("[data-secret]")
    asked = requests.get(boss.url + "/account/me", headers={"X-API-Key": key}, timeout=20)
    assert asked.json()["account"]["email"] == BOSS


async def test_a_lead_makes_a_team_and_a_budget(house: House, boss: Console) -> None:
    """A team with a limit and a log; who joins by its invitation is in both; a budget for a model. Names are text."""
    await boss.visit("teams")
    await boss.button("New team")
    await boss.set("Name", f"Research {MARKUP[:60]}")
    await boss.set("Tokens a day", "5000")
    await boss.button("Create", within="dialog[open]")
    await boss.sees("Research <img", "main h1")
    assert "team_" in await boss.page.run("location.hash")
    await boss.page.run("document.querySelector('[name=log]').click()")
    await boss.page.run("document.querySelector('[name=log]').form.requestSubmit()")
    await boss.sees("Saved.", ".host")
    await boss.button("Invite")
    invitation = await boss.there("[data-secret]")
    async with house.played(Script()), consoles.at(house) as member:
        await member.sign_up(house)
        await member.visit("account")
        await member.set("Invitation", invitation, within="main")
        await member.button("Join")
        await member.page.until("document.querySelector(\"nav a[href='#/team']\") !== null")
        await member.visit("chat")
        await member.ask("Hello")
        await member.there("[data-facts]")
        await member.visit("team")
        await member.sees("5,000")
        await member.unharmed()
    await boss.button("Read the log")
    # A request is in the log a moment after its end.
    while not await boss.page.run("document.querySelector('main table')?.innerText.includes('gpt-4o-mini')"):
        await boss.button("Search")
        await boss.page.until("document.querySelector('main table, main .empty') !== null")
    await boss.button("Look")
    await boss.sees("Prompts and answers are not kept.", "dialog[open]")
    await boss.page.press("Escape")
    await boss.visit("budgets")
    await boss.button("New budget")
    await boss.set("Name", f"Large {MARKUP[:60]}")
    await boss.set("Model", "gpt-4o")
    await boss.set("US dollars a month", "50.00")
    await boss.button("Create", within="dialog[open]")
    await boss.sees("$50.00", "main")
    await boss.unharmed()


async def test_an_operator_makes_an_account_and_disables_it(boss: Console) -> None:
    """A colleague's key is shown once and works; it is refused once the account is disabled, and the log says so."""
    page = boss.page
    await boss.visit("accounts?new=1")
    await page.until("document.querySelector('#account-form') !== null")
    values: dict[str, str | bool] = {
        "name": MARKUP[:90],
        "email": "colleague@example.com",
        "key": True,
        "everything": True,
    }
    await page.fill("#account-form", values)
    headers = {"X-API-Key": await boss.there("[data-secret]")}
    assert requests.get(boss.url + "/account/me", headers=headers, timeout=20).json()["account"]["name"] == MARKUP[:90]
    await boss.button("I have kept it", within="dialog[open]")
    await boss.sees("colleague@example.com", "main table")
    await page.click("button[aria-label='Disable: colleague@example.com']")
    await boss.button("Disable", within="dialog[open]")
    await boss.sees("disabled", "main table")
    assert requests.get(boss.url + "/account/me", headers=headers, timeout=20).status_code in (401, 403)
    await boss.visit("audit")
    await boss.sees("account.disabled", "main table")
    # A part that is down is named, and hides nothing else.
    await boss.visit("providers")
    await boss.sees("desk: down", "main")
    await boss.sees("127.0.0.1", "[data-provider=cloud]")
    await boss.unharmed()


@SOMEWHERE
async def test_a_session_that_has_ended_leads_back(house: House, language: str, width: int) -> None:
    """Its page says so, and logging in again shows what was to be shown."""
    async with consoles.at(house, width=width, language=language) as console:
        email = await console.sign_up()
        (here,) = (await console.fetched("/account/sessions"))["sessions"]
        path = f"/account/sessions/{here['session_id']}"
        ended = f"fetch('{path}', {{method: 'DELETE', headers: {{'moa-console': '1'}}}}).then(answer => answer.status)"
        assert await console.page.run(ended) == 200
        await console.page.run("location.hash = '#/tasks'")
        await console.sees(console.words["ended"], "main")
        await passes(console)
        await console.log_in(email)
        await console.sees(console.words["tasks"], "main h1")
        assert console.page.errors == []


@SOMEWHERE
async def test_a_router_that_dies_midway_costs_no_conversation(house: House, language: str, width: int) -> None:
    """What had come stays, with what to do; asking again is answered once another router is there."""
    held = Script(text=("First ", "half"), hold_at=1)
    again = [Script() for _ in range(8)]
    async with house.played(held, *again), consoles.at(house, width=width, language=language) as console:
        page = console.page
        await console.sign_up(house)
        await console.visit("chat")
        await console.ask("Hello")
        await console.sees("First", ".answer")
        await asyncio.to_thread(house.stack.kill, "router")
        await page.until("document.querySelector('.answer [role=alert] button') !== null")
        await console.sees("First", ".answer")
        await passes(console)
        # The page asks once; who is refused meanwhile presses the button again.
        while not await page.run("document.querySelector('main').innerText.includes('Hello 안녕 🌍!')"):
            button = "document.querySelector('.answer [role=alert] button')"
            await page.until(f"{button} !== null || document.querySelector('[data-facts]') !== null")
            await page.run(f"{button}?.click()")
        assert page.errors == []


@SOMEWHERE
async def test_a_slow_line_is_enough(house: House, language: str, width: int) -> None:
    """Over 400 kbit/s with 400 ms each way the console comes, logs in, and streams an answer."""
    async with house.played(Script()), consoles.at(house, width=width, language=language) as console:
        page = console.page
        await page.call("Network.enable")
        slow = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
        await page.call("Network.emulateNetworkConditions", **slow)
        await page.go(f"{console.url}/?slow")
        await console.sign_up(house)
        await console.visit("chat")
        await console.ask("Hello")
        await console.sees("Hello 안녕 🌍!", ".answer")
        await page.call("Network.emulateNetworkConditions", **{**slow, "offline": True})
        await console.ask("Are you there?")
        await console.sees(console.words["offline"])
        assert page.errors == []


async def test_tools_and_two_models(house: House) -> None:
    """A tool's call is shown, its result goes back, and two models answer side by side."""
    call = Call("call_1", "get_weather", ('{"city": ', '"서울"}'))
    tool = [{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]
    scripts = Script(text=(), calls=(call,), finish="tool_calls"), Script(text=("21 degrees",)), Script(), Script()
    async with house.played(*scripts) as upstream, consoles.at(house) as console:
        page = console.page
        await console.sign_up(house)
        await console.visit("chat")
        await page.until("document.querySelector('#model option') !== null")
        await console.button("Settings")
        await console.set("Tools (JSON)", json.dumps(tool), within="main")
        await console.ask("How is the weather?")
        await console.sees("get_weather", ".call")
        await console.set(".call textarea", '{"temperature": 21}')
        await console.button("Send the results")
        await console.sees("21 degrees", ".messages")
        assert upstream.seen[-1].body["messages"][-1] == {
            "role": "tool",
            "tool_call_id": "call_1",
            "content": '{"temperature": 21}',
        }

        await console.set("#other", "gpt-4o")
        await console.ask("And tomorrow?")
        await page.until("document.querySelectorAll('.pair [data-facts]').length === 2")
        assert {seen.body["model"] for seen in upstream.seen[-2:]} == {"gpt-4o-mini", "gpt-4o"}
        assert not upstream.refused
        await console.unharmed()


async def test_an_answer_that_breaks_off_is_kept(house: House) -> None:
    """What had come is shown with why it ended, and asking again is a branch beside it; a stopped one is kept too."""
    broken, whole, held = Script(text=("Once ", "upon"), cut_at=1), Script(text=("Again.",)), Script(hold_at=2)
    async with house.played(broken, whole, held) as upstream, consoles.at(house) as console:
        page = console.page
        await console.sign_up(house)
        await console.visit("chat")
        await console.ask("Tell me a story")
        await console.sees("Once", ".answer")
        await page.until("document.querySelector('.answer [role=alert] button') !== null")
        await page.run("document.querySelector('.answer [role=alert] button').click()")
        await console.sees("Again.", ".answer")
        await console.sees("2 / 2")
        await console.ask("And then")
        await console.sees("Hello", ".messages > :nth-last-child(2)")
        await page.click("#stop")
        await page.until("document.querySelector('#send') !== null")
        await console.sees("Stopped.")
        await asyncio.wait_for(held.left.wait(), 90)
        assert not upstream.refused
        await console.unharmed()
