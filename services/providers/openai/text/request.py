"""Say a chat in OpenAI's words: `POST /chat/completions` (platform.openai.com/docs/api-reference/chat/create)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from yarl import URL

from moa.text.v1.text_pb2 import Message, Part, ReasoningOptions, ResponseFormat, Role, Tool, ToolChoice
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import InvalidField, Unsupported
from services.providers.http.client import Outgoing
from services.providers.text import media
from services.providers.text.jsontext import json_of

Json = dict[str, Any]


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where servers of this protocol differ: the provider's `options` in the catalogue."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """OpenAI's own models take only the second; most others know only the first."""
    system_role: Literal["system", "developer"] = "system"
    """What instructions are called."""
    stream_usage: bool = True
    """Whether the server takes `stream_options`."""
    image_links: bool = False
    """Whether links to images are passed on for the provider to fetch. Never for a server inside one's own network."""
    reasoning_input: Literal["drop", "refuse", "reasoning_content", "reasoning"] = "drop"
    """What becomes of reasoning that the caller gives back: left out, refused, or sent under that name."""
    counts_tokens: bool = False
    """Whether the server has `/responses/input_tokens`. OpenAI has; Azure and compatible servers have not."""
    prefill: Literal["as_is", "continue_final_message", "prefix"] = "as_is"
    """How a server is told to go on from a last message of the assistant, for models with `prefill`: `as_is` by nothing
    (llama.cpp, Ollama), by vLLM's and SGLang's field, or by a mark of the message (Mistral, DeepSeek)."""
    extensions: frozenset[Literal["top_k"]] = frozenset()
    """Fields beyond OpenAI's own that the server takes."""


_ROLES: Final = {
    Role.ROLE_USER: "user",
    Role.ROLE_ASSISTANT: "assistant",
    Role.ROLE_TOOL: "tool",
}
_EFFORTS: Final = {
    ReasoningOptions.EFFORT_NONE: "none",
    ReasoningOptions.EFFORT_MINIMAL: "minimal",
    ReasoningOptions.EFFORT_LOW: "low",
    ReasoningOptions.EFFORT_MEDIUM: "medium",
    ReasoningOptions.EFFORT_HIGH: "high",
}
_CHOICES: Final = {
    ToolChoice.MODE_AUTO: "auto",
    ToolChoice.MODE_NONE: "none",
    ToolChoice.MODE_REQUIRED: "required",
}
_encode: Final = msgspec.json.Encoder().encode


def request_from(request: GenerateTextRequest, model: Model, provider: Provider) -> Outgoing:
    """Return the HTTP request for a chat."""
    body = body_from(request, model, options_of(provider))
    return Outgoing(url_of(provider.base_url, "/chat/completions"), _encode(body), {})


def body_from(request: GenerateTextRequest, model: Model, options: Options) -> Json:
    """Return the request's JSON object. Raises Unsupported, with the field's name, for what cannot be said."""
    messages: list[Json] = []
    for index, message in enumerate(request.messages):
        messages += _messages_from(message, f"messages[{index}]", options)
    prefilled = model.can("prefill") and request.messages[-1].role == Role.ROLE_ASSISTANT
    if prefilled and options.prefill == "prefix":
        messages[-1]["prefix"] = True
    body: Json = {
        "model": model.name,
        "messages": messages,
        options.max_tokens_field: request.max_tokens if request.HasField("max_tokens") else model.default_max_tokens,
    }
    if request.stream:
        body["stream"] = True
        if options.stream_usage:
            body["stream_options"] = {"include_usage": True}
    if prefilled and options.prefill == "continue_final_message":
        body["continue_final_message"] = True
        body["add_generation_prompt"] = False
    if request.stop:
        body["stop"] = list(request.stop)
    if request.candidates > 1:
        body["n"] = request.candidates
    if request.user:
        body["user"] = request.user
    if request.HasField("sampling"):
        _add_sampling(body, request, options)
    if request.tools:
        body["tools"] = [_tool_from(tool, f"tools[{index}]") for index, tool in enumerate(request.tools)]
    if request.HasField("tool_choice"):
        _add_tool_choice(body, request.tool_choice)
    if request.HasField("response_format"):
        _add_response_format(body, request.response_format)
    if request.HasField("reasoning"):
        if request.reasoning.HasField("budget_tokens"):
            raise Unsupported("this provider takes an effort, not a budget", param="reasoning.budget_tokens")
        if request.reasoning.effort:
            body["reasoning_effort"] = _EFFORTS[request.reasoning.effort]
    return body


@lru_cache(maxsize=256)
def url_of(base: str, path: str) -> URL:
    """Return the address of one of the protocol's methods."""
    return URL(base.rstrip("/") + path)


@lru_cache(maxsize=256)
def _options_from(encoded: bytes) -> Options:
    return msgspec.json.decode(encoded, type=Options)


def options_of(provider: Provider) -> Options:
    """Read the provider's options. Raises msgspec.ValidationError for a bad one."""
    return _options_from(_encode(provider.options)) if provider.options else _DEFAULT


_DEFAULT: Final = Options()


def _messages_from(message: Message, where: str, options: Options) -> list[Json]:
    if message.role == Role.ROLE_TOOL:
        return [_tool_result_from(part, f"{where}.parts[{i}]") for i, part in enumerate(message.parts)]
    out: Json = {"role": options.system_role if message.role == Role.ROLE_SYSTEM else _ROLES[message.role]}
    if message.name:
        out["name"] = message.name
    if len(message.parts) == 1 and message.parts[0].HasField("text"):
        out["content"] = message.parts[0].text
        return [out]
    content: list[Json] = []
    for i, part in enumerate(message.parts):
        if message.role == Role.ROLE_ASSISTANT and not part.HasField("text"):
            _add_assistant_part(out, part, f"{where}.parts[{i}]", options)
        else:
            content.append(_content_from(part, message.role, f"{where}.parts[{i}]", options))
    if content:
        out["content"] = content
    elif message.role == Role.ROLE_ASSISTANT and message.parts and "tool_calls" not in out:
        out["content"] = ""  # of reasoning alone
    elif message.role == Role.ROLE_ASSISTANT and "tool_calls" in out:
        out["content"] = None
    else:
        raise InvalidField("a message needs content", param=f"{where}.parts")
    return [out]


def _content_from(part: Part, role: Role.ValueType, where: str, options: Options) -> Json:
    kind = part.WhichOneof("part")
    if kind == "text":
        return {"type": "text", "text": part.text}
    if kind == "image" and role == Role.ROLE_USER:
        if part.image.HasField("url") and options.image_links:
            return {"type": "image_url", "image_url": {"url": part.image.url}}
        return {"type": "image_url", "image_url": {"url": media.data_uri(*media.checked(part.image, f"{where}.image"))}}
    raise InvalidField(f"{kind or 'an empty part'} does not belong in this message", param=where)


def _add_assistant_part(out: Json, part: Part, where: str, options: Options) -> None:
    kind = part.WhichOneof("part")
    if kind == "tool_call":
        call = part.tool_call
        function = {"name": call.name, "arguments": call.arguments_json}
        out.setdefault("tool_calls", []).append({"id": call.id, "type": "function", "function": function})
    elif kind == "reasoning":
        if options.reasoning_input == "refuse":
            raise Unsupported("this provider does not take reasoning back", param=f"{where}.reasoning")
        if options.reasoning_input == "drop":
            return
        out[options.reasoning_input] = out.get(options.reasoning_input, "") + part.reasoning.text
    else:
        raise InvalidField(f"{kind or 'an empty part'} does not belong in an assistant message", param=where)


def _tool_result_from(part: Part, where: str) -> Json:
    if not part.HasField("tool_result"):
        raise InvalidField("a tool message holds tool results", param=where)
    result = part.tool_result
    # The protocol has no mark for a failed tool, so the result says it.
    content = _encode({"error": result.content}).decode() if result.is_error else result.content
    return {"role": "tool", "tool_call_id": result.tool_call_id, "content": content}


def _add_sampling(body: Json, request: GenerateTextRequest, options: Options) -> None:
    sampling = request.sampling
    for field in ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"):
        if sampling.HasField(field):
            body[field] = getattr(sampling, field)
    if sampling.HasField("top_k"):
        if "top_k" not in options.extensions:
            raise Unsupported("this provider does not take top_k", param="top_k")
        body["top_k"] = sampling.top_k
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.logprobs:
        body["logprobs"] = True
        if sampling.top_logprobs:
            body["top_logprobs"] = sampling.top_logprobs


def _tool_from(tool: Tool, where: str) -> Json:
    function: Json = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters_json:
        function["parameters"] = json_of(tool.parameters_json, f"{where}.parameters_json")
    if tool.HasField("strict"):
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _add_tool_choice(body: Json, choice: ToolChoice) -> None:
    if choice.mode == ToolChoice.MODE_NAMED:
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.mode != ToolChoice.MODE_UNSPECIFIED:
        body["tool_choice"] = _CHOICES[choice.mode]
    if choice.HasField("parallel"):
        body["parallel_tool_calls"] = choice.parallel


def _add_response_format(body: Json, form: ResponseFormat) -> None:
    if form.kind == ResponseFormat.KIND_JSON_OBJECT:
        body["response_format"] = {"type": "json_object"}
    elif form.kind == ResponseFormat.KIND_JSON_SCHEMA:
        schema: Json = {
            "name": form.name or "answer",
            "schema": json_of(form.schema_json, "response_format.schema_json"),
        }
        if form.HasField("strict"):
            schema["strict"] = form.strict
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
