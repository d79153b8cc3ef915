"""`POST /generate/text`: from its body to the contract, and from the contract's events to its answer."""

from __future__ import annotations

from typing import Any

import msgspec

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.dialects import NATIVE
from services.common.errors import InvalidField, error_of
from services.router.dialects.body import parse
from services.router.dialects.media import image_from_text
from services.router.dialects.native.bodies import Message, TextBody
from services.router.dialects.reading import is_large
from services.router.dialects.reply import end_mark, failure, frame
from services.router.dialects.sampling import fill
from services.router.dialects.tools import Calls, call_from, put_tool, split_id
from services.router.domain.prompt import Prompt
from services.router.operations.text import TextAnswer

_DECODER = msgspec.json.Decoder(TextBody)
_END = end_mark(NATIVE)

_ROLES = {
    "system": text_pb2.ROLE_SYSTEM,
    "developer": text_pb2.ROLE_SYSTEM,
    "user": text_pb2.ROLE_USER,
    "assistant": text_pb2.ROLE_ASSISTANT,
    "model": text_pb2.ROLE_ASSISTANT,
    "tool": text_pb2.ROLE_TOOL,
}

_CHOICES = {
    "none": text_pb2.ToolChoice.MODE_NONE,
    "auto": text_pb2.ToolChoice.MODE_AUTO,
    "required": text_pb2.ToolChoice.MODE_REQUIRED,
}

FINISH = {
    text_pb2.FINISH_REASON_STOP: "stop",
    text_pb2.FINISH_REASON_LENGTH: "length",
    text_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    text_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
}


def read(data: bytes) -> tuple[text_service_pb2.GenerateTextRequest, Prompt]:
    """Read the body, and look through its prompt. Raises as `request_from`."""
    request = request_from(data)
    return request, Prompt.of(request, whole=is_large(data))


def request_from(data: bytes) -> text_service_pb2.GenerateTextRequest:
    """Read the body. Raises Malformed, InvalidField, UnsupportedMedia or TooLarge."""
    body = parse(data, _DECODER)
    request = text_service_pb2.GenerateTextRequest(
        model=body.model_id, provider=body.provider, stream=body.stream, max_tokens=body.max_tokens
    )
    for index, message in enumerate(body.messages):
        _add_message(request, message, f"messages[{index}]")
    for tool in body.tools or ():
        put_tool(request.tools.add(), tool)
    if body.tool_choice is not None:
        request.tool_choice.mode = _CHOICES[body.tool_choice]
    if body.image_data is not None:
        _attach(request, body.image_data)
    if body.stop is not None:
        request.stop.extend([body.stop] if isinstance(body.stop, str) else body.stop)
    fill(request.sampling, body)
    request.reasoning.include = body.include_reasoning
    return request


def _add_message(request: text_service_pb2.GenerateTextRequest, message: Message, where: str) -> None:
    turn = request.messages.add(role=_ROLES[message.role])
    if message.role == "tool":
        if not message.tool_call_id:
            raise InvalidField(f"{where}.tool_call_id is required", param=f"{where}.tool_call_id")
        call_id, _ = split_id(message.tool_call_id)
        result = text_pb2.ToolResult(tool_call_id=call_id, content=message.content or "")
        turn.parts.add().tool_result.CopyFrom(result)
        return
    if message.content is not None:
        turn.parts.add(text=message.content)
    for number, call in enumerate(message.tool_calls or ()):
        turn.parts.add().tool_call.CopyFrom(call_from(call, f"{where}.tool_calls[{number}]"))
    if not turn.parts:
        raise InvalidField(f"{where}.content is required", param=f"{where}.content")


def _attach(request: text_service_pb2.GenerateTextRequest, image_data: str) -> None:
    """Put the image before the text of the last user message, where vision models expect what is asked about."""
    image = image_from_text(image_data, param="image_data")
    for message in reversed(request.messages):
        if message.role == text_pb2.ROLE_USER:
            message.parts.insert(0, text_pb2.Part(image=image))
            return
    raise InvalidField("image_data needs a user message in messages", param="image_data")


def usage_of(usage: usage_pb2.Usage) -> dict[str, int]:
    """Return the usage as the document writes it."""
    return {
        "promptTokenCount": usage.prompt_tokens,
        "candidatesTokenCount": usage.completion_tokens,
        "totalTokenCount": usage.prompt_tokens + usage.completion_tokens,
    }


async def whole(answer: TextAnswer, *, include_reasoning: bool) -> dict[str, Any]:
    """Drain the answer to the document's one object. Raises MoaError when it failed."""
    text: list[str] = []
    reasoning: list[str] = []
    calls = Calls()
    finish, refusal = "stop", ""
    while (message := await answer.next()) is not None:
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "text":
                text.append(event.text.text)
            elif kind == "reasoning":
                reasoning.append(event.reasoning.text)
            elif kind == "tool_call":
                calls.take(event.tool_call)
            elif kind == "candidate_finished":
                finish = FINISH.get(event.candidate_finished.reason, "stop")
                refusal += event.candidate_finished.refusal
            elif kind == "error":
                raise error_of(event.error)
    results: dict[str, Any] = {"response": "".join(text)}
    if include_reasoning:
        results["reasoning"] = "".join(reasoning)
    if calls:
        results["tool_calls"] = calls.whole()
    results["finish_reason"] = finish
    if refusal:
        results["refusal"] = refusal
    results["model_id"] = answer.model.id
    results["provider"] = answer.model.provider
    results["usageMetadata"] = usage_of(answer.usage)
    return results


class Frames:
    """Renders an answer's messages to the document's event stream."""

    def __init__(self, answer: TextAnswer, *, include_reasoning: bool) -> None:
        self._answer = answer
        self._reasoning = include_reasoning
        self._finish = "stop"
        self._refusal: dict[str, str] = {}
        """The model's words, where it refused."""
        self._calls = Calls()
        self._went_on: dict[str, str] = {}
        """Who went on with the answer, where another model did."""

    def of(self, message: text_service_pb2.GenerateTextResponse) -> bytes:
        """Render one message; empty when none of its events shows in this dialect."""
        out = bytearray()
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "text":
                out += frame({"response": event.text.text})
            elif kind == "reasoning":
                if self._reasoning and event.reasoning.text:
                    out += frame({"reasoning": event.reasoning.text})
            elif kind == "tool_call":
                self._calls.take(event.tool_call)
            elif kind == "candidate_finished":
                if self._calls:
                    out += frame({"tool_calls": self._calls.whole()})
                self._finish = FINISH.get(event.candidate_finished.reason, "stop")
                if event.candidate_finished.refusal:
                    refusal = self._refusal.get("refusal", "") + event.candidate_finished.refusal
                    self._refusal = {"refusal": refusal}
            elif kind == "finished":
                usage = usage_of(event.finished.usage)
                out += frame({"finish_reason": self._finish, **self._refusal, "usageMetadata": usage, **self._went_on})
                out += _END
            elif kind == "started":
                self._went_on = {"model_id": event.started.model, "provider": event.started.provider}
            elif kind == "error":
                out += failure(NATIVE, error_of(event.error))
        return bytes(out)
