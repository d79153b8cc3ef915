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
from tests.e2e.shown_code import run, samples_of

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
    across = await page.run("document.querySelector('dialog[open] ellipse').cx.baseVal.value")
    assert abs(across - 70) < 0.01
    await person.button("Use the mask", within="dialog[open]")
    await page.until("document.querySelectorAll('#draw img').length === 2")
    mask = await page.run("document.querySelectorAll('#draw img')[1].src")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(mask.partition(",")[2]))).convert("L"))
    assert drawn.shape == (HEIGHT, WIDTH)
    rows, columns = np.nonzero(drawn > 128)
    assert abs(columns.mean() - 0.7 * WIDTH) < 4
    assert rows.min() < 0.5 * HEIGHT < rows.max()
    assert drawn[:, : WIDTH // 2].max() < 128


async def written(page: Any, selector: str, path: Path) -> None:
    """Write the file that a picture of the page is, as the button beside the code saves it."""
    source = await page.run(f"{selector}.src")
    path.write_bytes(base64.b64decode(source.partition(",")[2]))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("operation", ["generation", "edit", "variation"])
async def test_the_shown_code_makes_the_pages_own_picture(
    house: House, person: Console, photo: Path, tmp_path: Path, operation: str
) -> None:
    """With the same seed each client's code writes the very pixels, but Google's, whose API has no field for it."""
    page = person.page
    await page.run("document.querySelector('#draw details').open = true")
    await person.set("Seed", "3", within="#draw")
    if operation != "generation":
        await page.choose("#draw input[type=file]", photo)
        await page.until(f"document.querySelector('#draw img')?.naturalWidth === {WIDTH}")
        await written(page, "document.querySelector('#draw img')", tmp_path / "picture.png")
    if operation == "edit":
        await person.button("Draw a mask")
        await page.until(f"document.querySelector('dialog[open] canvas')?.width === {WIDTH}")
        left, top, width, height = await page.box("dialog[open] canvas")
        await page.mouse((left + width * 0.6, top + height / 2), (left + width * 0.9, top + height / 2))
        await person.button("Use the mask", within="dialog[open]")
        await page.until("document.querySelectorAll('#draw img').length === 2")
        await written(page, "document.querySelectorAll('#draw img')[1]", tmp_path / "mask.png")
    await ask(person, "" if operation == "variation" else "a 'blue' square, \"$HOME\"")
    task, *_ = await finished(person, 1)
    own = pixels_of(person, task)
    for name, code in (await samples_of(person)).items():
        await run(house, tmp_path, name, code)
        made = np.asarray(Image.open(tmp_path / "result.png").convert("RGB")).astype(int)
        (tmp_path / "result.png").unlink()
        assert made.shape == own.shape, name
        if name != "Python · google-genai":
            assert np.array_equal(made, own), name
    await person.unharmed()
