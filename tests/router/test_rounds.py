"""The rounds of a response whose model has pictures made: what each is charged, wherever its caller leaves."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from moa.common.v1 import media_pb2, usage_pb2
from moa.image.v1 import image_pb2
from moa.image.v1.image_service_pb2 import GenerateImageRequest, GenerateImageResponse
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.router.dialects.responses.picture_tool import PLAIN, Offer
from services.router.dialects.responses.rounds import Rounds
from services.router.domain.caller import Caller
from services.router.operations.text import TextCall
from tests.router.rig import called, ended, picture, said, text
from tests.router.world import World

CALLER = Caller(key="k", request_id="rid")
FILE = media_pb2.ImageData(data=picture(), mime_type="image/png", width=8, height=8)
MADE = [
    GenerateImageResponse(events=[image_pb2.ImageEvent(progress=image_pb2.Progress(step=1, steps=2))]),
    GenerateImageResponse(events=[image_pb2.ImageEvent(image=image_pb2.Image(image=FILE))]),
    GenerateImageResponse(
        events=[image_pb2.ImageEvent(finished=image_pb2.ImageFinished(usage=usage_pb2.Usage(images=1, exact=True)))]
    ),
]
CALLS = [
    text(said("Look: ")),
    text(called(0, "draw", '{"prompt": "a"}', "c1"), called(1, "draw", '{"prompt": "b"}', "c2")),
    ended(text_pb2.FINISH_REASON_TOOL_CALLS),
]


class Played:
    """A chat and an image model over ledgers that remember."""

    def __init__(self) -> None:
        able = {"capabilities": frozenset({"tools"})}
        self.chats, self.images = World(a=able), World(makes="image")
        self.chats.play("a", *CALLS)
        self.images.play("a", *MADE)
        self.images.play("a", *MADE)
        self.operations: Any = SimpleNamespace(begin=self._begin)

    async def _begin(self, call: Any, caller: Caller) -> Any:
        world = self.chats if isinstance(call, TextCall) else self.images
        return await world.operations.begin(call, caller)

    async def rounds(self, *, stream: bool) -> Rounds:
        request = GenerateTextRequest(model="a", stream=stream, max_tokens=100)
        request.messages.add(role=text_pb2.ROLE_USER).parts.add(text="Draw")
        kept = GenerateTextRequest()
        kept.CopyFrom(request)
        answer = await self.operations.begin(TextCall(request), CALLER)
        template = GenerateImageRequest(model="a", provider="one", stream=stream)
        model = Model(id="a", provider="one")
        offer = Offer(name="draw", action="auto", template=template, model=model, wanted=PLAIN)
        return Rounds(self.operations, CALLER, offer, kept, answer, number=0, pictures=[])


async def read(rounds: Rounds, most: int = 100) -> int:
    """Read so many messages; return how many there were."""
    for count in range(most):
        if await rounds.next() is None:
            return count
    return most


async def test_each_operation_is_charged_once() -> None:
    """Two rounds and two pictures are four rows, whole as streamed."""
    for stream in (True, False):
        played = Played()
        async with await played.rounds(stream=stream) as rounds:
            await read(rounds)
            rounds.delivered(1)
        assert [row[1:3] for row in played.chats.ledger.rows] == [(7, 5), (7, 5)]
        assert [row[2:] for row in played.images.ledger.rows] == [(1, "a"), (1, "a")]
        assert rounds.usage.prompt_tokens == 14
        assert rounds.images == 2


async def _count() -> int:
    async with await Played().rounds(stream=True) as rounds:
        return await read(rounds)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_who_leaves_anywhere_owes_what_was_made(stream: bool) -> None:
    """Wherever it is cut: each reservation ends by one row, a picture that is whole is charged, and no other is."""
    for cut in range(await _count() + 1):
        played = Played()
        seen = 0
        with contextlib.suppress(asyncio.CancelledError):
            async with await played.rounds(stream=stream) as rounds:
                for _ in range(cut):
                    message = await rounds.next()
                    events = () if message is None else message.events
                    seen += any(getattr(event, "kind", "") == "made" for event in events)
                raise asyncio.CancelledError
        await played.chats.operations.aclose()
        assert not played.chats.ledger.open
        assert not played.images.ledger.open
        assert sum(row[2] for row in played.images.ledger.rows) == seen
        assert len(played.chats.ledger.rows) in (1, 2)
