"""Say a chat in OpenAI's words: `POST /chat/completions` (platform.openai.com/docs/api-reference/chat/create)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Set
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from yarl import URL

from moa.common.v1.media_pb2 import FileInput
from moa.text.v1.text_pb2 import Grammar, Message, Part, ReasoningOptions, ResponseFormat, Role, Tool, ToolChoice
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import InvalidField, Unsupported
from services.providers.http.client import Outgoing
from services.providers.http.woven import Weaving
from services.providers.openai.text.carried import VENDOR, Carrier
from services.providers.text import media
from services.providers.text.ignored import Ignored
from services.providers.text.jsontext import json_of
from services.providers.text.sampling import SETTINGS, Setting, given

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
    extensions: frozenset[Setting] = frozenset()
    """Settings of the contract's `Sampling` beyond OpenAI's own that the server takes, like `top_k`."""
    passes: Literal["all", "documented"] = "all"
    """Which fields of callers who speak this protocol pass on: all that nobody here knows, or those that OpenAI
    documents, for servers that refuse what they do not know."""


_SAMPLING: Final = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty")
_SYSTEM, _ASSISTANT, _TOOL = Role.ROLE_SYSTEM, Role.ROLE_ASSISTANT, Role.ROLE_TOOL
"""To look a value of an enum up takes a call each time."""
_ROLES: Final = {Role.ROLE_USER: "user", _ASSISTANT: "assistant", _TOOL: "tool"}
_EFFORTS: Final = {
    ReasoningOptions.EFFORT_NONE: "none",
    ReasoningOptions.EFFORT_MINIMAL: "minimal",
    ReasoningOptions.EFFORT_LOW: "low",
    ReasoningOptions.EFFORT_MEDIUM: "medium",
    ReasoningOptions.EFFORT_HIGH: "high",
    ReasoningOptions.EFFORT_XHIGH: "xhigh",
}
_LOW_BUDGET: Final = 2048
_MEDIUM_BUDGET: Final = 8192
"""Tokens of reasoning up to which a low, a medium effort is the nearest."""
CHOICES: Final = {
    ToolChoice.MODE_AUTO: "auto",
    ToolChoice.MODE_NONE: "none",
    ToolChoice.MODE_REQUIRED: "required",
}
_encode: Final = msgspec.json.Encoder().encode


def request_from(request: GenerateTextRequest, model: Model, provider: Provider, ignored: Ignored) -> Outgoing:
    """Return the HTTP request for a chat."""
    weaving = Weaving()
    body = body_from(request, model, options_of(provider), ignored, weaving)
    return Outgoing(url_of(provider.base_url, "/chat/completions"), weaving.body(_encode(body)), {})


def body_from(
    request: GenerateTextRequest, model: Model, options: Options, ignored: Ignored, weaving: Weaving | None = None
) -> Json:
    """Return the request's JSON object, in which `weaving` has marks for large pictures.

    Raises Unsupported, with the field's name, for what cannot be said.
    """
    messages: list[Json] = []
    writer = Writer(options, Carrier(ignored, documented=options.passes == "documented"), weaving)
    for index, message in enumerate(request.messages):
        if message.role == _TOOL:
            messages += writer.results_from(message, f"messages[{index}]")
        else:
            messages.append(writer.message_from(message, f"messages[{index}]"))
    prefilled = "prefill" in model.capabilities and request.messages[-1].role == _ASSISTANT
    if prefilled and options.prefill == "prefix":
        messages[-1]["prefix"] = True
    body: Json = {"model": model.name, "messages": messages}
    if request.HasField("max_tokens"):
        body[options.max_tokens_field] = request.max_tokens
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
        _add_sampling(body, request, options, ignored)
    if request.tools:
        body["tools"] = [writer.tool_from(tool, f"tools[{index}]") for index, tool in enumerate(request.tools)]
        _add_tool_choice(body, request.tool_choice, {tool.name for tool in request.tools if tool.HasField("custom")})
    if request.HasField("response_format"):
        _add_response_format(body, request.response_format)
    if request.HasField("reasoning") and (effort := effort_of(request.reasoning, ignored)):
        body["reasoning_effort"] = effort
    # Last: what the contract types is never changed.
    if request.HasField("vendor"):
        writer.carrier.merge(body, request.vendor, "")
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


class Writer:
    """Writes the parts of a chat."""

    __slots__ = ("_options", "_weaving", "carrier")

    def __init__(self, options: Options, carrier: Carrier, weaving: Weaving | None = None) -> None:
        self._weaving = weaving
        self._options = options
        self.carrier = carrier

    def results_from(self, message: Message, where: str) -> list[Json]:
        """Return as many turns as a turn has results of tools. Raises InvalidField."""
        made = [_tool_result_from(part, f"{where}.parts[{i}]") for i, part in enumerate(message.parts)]
        if message.HasField("vendor"):
            for each in made:
                self.carrier.merge(each, message.vendor, "messages[]")
        return made

    def message_from(self, message: Message, where: str) -> Json:
        """Return a turn that holds no results. Raises InvalidField or Unsupported."""
        role, parts = message.role, message.parts
        out: Json = {"role": self._options.system_role if role == _SYSTEM else _ROLES[role]}
        if message.name:
            out["name"] = message.name
        if len(parts) == 1 and (only := parts[0]).HasField("text") and not only.HasField("vendor"):
            # Nearly all turns.
            out["content"] = only.text
        else:
            self._add_content(out, message, where)
        if message.HasField("vendor"):
            self.carrier.merge(out, message.vendor, "messages[]")
        return out

    def _add_content(self, out: Json, message: Message, where: str) -> None:
        content: list[Json] = []
        for i, part in enumerate(message.parts):
            place = f"{where}.parts[{i}]"
            if message.role == _ASSISTANT and part.WhichOneof("part") in ("tool_call", "reasoning"):
                self._add_assistant_part(out, part, place)
            else:
                content.append(self._content_from(part, message.role, place))
        if len(content) == 1 and content[0].keys() == {"type", "text"}:
            out["content"] = content[0]["text"]
        elif content:
            out["content"] = content
        elif message.role == _ASSISTANT and message.parts and "tool_calls" not in out:
            out["content"] = ""  # of reasoning alone
        elif message.role == _ASSISTANT and "tool_calls" in out:
            out["content"] = None
        else:
            raise InvalidField("a message needs content", param=f"{where}.parts")

    def _content_from(self, part: Part, role: Role.ValueType, where: str) -> Json:
        made = _typed_content(part, role, where, self._options, self._weaving)
        self.carrier.merge(made, part.vendor, "messages[].content[]")
        return made

    def _add_assistant_part(self, out: Json, part: Part, where: str) -> None:
        if part.HasField("tool_call"):
            call = part.tool_call
            if call.custom:
                custom = {"name": call.name, "input": call.arguments_json}
                made: Json = {"id": call.id, "type": "custom", "custom": custom}
            else:
                function = {"name": call.name, "arguments": call.arguments_json or "{}"}
                made = {"id": call.id, "type": "function", "function": function}
            self.carrier.merge(made, part.vendor, "messages[].tool_calls[]")
            out.setdefault("tool_calls", []).append(made)
            return
        field = self._options.reasoning_input
        if field == "refuse":
            raise Unsupported("this provider does not take reasoning back", param=f"{where}.reasoning")
        if field != "drop":
            out[field] = out.get(field, "") + part.reasoning.text

    def tool_from(self, tool: Tool, where: str) -> Json:
        """Return a tool. Raises InvalidField."""
        function: Json = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        if tool.parameters_json:
            function["parameters"] = json_of(tool.parameters_json, f"{where}.parameters_json")
        if tool.HasField("strict"):
            function["strict"] = tool.strict
        if tool.HasField("custom"):
            refuse_arguments(tool, where)
            if tool.custom.HasField("grammar"):
                function["format"] = {"type": "grammar", "grammar": grammar_of(tool)}
        kind = "custom" if tool.HasField("custom") else "function"
        made: Json = {"type": kind, kind: function}
        if tool.HasField("vendor"):
            self.carrier.merge(made, tool.vendor, "tools[]")
        return made


_SYNTAXES: Final = {Grammar.SYNTAX_LARK: "lark", Grammar.SYNTAX_REGEX: "regex"}


def grammar_of(tool: Tool) -> Json:
    """Return the grammar of a custom tool."""
    grammar = tool.custom.grammar
    return {"syntax": _SYNTAXES[grammar.syntax], "definition": grammar.definition}


def refuse_arguments(tool: Tool, where: str) -> None:
    """Raise InvalidField for a custom tool that says something of arguments."""
    for field in ("parameters_json", "strict"):
        if getattr(tool, field):
            raise InvalidField(f"a custom tool has no {field}", param=f"{where}.{field}")


def _typed_content(
    part: Part, role: Role.ValueType, where: str, options: Options, weaving: Weaving | None = None
) -> Json:
    kind = part.WhichOneof("part")
    if kind == "text":
        return {"type": "text", "text": part.text}
    if kind == "image" and role == Role.ROLE_USER:
        if part.image.HasField("url") and options.image_links:
            return {"type": "image_url", "image_url": {"url": part.image.url}}
        return {"type": "image_url", "image_url": {"url": media.uri_of(part.image, f"{where}.image", weaving)}}
    if kind == "file" and role == Role.ROLE_USER and part.file.HasField("data"):
        return _file_from(part.file)
    if kind is None and part.vendor.vendor == VENDOR and part.vendor.json:
        return {}  # A kind that only this protocol knows: all of it is the carrier's.
    raise InvalidField(f"{kind or 'an empty part'} does not belong in this message", param=where)


def _file_from(file: FileInput) -> Json:
    kind, _, form = file.mime_type.partition("/")
    data = b64encode(file.data).decode()
    if kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
    made: Json = {"file_data": f"data:{file.mime_type};base64,{data}", "filename": file.name or f"file.{form}"}
    return {"type": "file", "file": made}


def _tool_result_from(part: Part, where: str) -> Json:
    if not part.HasField("tool_result"):
        raise InvalidField("a tool message may hold only tool results", param=where)
    result = part.tool_result
    # The protocol has no mark for a failed tool, so the result says it.
    content = _encode({"error": result.content}).decode() if result.is_error else result.content
    return {"role": "tool", "tool_call_id": result.tool_call_id, "content": content}


def effort_of(wanted: ReasoningOptions, ignored: Ignored) -> str:
    """Return the effort, or the one nearest to a budget; empty where none is wanted."""
    effort = _EFFORTS.get(wanted.effort, "")
    if wanted.HasField("budget_tokens") and not effort:
        budget = wanted.budget_tokens
        effort = "low" if budget <= _LOW_BUDGET else "medium" if budget <= _MEDIUM_BUDGET else "high"
        ignored.nearest("reasoning.budget_tokens", effort, "this provider takes an effort, not a budget")
    return effort


def _add_sampling(body: Json, request: GenerateTextRequest, options: Options, ignored: Ignored) -> None:
    sampling = request.sampling
    words = SETTINGS if options.passes == "all" else (*_SAMPLING, *options.extensions)
    body.update(given(sampling, {name: name for name in words}, ignored))
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.logprobs:
        body["logprobs"] = True
        if sampling.top_logprobs:
            body["top_logprobs"] = sampling.top_logprobs


def _add_tool_choice(body: Json, choice: ToolChoice, custom: Set[str]) -> None:
    if choice.mode == ToolChoice.MODE_NAMED:
        kind = "custom" if choice.name in custom else "function"
        body["tool_choice"] = {"type": kind, kind: {"name": choice.name}}
    elif choice.mode != ToolChoice.MODE_UNSPECIFIED:
        body["tool_choice"] = CHOICES[choice.mode]
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
