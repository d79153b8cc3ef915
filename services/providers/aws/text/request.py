"""Say a chat in Converse's words (docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import msgspec
from yarl import URL

from moa.text.v1.text_pb2 import Message, Part, ResponseFormat, Role, Tool, ToolChoice
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import InvalidField, Unsupported
from services.providers.aws.text.families import family_of, is_provable
from services.providers.http.client import Outgoing
from services.providers.text import media
from services.providers.text.jsontext import json_of, object_of

Json = dict[str, Any]

_encode: Final = msgspec.json.Encoder().encode
_NO_RESULT: Final = "(no output)"
"""What a tool's blank result is told as: Converse takes no blank text."""
_NO_TOOLS: Final = "Do not call tools in this turn. Answer in text."
_NO_FIELDS: Final = ("seed", "presence_penalty", "frequency_penalty")


def request_from(request: GenerateTextRequest, model: Model, provider: Provider) -> Outgoing:
    """Return the HTTP request for a chat, unsigned."""
    method = "converse-stream" if request.stream else "converse"
    return Outgoing(url_of(provider.base_url, model.name, method), _encode(body_from(request, model)), {})


def count_request_from(request: CountTokensRequest, model: Model, provider: Provider) -> Outgoing:
    """Return the HTTP request that counts a prompt."""
    prompt = _prompt_from(request.messages)
    if request.tools:
        prompt["toolConfig"] = {"tools": _tools_from(request.tools)}
    body = _encode({"input": {"converse": prompt}})
    return Outgoing(url_of(provider.base_url, model.name, "count-tokens"), body, {})


@lru_cache(maxsize=256)
def url_of(base: str, model: str, method: str) -> URL:
    """Return the address of a model's method. The model's name is one path segment, whatever it holds."""
    return URL(f"{base.rstrip('/')}/model/{quote(model, safe='')}/{method}", encoded=True)


def body_from(request: GenerateTextRequest, model: Model) -> Json:
    """Return the request's JSON object. Raises Unsupported, with the field's name, for what cannot be said."""
    most = request.max_tokens if request.HasField("max_tokens") else model.default_max_tokens
    body = _prompt_from(request.messages)
    config: Json = {"maxTokens": most}
    if request.stop:
        config["stopSequences"] = list(request.stop)
    if request.candidates > 1:
        raise Unsupported("this provider gives one candidate", param="candidates")
    family = family_of(model.name)
    more: Json = {}
    if request.HasField("sampling"):
        _add_sampling(config, request)
        if request.sampling.HasField("top_k"):
            if family.top_k is None:
                raise Unsupported(f"model {model.id!r} does not take top_k", param="top_k")
            more |= family.top_k(request.sampling.top_k)
    if request.HasField("reasoning"):
        more |= family.reasoning(request, model, most)
    body["inferenceConfig"] = config
    _add_tools(body, request)
    if request.HasField("response_format"):
        _add_format(body, request.response_format)
    if more:
        body["additionalModelRequestFields"] = more
    return body


def _prompt_from(messages: Sequence[Message]) -> Json:
    """Return instructions and conversation. Converse wants user and assistant to take turns."""
    system: list[Json] = []
    turns: list[Json] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.role == Role.ROLE_SYSTEM:
            texts = [_text_of(part, where) for part in message.parts]
            if turns:
                # Converse takes instructions before the conversation only; later ones are told in their place.
                blocks = [{"text": f"<system>\n{text}\n</system>"} for text in texts if text.strip()]
            else:
                system += [{"text": text} for text in texts if text.strip()]
                continue
        else:
            blocks = _blocks_from(message, where)
        if not blocks:
            continue  # Converse takes no blank text, and an earlier answer may have been blank
        role = "assistant" if message.role == Role.ROLE_ASSISTANT else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise InvalidField("a message needs content", param="messages")
    prompt: Json = {"messages": turns}
    if system:
        prompt["system"] = system
    return prompt


def _blocks_from(message: Message, where: str) -> list[Json]:
    """Return a turn's content, without what Converse refuses: blank text, and reasoning that nobody has signed."""
    blocks: list[Json] = []
    for index, part in enumerate(message.parts):
        if part.HasField("text") and not part.text.strip():
            continue
        if part.HasField("reasoning") and not is_provable(part):
            continue
        blocks.append(_block_from(part, message.role, f"{where}.parts[{index}]"))
    if message.name and message.role == Role.ROLE_USER and blocks and "text" in blocks[0]:
        # Converse does not name participants.
        blocks[0] = {"text": f"{message.name}: {blocks[0]['text']}"}
    return blocks


def _text_of(part: Part, where: str) -> str:
    if not part.HasField("text"):
        raise InvalidField("instructions are text", param=where)
    return part.text


def _block_from(part: Part, role: Role.ValueType, where: str) -> Json:
    kind = part.WhichOneof("part")
    if kind == "text" and role != Role.ROLE_TOOL:
        return {"text": part.text}
    if kind == "image" and role == Role.ROLE_USER:
        data, mime = media.checked(part.image, f"{where}.image")
        return {"image": {"format": mime.removeprefix("image/"), "source": {"bytes": b64encode(data).decode()}}}
    if kind == "tool_call" and role == Role.ROLE_ASSISTANT:
        call = part.tool_call
        arguments = object_of(call.arguments_json or "{}", f"{where}.arguments_json")
        return {"toolUse": {"toolUseId": call.id, "name": call.name, "input": arguments}}
    if kind == "tool_result" and role == Role.ROLE_TOOL:
        result = part.tool_result
        result_text = result.content if result.content.strip() else _NO_RESULT
        made: Json = {"toolUseId": result.tool_call_id, "content": [{"text": result_text}]}
        if result.is_error:
            made["status"] = "error"
        return {"toolResult": made}
    if kind == "reasoning" and role == Role.ROLE_ASSISTANT:
        return {"reasoningContent": _reasoning_from(part)}
    raise InvalidField(f"{kind or 'an empty part'} does not belong in this message", param=where)


def _reasoning_from(part: Part) -> Json:
    reasoning = part.reasoning
    if not reasoning.text:
        return {"redactedContent": b64encode(reasoning.signature).decode()}
    text: Json = {"text": reasoning.text}
    if reasoning.signature:
        text["signature"] = reasoning.signature.decode()
    return {"reasoningText": text}


def _add_sampling(config: Json, request: GenerateTextRequest) -> None:
    sampling = request.sampling
    for field in _NO_FIELDS:
        if sampling.HasField(field):
            raise Unsupported(f"this provider does not take {field}", param=field)
    if sampling.logit_bias:
        raise Unsupported("this provider does not bias tokens", param="logit_bias")
    if sampling.logprobs:
        raise Unsupported("this provider does not give log probabilities", param="logprobs")
    if sampling.HasField("temperature"):
        if sampling.temperature > 1:
            raise Unsupported("this provider takes a temperature from 0 to 1", param="temperature")
        config["temperature"] = sampling.temperature
    if sampling.HasField("top_p"):
        config["topP"] = sampling.top_p


def _add_tools(body: Json, request: GenerateTextRequest) -> None:
    earlier = _called(request.messages)
    choice = request.tool_choice
    if request.tools and choice.HasField("parallel") and not choice.parallel:
        raise Unsupported("this provider always may call several tools in a turn", param="tool_choice.parallel")
    if not request.tools or choice.mode == ToolChoice.MODE_NONE:
        if earlier:
            # A history with calls needs its tools, and no choice forbids them.
            known = {tool.name: tool for tool in request.tools}
            named = [known.get(name) or Tool(name=name) for name in earlier]
            body["toolConfig"] = {"tools": _tools_from(named)}
            body.setdefault("system", []).append({"text": _NO_TOOLS})
        return
    config: Json = {"tools": _tools_from(request.tools)}
    if choice.mode == ToolChoice.MODE_REQUIRED:
        config["toolChoice"] = {"any": {}}
    elif choice.mode == ToolChoice.MODE_NAMED:
        config["toolChoice"] = {"tool": {"name": choice.name}}
    elif choice.mode == ToolChoice.MODE_AUTO:
        config["toolChoice"] = {"auto": {}}
    body["toolConfig"] = config


def _called(messages: Sequence[Message]) -> list[str]:
    """Return the names of the tools that were called, each once."""
    return list(
        dict.fromkeys(
            part.tool_call.name for message in messages for part in message.parts if part.HasField("tool_call")
        )
    )


def _tools_from(tools: Sequence[Tool]) -> list[Json]:
    made = []
    for index, tool in enumerate(tools):
        where = f"tools[{index}].parameters_json"
        schema = object_of(tool.parameters_json or '{"type": "object", "properties": {}}', where)
        spec: Json = {"name": tool.name, "inputSchema": {"json": schema}}
        if tool.description:
            spec["description"] = tool.description
        if tool.HasField("strict"):
            spec["strict"] = tool.strict
        made.append({"toolSpec": spec})
    return made


def _add_format(body: Json, form: ResponseFormat) -> None:
    if form.kind == ResponseFormat.KIND_JSON_OBJECT:
        raise Unsupported("this provider needs a schema for JSON", param="response_format.kind")
    if form.kind == ResponseFormat.KIND_JSON_SCHEMA:
        json_of(form.schema_json, "response_format.schema_json")
        schema: Json = {"schema": form.schema_json}
        if form.name:
            schema["name"] = form.name
        body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
