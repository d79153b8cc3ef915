"""Pictures that are made again, mixed, varied and edited at the console, by the model that ships: `make browser`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from tests.e2e import consoles
from tests.e2e.consoles import Console, House

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("gallery"), engine=True) as running:
        yield running


async def made(console: Console, count: int) -> dict[str, Any]:
    """Wait for as many pictures as said to be seen; return the newest task."""
    shown = "[...document.querySelectorAll('#gallery img')]"
    await console.page.until(f"{shown}.length === {count} && document.querySelector('#jobs') === null")
    task: dict[str, Any] = (await console.fetched("/v1/tasks"))["tasks"][0]
    return task


def pixels_of(house: House, task: dict[str, Any]) -> Any:
    """Return a task's picture as numbers."""
    link = task["outputs"][0]["link"]
    got = requests.get(house.stack.url + link[link.index("/files") :], timeout=20)
    got.raise_for_status()
    return np.asarray(Image.open(io.BytesIO(got.content)).convert("RGB")).astype(int)


async def test_pictures_are_made_again_mixed_varied_and_edited(house: House, tmp_path: Path) -> None:
    """One seed makes one picture, another another; a LoRA, chosen from those that the model has, changes it.

    From the gallery come the settings again, a variation, a start for an edit and a file.
    """
    async with consoles.at(house) as console:
        page = console.page
        await console.sign_up()
        await console.visit("images")
        await page.until("document.querySelector('#draw select option') !== null")
        await page.click("#draw summary")
        await console.set("#prompt", "a red circle")
        for label, value in {"Seed": "7", "Steps": "6", "Width": "64", "Height": "64"}.items():
            await console.set(label, value, within="#draw")
        await page.click("#make")
        first = pixels_of(house, await made(console, 1))
        assert first.shape == (64, 64, 3)
        await page.click("#make")
        assert (pixels_of(house, await made(console, 2)) == first).all()
        await console.set("Seed", "8", within="#draw")
        await page.click("#make")
        assert (pixels_of(house, await made(console, 3)) != first).any()

        await console.set("Seed", "7", within="#draw")
        await console.button("Add a LoRA", within="#draw")
        await page.until("document.querySelector('#draw [name=lora]') !== null")
        offered = await page.run("[...document.querySelector('#draw [name=lora]').options].map(one => one.value)")
        assert offered == ["framed", "moa"]
        await console.set("#draw [name=lora]", "framed")
        await console.set("Scale", "0.5", within="#draw")
        await page.click("#make")
        task = await made(console, 4)
        assert task["work"]["image"]["diffusion"]["loras"] == [{"name": "framed", "scale": 0.5}]
        framed = pixels_of(house, task)
        assert (framed != first).any()

        # What the form had is read from the gallery, after the page is loaded anew too.
        await page.go(f"{console.url}/?again#/images")
        await made(console, 4)
        await console.tap("#gallery button")
        await console.sees("Seed 7", "dialog[open]")
        await console.button("Use these settings", within="dialog[open]")
        await page.click("#draw summary")
        await page.click("#make")
        assert (pixels_of(house, await made(console, 5)) == framed).all()

        await console.tap("#gallery button")
        await page.save_into(tmp_path)
        await console.button("Save as a file", within="dialog[open]")
        while not (saved := [path for path in tmp_path.iterdir() if path.suffix != ".crdownload"]):
            await page.run("new Promise(requestAnimationFrame)")
        assert (np.asarray(Image.open(saved[0]).convert("RGB")) == framed).all()
        await console.button("Vary", within="dialog[open]")

        task = await made(console, 6)
        assert task["work"]["image"]["operation"] == "OPERATION_VARIATION"
        await console.tap("#gallery button")
        await console.button("Edit", within="dialog[open]")
        await page.until("document.querySelector('#draw img') !== null")
        await console.set("#prompt", "a blue square")
        await console.set("How many", "2", within="#draw")
        await page.click("#make")
        task = await made(console, 8)
        assert task["work"]["image"]["operation"] == "OPERATION_EDIT"
        assert len(task["outputs"]) == 2
        await console.unharmed()
