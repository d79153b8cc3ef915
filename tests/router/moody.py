"""A service that misbehaves on request, and a router's core in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Self

from moa.common.v1 import usage_pb2
from moa.quota.v1 import quota_pb2
from moa.text.v1 import text_pb2, text_service_pb2, text_service_pb2_grpc
from services.catalogue import Model, Timeouts
from services.common.errors import ContextTooLong
from services.common.rpc import server
from services.common.rpc.whole import whole_text
from services.quota_client.amounts import NOTHING, Amount
from services.quota_client.labels import NO_LABELS, Labels
from services.router.adapters import backends
from services.router.domain.caller import Caller
from services.router.domain.operations import Operations
from services.router.operations.text import TextCall

TOKEN = "a-service-token-for-tests"
MODEL = Model(id="m", provider="p", default_max_tokens=8)


def text(words: str) -> text_service_pb2.GenerateTextResponse:
    event = text_pb2.TextEvent(text=text_pb2.TextDelta(text=words))
    return text_service_pb2.GenerateTextResponse(events=[event])


class Moody(text_service_pb2_grpc.TextServiceServicer):
    """Behaves as the last message's text says."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.seen: dict[str, str] = {}
        self.bound = 0
        self.streams = 0
        """Calls by streams."""

    async def GenerateText(self, request: text_service_pb2.GenerateTextRequest, context: Any) -> None:  # type: ignore[override]
        self.seen = dict(context.invocation_metadata())
        self.bound = request.max_tokens
        self.asked.set()
        mood = request.messages[-1].parts[0].text
        if mood == "long":
            raise ContextTooLong("too long", param="messages")
        if mood == "bug":
            raise ValueError("a secret that must not leak")
        self.streams += 1
        if mood == "lively":
            for _ in range(3):
                await context.write(text_service_pb2.GenerateTextResponse())
        if mood != "mute":
            await context.write(text("one"))
        if mood in ("hang", "mute"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if mood == "stop":
            return
        usage = usage_pb2.Usage(prompt_tokens=1, completion_tokens=1, exact=True)
        done = text_pb2.TextEvent(finished=text_pb2.Finished(usage=usage))
        await context.write(text_service_pb2.GenerateTextResponse(events=[done]))

    async def GenerateWholeText(
        self, request: text_service_pb2.GenerateWholeTextRequest, context: Any
    ) -> text_service_pb2.GenerateWholeTextResponse:
        self.streams -= 1
        return await whole_text(self.GenerateText, request, context)

    async def CountTokens(
        self, request: text_service_pb2.CountTokensRequest, context: Any
    ) -> text_service_pb2.CountTokensResponse:
        self.seen = dict(context.invocation_metadata())
        return text_service_pb2.CountTokensResponse(prompt_tokens=1)


class Lender:
    """Admission that lends what is asked and remembers how it ended."""

    account_id, reservation_id, priority = "acct", "resv", "high"
    operation = quota_pb2.OPERATION_TEXT
    verified_key: Any = None
    amount = NOTHING
    labels: Labels = NO_LABELS
    team_id: str = ""
    ended = ""

    async def reserve(self, key: str, *, need: Amount, **_: Any) -> Lender:
        self.amount = need
        return self

    @property
    def tokens(self) -> int:
        return self.amount.tokens

    @property
    def images(self) -> int:
        return self.amount.images

    async def identify(self, key: str) -> Any:
        return self

    arrive = identify

    def may(self, *_: Any) -> bool:
        return True

    def follow(self, so_far: Any) -> None: ...

    def report(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        pass

    def settle(self, *, usage: usage_pb2.Usage, provider: str, model: str) -> None:
        self.ended = f"{usage.prompt_tokens}+{usage.completion_tokens}"

    def release(self) -> None:
        self.ended = "released"

    def void(self) -> None:
        self.ended = "voided"

    def asking(self, provider: str, model: str, tags: Collection[str]) -> Self:
        return self

    def free(self, enough: Amount) -> Amount:
        return enough

    async def extend(self, need: Amount, *, least: Amount) -> Amount:
        return need

    def shrink(self, amount: Amount) -> Lender:
        return self

    def defer(self, *, usage: usage_pb2.Usage, provider: str, model: str, then: object) -> None:
        self.ended = "deferred"

    def renewed(self) -> Lender:
        self.void()
        return self


class Rig:
    """A router's core in front of a moody service."""

    def __init__(
        self,
        moody: Moody,
        operations: Operations,
        lender: Lender,
        running: server.Server,
        calls: backends.Backends,
        timeouts: Callable[[Timeouts], None],
    ) -> None:
        self.calls = calls
        self.moody, self.operations, self.lender, self.running = moody, operations, lender, running
        self.timeouts = timeouts
        """Changes the provider's."""

    async def ask(self, mood: str, *, stream: bool = True, max_tokens: int | None = None) -> Any:
        request = text_service_pb2.GenerateTextRequest(model="m", stream=stream, max_tokens=max_tokens)
        request.messages.add(role=text_pb2.ROLE_USER).parts.add(text=mood)
        return await self.operations.begin(TextCall(request), Caller(key="k", request_id="rid-1"))


class Nowhere:
    """No request of these tests has a link."""

    def fetched(self, linked: Any, *, account_id: str, owner: str) -> Any:
        raise AssertionError(linked)


async def drained(answer: Any) -> list[text_pb2.TextEvent]:
    events: list[text_pb2.TextEvent] = []
    async with answer:
        while (message := await answer.next()) is not None:
            events += message.events
    return events
