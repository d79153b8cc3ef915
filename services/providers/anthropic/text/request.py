"""Say a chat in the words of Messages (platform.claude.com/docs/en/api/messages/create)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from yarl import URL

from moa.common.v1.media_pb2 import FileInput
from moa.common.v1.vendor_pb2 import VendorFields
from moa.text.v1.text_pb2 import Message, Part, ReasoningPart, ResponseFormat, Tool, ToolChoice
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import InvalidField, Unsupported
from services.providers.anthropic import thinking
from services.providers.anthropic.text.carried import Carrier
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
_TEXT: Final = "text/plain"
_UNTHINKING: Final = ("disabled", "between_tools")
"""Kinds of thinking that are said in Claude's own words alone."""
_DOCUMENTS: Final = ("application/pdf", _TEXT)
_SAMPLING: Final = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}


def request_from(request: GenerateTextRequest, model: Model, provider: Provider, ignored: Ignored) -> Outgoing:
    """Return the HTTP request for a chat, without credentials."""
    body, headers = body_from(request, model, ignored), Carrier(request.vendor, ignored).headers()
    return Outgoing(url_of(provider.base_url, "messages"), _encode(body), headers)


def count_request_from(request: CountTokensRequest, model: Model, provider: Provider) -> Outgoing:
    """Return the HTTP request that counts a prompt."""
    spelling = _Messages(Carrier(VendorFields(), Ignored()))
    body: Json = {"model": model.name, **_prompt_from(request.messages, spelling)}
    if request.tools:
        _put_tools(body, request.tools, spelling, model)
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
    carrier = Carrier(request.vendor, ignored)
    spelling = _Messages(carrier)
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
        _add_thinking(body, request, model, most, ignored, carrier)
    _add_tools(body, request, spelling, model)
    if request.HasField("response_format"):
        _add_format(body, request.response_format)
    carrier.merge_all(body)
    return body


class _Messages:
    """The blocks of Messages, with marks of what is worth keeping: the first ones, as many as it takes.

    Args:
        carrier: What has the vendor's own fields.
        marks: How many.
    """

    def __init__(self, carrier: Carrier, marks: int = _MOST_MARKS) -> None:
        self.carrier = carrier
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

    def file(self, file: FileInput, where: str) -> Json:
        if file.mime_type not in _DOCUMENTS:
            raise Unsupported(f"this provider takes files of {' and '.join(_DOCUMENTS)}", param=f"{where}.mime_type")
        if file.HasField("url"):
            origin: Json = {"type": "url", "url": file.url}
        elif file.mime_type == _TEXT:
            try:
                origin = {"type": "text", "media_type": _TEXT, "data": file.data.decode()}
            except UnicodeDecodeError:
                raise InvalidField("the file's text is no UTF-8", param=f"{where}.data") from None
        else:
            origin = {"type": "base64", "media_type": file.mime_type, "data": b64encode(file.data).decode()}
        made = {"type": "document", "source": origin}
        return {**made, "title": file.name} if file.name else made

    def own(self, part: Part, where: str) -> Json:
        return self.carrier.own_block(part.vendor, where)

    def carry(self, block: Json, part: Part, where: str) -> None:
        if part.WhichOneof("part") is not None:
            self.carrier.merge(block, part.vendor, where)

    def mark(self, blocks: list[Json], wanted: bool) -> None:
        if wanted and self._left and blocks and blocks[-1].get("type") not in _UNMARKED:
            self._left -= 1
            blocks[-1]["cache_control"] = {"type": "ephemeral"}


def _prompt_from(messages: Sequence[Message], spelling: _Messages) -> Json:
    system, turns = prompt_from(messages, spelling)
    return {"system": system, "messages": turns} if system else {"messages": turns}


def _add_thinking(
    body: Json, request: GenerateTextRequest, model: Model, most: int, ignored: Ignored, carrier: Carrier
) -> None:
    if carrier.thinking in _UNTHINKING:
        # Some models think where nothing is said.
        body["thinking"] = {"type": carrier.thinking}
    if carrier.effort and carrier.thinking in ("", *_UNTHINKING):
        # Its own callers may ask for an effort without asking for thoughts.
        if model.limits.thinking == "adaptive":
            body["output_config"] = {"effort": carrier.effort}
        else:
            ignored.add("reasoning.effort", "this model takes no effort")
    if carrier.thinking in _UNTHINKING or (carrier.effort and not carrier.thinking):
        return
    made = thinking.thinking(request, model, most, ignored, word=carrier.effort)
    if not made:
        return
    if carrier.display:
        made["thinking"]["display"] = carrier.display
    elif request.reasoning.include and made["thinking"]["type"] == "adaptive":
        # Newer models leave the text out unless it is asked for.
        made["thinking"]["display"] = "summarized"
    body |= made
    thinking.fit_sampling(body, body, ignored, top_p="top_p")


def _add_tools(body: Json, request: GenerateTextRequest, spelling: _Messages, model: Model) -> None:
    choice = request.tool_choice
    tools: Sequence[Tool] = request.tools or [Tool(name=name) for name in called(request.messages)]
    if not tools:
        return
    _put_tools(body, tools, spelling, model)
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


def _put_tools(body: Json, tools: Sequence[Tool], spelling: _Messages, model: Model) -> None:
    made: list[Json] = []
    for index, tool in enumerate(tools):
        if not tool.name:
            own = spelling.carrier.own_tool(tool, model, f"tools[{index}]")
            servers = own.pop("mcp_servers", None)
            if servers is not None:
                body["mcp_servers"] = servers
            if own:
                made.append(own)
            continue
        where = f"tools[{index}].parameters_json"
        schema = object_of(tool.parameters_json or '{"type": "object", "properties": {}}', where)
        spec: Json = {"name": tool_name(tool.name), "input_schema": schema}
        if tool.description:
            spec["description"] = tool.description
        if tool.HasField("strict"):
            spec["strict"] = tool.strict
        made.append(spec)
        spelling.mark(made, tool.cache)
        spelling.carrier.merge(spec, tool.vendor, f"tools[{index}]")
    if made:
        body["tools"] = made


def _add_format(body: Json, form: ResponseFormat) -> None:
    if form.kind == ResponseFormat.KIND_JSON_OBJECT:
        raise Unsupported("this provider needs a JSON Schema for JSON; send one", param="response_format.kind")
    if form.kind == ResponseFormat.KIND_JSON_SCHEMA:
        schema = object_of(form.schema_json, "response_format.schema_json")
        body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": schema}
