"""What operators do at the console: providers' keys, the catalogue, inference, traffic. `make browser` runs these."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest
import requests

from tests.e2e import consoles
from tests.e2e.consoles import MARKUP, Console, House
from tests.emulators.script import Script

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

BOSS: Final = "boss@example.com"
WRONG, RIGHT, OWN = "sk-nobodys-key-4321", "sk-also-good", "sk-good"
SPARE: Final = "[data-provider=spare]"
TEXT: Final = "document.querySelector('#catalogue-text')"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("operator"), engine=True, spare=True) as begun:
        begun.claimed(BOSS)
        yield begun


@pytest.fixture
async def boss(house: House) -> AsyncIterator[Console]:
    """The first administrator, logged in."""
    async with consoles.at(house) as console:
        await console.log_in(BOSS)
        yield console


def asked(house: House, model: str) -> tuple[int, Any]:
    """Ask a model; return the status and the answer."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    key = {"X-API-Key": house.stack.api_key}
    answer = requests.post(f"{house.stack.url}/v1/chat/completions", json=body, headers=key, timeout=60)
    return answer.status_code, answer.json()


async def until_asked(house: House, model: str) -> None:
    """Wait until a model answers: each process learns of a change by itself."""
    async with asyncio.timeout(90):
        while (await asyncio.to_thread(asked, house, model))[0] != 200:
            await asyncio.sleep(0.2)


async def set_key(console: Console, provider: str, value: str) -> None:
    """Set a provider's key as a person does; what it says by its test is to be seen afterwards."""
    await console.tap(f"[data-provider={provider}] [aria-label$='the key: {provider}']:not(.danger)")
    await console.page.until("document.querySelector('#provider-key input') !== null")
    await console.page.run("document.querySelector('#provider-key input').focus()")
    await console.page.write(value)
    await console.page.press("Enter")
    await console.page.until("document.querySelector('#provider-key') === null")


async def test_a_providers_key_is_set_tested_and_deleted(house: House, boss: Console) -> None:
    """It counts at once; its last four characters alone are shown, and the audit log has who did it."""
    page = boss.page
    async with house.played() as upstream:
        await boss.visit("providers")
        await boss.sees("Needs SPARE_KEY.", SPARE)
        await boss.sees("not configured", SPARE)
        await set_key(boss, "spare", WRONG)
        await boss.sees("refused the gateway's credentials", SPARE)
        await boss.sees("SPARE_KEY is stored: it ends in 4321", SPARE)
        await set_key(boss, "spare", RIGHT)
        await boss.sees("It answers", SPARE)
        await boss.sees("Its key is stored here.", SPARE)
        await boss.sees("it ends in good", SPARE)
        for secret in (WRONG, RIGHT):
            assert secret not in await page.run(
                "document.documentElement.outerHTML + [...document.querySelectorAll('input')].map(one => one.value)"
            )
            assert secret not in json.dumps(await boss.fetched("/admin/providers"))
        await until_asked(house, "spare/o4-mini")
        assert upstream.seen[-1].headers["authorization"] == f"Bearer {RIGHT}"

        await boss.tap(f"{SPARE} .danger")
        await boss.button("Delete the key", within="dialog[open]")
        await boss.sees("Not configured", SPARE)
        await boss.sees("Needs SPARE_KEY.", SPARE)
        await page.until(f"document.querySelector({json.dumps(SPARE)})?.innerText.includes('stored') === false")
        await boss.tap(f"{SPARE} [aria-label='Test now: spare']")
        await boss.sees("Not configured", SPARE)
        await boss.visit("audit")
        for act in ("provider_key.set", "provider_key.deleted", "variable=SPARE_KEY", "provider=spare"):
            await boss.sees(act, "main table")
        await boss.unharmed()


async def test_the_environments_key_wins(house: House, boss: Console) -> None:
    """It is said before another is stored, and that one is not what the provider is sent."""
    async with house.played() as upstream:
        await boss.visit("providers")
        cloud = "[data-provider=cloud]"
        await boss.sees("Its key is from the environment.", cloud)
        await boss.tap(f"{cloud} [aria-label='Set the key: cloud']")
        await boss.sees("The environment has a key, which wins", "dialog[open]")
        await boss.page.press("Escape")
        await set_key(boss, "cloud", WRONG)
        await boss.sees("It answers", cloud)
        await boss.sees("Its key is from the environment.", cloud)
        await until_asked(house, "gpt-4o-mini")
        assert upstream.seen[-1].headers["authorization"] == f"Bearer {OWN}"
        await boss.tap(f"{cloud} .danger")
        await boss.button("Delete the key", within="dialog[open]")
        await boss.unharmed()


async def edited(console: Console, text: str) -> None:
    """Put a text in place of the catalogue's, and have it previewed."""
    await console.set("#catalogue-text", text)
    await console.tap("#preview-catalogue")


async def test_the_catalogue_is_edited_after_a_preview(house: House, boss: Console) -> None:
    """A fault tells line and column, or the row and the nearest word, and is not applied; what is right is."""
    page = boss.page
    await boss.visit("catalogue")
    await page.until(f"{TEXT} !== null")
    before = await page.run(f"{TEXT}.value")
    lines = before.splitlines()
    place = next(number for number, line in enumerate(lines) if "id: gpt-4o-mini" in line)
    await edited(boss, "\n".join([*lines[:place], "  } bad", *lines[place:]]))
    await boss.sees(f"line {place + 1}, column", "main .note.bad")
    assert await page.run("document.querySelector('#apply-catalogue').disabled")
    await edited(boss, before.replace("capabilities", "capabilites", 1))
    await boss.sees("did you mean 'capabilities'?", "main .note.bad")
    assert await page.run("document.querySelector('#apply-catalogue').disabled")

    await edited(boss, before.replace("id: gpt-4o-mini", f"id: {json.dumps(MARKUP)}"))
    await boss.sees(f"model {MARKUP}: id: ", "main .note.bad")

    row = "- {id: gpt-5-mini, provider: cloud}\n"
    await edited(boss, before.replace("models:\n", "models:\n" + row))
    await boss.sees("Changes: 1", "main")
    await boss.sees("new model cloud/gpt-5-mini", "main")
    await boss.tap("#apply-catalogue")
    await boss.sees("The catalogue is changed", ".host")
    async with house.played(Script(refuse="model_not_found")):
        # The provider is asked, and does not know it: the row is in use.
        async with asyncio.timeout(90):
            while "cloud" not in json.dumps(found := await asyncio.to_thread(asked, house, "gpt-5-mini")):
                await asyncio.sleep(0.2)
        assert found[0] == 404
    await boss.visit("audit")
    await boss.sees("catalogue.changed", "main table")
    await boss.unharmed()


def changed_elsewhere(house: House, row: str) -> str:
    """Add a row to the catalogue, as another administrator does meanwhile; return the text."""
    key = {"X-API-Key": house.stack.api_key}
    shown = requests.get(f"{house.stack.url}/admin/catalogue", headers=key, timeout=60).json()
    body = {"text": shown["text"].replace("models:\n", f"models:\n- {row}\n"), "etag": shown["etag"]}
    requests.post(f"{house.stack.url}/admin/catalogue:apply", json=body, headers=key, timeout=120).raise_for_status()
    text: str = body["text"]
    return text


async def test_of_two_edits_at_once_the_second_hears_of_the_first(house: House, boss: Console) -> None:
    """Whether it was previewed before or after; it goes on from the newer file, or over it, knowing what goes."""
    page = boss.page
    await boss.visit("catalogue")
    before = await page.until(f"{TEXT}?.value")
    mine = before.replace("models:\n", "models:\n- {id: mine, provider: cloud}\n")
    await edited(boss, mine)
    await boss.sees("new model cloud/mine", "main")
    newer = await asyncio.to_thread(changed_elsewhere, house, "{id: first, provider: cloud}")
    await boss.tap("#apply-catalogue")
    await boss.sees("the catalogue was changed since it was read", ".host")
    # Held against the newer file, the text takes the other's row away.
    await boss.sees("was changed since you opened it", "main")
    await boss.sees("goes model cloud/first", "main")
    assert await page.run(f"{TEXT}.value") == mine
    await boss.button("Take the newer file")
    await page.until(f"{TEXT}.value === {json.dumps(newer)}")

    await asyncio.to_thread(changed_elsewhere, house, "{id: second, provider: cloud}")
    await edited(boss, mine)
    await boss.sees("goes model cloud/second", "main")
    await boss.sees("was changed since you opened it", "main")
    assert await page.run("document.querySelector('#apply-catalogue').disabled")
    await boss.button("Keep my text")
    await boss.tap("#apply-catalogue")
    await boss.sees("The catalogue is changed", ".host")
    assert await page.run(f"{TEXT}.value") == mine
    await boss.unharmed()


FIGURES: Final = """(() => {
  const shown = [...document.querySelectorAll('main li.panel')].find(one => one.innerText.includes('moa-tiny-image'));
  const pairs = [...(shown?.querySelectorAll('dl > div') ?? [])];
  const named = pairs.map(one => [...one.children].map(each => each.innerText));
  return {...Object.fromEntries(named), badge: shown?.querySelector('.badge')?.innerText ?? ''};
})()"""


def drawn(house: House, *, count: int, steps: int) -> None:
    """Have pictures drawn, in one request."""
    body = {"model": "moa-tiny-image", "prompt": "a red circle", "n": count, "steps": steps}
    key = {"X-API-Key": house.stack.api_key}
    answer = requests.post(f"{house.stack.url}/v1/images/generations", json=body, headers=key, timeout=120)
    answer.raise_for_status()


async def test_inference_is_seen_as_it_works(house: House, boss: Console) -> None:
    """Devices with their memory, the loaded model, what runs and waits; rate and batch fill rise while pictures are
    drawn, and fall when they are done."""
    await asyncio.to_thread(drawn, house, count=1, steps=2)
    await boss.visit("inference")
    device = await boss.there("main .tile")
    assert re.search(r"cpu", device, re.IGNORECASE)
    assert re.search(r"[\d.]+ GiB free\s+of [\d.]+ GiB", device)
    await boss.sees("moa-tiny-image", "main")
    await boss.page.until(f"{FIGURES}.badge === 'ready' && {FIGURES}['Steps a second'] === '0.0'")
    drawing = asyncio.gather(*(asyncio.to_thread(drawn, house, count=4, steps=50) for _ in range(3)))
    rising = f"(now => Number(now['Running']) > 0 && now)({FIGURES})"
    assert float((await boss.page.until(rising))["Running"]) >= 1
    busy = f"(now => Number(now['Steps a second']) > 0 && parseFloat(now['Rows a step']) > 1 && now)({FIGURES})"
    assert int((await boss.page.until(busy))["Busy"].rstrip("%")) > 0
    await drawing
    idle = f"(now => now['Steps a second'] === '0.0' && now['Running'] === '0' && now['Waiting'] === '0')({FIGURES})"
    await boss.page.until(idle)
    await boss.unharmed()


async def test_where_a_virtual_models_requests_went(house: House, boss: Console) -> None:
    """By target: what answered, what failed, and what another answered instead."""
    async with house.played(*[Script(refuse="upstream_failed") for _ in range(2)]) as upstream:
        for _ in range(6):
            assert (await asyncio.to_thread(asked, house, "best"))[0] == 200
        assert len(upstream.seen) >= 6
        await boss.visit("routes")
        await boss.sees("best", "main")
        shown = "document.querySelector('main').innerText"
        while "6" not in await boss.page.run(f"{shown}.match(/Requests\\s+(\\d+)/)?.[1] ?? ''"):
            await boss.button("Refresh")
            await boss.page.until("document.querySelector('main h2') !== null")
        text = await boss.page.run(shown)
        assert "cloud/gpt-4o" in text
        assert "spare/o4-mini" in text
        assert re.search(r"Failures\s+2 \(25%\)", text)
    await boss.unharmed()
