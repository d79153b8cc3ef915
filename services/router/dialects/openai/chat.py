"""OpenAI's chat completions: `POST /v1/chat/completions` (platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

from typing import Any, Final

from google.api import httpbody_pb2

from services.common.dialects import Dialect
from services.common.dialects.registrations import Method
from services.common.errors import MoaError
from services.common.rpc.call import metadata_of
from services.common.rpc.internals.batch import send_answer
from services.router.dialects import reply
from services.router.dialects.event_stream import EventStream
from services.router.dialects.methods import MethodSet
from services.router.dialects.openai import answers, bodies, chat_reply, chat_request
from services.router.dialects.openai.deployments import deployment
from services.router.dialects.parts import Parts
from services.router.dialects.reading import Body
from services.router.dialects.results import count_as_the_caller
from services.router.dialects.unknown import is_strict
from services.router.domain.caller import Caller
from services.router.operations.text import TextCall
from services.router.serving import begin, note


class ChatServicer:
    """Answers conversations. For why its handlers are coroutines see `dialects.native.servicer`."""

    def __init__(self, parts: Parts, dialect: Dialect) -> None:
        self._operations, self._reading, self._dialect = parts.operations, parts.reading, dialect

    async def CreateChatCompletion(self, request: httpbody_pb2.HttpBody, context: Any) -> None:
        """Answer a conversation."""
        caller = begin(context)
        given = Body(request, model=deployment(context))
        del request
        strict = is_strict(metadata_of(context))
        read, prompt = await self._reading(chat_request.read, given, strict=strict)
        call = TextCall(read.request, prompt)
        try:
            if read.request.stream:
                await self._stream(call, caller, read, context)
                return
            async with await self._operations.begin(call, caller) as answer:
                note(answer, caller)
                body = await chat_reply.whole(answer, caller.request_id)
                await send_answer(
                    context, reply.headers(answer, cost=answer.usage, dialect=self._dialect), reply.json_body(body)
                )
        except MoaError as error:
            count_as_the_caller(error, read.shown)
            raise

    async def _stream(self, call: TextCall, caller: Caller, read: chat_request.Read, context: Any) -> None:
        async with (
            EventStream(context, self._dialect) as stream,
            await self._operations.begin(call, stream.caller(caller)) as answer,
        ):
            note(answer, caller)
            await stream.begin(reply.headers(answer, dialect=self._dialect))
            chunks = chat_reply.Chunks(answer, caller.request_id, include_usage=read.include_usage)
            await stream.answer(answer, chunks.of)


METHODS: Final = MethodSet(
    servicer=ChatServicer,
    methods={"CreateChatCompletion": Method(reads=bodies.ChatBody, answers=answers.ChatCompletion, streams=True)},
    makes=("text",),
    fields={
        "messages.parts": "content",
        "messages.parts.image": "messages[].content[].image_url.url",
        "messages.parts.file": "messages[].content[].file",
        "messages.parts.reasoning": "messages[].reasoning_details",
        "messages.parts.tool_call": "messages[].tool_calls",
        "messages.parts.tool_result": "messages[].tool_call_id",
        "tools.parameters_json": "function.parameters",
        "tools.name": "function.name",
        "tools.description": "function.description",
        "tools.custom.grammar": "tools[].custom.format.grammar",
        "tool_choice.name": "tool_choice.function.name",
        "tool_choice.mode": "tool_choice",
        "tool_choice.parallel": "parallel_tool_calls",
        "response_format.name": "response_format.json_schema.name",
        "response_format.kind": "response_format.type",
        "response_format.schema_json": "response_format.json_schema.schema",
        "candidates": "n",
        "reasoning": "reasoning_effort",
        "reasoning.effort": "reasoning_effort",
        "reasoning.budget_tokens": "reasoning_effort",
    },
)
