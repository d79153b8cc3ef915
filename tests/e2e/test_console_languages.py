"""Three people at the console, each from the first click to the last, in both languages on a phone and at a desk.

Whatever they come by is passed by axe and no wider than the screen: `make browser` runs these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from uuid import uuid4

import pytest
import requests

from tests.e2e import consoles
from tests.e2e.accessible import passes
from tests.e2e.consoles import PASSWORD, Console, House
from tests.emulators.script import Script

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

BOSS: Final = "boss@example.com"
PLACES: Final = [(language, width) for language in ("en", "ko") for width in (360, 1280)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("languages")) as begun:
        token = begun.stack.first_login_url().partition("#setup=")[2]
        body = {"setup_token": token, "email": BOSS, "password": PASSWORD}
        requests.post(begun.stack.url + "/account/setup", json=body, timeout=20).raise_for_status()
        yield begun


def asked(house: House, method: str, path: str, body: Any = None) -> Any:
    """Ask the gateway as its operator."""
    headers = {"X-API-Key": house.stack.api_key}
    answer = requests.request(method, house.stack.url + path, json=body, headers=headers, timeout=20)
    answer.raise_for_status()
    return answer.json()


async def walk(console: Console, path: str) -> None:
    """Go to a page by the menu, which a phone hides behind a button; the page passes."""
    page = console.page
    if await page.run("getComputedStyle(document.querySelector('.burger')).display !== 'none'"):
        await console.tap(".burger")
        await page.until("document.querySelector('nav').checkVisibility()")
    await console.tap(f"nav a[href='#/{path}']")
    await page.until(f"document.querySelector('nav [aria-current]')?.getAttribute('href') === '#/{path}'")
    await page.until("document.querySelector('main h1') && !document.querySelector('[data-loading]')")
    await passes(console)


async def kept(console: Console) -> str:
    """Return the secret that is shown, and close what shows it."""
    secret: str = await console.there("[data-secret]")
    await passes(console)
    await console.tap("dialog[open] button", console.words["haveKept"])
    return secret


@pytest.mark.parametrize(("language", "width"), PLACES)
async def test_somebody_new_works(house: House, language: str, width: int) -> None:
    """Sign up, ask, make a key that works and a picture, see what was used and what tasks did, and go."""
    async with house.played(Script()), consoles.at(house, width=width, language=language) as console:
        page, words = console.page, console.words
        await passes(console)
        await console.sign_up(house)
        await passes(console)
        await console.tap(".steps a", words["openChat"])
        await console.ask("Hello")
        await console.there("[data-facts]")
        await passes(console)
        await walk(console, "models")
        await walk(console, "keys")
        await console.tap("#create-key")
        await console.set(words["keyName"], "laptop")
        await passes(console)
        await console.tap("#key-form button.main")
        headers = {"X-API-Key": await kept(console)}
        assert requests.get(house.stack.url + "/account/me", headers=headers, timeout=20).status_code == 200
        await walk(console, "images")
        await page.until("document.querySelector('#draw select option') !== null")
        await console.set("#prompt", "a red circle")
        await console.tap("#make")
        await page.until("document.querySelector('#gallery img')?.naturalWidth > 0")
        await passes(console)
        await console.tap("#gallery button")
        await console.sees(words["sameAgain"], "dialog[open]")
        await passes(console)
        await page.press("Escape")
        await walk(console, "usage")
        await console.sees("moa-tiny-image", "#spend")
        await walk(console, "tasks")
        await console.sees(words["TASK_STATE_SUCCEEDED"], "main table")
        await walk(console, "account")
        await console.set(words["name"], "Lee", within="main")
        await console.tap("main form button", words["save"])
        await console.sees(words["saved"], ".host")
        assert (await console.fetched("/account/me"))["account"]["name"] == "Lee"
        await console.tap("#logout")
        await page.until("document.querySelector('form#login') !== null")
        await passes(console)


@pytest.mark.parametrize(("language", "width"), PLACES)
async def test_a_lead_looks_after_a_team(house: House, language: str, width: int) -> None:
    """Join by an invitation as the owner; set a member's limit, invite another, log requests, ask to be warned."""
    team = asked(house, "POST", "/admin/teams", {"name": f"Team {language} {width}", "limits": {"tokens_a_day": 9000}})
    path = f"/account/teams/{team['team']['team_id']}"
    invitation = asked(house, "POST", f"{path}/invitations", {"role": "TEAM_ROLE_OWNER", "expires_in": "1h"})
    person = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    member = asked(house, "POST", "/admin/accounts", person)["account"]["account_id"]
    asked(
        house,
        "POST",
        f"/admin/teams/{team['team']['team_id']}/members",
        {"account_id": member, "role": "TEAM_ROLE_MEMBER"},
    )
    async with consoles.at(house, width=width, language=language) as console:
        page, words = console.page, console.words
        await console.sign_up()
        await walk(console, "account")
        await console.set(words["invitation"], invitation["invitation"], within="main")
        await console.tap("main form button", words["join"])
        await page.until("document.querySelector(\"nav a[href='#/team']\") !== null")
        await walk(console, "team")
        await console.sees("9,000")
        await console.tap(f"button[aria-label='{words['change']}: {person['email']}']")
        await console.set(consoles.filled(words["a_day"], what=words["tokens"]), "700")
        await passes(console)
        await console.tap("dialog[open] button", words["save"])
        await console.sees(words["saved"], ".host")
        limits = asked(house, "GET", f"/admin/accounts/{member}")["account"]["limits"]
        assert limits["tokens_a_day"] == 700
        await page.until("document.querySelector('dialog[open]') === null")
        await console.tap("main button", words["invite"])
        assert await kept(console)
        await console.set(words["emails"], "lead@example.com", within="main")
        await console.tap("main form:has([type=url]) button", words["save"])
        await console.tap("[name=log]")
        await console.tap("main form:has([name=log]) button", words["save"])
        await console.tap("main button", words["readLog"])
        await console.sees(words["noLogged"], "main")
        await passes(console)
        found = asked(house, "GET", path)["team"]
        assert found["warnings"]["emails"] == ["lead@example.com"]
        assert found["request_log"]["on"] is True


@pytest.mark.parametrize(("language", "width"), PLACES)
async def test_an_operator_lets_somebody_in(house: House, language: str, width: int) -> None:
    """Make an account with a key and a rule, a team, a budget and an invitation; look at every page; disable it."""
    email = f"{uuid4().hex}@example.com"
    async with consoles.at(house, width=width, language=language) as console:
        words = console.words
        await console.log_in(BOSS)
        await walk(console, "accounts")
        await console.tap("main button", words["newAccount"])
        await console.set(words["email"], email)
        await console.tap("dialog[open] label", words["everyModel"])
        await passes(console)
        await console.tap("#account-form button.main")
        headers = {"X-API-Key": await kept(console)}
        me = house.stack.url + "/account/me"
        assert requests.get(me, headers=headers, timeout=20).json()["account"]["email"] == email
        await console.tap("main table a", email)
        await console.sees("*/*", "main")
        await passes(console)
        for path in ("teams", "budgets"):
            await walk(console, path)
            await console.tap("main button.main", words["newTeam" if path == "teams" else "newBudget"])
            await console.set(words["name"], f"{path} {language} {width}")
            await console.set(consoles.filled(words["a_month"], what=words["tokens"]), "5000")
            await passes(console)
            await console.tap("dialog[open] button.main", words["create"])
            await console.sees(f"{path} {language} {width}", "main")
            await passes(console)
        await walk(console, "invitations")
        await console.tap("main button", words["invite"])
        assert await kept(console)
        for path in ("providers", "routes", "catalogue", "inference", "requests"):
            await walk(console, path)
        await walk(console, "accounts")
        await console.tap(f"button[aria-label='{words['disable']}: {email}']")
        await console.sees(consoles.filled(words["askDisable"], who=email), "dialog[open]")
        await passes(console)
        await console.tap("dialog[open] button", words["disable"])
        await console.there(f"button[aria-label='{words['enable']}: {email}']")
        assert requests.get(me, headers=headers, timeout=20).status_code in (401, 403)
        await walk(console, "audit")
        await console.sees("account.disabled", "main table")
