"""What administrators and leads do at the console, to its end: `make browser` runs these."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import requests

from tests.e2e import consoles
from tests.e2e.consoles import MARKUP, PASSWORD, Console, House
from tests.emulators.receiver import Receiver
from tests.emulators.script import Script

pytestmark = pytest.mark.long

BOSS = "boss@example.com"
FORMULA = '=HYPERLINK("https://evil.example")'


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[House]:
    environment = {"MOA_EGRESS_ALLOW": f"127.0.0.1:{receiver.port}", "MOA_REQUEST_LOG_EVERY_S": "0.1"}
    with consoles.house(tmp_path_factory.mktemp("administration"), environment=environment) as begun:
        token = begun.stack.first_login_url().partition("#setup=")[2]
        body = {"setup_token": token, "email": BOSS, "password": PASSWORD}
        requests.post(begun.stack.url + "/account/setup", json=body, timeout=20).raise_for_status()
        yield begun


@pytest.fixture
async def boss(house: House) -> AsyncIterator[Console]:
    """The first administrator, logged in."""
    async with consoles.at(house) as console:
        await console.log_in(BOSS)
        yield console


def account_of(house: House, name: str) -> str:
    """Make an account; return its id."""
    headers = {"X-API-Key": house.stack.api_key}
    body = {"name": name, "email": f"{name}@example.com", "password": PASSWORD}
    made = requests.post(house.stack.url + "/admin/accounts", json=body, headers=headers, timeout=20)
    made.raise_for_status()
    account_id: str = made.json()["account"]["account_id"]
    return account_id


async def test_permissions_credits_and_limits_of_an_account(house: House, boss: Console) -> None:
    """What is granted may be used, what is taken away may not; credits add up; a refused form keeps what was typed."""
    page = boss.page
    name = f"paul-{uuid4().hex[:8]}"
    account = account_of(house, name)
    await boss.visit(f"accounts/{account}")
    await boss.button("Add a rule")
    await boss.set("Provider", "cloud", within="main .rule")
    await boss.set("Model", "gpt-4o", within="main .rule")
    await boss.button("Grant")
    await boss.sees("cloud/gpt-4o", "main")
    rules = (await boss.fetched(f"/admin/accounts/{account}/rules"))["rules"]
    assert [(one["rule"]["provider"], one["rule"]["model"]) for one in rules if one["rule"]["provider"] == "cloud"] == [
        ("cloud", "gpt-4o")
    ]
    await page.click("button[aria-label='Remove: cloud/gpt-4o']")
    await page.until("!document.querySelector('main').innerText.includes('cloud/gpt-4o')")

    # What is being written in one form stays while another is sent.
    await boss.set("Time zone", "Asia/Nowhere", within="main")
    await boss.set("Requests a minute", "33", within="main")
    for amount, sum_ in (("2.5", "2.5"), ("-1", "1.5")):
        await boss.set("Amount", amount, within="main")
        await boss.set("Reference", f"invoice {amount} {MARKUP[:30]}", within="main")
        await boss.button("Book")
        await boss.sees(f"{sum_} granted in all", "main")
    found = (await boss.fetched(f"/admin/accounts/{account}"))["account"]
    assert found["granted_micro_credits"] == "1500000"

    await boss.button("Save")
    await boss.sees("no such time zone", ".host")
    zone = "[...document.querySelectorAll('main label')].find(one => one.textContent.trim() === 'Time zone').control"
    assert await page.run(f"{zone}.value") == "Asia/Nowhere"
    await boss.set("Time zone", "Asia/Seoul", within="main")
    await boss.button("Save")
    async with asyncio.timeout(60):
        while (found := (await boss.fetched(f"/admin/accounts/{account}"))["account"])["zone"] != "Asia/Seoul":
            await asyncio.sleep(0.05)
    assert found["limits"]["requests_per_minute"] == 33

    # From one account's page to a team's: neither asks for the other.
    await boss.visit("teams/team_000000000000000000000000")
    await boss.sees("no such team", "main")
    await boss.visit(f"accounts/{account}")
    await boss.sees(f"{name}@example.com", "main h1")
    assert "no such account" not in await page.run("document.querySelector('.host').innerText")
    await boss.unharmed()


async def test_an_invitation_lets_one_in(house: House, boss: Console) -> None:
    """It is shown once and works once; one that is revoked lets nobody in; a budget that is deleted is gone."""
    page = boss.page
    await boss.visit("invitations")
    await boss.button("Invite")
    secret = await boss.there("[data-secret]")
    await boss.button("I have kept it", within="dialog[open]")
    assert secret not in await page.run("document.documentElement.outerHTML")
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
    await boss.button("Create", within="dialog[open]")
    await boss.sees("0 / 100", "main")
    await page.click("main li .danger")
    await boss.button("Delete", within="dialog[open]")
    await boss.sees("No budgets yet", "main")
    await boss.visit("audit")
    for act in ("invitation.made", "invitation.revoked", "budget.created", "budget.deleted"):
        await boss.sees(act, "main table")
    await boss.unharmed()


async def test_the_request_log_is_searched_and_erased(house: House, boss: Console) -> None:
    """Prompts and answers of a team that keeps them are read as text, found by model and tag, and gone once deleted."""
    page = boss.page
    headers = {"X-API-Key": house.stack.api_key}

    def ask(method: str, path: str, body: object) -> dict[str, str]:
        answer = requests.request(method, house.stack.url + path, json=body, headers=headers, timeout=20)
        answer.raise_for_status()
        found: dict[str, str] = answer.json()
        return found

    team = ask("POST", "/admin/teams", {"name": f"Logged {MARKUP[:60]}"})["team"]["team_id"]  # type: ignore[index]
    ask("PATCH", f"/account/teams/{team}", {"request_log": {"on": True, "content": True, "days": 3}})
    key = ask("POST", f"/account/teams/{team}/keys", {"name": FORMULA})["api_key"]
    owner = ask("GET", f"/account/teams/{team}", None)["team"]["account_id"]  # type: ignore[index]
    house.grant(owner)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": MARKUP}]}
    async with house.played(*[Script(text=(MARKUP,)) for _ in range(3)]):

        def asked() -> int:
            sent = {"Authorization": f"Bearer {key}", "moa-tags": "@SUM(1),+x"}
            url = house.stack.url + "/v1/chat/completions"
            return requests.post(url, json=body, headers=sent, timeout=20).status_code

        # A permission is known to every router within two seconds.
        while await asyncio.to_thread(asked) != 200:
            await asyncio.sleep(0.1)
    await boss.visit("requests")
    await boss.set("Model", "cloud/gpt-4o", within="main")
    await boss.set("Tag", "+x", within="main")
    while not await page.run("document.querySelector('main table')?.innerText.includes('200')"):
        await boss.button("Search")
        await page.until("document.querySelector('main table, main .empty') !== null")
    await page.click("main table button")
    await boss.sees(MARKUP[:40], "dialog[open]")
    await boss.unharmed()
    await boss.button("Delete", within="dialog[open]")
    await page.until("document.querySelectorAll('dialog[open]').length === 2")
    sure = "[...document.querySelectorAll('dialog[open]')].find(one => one.innerText.includes('from the log?'))"
    await page.run(f"[...{sure}.querySelectorAll('button')].find(one => one.textContent.trim() === 'Delete').click()")
    await page.until("document.querySelector('dialog[open]') === null")
    await boss.sees("Nothing is logged", "main")
    await boss.unharmed()


async def test_a_report_is_saved_as_a_file(house: House, boss: Console, tmp_path: Path) -> None:
    """The button saves what is shown, for spreadsheets; names that one would calculate are texts in it."""
    page = boss.page
    await page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    await boss.visit("usage")
    await boss.set("Whose", "all", within="main")
    await boss.set("#group", "key")
    await boss.sees(FORMULA, "#spend")
    await boss.button("Download CSV")
    async with asyncio.timeout(60):
        while not (found := [path for path in tmp_path.iterdir() if path.suffix == ".csv"]):
            await asyncio.sleep(0.05)
    rows = list(csv.DictReader(io.StringIO(found[0].read_text())))
    assert [row["name"] for row in rows if "HYPERLINK" in row["name"]] == ["'" + FORMULA]
    assert all(not value.startswith(tuple("=+@")) for row in rows for value in row.values())
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
        await page.until("document.querySelector('.notice.bad') !== null")
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
