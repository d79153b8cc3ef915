"""Say a chat in Converse's words (docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import msgspec
from yarl import URL

from moa.text.v1.text_pb2 import Message, Part, ReasoningPart, ResponseFormat, Role, Tool, ToolChoice
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import InvalidField, Unsupported
from services.providers.aws.text.families import family_of, is_provable
from services.providers.aws.text.names import call_id, called, tool_name
from services.providers.http.client import Outgoing
from services.providers.text import caching, media
from services.providers.text.ignored import Ignored
from services.providers.text.jsontext import arguments_given_back, json_of, object_of
from services.providers.text.sampling import given

Json = dict[str, Any]

_encode: Final = msgspec.json.Encoder().encode
_NO_RESULT: Final = "(no output)"
"""What a tool's blank result is told as: Converse takes no blank text."""
_NO_TOOLS: Final = "Do not call tools in this turn. Answer in text."
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
    prompt = _prompt_from(request.messages, None)
    if request.tools:
        prompt["toolConfig"] = {"tools": _tools_from(request.tools, None)}
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
    caches = _Caches() if family.caches else None
    if caches is None and caching.is_marked(request):
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
        _add_sampling(config, request, ignored)
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


class _Caches:
    """Puts the points up to which a prompt is worth keeping: as many as Converse takes, the first ones."""

    def __init__(self) -> None:
        self._left = _MOST_CACHES

    def mark(self, blocks: list[Json], wanted: bool) -> None:
        """Put a point after what is there."""
        if wanted and self._left and blocks:
            self._left -= 1
            blocks.append({"cachePoint": {"type": "default"}})


def _prompt_from(messages: Sequence[Message], caches: _Caches | None) -> Json:
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
                if caches is not None:
                    caches.mark(system, any(part.cache for part in message.parts))
                continue
        else:
            blocks = _blocks_from(message, where, caches)
        if not blocks:
            continue  # Converse takes no blank text, and an earlier answer may have been blank
        role = "assistant" if message.role == Role.ROLE_ASSISTANT else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        # Converse wants a turn, and some clients send instructions alone.
        turns, system = ([{"role": "user", "content": system}] if system else []), []
    if not turns:
        raise InvalidField("a message needs content", param="messages")
    prompt: Json = {"messages": turns}
    if system:
        prompt["system"] = system
    return prompt


def _blocks_from(message: Message, where: str, caches: _Caches | None) -> list[Json]:
    """Return a turn's content, without what Converse refuses: blank text, and reasoning that nobody has signed."""
    blocks: list[Json] = []
    for index, part in enumerate(_joined(message.parts)):
        if part.HasField("text") and not part.text.strip():
            continue
        if part.HasField("reasoning") and not is_provable(part):
            continue
        blocks.append(_block_from(part, message.role, f"{where}.parts[{index}]"))
        if caches is not None:
            caches.mark(blocks, part.cache)
    if message.name and message.role == Role.ROLE_USER and blocks and "text" in blocks[0]:
        # Converse does not name participants.
        blocks[0] = {"text": f"{message.name}: {blocks[0]['text']}"}
    return blocks


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Return a turn's parts, reasoning that is given back in pieces as one: its signature may come as the last."""
    made: list[Part] = []
    for part in parts:
        last = made[-1].reasoning if made else None
        if last is not None and last.text and not last.signature and part.HasField("reasoning"):
            more = part.reasoning
            whole = ReasoningPart(text=last.text + more.text, signature=more.signature, signer=more.signer)
            made[-1] = Part(reasoning=whole)
        else:
            made.append(part)
    return made


def _text_of(part: Part, where: str) -> str:
    if not part.HasField("text"):
        raise InvalidField("system instructions may hold only text", param=where)
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
        arguments = arguments_given_back(call.arguments_json)
        return {"toolUse": {"toolUseId": call_id(call.id), "name": tool_name(call.name), "input": arguments}}
    if kind == "tool_result" and role == Role.ROLE_TOOL:
        result = part.tool_result
        result_text = result.content if result.content.strip() else _NO_RESULT
        made: Json = {"toolUseId": call_id(result.tool_call_id), "content": [{"text": result_text}]}
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


def _add_sampling(config: Json, request: GenerateTextRequest, ignored: Ignored) -> None:
    sampling = request.sampling
    config.update(given(sampling, _SAMPLING, ignored))
    if sampling.logit_bias:
        ignored.add("logit_bias", "this provider does not bias tokens")
    if sampling.logprobs:
        raise Unsupported("this provider does not give log probabilities", param="logprobs")
    if sampling.temperature > 1:
        config["temperature"] = 1.0
        ignored.nearest("temperature", 1, "this provider takes a temperature from 0 to 1")


def _add_tools(body: Json, request: GenerateTextRequest, caches: _Caches | None, ignored: Ignored) -> None:
    earlier = called(request.messages)
    choice = request.tool_choice
    if request.tools and choice.HasField("parallel") and not choice.parallel:
        ignored.add("tool_choice.parallel", "this provider cannot be limited to one tool call in a turn")
    if not request.tools or choice.mode == ToolChoice.MODE_NONE:
        if earlier:
            # A history with calls needs its tools, and no choice forbids them.
            known = {tool.name: tool for tool in request.tools}
            named = [known.get(name) or Tool(name=name) for name in earlier]
            body["toolConfig"] = {"tools": _tools_from(named, None)}
            body.setdefault("system", []).append({"text": _NO_TOOLS})
        return
    config: Json = {"tools": _tools_from(request.tools, caches)}
    if choice.mode == ToolChoice.MODE_REQUIRED:
        config["toolChoice"] = {"any": {}}
    elif choice.mode == ToolChoice.MODE_NAMED:
        config["toolChoice"] = {"tool": {"name": tool_name(choice.name)}}
    elif choice.mode == ToolChoice.MODE_AUTO:
        config["toolChoice"] = {"auto": {}}
    body["toolConfig"] = config


def _tools_from(tools: Sequence[Tool], caches: _Caches | None) -> list[Json]:
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
        if caches is not None:
            caches.mark(made, tool.cache)
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
