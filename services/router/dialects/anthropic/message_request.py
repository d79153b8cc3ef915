"""From Anthropic's body to the contract's request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import InvalidField
from services.router.dialects.anthropic import bodies, carried
from services.router.dialects.anthropic.places import Place, as_the_caller_counts
from services.router.dialects.anthropic.turns import Request, Turns
from services.router.dialects.reading import is_large
from services.router.dialects.reply import encode
from services.router.dialects.sampling import fill
from services.router.dialects.unknown import Extra, at, parse_liberally
from services.router.domain.prompt import Prompt

_BODY: Final = msgspec.json.Decoder(bodies.MessageBody)
_COUNT: Final = msgspec.json.Decoder(bodies.CountBody)

_CHOICES: Final = {
    "auto": text_pb2.ToolChoice.MODE_AUTO,
    "any": text_pb2.ToolChoice.MODE_REQUIRED,
    "tool": text_pb2.ToolChoice.MODE_NAMED,
    "none": text_pb2.ToolChoice.MODE_NONE,
}
_EFFORTS: Final = {
    "low": text_pb2.ReasoningOptions.EFFORT_LOW,
    "medium": text_pb2.ReasoningOptions.EFFORT_MEDIUM,
    "high": text_pb2.ReasoningOptions.EFFORT_HIGH,
    "xhigh": text_pb2.ReasoningOptions.EFFORT_XHIGH,
    "max": text_pb2.ReasoningOptions.EFFORT_XHIGH,
}


class Read(NamedTuple):
    """What a body says."""

    request: text_service_pb2.GenerateTextRequest
    places: Sequence[Place]
    """Where each message of the request comes from."""
    omits: bool
    """Whether the text of reasoning is left out of the answer, and its signatures are not."""


class Counted(NamedTuple):
    """What a body says whose tokens are to be counted."""

    request: text_service_pb2.CountTokensRequest
    places: Sequence[Place]
    """As in `Read`."""


def read(data: bytes, *, betas: Sequence[str] = (), strict: bool = False) -> tuple[Read, Prompt]:
    """Read the body, and look through its prompt. Raises as `request_from`."""
    result = request_from(data, betas=betas, strict=strict)
    with as_the_caller_counts(result.places):
        return result, Prompt.of(result.request, whole=is_large(data))


def request_from(data: bytes, *, betas: Sequence[str] = (), strict: bool = False) -> Read:
    """Read the body; `strict`: whoever answers refuses what would have no effect. `betas` are what its header asks for.

    Raises Malformed, InvalidField, Unsupported, UnsupportedMedia or TooLarge.
    """
    body, names, extra = parse_liberally(data, _BODY)
    request = text_service_pb2.GenerateTextRequest(
        model=body.model,
        stream=bool(body.stream),
        max_tokens=body.max_tokens,
        stop=body.stop_sequences,
        user=(body.metadata.user_id or "") if body.metadata is not None else "",
        strict=strict,
    )
    places = _add_prompt(request, body, extra)
    fill(request.sampling, body)
    if body.mcp_servers:
        request.tools.append(carried.servers(body.mcp_servers))
    _set_choice(request, body.tool_choice)
    _set_format(request, body)
    _set_thinking(request.reasoning, body)
    carried.put(request, body, extra, names, betas)
    return Read(request, places, body.thinking is not None and body.thinking.display == "omitted")


def counted(data: bytes) -> Counted:
    """Read a prompt whose tokens are to be counted. Raises as `request_from`."""
    body, _, extra = parse_liberally(data, _COUNT)
    request = text_service_pb2.CountTokensRequest(model=body.model)
    return Counted(request, _add_prompt(request, body, extra))


def _add_prompt(request: Request, body: bodies.MessageBody | bodies.CountBody, extra: Extra) -> Sequence[Place]:
    turns = Turns(request)
    turns.add_system(body.system, at(extra, "system"))
    for index, message in enumerate(body.messages):
        turns.add(message, index, at(extra, "messages", index))
    for index, tool in enumerate(body.tools or ()):
        request.tools.append(_tool(tool, f"tools[{index}]", at(extra, "tools", index)))
    return turns.places


def _tool(tool: bodies.Tool, where: str, extra: Extra) -> text_pb2.Tool:
    if tool.type not in (None, "custom"):
        return carried.own_tool(tool, extra)
    if not tool.name:
        raise InvalidField(f"{where}.name is required", param=f"{where}.name")
    made = text_pb2.Tool(
        name=tool.name,
        description=tool.description or "",
        parameters_json=encode(tool.input_schema).decode() if tool.input_schema else "",
        strict=tool.strict,
        cache=tool.cache_control is not None,
    )
    carried.put_tool(made, tool, extra)
    return made


def _set_choice(request: text_service_pb2.GenerateTextRequest, choice: bodies.ToolChoice | None) -> None:
    if choice is None:
        return
    if not request.tools:
        if choice.type in ("any", "tool"):
            raise InvalidField("tool_choice: there are no tools to choose from; send tools", param="tool_choice")
        return  # A choice among none is none.
    request.tool_choice.mode = _CHOICES[choice.type]
    if choice.type == "tool":
        if not choice.name:
            raise InvalidField("tool_choice.name is required", param="tool_choice.name")
        request.tool_choice.name = choice.name
    if choice.disable_parallel_tool_use is not None:
        request.tool_choice.parallel = not choice.disable_parallel_tool_use


def _set_format(request: text_service_pb2.GenerateTextRequest, body: bodies.MessageBody) -> None:
    form = body.output_config.format if body.output_config is not None else None
    form = form or body.output_format
    if form is not None:
        request.response_format.kind = text_pb2.ResponseFormat.KIND_JSON_SCHEMA
        request.response_format.name = "response"
        request.response_format.schema_json = encode(form.schema).decode()


def _set_thinking(options: text_pb2.ReasoningOptions, body: bodies.MessageBody) -> None:
    """Set how much to reason. Reasoning is shown to who asks for some; an effort alone asks for none to be seen."""
    effort = body.output_config.effort if body.output_config is not None else None
    if effort is not None:
        options.effort = _EFFORTS[effort]
    thinking = body.thinking
    if thinking is None:
        return
    if thinking.type == "disabled":
        options.effort = text_pb2.ReasoningOptions.EFFORT_NONE
        return
    options.include = True
    if thinking.type == "enabled" and thinking.budget_tokens is not None:
        options.budget_tokens = thinking.budget_tokens
        options.ClearField("effort")
    elif effort is None:
        # Anthropic's own default.
        options.effort = text_pb2.ReasoningOptions.EFFORT_HIGH
