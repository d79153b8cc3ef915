"""Write the pictures of the console's pages that docs/console.md shows: `python -m tests.e2e.screenshots`.

A gateway with a played provider is filled with a few things, each page is seen in Chromium, and pages of one kind go on
one sheet. Korean needs a font that has it.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import requests
from PIL import Image

from deploy.local.stack import REPOSITORY
from tests.e2e import consoles
from tests.e2e.consoles import Console, House
from tests.emulators.script import Script

INTO: Final = REPOSITORY / "docs" / "images"
BOSS: Final = "boss@example.com"
DESK, PHONE = (1280, 900), (360, 720)
_SHOWN: Final = 904
"""How wide a page of a desk is on its sheet."""
_GAP: Final = 8
_COLOURS: Final = 200

Doing = Callable[[Console], Awaitable[None]]


def filled(house: House) -> None:
    """Have a team, a budget, a key, requests and pictures there."""
    headers = {"X-API-Key": house.stack.api_key}

    def post(path: str, body: dict[str, Any]) -> None:
        requests.post(house.stack.url + path, json=body, headers=headers, timeout=120).raise_for_status()

    post("/admin/teams", {"name": "Research", "limits": {"tokens_a_day": "2000000"}})
    post("/admin/budgets", {"name": "Large models", "model": "gpt-4o", "limits": {"usd_a_month": "50"}})
    post("/admin/accounts", {"name": "Minsu", "email": "minsu@example.com", "role": "ROLE_USER"})
    post("/admin/invitations", {})
    asked = {"messages": [{"role": "user", "content": "Hello"}]}
    for model in ("gpt-4o-mini", "gpt-4o", "best", "best", "best", "moa-tiny-chat"):
        post("/v1/chat/completions", {"model": model, **asked})
    post("/v1/images/generations", {"model": "moa-tiny-image", "prompt": "a red circle"})


async def in_chat(console: Console) -> None:
    """Have an answer on the page."""
    await console.ask("Why is the sky blue?")
    await console.there("[data-facts]")


async def with_code(console: Console) -> None:
    """Have the code of an answer on the page."""
    await console.button("Show the code")
    await console.page.until("document.querySelector('dialog[open] pre') !== null")


async def in_images(console: Console) -> None:
    """Have pictures on the page."""
    for prompt in ("a red circle", "a blue square", "a green star on white"):
        await console.page.until("document.querySelector('#draw select option') !== null")
        await console.page.run("(field => { field.focus(); field.select(); })(document.querySelector('#prompt'))")
        await console.page.write(prompt)
        await console.page.click("#make")
    await console.page.until("document.querySelectorAll('#gallery img').length === 3", within_s=180)
    await console.page.until("[...document.querySelectorAll('#gallery img')].every(one => one.naturalWidth > 0)")


async def in_catalogue(console: Console) -> None:
    """Have a change previewed."""
    text = await console.page.until("document.querySelector('#catalogue-text')?.value")
    row = "models:\n- {id: gpt-5-mini, provider: cloud}\n"
    await console.set("#catalogue-text", text.replace("models:\n", row))
    await console.page.click("#preview-catalogue")
    await console.page.until("document.querySelector('main h3') !== null")
    await console.page.run(
        "document.querySelector('#catalogue-text').rows = 14;"
        "document.querySelector('#apply-catalogue').scrollIntoView({block: 'center', behavior: 'instant'})"
    )


async def while_it_draws(console: Console) -> None:
    """Have the engine at work."""
    body = {"model": "moa-tiny-image", "prompt": "a red circle", "n": 4, "steps": 100}
    await console.page.run(
        "void fetch('/v1/images/generations', {method: 'POST', headers: {'moa-console': '1', 'content-type':"
        f" 'application/json'}}, body: {json.dumps(json.dumps(body))}}})"
    )
    figures = "[...document.querySelectorAll('main dd')].map(one => parseFloat(one.innerText))"
    await console.page.until(f"(all => all[3] > 1 || all[9] > 1)({figures})")


SHEETS: Final[dict[str, Sequence[tuple[str, Doing | None]]]] = {
    "work": (("", None), ("chat", in_chat), ("", with_code), ("images", in_images)),
    "account": (*((page, None) for page in ("models", "keys", "usage", "tasks", "account")),),
    "administration": (
        *((page, None) for page in ("accounts", "teams", "budgets", "invitations", "requests", "audit")),
    ),
    "operation": (
        ("providers", None),
        ("routes", None),
        ("catalogue", in_catalogue),
        ("inference", while_it_draws),
    ),
}


async def seen(console: Console) -> Image.Image:
    """Return what is to be seen, once it stands still."""
    await console.page.until("!document.querySelector('[data-loading]')")
    await console.page.run("document.getAnimations().forEach(one => one.finish())")
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        await console.page.screenshot(Path(file.name))
        return Image.open(io.BytesIO(Path(file.name).read_bytes())).convert("RGB")


def sheet(pages: Sequence[Image.Image], columns: int, width: int, name: str) -> None:
    """Write pages beside and below each other, in few colours."""
    small = [page.resize((width, page.height * width // page.width), Image.Resampling.LANCZOS) for page in pages]
    height = max(page.height for page in small)
    rows = -(-len(small) // columns)
    size = columns * width + (columns - 1) * _GAP, rows * height + (rows - 1) * _GAP
    whole = Image.new("RGB", size, "#808080")
    for at, page in enumerate(small):
        whole.paste(page, (at % columns * (width + _GAP), at // columns * (height + _GAP)))
    few = whole.quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(INTO / f"console-{name}.png", optimize=True)
    print(f"console-{name}.png: {size[0]}x{size[1]}, {(INTO / f'console-{name}.png').stat().st_size // 1024} KiB")


async def at_a_desk(house: House) -> None:
    """Write the sheets of a desk, light."""
    async with consoles.at(house) as console:
        await console.page.size(*DESK)
        await console.page.prefer("light")
        await console.page.until("document.querySelector('form#login') !== null")
        door = await seen(console)
        await console.log_in(BOSS)
        for name, pages in SHEETS.items():
            pictures = [door] if name == "account" else []
            for path, doing in pages:
                if path or doing is None:
                    await console.visit(path)
                if doing is not None:
                    await doing(console)
                pictures.append(await seen(console))
                await console.page.press("Escape")
            sheet(pictures, 2, _SHOWN, name)


async def on_a_phone(house: House) -> None:
    """Write the sheet of a phone, dark, in Korean."""
    async with consoles.at(house, width=PHONE[0], language="ko") as console:
        await console.page.size(*PHONE)
        await console.page.prefer("dark")
        await console.log_in(BOSS)
        pictures = []
        for path in ("", "chat", "images", "keys", "usage", "providers", "catalogue", "inference"):
            await console.visit(path)
            pictures.append(await seen(console))
        sheet(pictures, 4, PHONE[0], "phone")


async def main() -> None:
    """Write all of them."""
    with (
        tempfile.TemporaryDirectory(prefix="moa-screenshots-", ignore_cleanup_errors=True) as folder,
        consoles.house(Path(folder), engine=True, spare=True) as house,
    ):
        house.claimed(BOSS)
        answer = ("The sky looks **blue** because air scatters short waves of light more than long ones.",)
        async with house.played(*[Script(text=answer) for _ in range(12)]):
            await asyncio.to_thread(filled, house)
            await at_a_desk(house)
            await on_a_phone(house)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
