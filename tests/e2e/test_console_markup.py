"""Texts of strangers on every page of the console: no markup in them is taken for markup. `make browser` runs these."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests

from tests.e2e import consoles
from tests.e2e.consoles import ADMIN_PAGES, MARKUP, PAGES, PASSWORD, Console, House
from tests.emulators.script import Script

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

BOSS: Final = "boss@example.com"
HOSTILE: Final = """(() => {
  const markup = %s;
  const asked = window.fetch.bind(window);
  // Links, ids and words of the contract stay; every other text that the gateway answers ends in markup.
  const keeps = /^$|^[A-Z][A-Z0-9_]*$|^[0-9][0-9T:.Zs-]*$|^[a-z]+_[0-9a-f]{8,}$|^data:|\\/files/;
  const named = /^(id|.*_id|link|etag|status|state|.*token|role|makes|object|type|zone|next_zone|variable)$/;
  const marked = (value, name) => {
    if (typeof value === 'string') return keeps.test(value) || named.test(name) ? value : value + markup;
    if (Array.isArray(value)) return value.map(one => marked(one, name));
    if (value === null || typeof value !== 'object') return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, marked(one, key)]));
  };
  window.fetch = async (path, sent) => {
    const answer = await asked(path, sent);
    if (window.refused && !String(path).startsWith('/account/me')) {
      return new Response(JSON.stringify({error: {message: markup, code: markup}}), {status: 400});
    }
    if (!String(answer.headers.get('content-type')).includes('json')) return answer;
    const said = marked(await answer.json(), '');
    return new Response(JSON.stringify(said), {status: answer.status, headers: answer.headers});
  };
})()"""
"""What a page runs before its own scripts: as if whoever writes names, tags and errors wrote markup everywhere."""
TAKEN: Final = "document.querySelectorAll('[onerror], [onload], img[src=x], body script, [href^=javascript]').length"

UNTOLD: Final = {"chat", "images", "usage", "tasks", "inference", "invitations"}
"""Pages that tell an administrator who asked no model of no text of anybody's."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    environment = {"MOA_REQUEST_LOG_EVERY_S": "0.1", "MOA_REQUEST_LOG_KEYS": "first:" + "ab" * 32}
    root = tmp_path_factory.mktemp("markup")
    with consoles.house(root, environment=environment, spare=True) as running:
        running.claimed(BOSS)
        yield running


def asked(house: House, method: str, path: str, body: Any = None) -> Any:
    """Ask the gateway as its operator."""
    headers = {"X-API-Key": house.stack.api_key}
    answer = requests.request(method, house.stack.url + path, json=body, headers=headers, timeout=60)
    answer.raise_for_status()
    return answer.json()


async def harmless(console: Console, what: str) -> None:
    """Fail where any of the markup became elements, or ran."""
    assert await console.page.run(TAKEN) == 0, what
    await console.unharmed()


async def begun(house: House) -> tuple[str, str]:
    """Make an account in a team that logs; one of its requests is answered, one refused. Return account and team."""
    made = asked(house, "POST", "/admin/accounts", {"email": "lee@example.com", "password": PASSWORD, "with_key": True})
    account = made["account"]["account_id"]
    asked(house, "POST", f"/admin/accounts/{account}/rules", {"rule": {"provider": "*", "model": "*"}})
    team = asked(house, "POST", "/admin/teams", {"name": "Team", "limits": {"tokens_a_day": 100_000}})["team"][
        "team_id"
    ]
    asked(house, "POST", f"/admin/teams/{team}/members", {"account_id": account, "role": "TEAM_ROLE_MEMBER"})
    asked(house, "PATCH", f"/account/teams/{team}", {"request_log": {"on": True, "content": True, "days": 3}})
    asked(house, "POST", "/admin/budgets", {"name": "Budget", "owner": team, "limits": {"tokens_a_month": 9000}})
    asked(house, "POST", "/admin/invitations", {"expires_in": "1h"})
    headers = {"X-API-Key": made["api_key"], "moa-tags": "<b>tag</b>"}

    def call(model: str) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": f"What is {MARKUP}?"}]}
        url = f"{house.stack.url}/v1/chat/completions"
        return requests.post(url, json=body, headers=headers, timeout=60).status_code

    async with house.played(Script(text=(MARKUP,))), asyncio.timeout(60):
        while await asyncio.to_thread(call, "gpt-4o-mini") != 200:
            await asyncio.sleep(0.1)  # until the router knows of the rule and of the log
    async with asyncio.timeout(60):
        while len(asked(house, "GET", "/admin/requests").get("requests", [])) < 1:
            await asyncio.sleep(0.1)
    assert await asyncio.to_thread(call, MARKUP[:60]) == 404
    async with asyncio.timeout(60):
        while len(asked(house, "GET", "/admin/requests").get("requests", [])) < 2:
            await asyncio.sleep(0.1)
    return account, team


async def test_every_page_shows_texts_as_texts(house: House) -> None:
    """Names, tags, addresses, providers, models, devices, reasons, prompts: whatever the gateway tells and refuses.

    A request of the log is found by its tag and by its status, read, and deleted.
    """
    account, team = await begun(house)
    async with consoles.at(house) as console:
        page = console.page
        await console.log_in(BOSS)
        await console.visit("requests")
        rows = "document.querySelectorAll('main tbody tr').length"
        await page.until(f"{rows} === 2")
        await console.set("Tag", "<b>tag</b>", within="main")
        await console.set("Status", "404", within="main")
        await console.button("Search")
        await page.until(f"{rows} === 1")
        await console.sees(MARKUP[:30], "main table")
        await console.set("Status", "200", within="main")
        await console.button("Search")
        await console.sees("gpt-4o-mini", "main table")
        await console.button("Look")
        await console.sees(f"What is {MARKUP}?"[:27], "dialog[open]")
        await harmless(console, "a logged request")
        (found,) = asked(house, "GET", "/admin/requests?status=200")["requests"]
        await console.button("Delete", within="dialog[open]")
        await page.click("dialog[open] .row.end > button.main")
        await console.sees("Nothing is logged", "main")
        headers = {"X-API-Key": house.stack.api_key}
        gone = requests.get(f"{house.stack.url}/admin/requests/{found['log_id']}", headers=headers, timeout=20)
        assert gone.status_code == 404
        await console.visit("audit")
        await console.sees("request_log.deleted", "main table")

        await page.call("Page.addScriptToEvaluateOnNewDocument", source=HOSTILE % json.dumps(MARKUP))
        await page.go(f"{console.url}/?hostile")
        await page.until("document.querySelector('#logout') !== null")
        paths = (*PAGES, *ADMIN_PAGES, f"accounts/{account}", f"teams/{team}")
        seen = set()
        for path in paths:
            await console.visit(path)
            if await page.run(f"document.querySelector('main').innerText.includes({json.dumps(MARKUP[:30])})"):
                seen.add(path)
            await harmless(console, path)
        assert set(paths) - seen <= UNTOLD
        await page.run("window.refused = true")
        for path in ("keys", "usage", "tasks", *ADMIN_PAGES, f"accounts/{account}", f"teams/{team}"):
            await page.run("location.hash = '#/nowhere'")
            await console.sees("There is no such page", "main")
            await page.run(f"location.hash = '#/{path}'")
            await console.sees(MARKUP[:30])
            await harmless(console, path)
