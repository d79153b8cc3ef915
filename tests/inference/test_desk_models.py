"""The desk pipeline on the small models that ship, as a first machine runs it."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from moa.common.v1 import media_pb2
from moa.desk.v1 import desk_pb2, desk_service_pb2
from services.common.rpc import client as clients
from services.desk.adapters.parts import RouterPainter, VisionClient
from services.desk.domain.items import ITEMS
from services.desk.domain.pipeline import Pipeline, Style
from services.quota_client import grants
from tests.inference.harness import IMAGE, TOKEN, Running
from tests.inference.test_vision import a_desk, png
from tests.pictures import picture

ACTING = grants.ActingFor(account_id="acct", key_id="key")


class Given:
    """Returns one image, and finds no shop."""

    def __init__(self, image: Image.Image) -> None:
        self.image_data = png(image)
        self.searched: list[str] = []

    async def image(self, url: str, account_id: str) -> media_pb2.ImageInput:
        return media_pb2.ImageInput(data=self.image_data)

    async def search(self, name: str) -> list[desk_pb2.Offer]:
        self.searched.append(name)
        return []


async def run(running: Running, image: Image.Image) -> tuple[Given, list[Any]]:
    """Run the pipeline; give its neighbours and its events."""
    given = Given(image)
    async with clients.channel(running.address) as channel:
        pipeline = Pipeline(
            style=Style(model=IMAGE, max_side=64, steps=4, guidance_scale=3.0),
            fetch=given,
            vision=VisionClient(channel, service_token=TOKEN),
            painter=RouterPainter(channel, service_token=TOKEN, acting=ACTING),
            shops=given,
        )
        request = desk_service_pb2.StyleDeskRequest(initial_image_url="given", account_id="acct")
        return given, [event async for event in pipeline.run(request)]


async def test_a_desk_is_seen_and_styled(running: Running) -> None:
    """A drawn desk is taken for one, its things are searched by their Korean names, and a new image is made."""
    desk = a_desk()
    given, events = await run(running, desk.image)
    (seen,) = [event.seen for event in events if event.HasField("seen")]
    assert seen.is_desk
    assert seen.caption.startswith("a desk with ")
    words = {"lamp": "desk lamp", "cup": "mug"}
    there = {words.get(f.name, f.name) for f in desk.found if f.name != "desk"}
    assert set(seen.objects) == there
    assert given.searched == [ITEMS[kind] for kind in seen.objects]
    (made,) = [event.image for event in events if event.HasField("image")]
    assert Image.open(io.BytesIO(made.image.data)).size == (64, 64)
    assert events[-1].finished.usage.images == 1


async def test_what_is_no_desk_is_not_styled(running: Running) -> None:
    """A house is described, and no image is made."""
    _, events = await run(running, picture("house").image)
    (seen,) = [event.seen for event in events if event.HasField("seen")]
    assert not seen.is_desk
    assert "house" in seen.caption
    assert not any(event.HasField("image") for event in events)
    assert events[-1].finished.skipped == desk_pb2.SKIP_REASON_NOT_A_DESK
