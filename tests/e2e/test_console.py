"""The console at `/`, used by people in headless Chromium. The long journeys are in `test_console_journeys`."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from deploy.build import console as build
from services.common.pages import FOLDER, pages
from tests.e2e import consoles
from tests.e2e.consoles import MARKUP, PASSWORD, House
from tests.emulators.script import Script

FIRST_LOAD_BYTES = 250_000
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("console"), spare=True) as running:
        yield running


async def test_the_first_visit(house: House, tmp_path: Path) -> None:
    """The printed link logs the first administrator in, who sees three steps, asks a model, and sees what it cost.

    What the model wrote is text, whatever it looks like. The link is of no use again.
    """
    link = house.stack.first_login_url()
    script = Script(reasoning=("Let me ", MARKUP), text=("**Bold** ", MARKUP, "\n\n```html\n" + MARKUP + "\n```"))
    async with house.played(script), consoles.at(house, link=link) as console:
        page = console.page
        await page.until("document.querySelector('#setup') !== null")
        assert "setup" not in await page.run("location.href")
        await page.fill("#setup", {"email": "boss@example.com", "password": PASSWORD})
        await page.until("document.querySelectorAll('.steps li').length === 3")
        # No script of the page can read the session.
        assert "ses-" not in await page.run(
            "document.cookie + JSON.stringify([{...localStorage}, {...sessionStorage}])"
        )
        await page.run("document.querySelector('.steps a').click()")
        photo = tmp_path / "<img src=x onerror=window.broken=1>.png"
        photo.write_bytes(PICTURE)
        # Reading a file may take longer than sending the message.
        await page.run(
            "FileReader.prototype.readAsDataURL = (read => function (file) {"
            " setTimeout(() => read.call(this, file), 500); })"
            "(FileReader.prototype.readAsDataURL), null"
        )
        await page.choose(".composer input[type=file]", photo)
        await console.ask(f"Hello {MARKUP}")
        # What is attached is seen: the content policy lets a page show what it holds itself.
        await page.until("document.querySelector('article.mine img')?.naturalWidth === 1")
        facts = await console.there("[data-facts]")
        assert "7 → 5 tokens" in facts
        assert "$0.000004" in facts
        assert MARKUP in await page.run("document.querySelector('.reasoning').textContent")
        assert await page.run("document.querySelector('.answer strong').textContent") == "Bold"
        assert await page.run("document.querySelector('.answer pre code').textContent") == MARKUP
        assert (
            await page.run("document.querySelectorAll('.answer img, main script, main a[href^=javascript]').length")
            == 0
        )
        await console.unharmed()

        await page.click("#logout")
        await page.run(f"location.hash = {json.dumps(link.partition('#')[2])}")
        await page.until("document.querySelector('#setup') !== null")
        await page.fill("#setup", {"email": "late@example.com", "password": PASSWORD})
        await page.until("document.querySelector('[role=alert]') && document.querySelector('form#login')")
        assert page.errors == []
    assert house.stack.first_login_url() == ""


async def test_an_operator_sets_a_providers_key(house: House) -> None:
    """It is configured at once, with no more of the key shown than its end; a fault of an edit tells its line."""
    async with house.played(), consoles.at(house) as console:
        page = console.page
        await console.log_in(house.administrator())
        await console.visit("providers")
        spare = "[data-provider=spare]"
        await console.sees("Needs SPARE_KEY.", spare)
        await page.click(f"{spare} [aria-label='Set the key: spare']")
        await page.until("document.activeElement?.matches('#provider-key input')")
        await page.write("sk-also-good")
        await page.press("Enter")
        await console.sees("It answers", spare)
        await console.sees("SPARE_KEY is stored: it ends in good", spare)
        assert "sk-also-good" not in await page.run("document.documentElement.outerHTML")
        await console.visit("catalogue")
        await console.set("#catalogue-text", "providers:\n  } bad")
        await page.click("#preview-catalogue")
        await console.sees("line 2, column 3", "main .note.bad")
        assert await page.run("document.querySelector('#apply-catalogue').disabled")
        await console.unharmed()


async def test_a_person_signs_up_and_works(house: House) -> None:
    """Sign up, make a key that works, make a picture, see it in the usage; log in again after a wrong password.

    Names are text. The session goes on in a new tab, and ends in all of them.
    """
    async with consoles.at(house) as console:
        page = console.page
        email = await console.sign_up()
        await console.visit("keys")
        await page.click("#create-key")
        await page.until("document.querySelector('#key-form') !== null")
        await page.fill("#key-form", {"name": "<b>laptop</b>", "priority": "PRIORITY_LOW", "account": True})
        key = await console.there("[data-secret]")
        limits = requests.get(house.stack.url + "/account/limits", headers={"X-API-Key": key}, timeout=20).json()
        assert limits["key"]["manages"] == ["SCOPE_ACCOUNT"]
        assert limits["key"]["priority"] == "PRIORITY_LOW"
        await page.run("document.querySelector('dialog[open] .row.end button').click()")
        await page.until("document.querySelector('[data-secret]') === null")
        assert key not in await page.run("document.documentElement.outerHTML")
        assert "<b>laptop</b>" in await console.there("#keys .name")

        await console.visit("images")
        await page.until("document.querySelector('#draw select option') !== null")
        await page.run("document.querySelector('#prompt').focus()")
        await page.write(f"a red circle {MARKUP}")
        await page.click("#make")
        await page.until("document.querySelector('#gallery img')?.naturalWidth > 0")
        await console.visit("usage")
        await page.until(
            "document.querySelector('#spend tbody tr') !== null && document.querySelector('canvas') !== null"
        )
        assert "moa-tiny-image" in await console.there("#spend")

        for language, title in (("ko", "사용량"), ("en", "Usage")):
            await console.speak(language)
            await page.until(f"document.querySelector('main h1').textContent === '{title}'")

        async with page.tab(house.stack.url + "/#/keys") as other:
            await other.until("document.querySelector('#keys [data-key]') !== null")
            await page.click("#logout")
            await other.until("document.querySelector('form#login') !== null")
        await page.until("document.querySelector('form#login') !== null")
        await page.fill("#login", {"email": email, "password": "wrong horse battery"})
        await page.until("document.querySelector('#door-error') !== null")
        await console.log_in(email)
        await console.visit("keys")
        await page.run("document.querySelector('#keys .danger').click()")
        await page.until("document.querySelector('dialog[open] .main') !== null")
        await page.run("document.querySelector('dialog[open] .main').click()")
        await page.until("document.querySelector('#keys [data-key]') === null")
        asked = requests.get(house.stack.url + "/account/me", headers={"X-API-Key": key}, timeout=20)
        assert asked.status_code == 401
        await console.unharmed()


def test_the_first_load_is_small_and_its_own() -> None:
    """At most 250 KB, compressed as it is sent; no script or style within the page; no address of anybody else."""
    files = consoles.first_load()
    assert len(files) > 3
    assert sum(len(gzip.compress(path.read_bytes(), mtime=0)) for path in files.values()) <= FIRST_LOAD_BYTES
    index = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=|https?://", index)
    for path, page in pages(others=False).items():
        if path != "/docs":
            assert "unsafe" not in page.headers["content-security-policy"]
        if path.startswith("/console/") and not path.endswith(".txt"):
            assert "immutable" in page.headers["cache-control"]


def test_built_files_are_those_of_their_sources(tmp_path: Path) -> None:
    """A source that was changed and not built, and a built file that was written by hand, are both named."""
    assert build.faults() == []
    sources, web = tmp_path / "sources", tmp_path / "web"
    for name, path in (*build.sources().items(), ("built.json", build.RECORD)):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_bytes(path.read_bytes())
    for name, path in build.built().items():
        (web / name).parent.mkdir(parents=True, exist_ok=True)
        (web / name).write_bytes(path.read_bytes())
    assert build.faults(sources, web) == []
    with (sources / "src" / "main.ts").open("a") as file:
        file.write("// changed\n")
    assert build.faults(sources, web) == ["the console's sources have changed since it was built"]
    (web / "index.html").write_text("<script>1</script>")
    assert build.faults(sources, web)[1:] == ["gateway/web/index.html: not as built"]
