"""The code that the console shows of a request runs as it is shown: `make browser` runs these."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image

from tests.e2e import consoles
from tests.e2e.consoles import House
from tests.e2e.shown_code import run, samples_of
from tests.emulators.script import Call, Script

pytestmark = pytest.mark.long

PHOTO: Final = "it's $HOME `a` photo.png"
TOOL: Final = {
    "name": "get_weather",
    "description": 'It\'s "the" weather; $HOME `x` \\ 안녕',
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
SCHEMA: Final = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("code")) as running:
        yield running


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture larger than what a command line may hold."""
    path = tmp_path / PHOTO
    Image.frombytes("RGB", (300, 300), os.urandom(300 * 300 * 3)).save(path)
    assert path.stat().st_size > 200_000
    return path


def asked(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a provider was asked for, in whatever order and with whatever names of a client's own."""
    *_, last = body["messages"]
    images = [part["image_url"]["url"] for part in last["content"] if part["type"] == "image_url"]
    return {
        "system": body["messages"][0]["content"],
        "text": "".join(part["text"] for part in last["content"] if part["type"] == "text"),
        "images": images,
        "tools": [(tool["function"]["name"], tool["function"]["description"]) for tool in body["tools"]],
        "parameters": body["tools"][0]["function"]["parameters"],
        "schema": body["response_format"]["json_schema"]["schema"],
        "temperature": body["temperature"],
    }


async def test_each_client_asks_what_the_page_asked(house: House, tmp_path: Path, photo: Path) -> None:
    """With a picture, tools, a schema and settings, each client's code asks the provider for the very same.

    The picture is read from the folder, whatever its name: no command line and no page holds it.
    """
    call = Call("call_1", "get_weather", ('{"city": ', '"서울"}'))
    scripts = [Script(text=("It is ",), calls=(call,), finish="tool_calls") for _ in range(6)]
    async with house.played(*scripts) as upstream, consoles.at(house) as console:
        page = console.page
        await console.sign_up(house)
        await console.visit("chat")
        await page.until("document.querySelector('#model option') !== null")
        await console.set("#model", "gpt-4o-mini")
        await console.button("Settings")
        settings = {"Instructions": "Be 'brief'.", "Temperature": "0.5"}
        texts = {"Tools (JSON)": json.dumps([TOOL]), "Answer's JSON schema": json.dumps(SCHEMA)}
        for label, value in {**settings, **texts}.items():
            await console.set(label, value, within="main")
        await page.choose(".composer input[type=file]", photo)
        await console.sees(PHOTO, ".composer")
        await console.ask('It\'s a "test"; $HOME `x` \\ 안녕')
        await page.until("document.querySelector('article.mine img')?.naturalWidth === 300")
        await console.there("[data-facts]")
        own = asked(upstream.seen[-1].body)
        assert len(own["images"]) == 1
        samples = await samples_of(console)
        for name, code in samples.items():
            assert len(code) < 6000, "the picture is in the code"
            printed = await run(house, tmp_path, name, code)
            assert "It is" in printed, name
            assert "get_weather" in printed, name
            assert "서울" in printed or "\\uc11c" in printed, name
            assert asked(upstream.seen[-1].body) == own, name
        assert not upstream.refused
        await console.unharmed()
