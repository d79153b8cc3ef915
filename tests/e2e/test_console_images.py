"""Pictures at the console, made by the model that ships: `make browser` runs these."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw, PngImagePlugin

from tests.e2e import consoles
from tests.e2e.consoles import MARKUP, Console, House

pytestmark = pytest.mark.long

WIDTH, HEIGHT = 192, 96


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("pictures"), engine=True) as running:
        yield running


@pytest.fixture
async def person(house: House) -> AsyncIterator[Console]:
    """Somebody at the page of pictures."""
    async with consoles.at(house) as console:
        await console.sign_up(house)
        await console.visit("images")
        await console.page.until("document.querySelector('#draw select option') !== null")
        yield console


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A wide picture whose name and whose text inside look like markup."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    ImageDraw.Draw(image).ellipse((110, 20, 166, 76), "red")
    ImageDraw.Draw(image).rectangle((0, 0, 60, HEIGHT), "green")
    inside = PngImagePlugin.PngInfo()
    inside.add_text("Comment", MARKUP)
    path = tmp_path / "<img src=x onerror=window.broken=1>.png"
    image.save(path, pnginfo=inside)
    return path


async def ask(console: Console, prompt: str) -> None:
    """Write a description and send it."""
    await console.page.run("(field => { field.focus(); field.select(); })(document.querySelector('#prompt'))")
    await console.page.write(prompt)
    await console.page.click("#make")


async def finished(console: Console, count: int) -> list[dict[str, Any]]:
    """Wait for as many pictures as said to be seen; return the tasks, the newest first."""
    shown = "[...document.querySelectorAll('#gallery img')]"
    await console.page.until(f"{shown}.length === {count} && {shown}.every(one => one.naturalWidth > 0)")
    await console.page.until("document.querySelector('#jobs') === null")
    tasks: list[dict[str, Any]] = (await console.fetched("/v1/tasks"))["tasks"]
    return tasks


def pixels_of(console: Console, task: dict[str, Any]) -> Any:
    """Return a task's picture as numbers."""
    link = task["outputs"][0]["link"]
    path = link[link.index("/files") :]
    got = requests.get(console.url + path, timeout=20)
    got.raise_for_status()
    return np.asarray(Image.open(io.BytesIO(got.content)).convert("RGB")).astype(int)


async def test_a_drawn_mask_says_what_changes(person: Console, photo: Path) -> None:
    """What is painted over by the mouse is what the model changes, in a picture that is not square; the rest stays.

    The file's name and the text within the file are no markup.
    """
    page = person.page
    await page.choose("#draw input[type=file]", photo)
    await page.until(f"document.querySelector('#draw img')?.naturalWidth === {WIDTH}")
    await person.button("Draw a mask")
    await page.until(f"document.querySelector('dialog[open] canvas')?.width === {WIDTH}")
    left, top, width, height = await page.box("dialog[open] canvas")
    assert abs(width / height - WIDTH / HEIGHT) < 0.05
    # The right half, line by line: the red disc stands in it.
    for row in range(1, 10, 2):
        y = top + height * row / 10
        await page.mouse((left + width * 0.48, y), (left + width * 0.7, y), (left + width * 0.97, y))
    await person.button("Use the mask", within="dialog[open]")
    await page.until("document.querySelectorAll('#draw img').length === 2")
    await page.run("document.querySelector('#draw details').open = true")
    await person.set("Strength", "1", within="#draw")
    await person.set("Seed", "3", within="#draw")
    await ask(person, "a blue square")
    task, *_ = await finished(person, 1)
    assert task["work"]["image"]["operation"] == "OPERATION_EDIT"
    made = pixels_of(person, task)
    width = made.shape[1]
    # The size is the model's nearest. Of the disc, a quarter of its half, little is left; the green stays.
    red = (made[:, :, 0] > 180) & (made[:, :, 1] < 90)
    green = (made[:, :, 1] > made[:, :, 0] + 60) & (made[:, :, 1] > made[:, :, 2] + 60)
    assert red[:, width // 2 :].mean() < 0.1
    assert green[:, : width * 30 // 100].mean() > 0.5
    await person.unharmed()


async def test_a_mask_is_drawn_by_keys(person: Console, photo: Path) -> None:
    """Arrows move a pen that is seen, and shift draws: the mask is white along its way and black elsewhere."""
    page = person.page
    await page.choose("#draw input[type=file]", photo)
    await person.button("Draw a mask")
    await page.until(f"document.querySelector('dialog[open] canvas')?.width === {WIDTH}")
    assert await page.run("document.querySelector('dialog[open] ellipse')") is None
    for _ in range(20):
        if await page.run("document.activeElement?.getAttribute('role') === 'application'"):
            break
        await page.press("Tab", modifiers=8)
    await page.until("document.querySelector('dialog[open] ellipse') !== null")
    for _ in range(5):
        await page.press("ArrowRight")
    for _ in range(4):
        await page.press("ArrowDown", modifiers=8)
    assert await page.run("document.querySelector('dialog[open] ellipse').getAttribute('cx')") == "70"
    await person.button("Use the mask", within="dialog[open]")
    await page.until("document.querySelectorAll('#draw img').length === 2")
    mask = await page.run("document.querySelectorAll('#draw img')[1].src")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(mask.partition(",")[2]))).convert("L"))
    assert drawn.shape == (HEIGHT, WIDTH)
    rows, columns = np.nonzero(drawn > 128)
    assert abs(columns.mean() - 0.7 * WIDTH) < 4
    assert rows.min() < 0.5 * HEIGHT < rows.max()
    assert drawn[:, : WIDTH // 2].max() < 128


async def test_seeds_loras_and_variations(person: Console) -> None:
    """A seed and a LoRA make the same picture again by "use these settings"; a variation begins from the picture."""
    page = person.page
    await page.run("document.querySelector('#draw details').open = true")
    await person.set("Seed", "7", within="#draw")
    await person.set("Steps", "6", within="#draw")
    await person.button("Add a LoRA")
    await person.set("LoRA", "framed", within="#draw")
    await person.set("Scale", "0.8", within="#draw")
    await ask(person, "a red circle")
    first, *_ = await finished(person, 1)
    assert first["work"]["image"]["diffusion"]["loras"] == [{"name": "framed", "scale": 0.8}]
    assert first["outputs"][0]["receipt"]["seed"] == "7"

    await page.go(f"{person.url}/?anew#/images")
    await page.until("document.querySelector('#gallery img')?.naturalWidth > 0")
    await page.run("document.querySelector('#gallery button').click()")
    await person.sees("Seed 7", "dialog[open]")
    await person.button("Use these settings", within="dialog[open]")
    await page.click("#make")
    second, *_ = await finished(person, 2)
    assert second["work"]["image"]["diffusion"] == first["work"]["image"]["diffusion"]
    assert (pixels_of(person, second) == pixels_of(person, first)).all()

    await page.run("document.querySelector('#gallery button').click()")
    await person.button("Vary", within="dialog[open]")
    third, *_ = await finished(person, 3)
    assert third["work"]["image"]["operation"] == "OPERATION_VARIATION"
    assert not (pixels_of(person, third) == pixels_of(person, first)).all()
    await person.unharmed()


async def test_a_picture_is_watched_as_it_comes(person: Console) -> None:
    """Steps, the time that is left and previews come live; a task that waits says so; a cancelled one stays untaken."""
    page = person.page
    await page.run(
        """window.seen = {text: '', previews: 0}; new MutationObserver(() => {
          const jobs = document.querySelector('#jobs');
          if (!jobs) return;
          window.seen.text += jobs.innerText + '\\n';
          if (jobs.querySelector('img')?.src.includes('/files')) window.seen.previews++;
        }).observe(document.querySelector('main'), {
          subtree: true, childList: true, characterData: true, attributes: true,
        })"""
    )
    await page.run("document.querySelector('#draw details').open = true")
    await person.set("Steps", "60", within="#draw")
    await ask(person, "a red circle above a blue square")
    await page.until("window.seen.previews > 0 && /step \\d+ of 60/.test(window.seen.text)")
    await page.until("/about .+ more/.test(window.seen.text)")
    await person.set("Steps", "150", within="#draw")
    await ask(person, "a green triangle")
    await page.until("document.querySelectorAll('#jobs li').length >= 1")
    await page.run(
        "[...document.querySelectorAll('#jobs li')].find(one => one.innerText.includes('green'))"
        ".querySelector('button').click()"
    )
    await person.sees("Cancelled.", "#jobs")
    tasks = (await person.fetched("/v1/tasks"))["tasks"]
    assert [task["state"] for task in tasks if "green" in task["work"]["image"]["prompt"]] == ["TASK_STATE_CANCELLED"]
    await page.until("document.querySelector('#gallery img')?.naturalWidth > 0")
    await person.unharmed()


async def test_a_task_is_cancelled_at_the_page_of_tasks(person: Console) -> None:
    """It is seen running in another tab, asked once more about, and ends there and in the gallery's own tab."""
    page = person.page
    await page.run("document.querySelector('#draw details').open = true")
    await person.set("Steps", "150", within="#draw")
    async with page.tab(person.url + "/#/tasks") as other:
        tasks = Console(other, person.url)
        await tasks.sees("No tasks yet", "main")
        await ask(person, f"a yellow star {MARKUP}")
        # Nothing was to be followed there: it looks again by itself.
        await tasks.sees("a yellow star <img", "main table")
        await other.click("main table button.danger")
        await tasks.button("Cancel", within="dialog[open]")
        await tasks.sees("cancelled", "main table")
        await tasks.unharmed()
    await person.sees("Cancelled.", "#jobs")
    await person.unharmed()
