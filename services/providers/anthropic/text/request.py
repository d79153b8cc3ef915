"""Say a chat in the words of Messages (platform.claude.com/docs/en/api/messages/create)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from yarl import URL

from moa.text.v1.text_pb2 import Message, ReasoningPart, ResponseFormat, Tool, ToolChoice
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import Unsupported
from services.providers.anthropic import thinking
from services.providers.http.client import Outgoing
from services.providers.text.ignored import Ignored
from services.providers.text.jsontext import object_of
from services.providers.text.names import called, tool_name
from services.providers.text.sampling import up_to_one
from services.providers.text.turns import prompt_from

Json = dict[str, Any]

_encode: Final = msgspec.json.Encoder().encode
_MOST: Final = 4096
"""Tokens of an answer of a model whose longest is not known: every Claude takes as many."""
_MOST_MARKS: Final = 4
_UNMARKED: Final = frozenset(("thinking", "redacted_thinking"))
"""Blocks that take no mark themselves."""
_SAMPLING: Final = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}


def request_from(request: GenerateTextRequest, model: Model, provider: Provider, ignored: Ignored) -> Outgoing:
    """Return the HTTP request for a chat, without credentials."""
    return Outgoing(url_of(provider.base_url, "messages"), _encode(body_from(request, model, ignored)), {})


def count_request_from(request: CountTokensRequest, model: Model, provider: Provider) -> Outgoing:
    """Return the HTTP request that counts a prompt."""
    spelling = _Messages()
    body = {"model": model.name, **_prompt_from(request.messages, spelling)}
    if request.tools:
        body["tools"] = _tools_from(request.tools, spelling)
    return Outgoing(url_of(provider.base_url, "messages/count_tokens"), _encode(body), {})


@lru_cache(maxsize=64)
def url_of(base: str, method: str) -> URL:
    """Return the address of a method."""
    return URL(f"{base.rstrip('/')}/v1/{method}")


def body_from(request: GenerateTextRequest, model: Model, ignored: Ignored) -> Json:
    """Return the request's JSON object. Raises Unsupported, with the field's name, for what cannot be said."""
    if request.candidates > 1:
        raise Unsupported("this provider gives one candidate", param="candidates")
    most = request.max_tokens if request.HasField("max_tokens") else model.max_output_tokens or _MOST
    spelling = _Messages()
    body: Json = {"model": model.name, "max_tokens": most, **_prompt_from(request.messages, spelling)}
    if request.stream:
        body["stream"] = True
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.user:
        body["metadata"] = {"user_id": request.user}
    if request.HasField("sampling"):
        body.update(up_to_one(request.sampling, _SAMPLING, ignored))
    if request.HasField("reasoning"):
        _add_thinking(body, request, model, most, ignored)
    _add_tools(body, request, spelling)
    if request.HasField("response_format"):
        _add_format(body, request.response_format)
    return body


class _Messages:
    """The blocks of Messages, with marks of what is worth keeping: the first ones, as many as it takes.

    Args:
        marks: How many.
    """

    def __init__(self, marks: int = _MOST_MARKS) -> None:
        self._left = marks

    def text(self, text: str) -> Json:
        return {"type": "text", "text": text}

    def image(self, data: bytes, mime: str) -> Json:
        source = {"type": "base64", "media_type": mime, "data": b64encode(data).decode()}
        return {"type": "image", "source": source}

    def call(self, call_id: str, name: str, arguments: msgspec.Raw) -> Json:
        return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}

    def result(self, call_id: str, text: str, *, is_error: bool) -> Json:
        made: Json = {"type": "tool_result", "tool_use_id": call_id, "content": text}
        if is_error:
            made["is_error"] = True
        return made

    def reasoning(self, part: ReasoningPart) -> Json:
        signature = part.signature.removeprefix(thinking.OMITTED)
        if not part.text and signature == part.signature:
            return {"type": "redacted_thinking", "data": thinking.text_of(signature)}
        return {"type": "thinking", "thinking": part.text, "signature": thinking.text_of(signature)}

    def mark(self, blocks: list[Json], wanted: bool) -> None:
        if wanted and self._left and blocks and blocks[-1].get("type") not in _UNMARKED:
            self._left -= 1
            blocks[-1]["cache_control"] = {"type": "ephemeral"}


def _prompt_from(messages: Sequence[Message], spelling: _Messages) -> Json:
    system, turns = prompt_from(messages, spelling)
    return {"system": system, "messages": turns} if system else {"messages": turns}


def _add_thinking(body: Json, request: GenerateTextRequest, model: Model, most: int, ignored: Ignored) -> None:
    made = thinking.thinking(request, model, most, ignored)
    if not made:
        return
    if request.reasoning.include and made["thinking"]["type"] == "adaptive":
        # Newer models leave the text out unless it is asked for.
        made["thinking"]["display"] = "summarized"
    body |= made
    thinking.fit_sampling(body, body, ignored, top_p="top_p")


def _add_tools(body: Json, request: GenerateTextRequest, spelling: _Messages) -> None:
    choice = request.tool_choice
    tools: Sequence[Tool] = request.tools or [Tool(name=name) for name in called(request.messages)]
    if not tools:
        return
    body["tools"] = _tools_from(tools, spelling)
    made: Json = {}
    if not request.tools or choice.mode == ToolChoice.MODE_NONE:
        made["type"] = "none"  # a history with calls needs its tools
    elif choice.mode == ToolChoice.MODE_REQUIRED:
        made["type"] = "any"
    elif choice.mode == ToolChoice.MODE_NAMED:
        made |= {"type": "tool", "name": tool_name(choice.name)}
    elif choice.mode == ToolChoice.MODE_AUTO:
        made["type"] = "auto"
    if made.get("type") != "none" and choice.HasField("parallel") and not choice.parallel:
        made = {"type": "auto", **made, "disable_parallel_tool_use": True}
    if made:
        body["tool_choice"] = made


def _tools_from(tools: Sequence[Tool], spelling: _Messages) -> list[Json]:
    made: list[Json] = []
    for index, tool in enumerate(tools):
        where = f"tools[{index}].parameters_json"
        schema = object_of(tool.parameters_json or '{"type": "object", "properties": {}}', where)
        spec: Json = {"name": tool_name(tool.name), "input_schema": schema}
        if tool.description:
            spec["description"] = tool.description
        if tool.HasField("strict"):
            spec["strict"] = tool.strict
        made.append(spec)
        spelling.mark(made, tool.cache)
    return made


def _add_format(body: Json, form: ResponseFormat) -> None:
    if form.kind == ResponseFormat.KIND_JSON_OBJECT:
        raise Unsupported("this provider needs a JSON Schema for JSON; send one", param="response_format.kind")
    if form.kind == ResponseFormat.KIND_JSON_SCHEMA:
        schema = object_of(form.schema_json, "response_format.schema_json")
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}
