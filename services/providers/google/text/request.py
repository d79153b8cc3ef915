"""Say a chat in Gemini's words: `generateContent` (ai.google.dev/api/generate-content)."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

import msgspec
from yarl import URL

from moa.common.v1.media_pb2 import FileInput
from moa.text.v1.text_pb2 import Message, Part, ReasoningOptions, ResponseFormat, Role, Tool, ToolChoice, ToolResult
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model, Provider
from services.common import vendor_fields
from services.common.errors import InvalidField, Unsupported, UnsupportedMedia
from services.providers.google.text import carried
from services.providers.google.text.wire import SIGNER
from services.providers.http.client import Outgoing
from services.providers.text import media
from services.providers.text.ignored import Ignored
from services.providers.text.jsontext import arguments_given_back, json_of, object_of
from services.providers.text.sampling import given
from services.providers.text.thinking import largest_budget

Json = dict[str, Any]

_SAMPLING: Final = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_MIMES: Final = frozenset({"image/png", "image/jpeg", "image/webp"})
_BUDGETS: Final[Mapping[ReasoningOptions.Effort.ValueType, int]] = {
    ReasoningOptions.EFFORT_NONE: 0,
    ReasoningOptions.EFFORT_MINIMAL: 512,
    ReasoningOptions.EFFORT_LOW: 1024,
    ReasoningOptions.EFFORT_MEDIUM: 8192,
    ReasoningOptions.EFFORT_HIGH: 24576,
    ReasoningOptions.EFFORT_XHIGH: 24576,
}
"""Efforts as budgets, for models before Gemini 3; the numbers of Google's own OpenAI-compatible endpoint."""
_LEVELS: Final[Mapping[ReasoningOptions.Effort.ValueType, str]] = {
    ReasoningOptions.EFFORT_NONE: "LOW",
    ReasoningOptions.EFFORT_MINIMAL: "MINIMAL",
    ReasoningOptions.EFFORT_LOW: "LOW",
    ReasoningOptions.EFFORT_MEDIUM: "MEDIUM",
    ReasoningOptions.EFFORT_HIGH: "HIGH",
    ReasoningOptions.EFFORT_XHIGH: "HIGH",
}
"""Efforts as levels, for Gemini 3 and later (`limits: {thinking: level}`)."""
_MODES: Final = {
    ToolChoice.MODE_AUTO: "AUTO",
    ToolChoice.MODE_NONE: "NONE",
    ToolChoice.MODE_REQUIRED: "ANY",
    ToolChoice.MODE_NAMED: "ANY",
}
_STORES: Final = ("googleapis.com", "storage.cloud.google.com", "drive.google.com")
_NOT_SIGNED: Final = "skip_thought_signature_validator"
"""Google's own word for a call without a signature."""
_encode: Final = msgspec.json.Encoder().encode


def request_from(request: GenerateTextRequest, model: Model, provider: Provider, ignored: Ignored) -> Outgoing:
    """Return the HTTP request for a chat."""
    method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
    return Outgoing(url_of(provider.base_url, model.name, method), _encode(body_from(request, model, ignored)), {})


def count_request_from(request: CountTokensRequest, model: Model, provider: Provider) -> Outgoing:
    """Return the HTTP request that counts a prompt."""
    prompt = _prompt_from(request.messages, request.tools, model, Ignored())
    inner: Json = {"model": f"models/{model.name}", **prompt}
    body = _encode({"generateContentRequest": inner})
    return Outgoing(url_of(provider.base_url, model.name, "countTokens"), body, {})


@lru_cache(maxsize=256)
def url_of(base: str, model: str, method: str) -> URL:
    """Return the address of a model's method."""
    return URL(f"{base.rstrip('/')}/models/{quote(model, safe='')}:{method}")


def body_from(request: GenerateTextRequest, model: Model, ignored: Ignored) -> Json:
    """Return the request's JSON object. Raises Unsupported, with the field's name, for what cannot be said."""
    body = _prompt_from(request.messages, request.tools, model, ignored)
    body["generationConfig"] = _config_from(request, model, ignored)
    functions = [tool for tool in request.tools if tool.name]
    if functions and (request.HasField("tool_choice") or any(tool.strict for tool in functions)):
        choice = _choice_from(request.tool_choice, functions, ignored)
        if choice:
            body["toolConfig"] = {"functionCallingConfig": choice}
    carried.merge(body, request.vendor, "", ignored)
    return body


def _prompt_from(messages: Sequence[Message], tools: Sequence[Tool], model: Model, ignored: Ignored) -> Json:
    """Return instructions, conversation and tools."""
    signed = model.limits.thinking == "level"
    instructions: list[Json] = []
    contents: list[Json] = []
    names: dict[str, str] = {}
    tool_turn = False
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.role == Role.ROLE_SYSTEM:
            system = [_system_part_from(part, where) for part in message.parts]
            if contents:
                # Gemini takes instructions before the conversation only; later ones are told in their place.
                turn_parts = [{"text": f"<system>\n{part['text']}\n</system>"} for part in system]
                contents.append({"role": "user", "parts": turn_parts})
            else:
                instructions += system
            continue
        parts = []
        for i, part in enumerate(message.parts):
            if not _is_foreign(part):
                made = _part_from(part, message.role, names, f"{where}.parts[{i}]")
                carried.merge(made, part.vendor, "contents[].parts[]", ignored)
                parts.append(made)
        if message.name and message.role == Role.ROLE_USER and parts and "text" in parts[0]:
            # Gemini does not name participants.
            parts[0] = {"text": f"{message.name}: {parts[0]['text']}"}
        if signed:
            _sign(parts)
        if not parts:
            if message.parts:
                continue
            raise InvalidField("a message needs content", param=f"{where}.parts")
        # All results of one turn's calls belong in one content.
        if message.role == Role.ROLE_TOOL and tool_turn:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": "model" if message.role == Role.ROLE_ASSISTANT else "user", "parts": parts})
        tool_turn = message.role == Role.ROLE_TOOL
    if not contents and instructions:
        # Gemini wants a turn, and some clients send instructions alone.
        contents, instructions = [{"role": "user", "parts": instructions}], []
    body: Json = {"contents": contents}
    if instructions:
        body["systemInstruction"] = {"parts": instructions}
    if tools:
        body["tools"] = _tools_from(tools, model, ignored)
    return body


def _is_foreign(part: Part) -> bool:
    """Return whether a part is nothing but another vendor's proof of reasoning."""
    reasoning = part.reasoning
    return part.HasField("reasoning") and not reasoning.text and reasoning.signer not in ("", SIGNER)


def _sign(parts: list[Json]) -> None:
    """Let Gemini 3 take calls that it did not make, or whose signature a client has lost.

    It wants one on the first call of a step (ai.google.dev/gemini-api/docs/thought-signatures).
    """
    for part in parts:
        if "functionCall" in part:
            part.setdefault("thoughtSignature", _NOT_SIGNED)
            break


def _system_part_from(part: Part, where: str) -> Json:
    if not part.HasField("text"):
        raise InvalidField("system instructions may hold only text", param=where)
    return {"text": part.text}


def _part_from(part: Part, role: Role.ValueType, names: dict[str, str], where: str) -> Json:
    kind = part.WhichOneof("part")
    if kind == "text" and role != Role.ROLE_TOOL:
        return {"text": part.text}
    if kind == "image" and role == Role.ROLE_USER:
        data, mime = media.checked(part.image, f"{where}.image")
        if mime not in _MIMES:
            raise UnsupportedMedia(f"this provider takes PNG, JPEG and WebP, not {mime}", param=f"{where}.image")
        return {"inlineData": {"mimeType": mime, "data": b64encode(data).decode()}}
    if kind == "file" and role == Role.ROLE_USER:
        return _file_from(part.file, where)
    if kind == "tool_call" and role == Role.ROLE_ASSISTANT:
        call = part.tool_call
        names[call.id] = call.name
        made: Json = {"name": call.name, "args": arguments_given_back(call.arguments_json)}
        if call.id:
            made["id"] = call.id
        return _signed({"functionCall": made}, call.signature, call.signer)
    if kind == "tool_result" and role == Role.ROLE_TOOL:
        return {"functionResponse": _response_from(part.tool_result, names, where)}
    if kind == "reasoning" and role == Role.ROLE_ASSISTANT:
        system: Json = {"text": part.reasoning.text}
        if part.reasoning.text:
            system["thought"] = True
        return _signed(system, part.reasoning.signature, part.reasoning.signer)
    if kind is None and part.vendor.vendor == carried.VENDOR and part.vendor.json:
        return {}  # A kind that only Google knows: all of it is the carrier's.
    raise InvalidField(f"{kind or 'an empty part'} does not belong in this message", param=where)


def _file_from(file: FileInput, where: str) -> Json:
    """Return a file. Raises Unsupported for one that is stored in the operator's account."""
    if not file.HasField("url"):
        return {"inlineData": {"mimeType": file.mime_type, "data": b64encode(file.data).decode()}}
    if not URL(file.url).scheme == "https" or (URL(file.url).host or "").endswith(_STORES):
        raise Unsupported("files that are stored at Google are the operator's; send the file itself", param=where)
    linked: Json = {"fileUri": file.url}
    if file.mime_type:
        linked["mimeType"] = file.mime_type
    return {"fileData": linked}


def _signed(part: Json, signature: bytes, signer: str) -> Json:
    if signature and signer in ("", SIGNER):
        part["thoughtSignature"] = b64encode(signature).decode()
    return part


def _response_from(result: ToolResult, names: dict[str, str], where: str) -> Json:
    name = result.name or names.get(result.tool_call_id, "")
    if not name:
        raise InvalidField("a tool result must name its function, or answer a call", param=f"{where}.tool_result.name")
    if result.is_error:
        response: object = {"error": result.content}
    else:
        try:
            response = object_of(result.content, where)
        except InvalidField:
            response = {"output": result.content}
    made: Json = {"name": name, "response": response}
    if result.tool_call_id:
        made["id"] = result.tool_call_id
    return made


def _tools_from(tools: Iterable[Tool], model: Model, ignored: Ignored) -> list[Json]:
    """Return the functions, and after them the tools that run at Google."""
    made: list[Json] = []
    own: list[Json] = []
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if not tool.name:
            own.append(_own_tool_from(tool, model, where))
            continue
        declaration: Json = {"name": tool.name}
        if tool.description:
            declaration["description"] = tool.description
        if tool.parameters_json:
            declaration["parametersJsonSchema"] = json_of(tool.parameters_json, f"{where}.parameters_json")
        carried.merge(declaration, tool.vendor, "tools[].functionDeclarations[]", ignored)
        made.append(declaration)
    return [{"functionDeclarations": made}, *own] if made else own


def _own_tool_from(tool: Tool, model: Model, where: str) -> Json:
    """Return a tool that runs at Google. Raises Unsupported for one that is not passed on."""
    fields = vendor_fields.fields_of(tool.vendor, carried.VENDOR, where)
    for name in fields:
        why = carried.DENIED_TOOLS.get(name, "")
        if name in carried.SEARCHES and not model.can("search"):
            why = f"model {model.id!r} may not search (it can do: {', '.join(sorted(model.capabilities))})"
        if why:
            raise Unsupported(f"{name} is not passed on: {why}", param=f"{where}.{name}")
    if not fields:
        raise InvalidField("a tool needs a name", param=f"{where}.name")
    return fields


def _choice_from(choice: ToolChoice, tools: Sequence[Tool], ignored: Ignored) -> Json:
    if choice.HasField("parallel") and not choice.parallel:
        ignored.add("tool_choice.parallel", "this provider cannot be limited to one tool call in a turn")
    made: Json = {}
    if choice.mode != ToolChoice.MODE_UNSPECIFIED:
        made["mode"] = _MODES[choice.mode]
    if choice.mode == ToolChoice.MODE_NAMED:
        made["allowedFunctionNames"] = [choice.name]
    if any(tool.strict for tool in tools) and made.get("mode", "AUTO") == "AUTO":
        made["mode"] = "VALIDATED"  # AUTO that keeps to the schemas
    return made


def _config_from(request: GenerateTextRequest, model: Model, ignored: Ignored) -> Json:
    config: Json = {"maxOutputTokens": request.max_tokens} if request.HasField("max_tokens") else {}
    if request.stop:
        config["stopSequences"] = list(request.stop)
    if request.candidates > 1:
        config["candidateCount"] = request.candidates
    if request.HasField("sampling"):
        _add_sampling(config, request, ignored)
    if request.response_format.kind == ResponseFormat.KIND_CHOICE:
        config["responseMimeType"] = "text/x.enum"
        config["responseSchema"] = {"type": "STRING", "enum": list(request.response_format.choices)}
    elif request.HasField("response_format") and request.response_format.kind > ResponseFormat.KIND_TEXT:
        config["responseMimeType"] = "application/json"
        if request.response_format.kind == ResponseFormat.KIND_JSON_SCHEMA:
            where = "response_format.schema_json"
            config["responseJsonSchema"] = json_of(request.response_format.schema_json, where)
    most = config.get("maxOutputTokens") or model.max_output_tokens or sys.maxsize
    thinking = _thinking_from(request.reasoning, model, most, ignored) if request.HasField("reasoning") else {}
    if thinking:
        config["thinkingConfig"] = thinking
    return config


def _add_sampling(config: Json, request: GenerateTextRequest, ignored: Ignored) -> None:
    sampling = request.sampling
    config.update(given(sampling, _SAMPLING, ignored))
    if not -(2**31) <= config.get("seed", 0) < 2**31:
        config["seed"] %= 2**31
        ignored.nearest("seed", config["seed"], "this provider takes seeds of 32 bits")
    if sampling.logit_bias:
        ignored.add("logit_bias", "this provider does not bias tokens")
    if sampling.logprobs:
        config["responseLogprobs"] = True
        if sampling.top_logprobs:
            config["logprobs"] = sampling.top_logprobs


def _thinking_from(wanted: ReasoningOptions, model: Model, most: int, ignored: Ignored) -> Json:
    made: Json = {}
    if wanted.include and model.can("reasoning"):
        made["includeThoughts"] = True
    if wanted.HasField("budget_tokens"):
        made["thinkingBudget"] = wanted.budget_tokens
    elif wanted.effort != ReasoningOptions.EFFORT_UNSPECIFIED and model.can("reasoning"):
        levels = model.limits.thinking == "level"
        if wanted.effort == ReasoningOptions.EFFORT_XHIGH:
            ignored.nearest("reasoning.effort", "high", "this provider's efforts end at high")
        if wanted.effort == ReasoningOptions.EFFORT_NONE and levels:
            ignored.nearest("reasoning.effort", "low", f"model {model.id!r} always reasons")
        if levels:
            made["thinkingLevel"] = _LEVELS[wanted.effort]
        else:
            # Thoughts come out of the same tokens as the answer.
            largest = max(_BUDGETS[ReasoningOptions.EFFORT_MINIMAL], largest_budget(most))
            budget = made["thinkingBudget"] = min(_BUDGETS[wanted.effort], largest)
            if budget < _BUDGETS[wanted.effort]:
                why = f"max_tokens of {most} leaves no room for the answer beside more reasoning"
                ignored.nearest("reasoning.effort", _effort_within(budget), why)
    return made


def _effort_within(budget: int) -> str:
    """Return the largest effort whose budget is at most so much."""
    words = ((ReasoningOptions.EFFORT_HIGH, "high"), (ReasoningOptions.EFFORT_MEDIUM, "medium"))
    fitting = (word for effort, word in words if _BUDGETS[effort] <= budget)
    return next(fitting, "low" if budget >= _BUDGETS[ReasoningOptions.EFFORT_LOW] else "minimal")
