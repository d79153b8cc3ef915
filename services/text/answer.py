"""Ask a provider and give its answer as batches of events: the one way, for every adapter.

Events that came in one read of the socket come in one batch. Waiting is bounded by the provider's timeouts; leaving
the block closes the provider's socket at once.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

from moa.text.v1.text_pb2 import TextEvent
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common import counts
from services.common.catalogue import Model
from services.common.errors import UpstreamBroken
from services.common.http.client import Reply, Upload
from services.common.http.deadline import Deadline
from services.text.adapters import Reader
from services.text.targets import Target

TAIL_S: Final = 1.0
"""How long the provider's closing words (usage, end mark) are awaited once the answer itself is complete."""


WHOLE_TOKENS: Final = 2048
"""Answers that may be longer are asked for as streams even when the caller wants no stream: a whole one says nothing
for so long that neither a dead provider nor an impatient proxy between can be told from a busy one."""


def asked_of_upstream(request: GenerateTextRequest, model: Model) -> GenerateTextRequest:
    """Give the request as the provider gets it: streamed if the answer may be long."""
    most = request.max_tokens if request.HasField("max_tokens") else model.default_max_tokens
    if request.stream or most <= WHOLE_TOKENS:
        return request
    streamed = GenerateTextRequest()
    streamed.CopyFrom(request)
    streamed.stream = True
    return streamed


class Answer:
    """One answer. Use it as `async with Answer(…) as answer`, then call `next` until it gives nothing.

    `next` raises MoaError whenever the provider fails; what `usage_so_far` then gives was consumed all the same.
    """

    __slots__ = (
        "_began",
        "_deadline",
        "_model",
        "_reader",
        "_reply",
        "_request",
        "_target",
        "_upload",
        "upstream_request_id",
    )

    def __init__(self, request: GenerateTextRequest, model: Model, target: Target) -> None:
        self._request = asked_of_upstream(request, model)
        self._model = model
        self._target = target
        self._reply: Reply | None = None
        self._reader: Reader | None = None
        self._deadline = Deadline()
        self._began = False
        self._upload = Upload()
        self.upstream_request_id = ""
        """The provider's id of the request, for the log."""

    async def __aenter__(self) -> Self:
        target = self._target
        timeouts = target.pool.timeouts
        outgoing = target.adapter.request_from(self._request, self._model, target.provider)
        self._deadline.__enter__()
        try:
            self._deadline.within(timeouts.connect_s + timeouts.first_token_s, "begin to answer")
            reply = self._reply = await target.ask(outgoing, self._upload)
            self.upstream_request_id = reply.headers.get(target.adapter.request_id_header, "")
            self._reader = target.adapter.reader(self._request, self._model, reply.headers)
        except BaseException as error:
            self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        if self._reader is not None:
            counts.note(self._target.provider.id, self._reader.told)
        if self._reply is not None:
            self._reply.close()
            self._reply = None
        self._deadline.__exit__(type(error) if error else None, error, None)

    async def next(self) -> list[TextEvent]:
        """Give the events that come together next; none when the answer is over."""
        reader, reply = self._reader, self._reply
        if reader is None or reply is None:
            return []
        if reader.failure is not None:
            raise reader.failure
        timeouts = self._target.pool.timeouts
        if not self._request.stream:
            # All of it is "first": the provider says nothing while it works.
            self._deadline.within(timeouts.first_token_s, "answer")
        elif self._began:
            self._deadline.within(timeouts.idle_s, "go on")
        while True:
            data = await self._read(reader, reply)
            events = reader.feed(data) if data else reader.end()
            if reader.failure is not None:
                if not events:
                    raise reader.failure
                return events
            if reader.done or not data:
                self._complete(reader, reply)
                return events
            if events:
                self._began = True
                self._deadline.rest()
                return events
            if self._request.stream and not data.startswith(b":"):
                # Pieces that make no event (hidden reasoning) show that the provider works; comments do not.
                self._deadline.within(timeouts.idle_s, "go on")

    async def _read(self, reader: Reader, reply: Reply) -> bytes:
        if not reader.ending:
            return await reply.read_some()
        # The answer is complete. Closing words that do not come, or a broken connection, take nothing from it.
        try:
            async with asyncio.timeout(TAIL_S):
                return await reply.read_some()
        except (TimeoutError, UpstreamBroken):
            return b""

    def _complete(self, reader: Reader, reply: Reply) -> None:
        if reader.cut:
            reply.close()
        else:
            reply.drain()
        self._reply = None

    @property
    def begun(self) -> bool:
        """Whether the provider may be at work, so that a caller who leaves owes the prompt (docs/charging.md)."""
        return self._upload.begun

    def usage_so_far(self) -> TextEvent | None:
        """Give a `usage` event for what has come; None when nothing has."""
        return self._reader.usage_so_far() if self._reader is not None else None
