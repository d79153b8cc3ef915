"""What the image service books when a caller vanishes in the middle of a call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from moa.common.v1 import usage_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.quota.v1 import quota_pb2
from services.common.rpc import call as calls
from services.common.rpc.client import channel
from services.quota_client import AbandonedCalls
from tests.books import keeping
from tests.emulators.openai_images import OpenAIImagesEmulator
from tests.emulators.pictures import ImageScript
from tests.image.harness import TOKEN, image_service, shipped_rows


async def test_images_are_booked_as_far_as_their_calls_had_begun(tmp_path: Path) -> None:
    """Of six images, each a call, one came, three were begun with it and one in its place, and one waits: five are
    owed by a caller who leaves, with a stream or without."""
    timeouts = {"connect_s": 30, "first_token_s": 30, "idle_s": 30}
    async with keeping(TOKEN) as (kept, address), OpenAIImagesEmulator() as upstream:
        rows = shipped_rows("openai-image", upstream.url + "/v1", timeouts=timeouts)
        async with image_service(tmp_path, *rows, {"OPENAI_API_KEY": "sk-good"}, address) as service:
            for reservation, stream in (("lease.1.0.6", True), ("lease.2.0.6", False)):
                ask = GenerateImageRequest(
                    model="dall-e-3", provider="openai-image", prompt="A sea", count=6, stream=stream
                )
                held = [ImageScript(hold_at=0) for _ in range(4)]
                upstream.scripts.extend([ImageScript(), *held])
                call = service.call(ask, (calls.RESERVATION_KEY, reservation))
                first: Any = await call.read()
                assert [e.WhichOneof("event") for e in first.events] == ["image"]
                for script in held:
                    await asyncio.wait_for(script.held.wait(), 30)
                call.cancel()
                for script in held:
                    await asyncio.wait_for(script.left.wait(), 30)
                upstream.scripts.clear()
    assert [settlement.reservation_id for settlement in kept.settled] == ["lease.1.0.6", "lease.2.0.6"]
    for settlement in kept.settled:
        assert (settlement.charged.images, settlement.charged.tokens) == (5, 0)
        assert (settlement.operation, settlement.model) == (quota_pb2.OPERATION_IMAGE, "dall-e-3")


async def test_a_service_that_ends_leaves_the_word_to_its_callers() -> None:
    """Calls that its own end cuts are settled by who called; those that were left before are booked all the same."""
    async with keeping(TOKEN) as (kept, address), channel(address) as auth:
        abandoned = AbandonedCalls(auth, service_token=TOKEN)
        await abandoned.start()
        for number in (1, 2):
            abandoned.left(
                f"lease.{number}.0.2",
                usage=usage_pb2.Usage(images=1),
                operation=quota_pb2.OPERATION_IMAGE,
                provider="p",
                model="m",
                request_id="r",
            )
            abandoned.ending()
        await abandoned.stop()
    assert [settlement.reservation_id for settlement in kept.settled] == ["lease.1.0.2"]
