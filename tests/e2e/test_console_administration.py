"""What administrators and leads do at the console, to its end: `make browser` runs these."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import requests

from tests.auth.test_log_ins import code_of_secret
from tests.e2e import consoles
from tests.e2e.consoles import MARKUP, PASSWORD, Console, House
from tests.emulators.receiver import Receiver

pytestmark = pytest.mark.long

BOSS = "boss@example.com"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[House]:
    environment = {"MOA_EGRESS_ALLOW": f"127.0.0.1:{receiver.port}", "MOA_REQUEST_LOG_EVERY_S": "0.1"}
    with consoles.house(tmp_path_factory.mktemp("administration"), environment=environment) as begun:
        begun.claimed(BOSS)
        yield begun


@pytest.fixture
async def boss(house: House) -> AsyncIterator[Console]:
    """The first administrator, logged in."""
    async with consoles.at(house) as console:
        await console.log_in(BOSS)
        yield console


async def test_an_invitation_lets_one_in(house: House, boss: Console) -> None:
    """It is shown once and works once; one that is revoked lets nobody in; a budget that is deleted is gone."""
    page = boss.page
    await boss.visit("invitations")
    await boss.button("Invite")
    secret = await boss.there("[data-secret]")
    link = await page.run("document.querySelectorAll('dialog[open] .secret')[1].textContent")
    assert link == f"{house.stack.url}/#invitation={secret}"
    await boss.button("I have kept it", within="dialog[open]")
    assert secret not in await page.run("document.documentElement.outerHTML")
    # Who has an account already joins by the same link; the address keeps nothing of it.
    await page.run(f"location.href = {json.dumps(link)}")
    await page.until(f"document.querySelector('main input[autocomplete=off]')?.value === {json.dumps(secret)}")
    assert await page.run("location.hash") == "#/account"
    await boss.visit("invitations")
    await boss.sees("open", "main table")
    await page.click("main table button.danger")
    await boss.sees("revoked", "main table")

    await boss.visit("budgets")
    await boss.button("New budget")
    await boss.set("Name", f"Short {MARKUP[:40]}")
    await boss.set("Tokens a day", "many")
    await boss.button("Create", within="dialog[open]")
    await boss.set("Tokens a day", "100")
    name = "[...document.querySelectorAll('dialog[open] label')].find(one => one.textContent.trim() === 'Name').control"
    assert await page.run(f"{name}.value") == f"Short {MARKUP[:40]}"
    click = "one.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true, detail}))"
    button = "document.querySelector('#budget-form button.main')"
    await page.run(f"(one => [1, 2].forEach(detail => {click}))({button})")
    await boss.sees("0 / 100", "main")
    await page.click("main li button:not(.danger)")
    await boss.set("Tokens a day", "200")
    await boss.button("Save", within="dialog[open]")
    await boss.sees("0 / 200", "main")
    assert await page.run("document.querySelectorAll('main li').length") == 1
    await page.click("main li .danger")
    await boss.button("Delete", within="dialog[open]")
    await boss.sees("No budgets yet", "main")
    await boss.visit("audit")
    for act in ("invitation.made", "invitation.revoked", "budget.created", "budget.changed", "budget.deleted"):
        await boss.sees(act, "main table")
    await boss.unharmed()


async def test_an_account_is_given_what_it_may(house: House, boss: Console) -> None:
    """Rules, credits, limits and a time zone, one after the other: the gateway has each, and what is typed into a form
    outlives the work of another. A rule is taken away again, and the audit log of the account names all of it.
    """
    page, headers = boss.page, {"X-API-Key": house.stack.api_key}
    person = {"email": "lee@example.com", "password": PASSWORD, "name": MARKUP[:60]}
    made = requests.post(f"{house.stack.url}/admin/accounts", json=person, headers=headers, timeout=20).json()
    account_id = made["account"]["account_id"]

    def held(path: str = "") -> Any:
        return requests.get(f"{house.stack.url}/admin/accounts/{account_id}{path}", headers=headers, timeout=20).json()

    await boss.visit(f"accounts/{account_id}")
    await boss.set("Requests a minute", "30", within="main")
    await boss.button("Add a rule")
    await boss.set("Provider", "cloud", within="main")
    await boss.set("Model", "gpt-4o*", within="main")
    await page.click(".rule input[type=checkbox]")
    await boss.button("Grant")
    await boss.sees("cloud/gpt-4o* text", "main")
    rules = [one["rule"] for one in held("/rules")["rules"]]
    assert {"provider": "cloud", "model": "gpt-4o*", "operations": ["OPERATION_TEXT"]} in rules
    await boss.set("Amount", "2.5", within="main")
    await boss.set("Reference", MARKUP[:40], within="main")
    await boss.button("Book")
    await boss.sees("2.5 granted", "main")
    assert held()["account"]["granted_micro_credits"] == "2500000"
    await boss.set("Amount", "-9", within="main")
    await boss.button("Book")
    await page.until("document.querySelector('main form [role=alert]') !== null")
    assert held()["account"]["granted_micro_credits"] == "2500000"

    await boss.set("Time zone", "Mars/Base", within="main")
    await boss.button("Save")
    await boss.sees("no such time zone", "main form [role=alert]")
    await boss.set("Time zone", "Asia/Seoul", within="main")
    await boss.set("US dollars a month", "12.50", within="main")
    await boss.set("Images a day", "", within="main")
    await boss.button("Save")
    await boss.sees("a user has a limit of at most", "main form [role=alert]")
    assert await page.run("document.querySelector('main [name=zone]').value") == "Asia/Seoul"
    await boss.set("Images a day", "20", within="main")
    await boss.button("Save")
    await boss.sees("Days are counted in UTC until", "main")
    assert await page.run("document.querySelector('main [name=zone]').value") == "Asia/Seoul"
    account = held()["account"]
    assert (account["zone"], account["next_zone"]) == ("UTC", "Asia/Seoul")
    limits = account["limits"]
    assert (limits["requests_per_minute"], limits["usd_a_month"]) == (30, "12.50")
    assert limits["images_a_day"] == 20

    await page.click("button[aria-label='Remove: cloud/gpt-4o*']")
    await page.until("!document.querySelector('main').innerText.includes('cloud/gpt-4o*')")
    assert all(one["rule"]["provider"] != "cloud" for one in held("/rules")["rules"])
    await boss.visit("audit")
    await boss.set("Account", account_id, within="main")
    await boss.button("Search")
    rows = "[...document.querySelectorAll('main tbody tr')]"
    await page.until(f"{rows}.every(one => one.cells[3].querySelector('a')?.title === {json.dumps(account_id)})")
    await page.until(f"{rows}.every(one => one.cells[3].innerText === 'lee@example.com')")
    for act in ("account.created", "rule.granted", "rule.revoked", "account.changed", "account.zone_set"):
        await boss.sees(act, "main table")
    await boss.unharmed()


async def test_a_member_is_made_an_owner_and_an_account_deleted(house: House, boss: Console) -> None:
    """Who lost a second factor logs in without; roles are changed, and an account deleted, by clicks. The list of teams
    tells limits of tokens. The second click of two makes no second team, and books no second credit."""
    page, url = boss.page, house.stack.url
    person = {"email": "park@example.com", "password": PASSWORD}
    headers = {"X-API-Key": house.stack.api_key}
    made = requests.post(f"{url}/admin/accounts", json=person, headers=headers, timeout=20).json()
    account_id = made["account"]["account_id"]
    token = requests.post(f"{url}/account/login", json=person, timeout=20).json()["session_token"]
    session = {"Authorization": f"Bearer {token}"}
    factor = requests.post(f"{url}/account/second-factor", json={}, headers=session, timeout=20).json()
    code = {"code": code_of_secret(factor["uri"], time.time())}
    confirmed = requests.post(f"{url}/account/second-factor/confirm", json=code, headers=session, timeout=20)
    assert confirmed.status_code == 200

    await boss.visit("teams")
    await boss.button("New team")
    await boss.set("Name", "Twice")
    await boss.set("Tokens a day", "5000")
    await page.run("(one => { one.click(); one.click(); })(document.querySelector('dialog[open] button.main'))")
    await boss.sees("Twice", "main h1")
    teams = requests.get(f"{url}/admin/teams", headers=headers, timeout=20).json()["teams"]
    assert [team["name"] for team in teams].count("Twice") == 1
    await boss.set("#main [name=account_id]", "park@example.com")
    await page.until("document.querySelector('#main [name=account_id]').validity.valid")
    await boss.button("Add")
    await page.click("button[aria-label='Change: park@example.com']")
    await boss.set("#member-form select", "TEAM_ROLE_OWNER")
    await page.click("#member-form button.main")
    await page.until("document.querySelector('main .badge.good')?.innerText === 'owner'")
    held = requests.get(f"{url}/admin/accounts/{account_id}", headers=headers, timeout=20).json()
    assert held["account"]["team_role"] == "TEAM_ROLE_OWNER"
    await boss.visit("teams")
    await boss.sees("Tokens a day: 5,000", "main table")

    await boss.visit(f"accounts/{account_id}")
    await boss.set("Amount", "7", within="main")
    booking = "[...document.querySelectorAll('main button')].find(one => one.innerText === 'Book')"
    await page.run(f"(one => {{ one.click(); one.click(); }})({booking})")
    await boss.sees("7 granted", "main")
    await boss.sees("Saved.", ".host")
    held = requests.get(f"{url}/admin/accounts/{account_id}", headers=headers, timeout=20).json()
    assert held["account"]["granted_micro_credits"] == "7000000"
    assert requests.post(f"{url}/account/login", json=person, timeout=20).status_code == 401
    async with boss.held("false"):
        await page.click("#remove-factor")
        await boss.tap("dialog[open] button.main")
        await page.until(f"window.answered.includes('PATCH /admin/accounts/{account_id}')")
    assert requests.post(f"{url}/account/login", json=person, timeout=20).status_code == 200
    await page.click("main .head button.danger")
    await boss.tap("dialog[open] button.main")
    await page.until("document.querySelector('main h1')?.innerText === 'Accounts'")
    assert requests.post(f"{url}/account/login", json=person, timeout=20).status_code == 401
    await boss.unharmed()


async def test_a_webhook_is_sent_again(house: House, receiver: Receiver) -> None:
    """A delivery is listed with its address as text, and sent again by a button; the secret is shown when asked for."""
    async with consoles.at(house) as console:
        page = console.page
        await console.sign_up(house)
        hook = f"{receiver.url}?<script>window.broken=1</script>"
        work = {"work": {"image": {"model": "moa-tiny-image", "prompt": "x"}}, "webhook_url": hook}
        made = await page.run(
            "fetch('/v1/tasks', {method: 'POST', headers: {'moa-console': '1', 'content-type': 'application/json'},"
            f" body: {json.dumps(json.dumps(work))}}}).then(answer => answer.json())"
        )
        task = made["task"]["id"]
        await console.visit("tasks")
        async with asyncio.timeout(60):
            while not (await console.fetched(f"/v1/webhooks/deliveries?task_id={task}")).get("deliveries"):
                await asyncio.sleep(0.1)
            while not receiver.of(task):
                await asyncio.sleep(0.05)
        await page.click("main table button")
        await console.sees("delivered", "dialog[open] table")
        await console.sees("window.broken=1", "dialog[open] table")
        before = len(receiver.of(task))
        await console.button("Send again", within="dialog[open]")
        async with asyncio.timeout(60):
            while len(receiver.of(task)) == before:
                await asyncio.sleep(0.05)
        await page.press("Escape")
        await page.click("#webhook-show")
        await console.sees("whsec_", "#webhook-secret")
        await console.unharmed()


async def test_forms_of_passwords_are_emptied_and_others_kept(house: House) -> None:
    """A wrong old password says so and keeps what was typed; the right one empties the form, and is needed no more."""
    async with consoles.at(house) as console:
        page = console.page
        email = await console.sign_up()
        await console.visit("account")
        fields = "[...document.querySelectorAll('main input[type=password]')].map(one => one.value)"
        await console.set("Present password", "wrong horse battery", within="main")
        await console.set("New password (8 characters or more)", "a brand new battery", within="main")
        form = "document.querySelector('main input[type=password]').form.requestSubmit()"
        await page.run(form)
        await page.until("document.querySelector('main form [role=alert]') !== null")
        assert await page.run(fields) == ["wrong horse battery", "a brand new battery"]
        await console.set("Present password", PASSWORD, within="main")
        await page.run(form)
        await console.sees("The password is set.", ".host")
        assert await page.run(fields) == ["", ""]
        await page.click("#logout")
        await page.until("document.querySelector('form#login') !== null")
        await page.fill("#login", {"email": email, "password": PASSWORD})
        await page.until("document.querySelector('#door-error') !== null")
        assert await page.run("document.querySelector('#login').elements.email.value") == email
        await page.fill("#login", {"email": email, "password": "a brand new battery"})
        await page.until("document.querySelector('#logout') !== null")
        await console.unharmed()
