"""Count a prompt in OpenAI's words: `POST /responses/input_tokens`.

https://platform.openai.com/docs/guides/token-counting
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from moa.text.v1.text_pb2 import Message, Part, Role, Tool
from moa.text.v1.text_service_pb2 import CountTokensRequest
from services.catalogue import Model, Provider
from services.common.errors import InvalidField, Unsupported
from services.providers.http.client import Outgoing
from services.providers.openai.text.request import grammar_of, options_of, refuse_arguments, url_of
from services.providers.text import media
from services.providers.text.jsontext import json_of

Json = dict[str, Any]
_encode: Final = msgspec.json.Encoder().encode
_KINDS: Final = {False: "function", True: "custom_tool"}
_ROLES: Final = {Role.ROLE_SYSTEM: "system", Role.ROLE_USER: "user", Role.ROLE_ASSISTANT: "assistant"}


def count_request_from(request: CountTokensRequest, model: Model, provider: Provider) -> Outgoing:
    """Return the HTTP request that counts a prompt. Raises Unsupported for a server that does not count."""
    if not options_of(provider).counts_tokens:
        raise Unsupported(f"provider {provider.id!r} does not count tokens", param="model")
    items: list[Json] = []
    custom: set[str] = set()
    for index, message in enumerate(request.messages):
        items += _items_from(message, f"messages[{index}]", custom)
    body: Json = {"model": model.name, "input": items}
    if request.tools:
        body["tools"] = [tool_from(tool, f"tools[{index}]") for index, tool in enumerate(request.tools)]
    return Outgoing(url_of(provider.base_url, "/responses/input_tokens"), _encode(body), {})


def _items_from(message: Message, where: str, custom: set[str]) -> list[Json]:
    """Return the items of a turn: what was said, then calls or results, each an item of its own.

    `custom`: the ids of earlier calls of custom tools, to which the turn's own are added.
    """
    contents: list[Json] = []
    apart: list[Json] = []
    for i, part in enumerate(message.parts):
        place = f"{where}.parts[{i}]"
        kind = part.WhichOneof("part")
        if kind == "tool_call":
            call = part.tool_call
            if call.custom:
                custom.add(call.id)
            word = "input" if call.custom else "arguments"
            called = f"{_KINDS[call.custom]}_call"
            apart.append({"type": called, "call_id": call.id, "name": call.name, word: call.arguments_json})
        elif kind == "tool_result":
            result = part.tool_result
            output = _encode({"error": result.content}).decode() if result.is_error else result.content
            answered = f"{_KINDS[result.tool_call_id in custom]}_call_output"
            apart.append({"type": answered, "call_id": result.tool_call_id, "output": output})
        else:
            contents.append(_content_from(part, message.role, place))
    if not contents:
        return apart
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidField("a tool message may hold only tool results", param=where)
    # What the model said before is plain text here; what it is told may be of several kinds.
    content: Any = contents if role == "user" else "".join(item["text"] for item in contents)
    return [{"role": role, "content": content}, *apart]


def _content_from(part: Part, role: Role.ValueType, where: str) -> Json:
    kind = part.WhichOneof("part")
    if kind == "text":
        return {"type": "input_text", "text": part.text}
    if kind == "image" and role == Role.ROLE_USER:
        uri = media.data_uri(*media.checked(part.image, f"{where}.image"))
        return {"type": "input_image", "image_url": uri, "detail": "auto"}
    if kind == "reasoning":
        raise Unsupported("this provider does not count reasoning that is given back", param=f"{where}.reasoning")
    raise InvalidField(f"{kind or 'an empty part'} does not belong in this message", param=where)


def tool_from(tool: Tool, where: str) -> Json:
    """Return a tool as the Responses API has it. Raises InvalidField."""
    if tool.HasField("custom"):
        return _custom_from(tool, where)
    parameters: Any = json_of(tool.parameters_json, f"{where}.parameters_json") if tool.parameters_json else None
    strict = tool.strict if tool.HasField("strict") else None
    made: Json = {"type": "function", "name": tool.name, "parameters": parameters, "strict": strict}
    if tool.description:
        made["description"] = tool.description
    return made


def _custom_from(tool: Tool, where: str) -> Json:
    refuse_arguments(tool, where)
    made: Json = {"type": "custom", "name": tool.name}
    if tool.description:
        made["description"] = tool.description
    if tool.custom.HasField("grammar"):
        made["format"] = {"type": "grammar", **grammar_of(tool)}
    return made
