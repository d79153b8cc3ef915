"""From the body of the Responses API to the contract's request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.common import vendor_fields
from services.common.errors import InvalidField, TooLarge, Unsupported
from services.router.dialects.reading import is_large
from services.router.dialects.reply import encode
from services.router.dialects.responses import bodies, echo, noted
from services.router.dialects.responses.items import Conversation
from services.router.dialects.responses.offered import Offered
from services.router.dialects.responses.places import Places, as_the_caller_wrote
from services.router.dialects.sampling import fill
from services.router.dialects.unknown import MOST_NAMED, parse_liberally, refuse
from services.router.domain.prompt import Prompt

_DECODER: Final = msgspec.json.Decoder(bodies.ResponseBody)
_COUNTED: Final = msgspec.json.Decoder(bodies.PromptBody)

VENDOR: Final = "openai"
OWN: Final = "responses"
"""In the request's envelope, the fields that the Responses API alone has; there too where there are none, since it says
that the answer may hold such fields."""

_EFFORTS: Final = {
    "none": text_pb2.ReasoningOptions.EFFORT_NONE,
    "minimal": text_pb2.ReasoningOptions.EFFORT_MINIMAL,
    "low": text_pb2.ReasoningOptions.EFFORT_LOW,
    "medium": text_pb2.ReasoningOptions.EFFORT_MEDIUM,
    "high": text_pb2.ReasoningOptions.EFFORT_HIGH,
    "xhigh": text_pb2.ReasoningOptions.EFFORT_XHIGH,
    "max": text_pb2.ReasoningOptions.EFFORT_XHIGH,
}
_FORMATS: Final = {
    "text": text_pb2.ResponseFormat.KIND_TEXT,
    "json_object": text_pb2.ResponseFormat.KIND_JSON_OBJECT,
    "json_schema": text_pb2.ResponseFormat.KIND_JSON_SCHEMA,
}
_LOGPROBS: Final = "message.output_text.logprobs"
_HONOURED: Final = frozenset((_LOGPROBS, "reasoning.encrypted_content"))
_DEFAULTS: Final = {"metadata": {}, "service_tier": "auto", "truncation": "disabled", "verbosity": "medium"}
"""What OpenAI takes for granted: no wish that another vendor could fail to fulfil."""
_ALL_ITEMS: Final = "send all items in input"
_REFUSED: Final = {
    "previous_response_id": f"what is stored is not looked up here; {_ALL_ITEMS}",
    "conversation": f"what is stored is not looked up here; {_ALL_ITEMS}",
    "prompt": "prompts by their id are the operator's; send instructions and input",
    "background": "none is made in the background here; use stream: true",
}


class Read(NamedTuple):
    """What a body says."""

    request: GenerateTextRequest
    prompt: Prompt
    echo: echo.Echo
    """What the answer says of its request."""
    places: Places
    """Where its messages stand in the body."""
    ignored: list[str]
    """What was given and has no effect, whoever answers."""
    tools: Sequence[dict[str, Any]]
    """The tools as they came."""
    has_pictures: bool
    """Whether it offers the tool that makes images, or has images that were made by it."""


def read(
    data: bytes, *, strict: bool = False, earlier: int = 0, stores: bool = False, known: Collection[str] = ()
) -> Read:
    """Read the body, and look through its prompt; `strict`: what would have no effect is refused.

    The first `earlier` items of its input are of what it goes on from. `stores`: whether its answer may be stored.
    `known`: fields that were seen to before it is read, and are refused otherwise.

    Raises Malformed, InvalidField, Unsupported, UnsupportedMedia or TooLarge.
    """
    try:
        body, names, extra = parse_liberally(data, _DECODER)
    except InvalidField as error:
        raise noted.naming_key(error, data) from None
    _refuse(body)
    ignored = ["store"] if body.store and not stores else []
    refuse(ignored, strict=strict)
    offered = Offered(body.tools or ())
    conversation = _conversation(body, offered, earlier, known)
    request = GenerateTextRequest(
        model=body.model,
        stream=bool(body.stream),
        messages=conversation.messages,
        max_tokens=body.max_output_tokens,
        candidates=1,
        stop=body.stop,
        user=body.user or "",
        strict=strict,
    )
    fill(request.sampling, body)
    if body.top_logprobs or _LOGPROBS in (body.include or ()):
        request.sampling.logprobs = True
        request.sampling.top_logprobs = body.top_logprobs or 0
    choice = offered.put(request, body.tool_choice, body.parallel_tool_calls)
    _set_form(request, body.text)
    # What is signed has to be given back in any case.
    request.reasoning.include = True
    if body.reasoning is not None and body.reasoning.effort is not None:
        request.reasoning.effort = _EFFORTS[body.reasoning.effort]
    beyond = [name for name in names if not vendor_fields.is_no_op(name, extra.get(name))]
    names = [*beyond, *conversation.names, *offered.names]
    _carry(request, body, extra, names, choice)
    key = body.prompt_cache_key if isinstance(body.prompt_cache_key, str) else ""
    with as_the_caller_wrote(conversation.places):
        prompt = Prompt.of(request, whole=is_large(data), conversation=key)
    pictured = offered.has_pictures or conversation.has_pictures
    return Read(
        request, prompt, echo.of(body, offered.spaces), conversation.places, ignored, body.tools or (), pictured
    )


def counted(data: bytes, *, earlier: int = 0, known: Collection[str] = ()) -> tuple[CountTokensRequest, Places, bool]:
    """Read a prompt whose tokens are to be counted; where its messages stand, and whether it has pictures, as `Read`.

    `earlier` and `known` are as in `read`, which says what is raised, too.
    """
    body = parse_liberally(data, _COUNTED).body
    offered = Offered(body.tools or ())
    conversation = _conversation(body, offered, earlier, known)
    asked = CountTokensRequest(model=body.model, messages=conversation.messages, tools=offered.tools)
    return asked, conversation.places, offered.has_pictures or conversation.has_pictures


def _conversation(
    body: bodies.ResponseBody | bodies.PromptBody, offered: Offered, earlier: int = 0, known: Collection[str] = ()
) -> Conversation:
    for name, why in _REFUSED.items():
        if getattr(body, name, None) and name not in known:
            raise Unsupported(f"{name}: {why}", param=name)
    conversation = Conversation(body.instructions or "", joined={space for space, _ in offered.spaces.values()})
    conversation.add_input(body.input, earlier=earlier)
    if not any(message.role != text_pb2.ROLE_SYSTEM for message in conversation.messages) and not body.input:
        raise InvalidField("input is required", param="input")
    return conversation


def _refuse(body: bodies.ResponseBody) -> None:
    for name in body.include or ():
        if name.startswith("file_search"):
            raise Unsupported(f"include: {name} reaches what is stored in the operator's account", param="include")


def _set_form(request: GenerateTextRequest, text: bodies.TextOptions | None) -> None:
    form = text.format if text is not None else None
    if form is None:
        return
    request.response_format.kind = _FORMATS[form.type]
    if form.type == "json_schema":
        if form.schema is None:
            raise InvalidField("text.format.schema is required", param="text.format.schema")
        request.response_format.name = form.name or "answer"
        request.response_format.schema_json = encode(form.schema).decode()
        if form.strict is not None:
            request.response_format.strict = form.strict


def _carry(
    request: GenerateTextRequest,
    body: bodies.ResponseBody,
    extra: dict[Any, Any],
    names: list[str],
    choice: Any,
) -> None:
    """Put what no contract types into the request's envelope. Raises TooLarge."""
    hints = {name: value for name in bodies.HINTS if (value := getattr(body, name)) is not None}
    if body.text is not None and body.text.verbosity is not None:
        hints["verbosity"] = body.text.verbosity
    own = {name: value for name in bodies.OWN_HINTS if (value := getattr(body, name)) is not None}
    own = {name: value for name, value in own.items() if value != _DEFAULTS.get(name)}
    reported = [name for name, value in hints.items() if value != _DEFAULTS.get(name)]
    reported = ["text.verbosity" if name == "verbosity" else name for name in reported] + list(own)
    beside = {str(name): value for name, value in extra.items()}
    # How reasoning is shown, and what only OpenAI's models know of it.
    shown = beside.pop("reasoning", {})
    if summary := echo.summary_of(body):
        shown = {**shown, "summary": summary}
    if shown:
        own["reasoning"] = shown
    if include := [name for name in body.include or () if name not in _HONOURED]:
        own["include"] = include
        reported.append("include")
    if choice is not None:
        own["tool_choice"] = choice
    fields = beside | hints | {OWN: own}
    request.vendor.CopyFrom(vendor_fields.envelope(VENDOR, fields, [*reported, *names][:MOST_NAMED]))
    size = len(request.vendor.json) + sum(len(tool.vendor.json) for tool in request.tools)
    size += sum(len(part.vendor.json) for message in request.messages for part in message.parts)
    if size > vendor_fields.MOST_BYTES:
        raise TooLarge(f"fields of OpenAI's own may have {vendor_fields.MOST_BYTES} bytes in all")
