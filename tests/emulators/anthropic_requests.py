"""Requests of Anthropic's Messages API, checked as strictly as by the real one."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

KEY = "sk-ant-good"
SONNET = "claude-sonnet-4-5"
OPUS = "claude-opus-4-7"
NEWEST = "claude-opus-5-5"
MODELS = (OPUS, SONNET)
SIGNATURE = "signed-by-the-emulator=="
_MAGIC = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/gif": b"GIF8", "image/webp": b"RIFF"}
_MARKS: Sequence[Any] = ({"type": "ephemeral"}, {"type": "ephemeral", "ttl": "5m"})
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


Check = Callable[[Any], bool]


def _is(*kinds: type) -> Check:
    return lambda value: isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and each.strip() for each in value)


def _in_range(low: float, high: float) -> Check:
    return lambda value: _is(int, float)(value) and low <= value <= high


_PROMPT: Mapping[str, Check] = {"model": _is(str), "messages": _is(list), "system": _is(str, list), "tools": _is(list)}
_COUNTED = _PROMPT
_CREATED: Mapping[str, Check] = {
    **_PROMPT,
    "max_tokens": lambda value: _is(int)(value) and value > 0,
    "stream": _is(bool),
    "stop_sequences": _texts,
    "metadata": lambda value: isinstance(value, dict) and set(value) <= {"user_id"},
    "temperature": _in_range(0, 1),
    "top_p": _in_range(0, 1),
    "top_k": lambda value: _is(int)(value) and value >= 0,
    "thinking": _is(dict),
    "output_config": lambda value: isinstance(value, dict) and set(value) <= {"effort", "format", "task_budget"},
    "tool_choice": _is(dict),
    "service_tier": lambda value: value in ("auto", "standard_only"),
    "container": _is(str, dict),
    "cache_control": lambda value: value in _MARKS,
    "diagnostics": lambda value: isinstance(value, dict) and set(value) <= {"previous_message_id"},
}
_BETA = {"context_management": "context-management-", "mcp_servers": "mcp-client-"}
"""Fields that need a header that asks for them, by how it begins."""
_BLOCKS: Mapping[str, tuple[set[str], set[str]]] = {
    # Fields that must be there, and those that may.
    "text": ({"text"}, {"cache_control", "citations"}),
    "document": ({"source"}, {"cache_control", "title", "context", "citations"}),
    "image": ({"source"}, {"cache_control"}),
    "tool_use": ({"id", "name", "input"}, {"cache_control"}),
    "tool_result": ({"tool_use_id"}, {"content", "is_error", "cache_control"}),
    "thinking": ({"thinking", "signature"}, set()),
    "redacted_thinking": ({"data"}, set()),
}
_OF_ROLE = {
    "user": {"text", "image", "tool_result", "document"},
    "assistant": {"text", "tool_use", "thinking", "redacted_thinking"},
}
_CHOICES = {"auto": set(), "any": set(), "tool": {"name"}, "none": set()}


class Refused(Exception):
    """A refusal in Anthropic's form."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    def response(self) -> web.Response:
        """Return the answer that refuses."""
        error = {"type": self.kind, "message": str(self)}
        body = {"type": "error", "error": error, "request_id": "req_1"}
        return web.json_response(body, status=self.status, headers={"request-id": "req_1"})


def invalid(message: str) -> Refused:
    """Return a refusal of a bad request."""
    return Refused(400, "invalid_request_error", message)


async def counted(request: web.Request) -> dict[str, Any]:
    """Return the body of a request that counts a prompt. Raises Refused where it is wrong."""
    check_headers(request)
    body = await _body_of(request, _COUNTED)
    check_prompt(body)
    return body


async def created(request: web.Request) -> dict[str, Any]:
    """Return the body of a request for a message. Raises Refused where it is wrong."""
    check_headers(request)
    asked = request.headers.get("anthropic-beta", "")
    more = {name: _is(dict, list) for name, beta in _BETA.items() if beta in asked}
    body = await _body_of(request, {**_CREATED, **more})
    check(body)
    return body


def check_headers(request: web.Request) -> None:
    """Raise Refused for a request without a key, or of another version."""
    if request.headers.get("x-api-key") != KEY:
        raise Refused(401, "authentication_error", "invalid x-api-key")
    if request.headers.get("anthropic-version") != "2023-06-01":
        raise invalid("anthropic-version: header is required")


async def _body_of(request: web.Request, fields: Mapping[str, Check]) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise invalid("The request body is not valid JSON") from None
    return _fields_of(body, fields)


def check_batched(body: Any, betas: str) -> None:
    """Raise Refused for a wrong request of a batch."""
    more = {name: _is(dict, list) for name, beta in _BETA.items() if beta in betas}
    check(_fields_of(body, {**_CREATED, **more}))


def _fields_of(body: Any, fields: Mapping[str, Check]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise invalid("The request body is not an object")
    for name, value in body.items():
        if name not in fields:
            raise invalid(f"{name}: Extra inputs are not permitted")
        if not fields[name](value):
            raise invalid(f"{name}: Input should be valid")
    return body


def check(body: dict[str, Any]) -> None:
    """Raise Refused, as the service would, for a request that is wrong."""
    if "max_tokens" not in body:
        raise invalid("max_tokens: Field required")
    check_prompt(body)
    _check_choice(body)
    _check_format(body.get("output_config", {}))
    _check_thinking(body)


def check_prompt(body: dict[str, Any]) -> None:
    """Raise Refused for wrong instructions, turns or tools."""
    if body.get("model") not in (NEWEST, *MODELS):
        raise Refused(404, "not_found_error", f"model: {body.get('model')}")
    if not body.get("messages"):
        raise invalid("messages: at least one message is required")
    marks = 0
    for index, block in enumerate(body.get("system") or ()):
        marks += _check_block(block, {"text"}, f"system.{index}")
    calls: set[str] = set()
    for index, message in enumerate(body["messages"]):
        where = f"messages.{index}"
        if set(message) != {"role", "content"} or message["role"] not in _OF_ROLE:
            raise invalid(f"{where}: Input should be a message of user or assistant")
        content = message["content"]
        if not isinstance(content, list) or not content:
            raise invalid(f"{where}: all messages must have non-empty content")
        marks += sum(_check_block(b, _OF_ROLE[message["role"]], f"{where}.content.{i}") for i, b in enumerate(content))
        results = {block["tool_use_id"] for block in content if block["type"] == "tool_result"}
        if results != calls:
            raise invalid(f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after")
        calls = {block["id"] for block in content if block["type"] == "tool_use"}
    if calls:
        raise invalid("messages: `tool_use` ids were found without `tool_result` blocks immediately after")
    marks += _check_tools(body)
    if marks > 4:
        raise invalid(f"A maximum of 4 blocks with cache_control may be provided. Found {marks}.")


def _check_block(block: Any, kinds: set[str], where: str) -> int:
    """Check a block; give the count of its marks."""
    if not isinstance(block, dict) or block.get("type") not in kinds:
        raise invalid(f"{where}: Input tag does not match any of the expected tags {sorted(kinds)}")
    needed, more = _BLOCKS[block["type"]]
    if not needed <= set(block) - {"type"} <= needed | more:
        raise invalid(f"{where}: fields required or not permitted")
    if block.get("cache_control", _MARKS[0]) not in _MARKS:
        raise invalid(f"{where}.cache_control: Input should be ephemeral")
    if block["type"] == "text" and not block["text"].strip():
        raise invalid(f"{where}: text content blocks must contain non-whitespace text")
    if block["type"] == "image":
        source = block["source"]
        if set(source) != {"type", "media_type", "data"} or source["type"] != "base64":
            raise invalid(f"{where}.source: Input should be base64")
        if not base64.b64decode(source["data"], validate=True).startswith(_MAGIC[source["media_type"]]):
            raise invalid(f"{where}: Could not process image")
    if block["type"] == "document":
        _check_document(block["source"], where)
    call_id = str(block.get("id", block.get("tool_use_id", "x")))
    if not re.fullmatch(r"[a-zA-Z0-9_-]+", call_id):
        raise invalid(f"{where}: String should match pattern '^[a-zA-Z0-9_-]+$'")
    if block["type"] == "tool_use" and not isinstance(block["input"], dict):
        raise invalid(f"{where}.input: Input should be a valid dictionary")
    if block["type"] == "thinking" and not block["signature"].startswith(SIGNATURE):
        raise invalid(f"{where}: Invalid `signature` in `thinking` block")
    return int("cache_control" in block)


def _check_document(given: Any, where: str) -> None:
    fields = {"base64": {"media_type", "data"}, "url": {"url"}, "text": {"media_type", "data"}, "content": {"content"}}
    if not isinstance(given, dict) or set(given) - {"type"} != fields.get(given.get("type", ""), {"-"}):
        raise invalid(f"{where}.source: fields required or not permitted")
    if given["type"] == "base64" and not base64.b64decode(given["data"], validate=True).startswith(b"%PDF"):
        raise invalid(f"{where}: The PDF specified was not valid")


def _check_tools(body: dict[str, Any]) -> int:
    tools = body.get("tools") or []
    blocks = [block for message in body["messages"] for block in message["content"]]
    if not tools and any(block["type"].startswith("tool_") for block in blocks):
        raise invalid("Requests which include `tool_use` or `tool_result` blocks must define tools.")
    for tool in tools:
        if (
            not {"name", "input_schema"}
            <= set(tool)
            <= {
                *("name", "input_schema", "description", "strict", "cache_control", "type", "defer_loading"),
                *("allowed_callers", "eager_input_streaming", "input_examples"),
            }
        ):
            raise invalid("tools: fields required or not permitted")
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", tool["name"]):
            raise invalid("tools.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
        if tool["input_schema"].get("type") != "object":
            raise invalid("tools.input_schema.type: Input should be 'object'")
    if len({tool["name"] for tool in tools}) != len(tools):
        raise invalid("tools: Tool names must be unique.")
    return sum("cache_control" in tool for tool in tools)


def _check_choice(body: dict[str, Any]) -> None:
    choice = body.get("tool_choice")
    if choice is None:
        return
    if not body.get("tools"):
        raise invalid("tool_choice may only be specified while providing tools")
    kind = choice.get("type")
    if kind not in _CHOICES or not _CHOICES[kind] <= set(choice) - {"type"} <= {
        *_CHOICES[kind],
        *(() if kind == "none" else ("disable_parallel_tool_use",)),
    }:
        raise invalid("tool_choice: Input should be a valid choice")
    if kind == "tool" and choice["name"] not in {tool["name"] for tool in body["tools"]}:
        raise invalid("tool_choice: Tool not found in provided tools")


def _check_format(config: dict[str, Any]) -> None:
    form = config.get("format")
    if form is not None and (set(form) != {"type", "schema"} or form["type"] != "json_schema"):
        raise invalid("output_config.format: Input should be a JSON schema")
    if form is not None and not isinstance(form["schema"], dict):
        raise invalid("output_config.format.schema: Input should be a valid dictionary")


def _check_thinking(body: dict[str, Any]) -> None:
    effort = body.get("output_config", {}).get("effort")
    if effort is not None and (body["model"] == SONNET or effort not in _EFFORTS):
        raise invalid("This model does not support the effort parameter.")
    thinking = body.get("thinking")
    _check_prefill(body)
    if thinking is None or thinking == {"type": "disabled"}:
        return
    if body["model"] != SONNET:
        shown = thinking.get("display", "summarized")
        if thinking.get("type") != "adaptive" or shown not in ("summarized", "omitted") or len(thinking) > 2:
            raise invalid("thinking.type: this model takes adaptive thinking")
    elif set(thinking) - {"display"} != {"type", "budget_tokens"} or thinking["type"] != "enabled":
        raise invalid("adaptive thinking is not supported on this model")
    elif thinking["budget_tokens"] < 1024:
        raise invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    elif thinking["budget_tokens"] >= body["max_tokens"]:
        raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`")
    if body.get("temperature", 1) != 1 or "top_k" in body or body.get("top_p", 1) < 0.95:
        raise invalid("`temperature` may only be set to 1 when thinking is enabled.")
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")
    for message in body["messages"]:
        kinds = [block["type"] for block in message["content"]]
        if "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking"):
            raise invalid("Expected `thinking` or `redacted_thinking`, but found `tool_use`.")


def _check_prefill(body: dict[str, Any]) -> None:
    """Check that the beginning of an answer can be gone on from."""
    if body["messages"][-1]["role"] != "assistant":
        return
    last = body["messages"][-1]["content"][-1]
    if "thinking" in body or body["model"] != SONNET:
        raise invalid("This model does not support assistant message prefill.")
    if last.get("text", "") != last.get("text", "").rstrip():
        raise invalid("messages: final assistant content cannot end with trailing whitespace")
