"""Sessions that end and texts of strangers at the console: `make browser` runs these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import consoles
from tests.e2e.consoles import MARKUP, House
from tests.emulators.script import Script

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("people")) as running:
        yield running


@pytest.mark.parametrize(("language", "width"), [("en", 1280), ("ko", 360), ("ko", 1280), ("en", 360)])
async def test_a_session_that_ends_costs_no_message(house: House, language: str, width: int) -> None:
    """What was asked when the session had ended is there after logging in, with what to do; two tabs go together."""
    async with house.played(Script(), Script()), consoles.at(house, width=width, language=language) as console:
        page = console.page
        email = await console.sign_up(house)
        await console.visit("chat")
        await console.ask("Hello")
        await console.there("[data-facts]")
        async with page.tab(console.url + "/#/models") as other:
            await other.until("document.querySelector('main h1') !== null")
            await page.run("fetch('/account/logout', {method: 'POST', headers: {'moa-console': '1'}, body: '{}'})")
            await console.ask("Are you still there?")
            await console.sees(console.words["ended"], "main")
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
