"""From OpenAI's chat body to the contract's request."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET

from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import InvalidField, MoaError, Unsupported
from services.router.dialects.media import file_from_base64, image_from_url
from services.router.dialects.openai import bodies, carried, reasoning
from services.router.dialects.reading import is_large
from services.router.dialects.reply import encode
from services.router.dialects.results import Shown, count_as_the_caller, of_result
from services.router.dialects.sampling import fill
from services.router.dialects.tools import call_from, put_tool, split_id
from services.router.dialects.unknown import Extra, at, parse_liberally
from services.router.domain.prompt import Prompt

_DECODER = msgspec.json.Decoder(bodies.ChatBody)

_ROLES = {
    "system": text_pb2.ROLE_SYSTEM,
    "developer": text_pb2.ROLE_SYSTEM,
    "user": text_pb2.ROLE_USER,
    "assistant": text_pb2.ROLE_ASSISTANT,
    "tool": text_pb2.ROLE_TOOL,
}

_CHOICES = {
    "none": text_pb2.ToolChoice.MODE_NONE,
    "auto": text_pb2.ToolChoice.MODE_AUTO,
    "required": text_pb2.ToolChoice.MODE_REQUIRED,
}

_EFFORTS = {
    "none": text_pb2.ReasoningOptions.EFFORT_NONE,
    "minimal": text_pb2.ReasoningOptions.EFFORT_MINIMAL,
    "low": text_pb2.ReasoningOptions.EFFORT_LOW,
    "medium": text_pb2.ReasoningOptions.EFFORT_MEDIUM,
    "high": text_pb2.ReasoningOptions.EFFORT_HIGH,
    "xhigh": text_pb2.ReasoningOptions.EFFORT_XHIGH,
}

_FORMATS = {
    "text": text_pb2.ResponseFormat.KIND_TEXT,
    "json_object": text_pb2.ResponseFormat.KIND_JSON_OBJECT,
    "json_schema": text_pb2.ResponseFormat.KIND_JSON_SCHEMA,
}


_NOTHING: Final[Extra] = {}


class Read(NamedTuple):
    """What a body says."""

    request: text_service_pb2.GenerateTextRequest
    include_usage: bool
    """Whether the stream shall end with the usage."""
    shown: Sequence[int] = ()
    """Which messages of the request no caller wrote."""
    conversation: str = ""
    """What its caller says is the same for all requests of the conversation (`prompt_cache_key`)."""


def read(data: bytes, *, strict: bool = False) -> tuple[Read, Prompt]:
    """Read the body, and look through its prompt. Raises as `request_from`."""
    result = request_from(data, strict=strict)
    try:
        return result, Prompt.of(result.request, whole=is_large(data), conversation=result.conversation)
    except MoaError as error:
        count_as_the_caller(error, result.shown)
        raise


def request_from(data: bytes, *, strict: bool = False) -> Read:
    """Read the body; `strict`: whoever answers refuses what would have no effect.

    Raises Malformed, InvalidField, Unsupported, UnsupportedMedia or TooLarge.
    """
    body, names, extra = parse_liberally(data, _DECODER)
    _refuse(body)
    request = text_service_pb2.GenerateTextRequest(
        model=body.model,
        stream=bool(body.stream),
        # Some clients send both, for servers that know only one.
        max_tokens=min(
            [most for most in (body.max_completion_tokens, body.max_tokens) if most and most > 0], default=None
        ),
        candidates=body.n or 1,
        user=body.user or "",
        strict=strict,
    )
    shown = Shown()
    unknown: Mapping[int, Extra] = extra.get("messages", _NOTHING)
    for index, message in enumerate(body.messages):
        if shown.parts and message.role != "tool":
            shown.put(request)
        _add_message(request, message, index, unknown.get(index, _NOTHING), shown)
    if shown.parts:
        shown.put(request)
    if body.stop is not None:
        request.stop.extend([body.stop] if isinstance(body.stop, str) else body.stop)
    _set_sampling(request.sampling, body)
    if body.tools:
        _set_tools(request, body, extra.get("tools", _NOTHING))
    if body.response_format is not None:
        _set_format(request, body.response_format)
    # Clients of this dialect that know of reasoning read `reasoning_content`; others skip it.
    request.reasoning.include = True
    if body.reasoning_effort is not None:
        request.reasoning.effort = _EFFORTS[body.reasoning_effort]
    carried.put(request, body, extra, names)
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    key = body.prompt_cache_key
    return Read(request, include_usage, shown.places, key if isinstance(key, str) else "")


def _refuse(body: bodies.ChatBody) -> None:
    for name in ("functions", "function_call"):
        if getattr(body, name) is not UNSET and getattr(body, name) is not None:
            raise Unsupported(f"{name} is the form before tools; send tools and tool_choice", param=name)
    if body.audio is not UNSET and body.audio is not None:
        raise Unsupported("audio is not supported", param="audio")
    if body.web_search_options is not UNSET and body.web_search_options is not None:
        raise Unsupported(
            "web_search_options: no model searches the web in this dialect; "
            "use a function of your own in tools, or googleSearch in Google's dialect where a model can search",
            param="web_search_options",
        )
    if body.modalities is not None and body.modalities != ["text"]:
        raise Unsupported("modalities: only text is supported here", param="modalities")
    for name in ("max_tokens", "max_completion_tokens"):
        if getattr(body, name) == 0:
            raise InvalidField(f"{name} must be at least 1", param=name)
    if body.top_logprobs and not body.logprobs:
        raise InvalidField("top_logprobs needs logprobs", param="top_logprobs")


def _add_message(
    request: text_service_pb2.GenerateTextRequest,
    message: bodies.Message,
    index: int,
    extra: Extra,
    shown: Shown,
) -> None:
    """Add a turn; what a tool's result shows beside its text is added to `shown`."""
    where = f"messages[{index}]"
    # Field by field: arguments take twice the time.
    turn = request.messages.add()
    turn.role = _ROLES[message.role]
    if extra or message.cache_control is not None or message.reasoning_details is not None:
        carried.put_message(turn, message, extra)
    if message.role == "tool":
        if not message.tool_call_id:
            raise InvalidField(f"{where}.tool_call_id is required", param=f"{where}.tool_call_id")
        call_id, _ = split_id(message.tool_call_id)
        result = _result_of(message, where, shown, call_id)
        turn.parts.add().tool_result.CopyFrom(
            text_pb2.ToolResult(tool_call_id=call_id, name=message.name or "", content=result)
        )
        return
    if message.name:
        turn.name = message.name
    if message.reasoning_details is not None or message.reasoning_content or message.reasoning:
        _add_reasoning(turn, message)
    if isinstance(message.content, str):
        turn.parts.add().text = message.content
    else:
        for number, part in enumerate(message.content or ()):
            _add_part(turn, part, f"{where}.content[{number}]")
            carried.put_part(turn.parts[-1], part, at(extra, "content", number))
    if message.refusal:
        turn.parts.add(text=message.refusal)
    for number, call in enumerate(message.tool_calls or ()):
        turn.parts.add().tool_call.CopyFrom(call_from(call, f"{where}.tool_calls[{number}]"))
        carried.put_call(turn.parts[-1], call)
    if message.cache_control is not None and turn.parts:
        turn.parts[-1].cache = True
    if not turn.parts and message.role == "assistant":
        turn.parts.add(text="")  # An answer without words, given back.
    if not turn.parts:
        raise InvalidField(f"{where}.content is required", param=f"{where}.content")


def _add_reasoning(turn: text_pb2.Message, message: bodies.Message) -> None:
    """Add what an assistant thought in an earlier turn; nobody else's thoughts count."""
    if message.role == "assistant":
        text = message.reasoning_content or (message.reasoning if isinstance(message.reasoning, str) else "")
        call_ids = [call.id for call in message.tool_calls or ()]
        for thought in reasoning.parts_from(message.reasoning_details, text, call_ids):
            turn.parts.add().reasoning.CopyFrom(thought)


def _result_of(message: bodies.Message, where: str, shown: Shown, call_id: str) -> str:
    """Return the text of a tool's result, and add to `shown` what else it holds."""
    if isinstance(message.content, str):
        return message.content
    texts, others = [], text_pb2.Message()
    for number, part in enumerate(message.content or ()):
        if isinstance(part, bodies.TextPart):
            texts.append(part.text)
        else:
            _add_part(others, part, f"{where}.content[{number}]")
    if others.parts:
        shown.parts += [text_pb2.Part(text=of_result(call_id)), *others.parts]
    return "".join(texts)


def _add_part(turn: text_pb2.Message, part: bodies.ContentPart, where: str) -> None:
    if isinstance(part, bodies.TextPart):
        turn.parts.add(text=part.text)
    elif isinstance(part, bodies.RefusalPart):
        turn.parts.add(text=part.refusal)
    elif isinstance(part, bodies.ImagePart):
        # Of several pictures each is let go of as it is read.
        url, part.image_url.url = part.image_url.url, ""
        turn.parts.add().image.CopyFrom(image_from_url(url, param=f"{where}.image_url.url"))
    elif isinstance(part, bodies.AudioPart):
        sound = part.input_audio
        where += ".input_audio.data"
        turn.parts.add().file.CopyFrom(file_from_base64(sound.data, f"audio/{sound.format}", param=where))
    elif part.file.file_data is None:
        raise Unsupported("files by their id are the operator's; send file_data", param=f"{where}.file.file_id")
    else:
        name = part.file.filename or ""
        mime = "" if part.file.file_data.startswith("data:") else mimetypes.guess_type(name)[0] or "application/pdf"
        where += ".file.file_data"
        turn.parts.add().file.CopyFrom(file_from_base64(part.file.file_data, mime, param=where, name=name))


def _set_sampling(sampling: text_pb2.Sampling, body: bodies.ChatBody) -> None:
    fill(sampling, body)
    for token, bias in (body.logit_bias or {}).items():
        sampling.logit_bias[token] = bias
    if body.logprobs:
        sampling.logprobs = True
        sampling.top_logprobs = body.top_logprobs or 0


def _set_tools(request: text_service_pb2.GenerateTextRequest, body: bodies.ChatBody, extra: Extra) -> None:
    for index, tool in enumerate(body.tools or ()):
        put_tool(request.tools.add(), tool)
        if index in extra:
            carried.put_tool(request.tools[-1], extra[index])
    if not request.tools:
        return  # A choice among none is none.
    choice = body.tool_choice
    if isinstance(choice, str):
        request.tool_choice.mode = _CHOICES[choice]
    elif choice is not None:
        _choose(request, choice)
    if body.parallel_tool_calls is not None:
        request.tool_choice.parallel = body.parallel_tool_calls


def _choose(request: text_service_pb2.GenerateTextRequest, choice: bodies.ToolChoice) -> None:
    if choice.type != "allowed_tools":
        named = choice.custom if choice.type == "custom" else choice.function
        if named is None:
            raise InvalidField(f"tool_choice.{choice.type} is required", param=f"tool_choice.{choice.type}")
        request.tool_choice.mode = text_pb2.ToolChoice.MODE_NAMED
        request.tool_choice.name = named.name
        return
    where = "tool_choice.allowed_tools"
    if choice.allowed_tools is None:
        raise InvalidField(f"{where} is required", param=where)
    allowed = {named.name if (named := tool.function or tool.custom) else "" for tool in choice.allowed_tools.tools}
    unknown = allowed - {tool.name for tool in request.tools}
    if unknown or not allowed:
        raise InvalidField(f"{where}.tools: name some of the request's tools", param=f"{where}.tools")
    kept = [tool for tool in request.tools if tool.name in allowed]
    del request.tools[:]
    request.tools.extend(kept)
    request.tool_choice.mode = _CHOICES[choice.allowed_tools.mode]


def _set_format(request: text_service_pb2.GenerateTextRequest, form: bodies.ResponseFormat) -> None:
    request.response_format.kind = _FORMATS[form.type]
    if form.type == "json_schema":
        schema = form.json_schema
        if schema is None or schema.schema is None:
            raise InvalidField("response_format.json_schema is required", param="response_format.json_schema")
        request.response_format.name = schema.name
        request.response_format.schema_json = encode(schema.schema).decode()
        if schema.strict is not None:
            request.response_format.strict = schema.strict
