"""`POST /v1/responses` (platform.openai.com/docs/api-reference/responses)."""

from __future__ import annotations

from typing import Any, Final

from google.api import httpbody_pb2

from moa.response.v1 import response_store_service_pb2 as store_pb
from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.common.errors import MoaError, Unsupported
from services.common.rpc.call import metadata_of
from services.common.rpc.internals.batch import send_answer
from services.quota_client import permissions
from services.router.dialects import reply
from services.router.dialects.event_stream import EventStream
from services.router.dialects.methods import MethodSet
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Body
from services.router.dialects.responses import answering, answers, asked, bodies
from services.router.dialects.responses.background import Job, packed
from services.router.dialects.responses.keeping import Keeping, Kept, StoredStream
from services.router.dialects.responses.pictured import Pictured
from services.router.dialects.responses.places import as_the_caller_wrote
from services.router.dialects.responses.rounds import Rounds
from services.router.dialects.responses.stored import follow
from services.router.dialects.unknown import is_strict
from services.router.domain.caller import Caller
from services.router.operations.text import TEXT, TextCall
from services.router.serving import begin, note

KNOWN: Final = ("previous_response_id", "conversation")
"""Fields that are seen to before a body is read."""


class ResponsesServicer:
    """Answers conversations. For why its handlers are coroutines see `dialects.native.servicer`."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._operations, self._reading, self._dialect = parts.operations, parts.reading, dialect
        self._pictured = Pictured(parts.operations, parts.reading)
        self._keeping = Keeping(parts.admission, parts.responses)
        self._responses, self._background = parts.responses, parts.background

    async def CreateResponse(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        """Answer a conversation."""
        caller = begin(context)
        given = Body(request)
        del request
        kept = await self._keeping.begin(given, caller)
        if kept.is_background:
            await self._queue(kept, kept.body(given), caller, context)
            return
        read = await self._reading(
            asked.read,
            kept.body(given),
            strict=is_strict(metadata_of(context)),
            earlier=kept.earlier,
            stores=kept.may_store,
            known=KNOWN,
        )
        if read.request.stream:
            await self._stream(read, kept, caller, context)
            return
        async with await self._begin(read, caller) as answer:
            note(answer, caller)
            standing = kept.begun(answer.reservation.verified_key)
            response = await answering.drained(answer, caller.request_id, read.echo, standing, kept.making)
            body = await kept.whole(response)
            images = answer.images if isinstance(answer, Rounds) else 0
            headers = reply.headers(
                answer, cost=answer.usage, ignored=read.ignored, dialect=self._dialect, images=images
            )
            await send_answer(context, headers, reply.json_piece(data=body))
            answer.delivered(1)

    async def CountInputTokens(self, request: httpbody_pb2.HttpBody, context: Any) -> httpbody_pb2.HttpBody:
        """Count a prompt's tokens."""
        caller = begin(context)
        given = Body(request)
        del request
        given, earlier = await self._keeping.counted(given, caller)
        counted, places, has_pictures = await self._reading(asked.counted, given, earlier=earlier, known=KNOWN)
        if has_pictures:
            places = await self._pictured.counted(counted, places, caller)
        with as_the_caller_wrote(places):
            count = await self._operations.count_tokens(TEXT, counted, caller)
        return reply.json_body({"object": "response.input_tokens", "input_tokens": count})

    async def _stream(self, read: asked.Read, kept: Kept, caller: Caller, context: Any) -> None:
        response = answering.Response(
            read.request.model, caller.request_id, read.echo, streams=True, making=kept.making
        )

        def broken(error: MoaError) -> httpbody_pb2.HttpBody:
            return reply.sse_body(data=response.broken(error))

        async with (
            EventStream(context, self._dialect, broken, ignored=read.ignored) as stream,
            await self._begin(read, stream.caller(caller)) as answer,
        ):
            note(answer, caller)
            await stream.begin(reply.headers(answer, ignored=read.ignored, dialect=self._dialect))
            response.answered_by(answer.model.id, kept.begun(answer.reservation.verified_key))
            begun = response.begin()
            kept.saw(begun)
            await stream.write(reply.sse_body(data=begun))
            if kept.stores:
                storing = StoredStream(answer, response, kept)
                await stream.relay(storing.next, storing.events, reply.sse_body)
            else:
                await stream.answer(answer, response.of)

    async def _queue(self, kept: Kept, body: Body, caller: Caller, context: Any) -> None:
        """Have a response made in the background: tell it as it waits, or its events as they come."""
        data, strict = bytes(body.peek()), is_strict(metadata_of(context))
        known = [*KNOWN, "background"]
        read = await self._reading(
            asked.read, body, strict=strict, earlier=kept.earlier, stores=True, known=tuple(known)
        )
        if read.has_pictures:
            raise Unsupported("background: pictures are made in the foreground; use stream: true", param="background")
        who = kept.who
        assert who is not None
        model, _ = await self._operations.model(read.request.model, caller)
        if not who.may(TEXT.quota, model.provider, model.id):
            raise permissions.refused(f"model {model.id}", param="model")
        standing = kept.begun(who)
        response = answering.Response(
            model.id, caller.request_id, read.echo, streams=False, standing=standing, making=kept.making
        )
        waiting = response.so_far("queued")
        job = Job(
            body=data,
            content_type=body.content_type,
            earlier=kept.earlier,
            strict=strict,
            created=kept.making.created,
            previous_response_id=standing.previous_response_id,
            conversation=standing.conversation,
            known=known,
            fallback=caller.fallback,
            max_wait_s=caller.max_wait_s,
            tags=sorted(caller.tags),
        )
        request = store_pb.EnqueueRequest(
            response=kept.stored(response, waiting, store_pb.RESPONSE_STATE_QUEUED),
            request=packed(job),
            key_id=who.key_id,
            streamed=read.request.stream,
        )
        await self._background.enqueue(request)
        if read.request.stream:
            await follow(self._responses, who.account_id, response.id, -1, context)
        else:
            await context.write(reply.json_piece(data=waiting))

    async def _begin(self, read: asked.Read, caller: Caller) -> Any:
        """Begin an answer, or what is read like one: the rounds of one whose model has pictures made."""
        if read.has_pictures:
            return await self._pictured.begin(read.request, read.prompt, read.places, read.tools, caller)
        with as_the_caller_wrote(read.places):
            return await self._operations.begin(TextCall(read.request, read.prompt), caller)


METHODS: Final = MethodSet(
    servicer=ResponsesServicer,
    methods={
        "CreateResponse": Method(reads=bodies.ResponseBody, answers=answers.ResponseObject, streams=True),
        "CountInputTokens": Method(reads=bodies.PromptBody, answers=answers.InputTokens, is_paid=False),
    },
    makes=("text",),
    fields={
        "messages": "input",
        "max_tokens": "max_output_tokens",
        "logprobs": "include",
        "tools.parameters_json": "parameters",
        "tools.custom": "format",
        "tool_choice.mode": "tool_choice",
        "tool_choice.parallel": "parallel_tool_calls",
        "response_format": "text.format",
        "response_format.kind": "text.format.type",
        "response_format.schema_json": "text.format.schema",
    },
)
