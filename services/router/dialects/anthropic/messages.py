"""Anthropic's messages: `POST /v1/messages` and its count of tokens (platform.claude.com/docs/en/api/messages)."""

from __future__ import annotations

from typing import Any, Final

from google.api import httpbody_pb2

from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.common.rpc.call import metadata_of
from services.common.rpc.internals.batch import send_answer
from services.router.dialects import reply
from services.router.dialects.anthropic import answers, bodies, carried, message_reply, message_request
from services.router.dialects.anthropic.places import as_the_caller_counts
from services.router.dialects.event_stream import EventStream
from services.router.dialects.methods import MethodSet
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Body
from services.router.dialects.unknown import is_strict
from services.router.domain.answer import Answer
from services.router.domain.caller import Caller
from services.router.operations.text import TEXT, TextCall
from services.router.serving import begin, note

_MOST_BETAS: Final = 64


class MessagesServicer:
    """Answers conversations. For why its handlers are coroutines see `dialects.native.servicer`."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._operations, self._reading, self._dialect = parts.operations, parts.reading, dialect

    async def CreateMessage(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        """Answer a conversation."""
        caller = begin(context)
        given, metadata = Body(request), metadata_of(context)
        del request
        betas, strict = betas_in(metadata), is_strict(metadata)
        read, prompt = await self._reading(message_request.read, given, betas=betas, strict=strict)
        if not read.request.stream:
            async with await self._begin(read, TextCall(read.request, prompt), caller) as answer:
                note(answer, caller)
                body = await message_reply.whole(answer, caller.request_id, omits=read.omits)
                await send_answer(
                    context, reply.headers(answer, cost=answer.usage, dialect=self._dialect), reply.json_body(body)
                )
            return
        async with (
            EventStream(context, self._dialect, sign=message_reply.PING) as stream,
            await self._begin(read, TextCall(read.request, prompt), stream.caller(caller)) as answer,
        ):
            note(answer, caller)
            await stream.begin(reply.headers(answer, dialect=self._dialect))
            await stream.answer(answer, message_reply.Events(answer, caller.request_id, omits=read.omits).of)

    async def CountMessageTokens(self, request: httpbody_pb2.HttpBody, context: Any) -> httpbody_pb2.HttpBody:
        """Count a prompt's tokens."""
        caller = begin(context)
        given = Body(request)
        del request
        read = await self._reading(message_request.counted, given)
        with as_the_caller_counts(read.places):
            count = await self._operations.count_tokens(TEXT, read.request, caller)
        return reply.json_body({"input_tokens": count})

    async def _begin(self, read: message_request.Read, call: TextCall, caller: Caller) -> Answer[Any]:
        with as_the_caller_counts(read.places):
            return await self._operations.begin(call, caller)


def betas_in(metadata: Any) -> list[str]:
    """Return what the caller's header asks for that is not in the API yet."""
    values = (str(value) for name, value in metadata if name == carried.BETA_KEY)
    return list(dict.fromkeys(beta for value in values for each in value.split(",") if (beta := each.strip())))[
        :_MOST_BETAS
    ]


_FORMAT: Final = "output_config.format"

METHODS: Final = MethodSet(
    servicer=MessagesServicer,
    methods={
        "CreateMessage": Method(reads=bodies.MessageBody, answers=answers.Message, streams=True),
        "CountMessageTokens": Method(reads=bodies.CountBody, answers=answers.MessageTokens, is_paid=False),
    },
    makes=("text",),
    fields={
        "messages.parts": "content",
        "messages.parts.text": "messages[].content[].text",
        "messages.parts.image": "messages[].content[].source",
        "messages.parts.file": "messages[].content[].source",
        "messages.parts.reasoning": "messages[].content[].thinking",
        "messages.parts.tool_call": "messages[].content[].input",
        "messages.parts.tool_result": "messages[].content[].content",
        "stop": "stop_sequences",
        "user": "metadata.user_id",
        "tools.parameters_json": "input_schema",
        "tool_choice.mode": "tool_choice",
        "tool_choice.parallel": "tool_choice.disable_parallel_tool_use",
        "response_format": _FORMAT,
        "reasoning": "thinking",
        "reasoning.effort": "output_config.effort",
        "reasoning.budget_tokens": "thinking.budget_tokens",
    },
)
