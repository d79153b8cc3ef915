"""`moa.batch.v1.BatchedMessageService`: messages that a provider's batch API answers, before and after it does."""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace

from moa.batch.v1 import batched_message_service_pb2 as pb
from moa.batch.v1.batched_message_service_pb2_grpc import BatchedMessageServiceServicer
from moa.text.v1.text_service_pb2 import GenerateTextResponse
from services.common.dialects import ANTHROPIC
from services.common.errors import Unauthenticated
from services.common.rpc.call import metadata_of
from services.quota_client import grants
from services.router.dialects import reply
from services.router.dialects.anthropic import message_reply, message_request
from services.router.dialects.anthropic.messages import betas_in
from services.router.dialects.anthropic.places import as_the_caller_counts
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Body
from services.router.dialects.unknown import is_strict
from services.router.domain.caller import Caller
from services.router.domain.operations import labels_of
from services.router.domain.ports import MessageStream, Reservation
from services.router.domain.prompt import Prompt
from services.router.operations.text import TextCall
from services.router.serving import begin, note

_JSON: Final = "application/json"


class AnsweredCall(TextCall):
    """A request that was answered already, and paid for by another service.

    Args:
        answer: The answer.
    """

    is_answered = True

    def __init__(self, request: Any, prompt: Any, answer: GenerateTextResponse) -> None:
        super().__init__(request, prompt)
        self._answer = answer

    def changed(self, request: Any) -> AnsweredCall:
        """As `Call.changed`."""
        return AnsweredCall(request, super().changed(request).prompt, self._answer)

    def admitted(self, reserved: Reservation) -> None:
        """Nothing: what it may cost was reserved before it was answered."""

    def ask(self, model: Any, paying: Reservation) -> MessageStream[GenerateTextResponse]:
        """Return the answer."""
        return _Answered(self._answer)


class _Answered:
    """The one message of an answer that is here."""

    def __init__(self, answer: GenerateTextResponse) -> None:
        self._answer: GenerateTextResponse | None = answer

    async def read(self) -> GenerateTextResponse | None:
        """Return it, once."""
        answer, self._answer = self._answer, None
        return answer

    def cancel(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing runs."""


class BatchedMessageServicer(BatchedMessageServiceServicer):
    """Prepares messages, and makes those that were answered.

    Args:
        parts: What the router has.
    """

    def __init__(self, parts: Parts) -> None:
        self._operations, self._reading = parts.operations, parts.reading

    async def PrepareMessage(self, request: pb.PrepareMessageRequest, context: Any) -> pb.PrepareMessageResponse:
        """Read a request, and tell how it is handed over."""
        caller = _caller(context)
        read, prompt = await self._read(request.body, context)
        call = TextCall(read.request, prompt)
        labels = labels_of(call, caller)
        with as_the_caller_counts(read.places):
            prepared = await self._operations.handing_over.prepare(call, caller)
        if prepared is None:
            return pb.PrepareMessageResponse()
        return pb.PrepareMessageResponse(
            provider=prepared.model.provider,
            model=prepared.model.id,
            request=prepared.request,
            need=prepared.need.message(),
            tags=labels.tags,
        )

    async def RenderMessage(self, request: pb.RenderMessageRequest, context: Any) -> pb.RenderMessageResponse:
        """Make the message of an answer."""
        caller = replace(_caller(context), fallback=False)
        read, prompt = await self._read(request.body, context)
        read.request.model, read.request.provider = request.model, request.provider
        call = AnsweredCall(read.request, prompt, GenerateTextResponse(events=request.events))
        async with await self._operations.begin(call, caller) as answer:
            note(answer, caller)
            body = await message_reply.whole(answer, caller.request_id, omits=read.omits)
        return pb.RenderMessageResponse(body=reply.encode(body))

    async def _read(self, body: bytes, context: Any) -> tuple[message_request.Read, Prompt]:
        metadata = metadata_of(context)
        given, betas, strict = Body.of(body, _JSON), betas_in(metadata), is_strict(metadata)
        return await self._reading(message_request.read, given, betas=betas, strict=strict)


def _caller(context: Any) -> Caller:
    """Return who is acted for. Raises Unauthenticated for an account's own key: only services may ask."""
    caller = begin(context)
    if not caller.key.startswith(grants.PREFIX):
        raise Unauthenticated("this is asked by services alone")
    return replace(caller, dialect=ANTHROPIC.name)
