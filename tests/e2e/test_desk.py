"""The desk pipeline with real models: what is seen, painted and offered is of the picture that was sent."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import requests
from PIL import Image

from services.desk.domain.items import ITEMS
from tests.e2e.conftest import Gateway
from tests.emulators.naver import Naver
from tests.pictures import picture
from tests.tasks.system import until

WORDED = {"lamp": "desk lamp", "cup": "mug"}
"""What the pictures call otherwise than the shops."""


def uri(image: Image.Image) -> str:
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def result(gateway: Gateway, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Style a desk; give the documented result, and the task."""
    made = gateway.post("/v1/generate", body)
    assert made.status_code == 202, made.text
    task_id = made.json()["task_id"]

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = gateway.get(f"/v1/result/{task_id}").json()
        return found if found["status"] != "processing" else None

    found: dict[str, Any] = until(ended, what="the result", wait_s=90)
    return found, gateway.get(f"/v1/tasks/{task_id}").json()["task"]


def likeness(one: Image.Image, other: Image.Image) -> float:
    """Return how far two pictures agree in their coarse layout: the correlation of 16x16 grey thumbnails."""
    first, second = (np.asarray(each.convert("L").resize((16, 16)), float).ravel() for each in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def test_a_drawn_desk_comes_back_styled_with_what_stands_on_it(gateway: Gateway, naver: Naver) -> None:
    """The things that were drawn are the things that are offered, each with the shops' three cheapest; the new image
    keeps the old one's layout and is not it. A LoRA is mixed in."""
    drawn = picture("five")
    things = {each.name for each in drawn.found} - {"desk"}
    found, task = result(gateway, {"initial_image_url": uri(drawn.image), "num_inference_steps": 12, "seed": 5})
    assert found["status"] == "done"
    assert "skipped" not in found
    names = {ITEMS[WORDED.get(thing, thing)] for thing in things}
    fields = {"status", "initial_image_url", "processed_image_url"}
    assert set(found) - fields == names
    assert all(len(found[name]) == 3 for name in names)
    assert all(found[name][0]["price"].endswith("원") for name in names)
    assert {asked["query"] for asked in naver.asked} == names
    assert "desk" in task["desk"]["seen"]["caption"]
    answer = requests.get(found["processed_image_url"], timeout=60)
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (128, 128)
        assert 0.8 < likeness(image, drawn.image) < 0.9999


def test_a_picture_of_no_desk_is_not_styled(gateway: Gateway) -> None:
    """A landscape is seen to be none: no image is made, and the result says why."""
    drawn = picture("scene")
    found, task = result(gateway, {"initial_image_url": uri(drawn.image), "num_inference_steps": 4})
    assert (found["status"], found["skipped"], found["processed_image_url"]) == ("done", "not_a_desk", None)
    assert "desk" not in task["desk"]["seen"]["caption"]


def test_every_part_of_the_pipeline_is_well_and_told(gateway: Gateway) -> None:
    """`/healthcheck` asks each part, `/info` tells what desks are made with; neither needs a key."""
    info = requests.get(gateway.url + "/info", timeout=60).json()
    assert (info["model"], info["lora"]) == ("moa-tiny-image", "moa")
    answer = requests.get(gateway.url + "/healthcheck", timeout=20)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "ok"
    assert {"vision", "image", "shopping", "store"} <= set(answer.json()["dependencies"])
