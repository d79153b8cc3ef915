"""Retired models of the catalogue that ships: their successors answer and callers are told, or they are refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
import requests

from tests import shipped, stacks
from tests.dialects import PAINTING
from tests.e2e.conftest import Gateway
from tests.emulators.base import Emulator
from tests.emulators.bedrock_images import BedrockImagesEmulator
from tests.emulators.gemini_images import GeminiImagesEmulator
from tests.emulators.openai_images import OpenAIImagesEmulator
from tests.image.subjects import SUBJECTS

EMULATORS: dict[str, tuple[type[Emulator], str]] = {
    "openai-image": (OpenAIImagesEmulator, "/v1"),
    "gemini-image": (GeminiImagesEmulator, "/v1beta"),
    "aws-bedrock-image": (BedrockImagesEmulator, ""),
}
PAST = date(2025, 3, 4)
RETIRED = ["dall-e-3", "opanai/dall-e-3", "imagen-3.0-generate-002", "nova-canvas", "gemini-2.5-flash-image"]


def rows(urls: dict[str, str]) -> dict[str, Any]:
    """Return the shipped rows of these providers at other addresses; what is retired there, was so before any test."""
    file = shipped.rows()
    providers = [{**row, "base_url": urls[row["id"]]} for row in file["providers"] if row["id"] in urls]
    models = [row for row in file["models"] if row["provider"] in urls]
    for row in models:
        if "retirement" in row:
            row["retirement"] = {**row["retirement"], "date": PAST}
            row["retirement"].pop("announced", None)
    for row in providers:
        if row["id"].startswith("aws"):
            row["options"] = {**row.get("options", {}), "region": "us-east-1"}
    return {"providers": providers, "models": models}


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, str]]:
    """Return the address of each provider, emulated."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="emulators")
    thread.start()
    made = {name: kind() for name, (kind, _) in EMULATORS.items()}
    for emulator in made.values():
        asyncio.run_coroutine_threadsafe(emulator.start(), loop).result(20)
    yield {name: emulator.url + EMULATORS[name][1] for name, emulator in made.items()}
    for emulator in made.values():
        asyncio.run_coroutine_threadsafe(emulator.stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def catalogue(served: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("retired") / "catalogue.yaml"
    path.write_bytes(msgspec.yaml.encode(rows(served)))
    return path


@pytest.fixture(scope="module")
def retired(catalogue: Path) -> Iterator[Gateway]:
    environment = {"MOA_CATALOGUE": str(catalogue)}
    for subject in SUBJECTS:
        environment |= subject.environment
    names = ("auth", "image", "router", "edge")
    with stacks.gateway(catalogue.parent / "state", environment=environment, processes=names) as stack:
        yield Gateway(stack)


def successor_of(name: str, served: dict[str, str]) -> str:
    row = next(row for row in rows(served)["models"] if name in (row["id"], *row.get("aliases", ())))
    return str(row["retirement"]["successor"])


@pytest.mark.parametrize("model", RETIRED)
def test_the_successor_answers(retired: Gateway, served: dict[str, str], model: str) -> None:
    """By default: an image of the successor's, which the headers name beside the day and the link; not listed."""
    answer = retired.post("/v1/images/generations", {"model": model, "prompt": "a red circle"})
    assert answer.status_code == 200, answer.text
    successor = successor_of(model, served)
    assert answer.headers["x-moa-model"] == successor.rpartition("openai-image/")[2]
    assert answer.headers["sunset"] == "Tue, 04 Mar 2025 00:00:00 GMT"
    assert answer.headers["deprecation"] == "@1741046400"
    assert answer.headers["link"] == f'</v1/models/{successor.replace(":", "%3A")}>; rel="successor-version"'
    assert requests.get(answer.json()["data"][0]["url"], timeout=60).content.startswith(b"\x89PNG")
    listed = {each["id"] for each in retired.get("/v1/models").json()["data"]}
    assert model.rpartition("/")[2] not in listed


def test_the_operator_may_refuse_them(retired: Gateway, served: dict[str, str], catalogue: Path) -> None:
    """With `policy: gone`, taken over while the gateway runs, each is 410 and its successor named, in all dialects."""
    changed = rows(served)
    for row in changed["models"]:
        if "retirement" in row:
            row["retirement"]["policy"] = "gone"
    take_over(retired, catalogue, changed, status=410)
    try:
        refused_everywhere(retired, served)
    finally:
        take_over(retired, catalogue, rows(served), status=200)


def take_over(retired: Gateway, catalogue: Path, changed: dict[str, Any], *, status: int) -> None:
    """Change the catalogue; return when a retired model is answered by that status."""
    fresh = catalogue.with_suffix(".new")
    fresh.write_bytes(msgspec.yaml.encode(changed))
    fresh.replace(catalogue)
    asked = {"model": RETIRED[0], "prompt": "x"}
    until = time.monotonic() + 60
    while retired.post("/v1/images/generations", asked).status_code != status:
        assert time.monotonic() < until
        time.sleep(0.05)


def refused_everywhere(retired: Gateway, served: dict[str, str]) -> None:
    """Ask for each model in every dialect."""
    for model in RETIRED:
        for rig in PAINTING.values():
            assert rig.image is not None
            asked = rig.image(model, "x")
            answer = retired.post(asked.path, asked.body)
            assert answer.status_code == 410, (asked.path, answer.text)
            assert successor_of(model, served) in answer.text
    with (
        openai.OpenAI(base_url=f"{retired.url}/v1", api_key=retired.key, max_retries=0) as client,
        pytest.raises(openai.APIStatusError, match=r"retired on 2025-03-04; use openai-image/gpt-image"),
    ):
        client.images.generate(model="dall-e-3", prompt="x")
