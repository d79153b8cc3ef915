"""What people do with models and keys at the console, by clicks, and what the gateway then holds: `make browser`."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.e2e import consoles
from tests.e2e.consoles import MARKUP, Console, House
from tests.emulators.script import Script

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("work")) as running:
        yield running


async def draw(console: Console, prompt: str) -> dict[str, Any]:
    """Ask for a picture; return its task, once the page tells of it."""
    before = {task["id"] for task in (await console.fetched("/v1/tasks")).get("tasks", [])}
    await console.visit("images")
    await console.page.until("document.querySelector('#draw select option') !== null")
    await console.set("#prompt", prompt)
    await console.page.click("#make")
    await console.sees(prompt, "#jobs")
    (task,) = [task for task in (await console.fetched("/v1/tasks"))["tasks"] if task["id"] not in before]
    found: dict[str, Any] = task
    return found


async def state_of(console: Console, task: dict[str, Any]) -> str:
    """Return what state the gateway says a task is in."""
    state: str = (await console.fetched(f"/v1/tasks/{task['id']}"))["task"]["state"]
    return state


async def test_pictures_are_watched_as_they_come(house: House) -> None:
    """Place in the queue and time left, then step and preview, then the picture, in two tabs and after a reload.

    Tasks are followed as they run, and cancelled on either page.
    """
    async with consoles.at(house) as console:
        page = console.page
        await console.sign_up()
        task = await draw(console, "a red circle steps=10 queue=q1 gate=g1")
        await console.sees("place 3 in the queue · about 12.0 s more", "#jobs")
        await page.until("document.querySelector('#jobs progress').position === -1")
        async with page.tab(console.url + "/#/tasks") as other:
            row = "[...document.querySelectorAll('main tr')].find(one => one.innerText.includes('a red'))"
            await other.until(f"{row}?.innerText.includes('running')")
            (house.gates / "q1").touch()
            await console.sees("step 4 of 10", "#jobs")
            await page.until("document.querySelector('#jobs img')?.naturalWidth === 16")
            assert await page.run("document.querySelector('#jobs progress').position") == 4 / 10
            await other.until(f"{row}.querySelector('progress')?.value === 4")
            # A page that is loaded anew goes on where the task is.
            await page.go(f"{console.url}/?again#/images")
            await console.sees("step 4 of 10", "#jobs")
            (house.gates / "g1").touch()
            await other.until(f"{row}.innerText.includes('done')")
        await page.call("Page.bringToFront")
        await page.until("document.querySelector('#gallery img')?.naturalWidth > 0")
        await page.until("document.querySelector('#jobs') === null")
        assert await state_of(console, task) == "TASK_STATE_SUCCEEDED"

        task = await draw(console, "a blue square gate=never")
        await console.button("Cancel", within="#jobs")
        await console.sees("Cancelled.", "#jobs")
        assert await state_of(console, task) == "TASK_STATE_CANCELLED"
        task = await draw(console, "a green square gate=never")
        await console.visit("tasks")
        await page.click("button[aria-label^='Cancel: a green']")
        await console.sees("Go back", "dialog[open]")
        await page.click("dialog[open] .row.end > button.main")
        await console.sees("cancelled", "main table tbody tr:first-child")
        assert await state_of(console, task) == "TASK_STATE_CANCELLED"
        task = await draw(console, "a picture fail=upstream_refused")
        await page.until("document.querySelector('#jobs [role=alert]') !== null")
        assert await state_of(console, task) == "TASK_STATE_FAILED"
        await console.unharmed()


async def test_what_is_clicked_while_the_page_loads_counts(house: House, tmp_path: Path) -> None:
    """Pictures and answers that are asked for before models, a chosen file or a begun task are known to the page."""
    models, begun = "path.startsWith('/v1/models')", "path === '/v1/tasks' && method === 'POST'"
    file = tmp_path / "photo.png"
    Image.new("RGB", (64, 64), "white").save(file)
    async with house.played(Script()), consoles.at(house) as console:
        page = console.page
        await console.sign_up(house)
        async with console.held(models, anew=True):
            await page.go(f"{console.url}/?early#/images")
            await page.until("window.release !== undefined && document.querySelector('#prompt') !== null")
            await console.set("#prompt", "asked early gate=early")
            await page.click("#make")
            assert await page.run("document.querySelector('#draw select option')") is None
            # What is written next is the next picture's.
            await console.set("#prompt", "written later")
        await console.sees("asked early", "#jobs")
        assert await page.run("document.querySelector('.notice')") is None

        # The list tells of a task before the answer that began it.
        async with console.held(begun, answer=True):
            await console.set("#prompt", "told twice gate=twice")
            await page.click("#make")
            while len((await console.fetched("/v1/tasks"))["tasks"]) < 2:
                await asyncio.sleep(0.05)
            (house.gates / "early").touch()
            await console.sees("told twice", "#jobs")
            await page.until("document.querySelectorAll('#jobs li').length === 1")
        assert await page.run("document.querySelectorAll('#jobs li').length") == 1
        (house.gates / "twice").touch()
        await page.until("document.querySelector('#jobs') === null")
        await page.until("document.querySelectorAll('#gallery li').length === 2")

        # More are watched than the browser has connections.
        for at in range(7):
            await console.set("#prompt", f"one of many {at} gate=many")
            await page.click("#make")
            await console.sees(f"one of many {at}", "#jobs")
        (house.gates / "many").touch()
        await page.until("document.querySelector('#jobs') === null")
        await page.until("document.querySelectorAll('#gallery li').length === 9")

        # A picture to begin from is still being read.
        read = "FileReader.prototype.readAsDataURL"
        await page.run(
            f"(real => {{ {read} = function(file) {{ window.read = () => real.call(this, file); }}; }})({read})"
        )
        await page.choose("#draw input[type=file]", file)
        await page.until("window.read !== undefined")
        await console.set("#prompt", "from a picture gate=never")
        await page.click("#make")
        await page.run("window.read()")
        await console.sees("from a picture", "#jobs")
        task = (await console.fetched("/v1/tasks"))["tasks"][0]
        assert task["work"]["image"]["operation"] == "OPERATION_EDIT"
        await console.button("Cancel", within="#jobs")

        async with console.held(models, anew=True):
            await page.go(f"{console.url}/?early-too#/chat")
            await page.until("window.release !== undefined && document.querySelector('#draft') !== null")
            await page.run("document.querySelector('#draft').focus()")
            await page.write("Hello")
            await page.press("Enter")
        await console.sees("Hello 안녕 🌍!", ".answer")
        await console.unharmed()


async def test_answers_and_questions_have_branches(house: House, tmp_path: Path) -> None:
    """Another answer, a changed question, back and forth, after a reload too; the CSV has what the report has."""
    scripts = [Script(text=(text,)) for text in ("First answer.", "Second answer.", "Of cats.", "Apart.")]
    async with house.played(*scripts) as upstream, consoles.at(house) as console:
        page = console.page
        await console.sign_up(house)
        await console.visit("chat")
        await console.ask("Tell me of dogs")
        await console.sees("First answer.", ".answer")
        await console.tap(".answer button", "Regenerate")
        await console.sees("Second answer.", ".answer")
        await console.sees("2 / 2", ".answer")
        assert upstream.seen[1].body["messages"] == upstream.seen[0].body["messages"]
        await console.tap(".answer button", "‹")
        await console.sees("First answer.", ".answer")
        await console.sees("1 / 2", ".answer")
        await console.tap("article.mine button", "Change")
        await console.set(".mine textarea", "Tell me of cats")
        await console.tap("article.mine button", "Send")
        await console.sees("Of cats.", ".answer")
        await console.sees("2 / 2", "article.mine")
        asked = json.dumps(upstream.seen[2].body["messages"])
        assert "cats" in asked
        assert "dogs" not in asked
        await console.there("[data-facts]")
        await page.go(f"{console.url}/?again#/chat")
        await console.sees("Of cats.", ".answer")
        await console.tap("article.mine button", "‹")
        await console.sees("Tell me of dogs", "article.mine")
        await console.sees("Second answer.", ".answer")
        await console.tap("aside button", "New chat")
        await console.ask("Something apart")
        await console.sees("Apart.", ".answer")
        assert len(upstream.seen[3].body["messages"]) == 1
        await console.there("[data-facts]")
        await console.tap("aside li:last-child .pick")
        await console.sees("Tell me of", "article.mine")
        await console.tap("aside li:last-child button:not(.pick)")
        await console.button("Delete", within="dialog[open]")
        await page.until("document.querySelectorAll('aside li').length === 1")
        await page.go(f"{console.url}/?once-more#/chat")
        await console.sees("Something apart", "aside")
        assert await page.run("document.querySelectorAll('aside li').length") == 1

        # What is settled is in the report a moment later.
        async with asyncio.timeout(60):
            while (await console.fetched("/account/spend?by=day,model")).get("total", {}).get("requests") != "4":
                await asyncio.sleep(0.1)
        await console.visit("usage")
        await page.until("document.querySelector('#spend tbody tr') !== null")
        await page.save_into(tmp_path)
        await console.button("Download CSV")
        async with asyncio.timeout(60):
            while not (saved := list(tmp_path.glob("moa-mine-*.csv"))):
                await asyncio.sleep(0.05)
        written = list(csv.DictReader(saved[0].read_text("utf-8-sig").splitlines()))
        begin, end = saved[0].stem.removeprefix("moa-mine-")[:10], saved[0].stem[-10:]
        told = await console.fetched(f"/account/spend?by=day,model&from_day={begin}&to_day={end}")
        assert len(written) == len(told["rows"]) == 1
        for line, row in zip(written, told["rows"], strict=True):
            assert {name: line[name] for name in line if name in row} == {
                name: row[name] for name in line if name in row
            }
            assert (line["requests"], line["tokens"]) == ("4", "48")
        shown = await console.there("#spend tbody tr")
        assert "gpt-4o-mini" in shown
        assert "48" in shown
        await console.unharmed()


LIMITS = {
    "US dollars a day": ("usd_a_day", "1.50"),
    "US dollars a month": ("usd_a_month", "10.00"),
    "US dollars in all": ("usd_in_total", "100.00"),
    "Tokens a day": ("tokens_a_day", "1000"),
    "Tokens a month": ("tokens_a_month", "20000"),
    "Tokens in all": ("tokens_in_total", "300000"),
    "Images a day": ("images_a_day", "1"),
    "Images a month": ("images_a_month", "20"),
    "Images in all": ("images_in_total", "300"),
    "Requests a day": ("requests_a_day", "10"),
    "Requests a month": ("requests_a_month", "200"),
    "Requests in all": ("requests_in_total", "3000"),
    "Requests a minute": ("requests_per_minute", "30"),
    "Tokens a minute": ("tokens_per_minute", "4000"),
    "Images a minute": ("images_per_minute", "5"),
    "US dollars a minute": ("usd_per_minute", "0.50"),
    "Requests at once": ("concurrent_requests", "2"),
}


async def test_a_key_has_all_that_its_form_has(house: House) -> None:
    """Every limit, a scope, an end, a priority; a refused form keeps what was typed; it is copied on plain HTTP.

    Its use is seen; it is changed, replaced and revoked.
    """
    async with house.played(Script(), Script()), consoles.at(house, host="moa.test") as console:
        page = console.page
        await console.sign_up(house)
        assert await page.run("isSecureContext || navigator.clipboard !== undefined") is False
        await console.visit("keys")
        await console.tap("#create-key")
        await console.set("Name", f"all {MARKUP[:60]}")
        await console.set("#key-form [name=priority]", "PRIORITY_LOW")
        await console.set("#key-form [name=expires]", "7d")
        await console.tap("#key-form summary", "Only some models")
        await console.button("Add a rule", within="#key-form")
        await console.set("Provider", "cloud")
        await console.set("Model", "gpt-4o-mini")
        await console.tap("#key-form summary", "Limits of its own")
        for label, (_, value) in LIMITS.items():
            await console.set(label, value)
        await console.set("Tokens in all", "99999999999999999999")
        await console.tap("#key-form button.main")
        await page.until("document.querySelector('#key-form [role=alert]') !== null")
        await page.until("document.activeElement.name === 'tokens_in_total'")
        kept = await page.run(
            "[...document.querySelectorAll('#key-form input:not([type=checkbox])')].map(one => one.value)"
        )
        assert kept == [
            f"all {MARKUP[:60]}",
            "cloud",
            "gpt-4o-mini",
            *(value if name != "tokens_in_total" else "99999999999999999999" for name, value in LIMITS.values()),
        ]
        assert (await console.fetched("/account/keys")).get("keys", []) == []
        await console.set("Tokens in all", "300000")
        await console.tap("#key-form button.main")
        secret = await console.there("[data-secret]")

        def held() -> Any:
            headers = {"X-API-Key": house.stack.api_key}
            return requests.get(f"{house.stack.url}/admin/accounts/{account}/keys", headers=headers, timeout=20).json()

        account = (await console.fetched("/account/me"))["account"]["account_id"]
        (key,) = held()["keys"]
        limits = {**key, **key["limits"]}
        assert {name: str(limits[name]) for name, _ in LIMITS.values()} == dict(LIMITS.values())
        assert key["scopes"] == [{"provider": "cloud", "model": "gpt-4o-mini", "operations": []}]
        assert key["priority"] == "PRIORITY_LOW"
        lasts = (consoles.time_of(key["expires_at"]) - consoles.time_of(key["created_at"])).total_seconds()
        assert abs(lasts - 7 * 86_400) < 60

        await console.tap("dialog[open] button", "Copy")
        await console.sees("Copied", "dialog[open]")
        await console.button("I have kept it", within="dialog[open]")
        await console.sees("Tokens in all: 300,000", "#keys")
        await console.sees("never", "#keys")
        headers = {"Authorization": f"Bearer {secret}"}
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10}
        url = house.stack.url + "/v1/chat/completions"
        answers = await asyncio.to_thread(
            lambda: [
                requests.post(url, json={**body, "model": one}, headers=headers, timeout=60)
                for one in ("gpt-4o-mini", "gpt-4o")
            ]
        )
        assert [answer.status_code for answer in answers] == [200, 403]
        async with asyncio.timeout(60):
            while "last_used_at" not in held()["keys"][0]:
                await asyncio.sleep(0.1)
        await console.visit("chat")
        await page.until("document.querySelector('#draft') !== null")
        await page.run("document.querySelector('#draft').focus()")
        await page.paste()
        assert await page.run("document.querySelector('#draft').value") == secret
        await console.visit("keys")
        await page.until("!document.querySelector('#keys').innerText.includes('never')")

        await console.tap("#keys button", "Change")
        await console.set("Name", "renamed")
        await console.set("Tokens a day", "")
        await console.set("Requests a minute", "60")
        await console.tap("#key-form button.main")
        await console.sees("Requests a minute: 60", "#keys")
        (key,) = held()["keys"]
        limits = {**key, **key["limits"]}
        assert (key["name"], limits["requests_per_minute"], limits.get("tokens_a_day")) == ("renamed", 60, None)
        assert str(limits["tokens_a_month"]) == "20000"
        await console.tap("#keys button", "Rotate")
        await console.button("Rotate", within="dialog[open]")
        fresh = await console.there("[data-secret]")
        me = house.stack.url + "/account/me"
        assert requests.get(me, headers={"X-API-Key": fresh}, timeout=20).status_code == 200
        await console.button("I have kept it", within="dialog[open]")
        await page.until("document.querySelectorAll('#keys [data-key]').length === 2")
        await console.unharmed()
