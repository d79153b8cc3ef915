"""Say a chat in Converse's words (docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import msgspec
from yarl import URL

from moa.common.v1.media_pb2 import FileInput
from moa.text.v1.text_pb2 import Message, Part, ReasoningPart, ResponseFormat, Tool, ToolChoice
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import InvalidField, Unsupported
from services.providers.anthropic import thinking as claude
from services.providers.aws.text.families import family_of
from services.providers.http.client import Outgoing
from services.providers.text import caching
from services.providers.text.ignored import Ignored
from services.providers.text.jsontext import json_of, object_of
from services.providers.text.names import called, tool_name
from services.providers.text.sampling import up_to_one
from services.providers.text.turns import NO_TOOLS, prompt_from

Json = dict[str, Any]

_encode: Final = msgspec.json.Encoder().encode
_MOST: Final = 4096
"""Tokens of an answer of a model whose longest is not known: every Claude takes as many."""
_MOST_CACHES: Final = 4
_SAMPLING: Final = {"temperature": "temperature", "top_p": "topP", "top_k": "top_k"}


def request_from(request: GenerateTextRequest, model: Model, provider: Provider, ignored: Ignored) -> Outgoing:
    """Return the HTTP request for a chat, unsigned."""
    method = "converse-stream" if request.stream else "converse"
    return Outgoing(url_of(provider.base_url, model.name, method), _encode(body_from(request, model, ignored)), {})


def count_request_from(request: CountTokensRequest, model: Model, provider: Provider) -> Outgoing:
    """Return the HTTP request that counts a prompt."""
    prompt = _prompt_from(request.messages, _Converse(keeps=False))
    if request.tools:
        prompt["toolConfig"] = {"tools": _tools_from(request.tools, _Converse(keeps=False))}
    body = _encode({"input": {"converse": prompt}})
    return Outgoing(url_of(provider.base_url, model.name, "count-tokens"), body, {})


@lru_cache(maxsize=256)
def url_of(base: str, model: str, method: str) -> URL:
    """Return the address of a model's method. The model's name is one path segment, whatever it holds."""
    return URL(f"{base.rstrip('/')}/model/{quote(model, safe='')}/{method}", encoded=True)


def body_from(request: GenerateTextRequest, model: Model, ignored: Ignored) -> Json:
    """Return the request's JSON object. Raises Unsupported, with the field's name, for what cannot be said."""
    # What a model thinks is a part of it, so that it is always said.
    most = request.max_tokens if request.HasField("max_tokens") else model.max_output_tokens or _MOST
    family = family_of(model.name)
    caches = _Converse(keeps=family.caches)
    if not family.caches and caching.is_marked(request):
        ignored.add("cache_control", f"model {model.id!r} keeps no prompts on demand")
    body = _prompt_from(request.messages, caches)
    config: Json = {"maxTokens": most}
    if request.stop:
        config["stopSequences"] = list(request.stop)
    if request.candidates > 1:
        raise Unsupported("this provider gives one candidate", param="candidates")
    more: Json = {}
    thinking: Json = {}
    if request.HasField("reasoning"):
        thinking = family.reasoning(request, model, most, ignored)
        more |= thinking
    if request.HasField("sampling"):
        config.update(up_to_one(request.sampling, _SAMPLING, ignored))
        if "top_k" in config:
            top_k = config.pop("top_k")
            if family.top_k is None:
                ignored.add("top_k", f"model {model.id!r} does not take top_k")
            else:
                more |= family.top_k(top_k)
    if not thinking and not request.HasField("max_tokens") and not model.max_output_tokens:
        # Nobody knows its longest answer: Converse takes the model's own where none is said.
        del config["maxTokens"]
    if thinking:
        family.fit_sampling(config, more, ignored)
    body["inferenceConfig"] = config
    _add_tools(body, request, caches, ignored)
    if request.HasField("response_format"):
        _add_format(body, request.response_format)
    if more:
        body["additionalModelRequestFields"] = more
    return body


class _Converse:
    """Converse's blocks, with the points up to which a prompt is worth keeping: as many as it takes, the first ones."""

    def __init__(self, *, keeps: bool) -> None:
        self._left = _MOST_CACHES if keeps else 0

    def text(self, text: str) -> Json:
        return {"text": text}

    def image(self, data: bytes, mime: str) -> Json:
        return {"image": {"format": mime.removeprefix("image/"), "source": {"bytes": b64encode(data).decode()}}}

    def call(self, call_id: str, name: str, arguments: msgspec.Raw) -> Json:
        return {"toolUse": {"toolUseId": call_id, "name": name, "input": arguments}}

    def result(self, call_id: str, text: str, *, is_error: bool) -> Json:
        made: Json = {"toolUseId": call_id, "content": [{"text": text}]}
        if is_error:
            made["status"] = "error"
        return {"toolResult": made}

    def reasoning(self, part: ReasoningPart) -> Json:
        signature = part.signature.removeprefix(claude.OMITTED)
        if not part.text and signature == part.signature:
            return {"reasoningContent": {"redactedContent": b64encode(signature).decode()}}
        text: Json = {"text": part.text}
        if signature:
            text["signature"] = claude.text_of(signature)
        return {"reasoningContent": {"reasoningText": text}}

    def file(self, file: FileInput, where: str) -> Json:
        raise Unsupported("this provider takes no files here", param=where)

    def own(self, part: Part, where: str) -> Json:
        raise InvalidField("an empty part does not belong in this message", param=where)

    def carry(self, block: Json, part: Part, where: str) -> None:
        """Nothing is carried to this provider."""

    def mark(self, blocks: list[Json], wanted: bool) -> None:
        if wanted and self._left and blocks:
            self._left -= 1
            blocks.append({"cachePoint": {"type": "default"}})


def _prompt_from(messages: Sequence[Message], spelling: _Converse) -> Json:
    """Return instructions and conversation."""
    system, turns = prompt_from(messages, spelling)
    prompt: Json = {"messages": turns}
    if system:
        prompt["system"] = system
    return prompt


def _add_tools(body: Json, request: GenerateTextRequest, spelling: _Converse, ignored: Ignored) -> None:
    earlier = called(request.messages)
    choice = request.tool_choice
    if request.tools and choice.HasField("parallel") and not choice.parallel:
        ignored.add("tool_choice.parallel", "this provider cannot be limited to one tool call in a turn")
    if not request.tools or choice.mode == ToolChoice.MODE_NONE:
        if earlier:
            # A history with calls needs its tools, and no choice forbids them.
            known = {tool.name: tool for tool in request.tools}
            named = [known.get(name) or Tool(name=name) for name in earlier]
            body["toolConfig"] = {"tools": _tools_from(named, _Converse(keeps=False))}
            body.setdefault("system", []).append({"text": NO_TOOLS})
        return
    config: Json = {"tools": _tools_from(request.tools, spelling)}
    if choice.mode == ToolChoice.MODE_REQUIRED:
        config["toolChoice"] = {"any": {}}
    elif choice.mode == ToolChoice.MODE_NAMED:
        config["toolChoice"] = {"tool": {"name": tool_name(choice.name)}}
    elif choice.mode == ToolChoice.MODE_AUTO:
        config["toolChoice"] = {"auto": {}}
    body["toolConfig"] = config


def _tools_from(tools: Sequence[Tool], spelling: _Converse) -> list[Json]:
    made: list[Json] = []
    for index, tool in enumerate(tools):
        where = f"tools[{index}].parameters_json"
        schema = object_of(tool.parameters_json or '{"type": "object", "properties": {}}', where)
        spec: Json = {"name": tool_name(tool.name), "inputSchema": {"json": schema}}
        if tool.description:
            spec["description"] = tool.description
        if tool.HasField("strict"):
            spec["strict"] = tool.strict
        made.append({"toolSpec": spec})
        spelling.mark(made, tool.cache)
    return made


def _add_format(body: Json, form: ResponseFormat) -> None:
    if form.kind == ResponseFormat.KIND_JSON_OBJECT:
        raise Unsupported(
            "this provider needs a JSON Schema for JSON; send one",
            param="response_format.kind",
        )
    if form.kind == ResponseFormat.KIND_JSON_SCHEMA:
        json_of(form.schema_json, "response_format.schema_json")
        schema: Json = {"schema": form.schema_json}
        if form.name:
            schema["name"] = form.name
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
