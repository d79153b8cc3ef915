"""OpenAI's chat API, as strict as the real one: types from the `openai` package, rules from its API reference."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from aiohttp import web
from openai.types.chat import completion_create_params as params
from openai.types.responses import InputTokenCountParams

from tests.emulators import shapes
from tests.emulators.base import Emulator, Seen
from tests.emulators.script import Counts, Script

KEYS = frozenset({"sk-good", "sk-also-good", "sk-limited", "sk-poor"})
MODELS = frozenset({"gpt-4o-mini", "o4-mini", "gpt-4o"})
_REASONING_MODELS = ("o1", "o3", "o4", "gpt-5")
_NUMBERS = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "n": (1, 128),
    "top_logprobs": (0, 20),
    "max_tokens": (1, None),
    "max_completion_tokens": (1, None),
}


class Refused(Exception):
    """A refusal with OpenAI's own error object."""

    def __init__(self, status: int, message: str, *, kind: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": kind, "param": param, "code": code}


def invalid(message: str, param: str | None, code: str | None = None) -> Refused:
    return Refused(400, message, kind="invalid_request_error", param=param, code=code)


REFUSALS: Mapping[str, tuple[int, dict[str, Any]]] = {
    "upstream_auth": (401, {"type": "invalid_request_error", "code": "invalid_api_key"}),
    "model_not_found": (404, {"type": "invalid_request_error", "code": "model_not_found", "param": "model"}),
    "context_too_long": (
        400,
        {"type": "invalid_request_error", "code": "context_length_exceeded", "param": "messages"},
    ),
    "content_policy": (400, {"type": "invalid_request_error", "code": "content_policy_violation"}),
    "upstream_rejected": (400, {"type": "invalid_request_error", "code": "invalid_value", "param": "messages"}),
    "upstream_rate_limited": (429, {"type": "requests", "code": "rate_limit_exceeded"}),
    "upstream_failed": (500, {"type": "server_error", "code": None}),
    "upstream_overloaded": (503, {"type": "server_error", "code": None}),
    "upstream_timeout": (504, {"type": "timeout", "code": None}),
}
"""What the service says for each reason."""


def check_count(body: Any) -> None:
    """Raise Refused for a wrong prompt to count."""
    try:
        shapes.check(body, InputTokenCountParams)
    except shapes.Wrong as wrong:
        code = "unknown_parameter" if wrong.kind == "unknown" else "invalid_value"
        raise invalid(f"Invalid: {wrong.message}.", wrong.path, code) from None
    if body.get("model") not in MODELS:
        raise Refused(404, "Model not found.", kind="invalid_request_error", code="model_not_found")


class OpenAIEmulator(Emulator):
    """`POST /v1/chat/completions`, `POST /v1/responses/input_tokens` and `GET /v1/models`."""

    refusals: ClassVar[Mapping[str, tuple[int, dict[str, Any]]]] = REFUSALS

    def preamble(self) -> list[bytes]:
        """Return what comes before the first piece of a stream."""
        return []

    def __init__(self, *, needs_key: bool = True) -> None:
        super().__init__()
        self._needs_key = needs_key
        self.newer: set[str] = set()
        """Models that it has besides: they came out since."""
        from tests.emulators.openai_batches import Batches  # it needs what is here

        self.batches = Batches(self.check_key, self._batched)
        self.lists = 0
        """How often its models were listed."""
        self.list_answer: tuple[int, bytes] | None = None
        """What it answers instead of a list: a status and a body."""

    @property
    def base_url(self) -> str:
        """What clients take as `base_url`."""
        return f"{self.url}/v1"

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [
            *self.batches.routes(),
            web.post("/v1/chat/completions", self.completions),
            web.post("/v1/responses/input_tokens", self._count),
            web.get("/v1/models", self._models),
        ]

    async def _count(self, request: web.Request) -> web.StreamResponse:
        try:
            self.check_key(request)
            body = await json_of(request)
            check_count(body)
        except Refused as refused:
            return self.refusal(refused)
        self.note(request, body)
        return web.json_response({"object": "response.input_tokens", "input_tokens": 31})

    async def _models(self, request: web.Request) -> web.StreamResponse:
        try:
            self.check_key(request)
        except Refused as refused:
            return self.refusal(refused)
        self.lists += 1
        if self.list_answer is not None:
            return web.Response(status=self.list_answer[0], body=self.list_answer[1])
        names = sorted(MODELS | self.newer)
        entries = [{"id": name, "object": "model", "created": 1, "owned_by": "openai"} for name in names]
        return web.json_response({"object": "list", "data": entries})

    def check_key(self, request: web.Request) -> None:
        """Raise Refused unless the request brings a good key."""
        if not self._needs_key:
            return
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or key not in KEYS:
            raise Refused(
                401, "Incorrect API key provided: ****.", kind="invalid_request_error", code="invalid_api_key"
            )
        if key == "sk-limited":
            raise Refused(429, "Rate limit reached.", kind="requests", code="rate_limit_exceeded")
        if key == "sk-poor":
            raise Refused(429, "You exceeded your quota.", kind="insufficient_quota", code="insufficient_quota")

    def refusal(self, refused: Refused) -> web.Response:
        """Note a refusal and give its HTTP answer."""
        self.refused.append((refused.status, str(refused)))
        return web.json_response({"error": refused.error}, status=refused.status)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat."""
        try:
            self.check_key(request)
            body = await self.chat_of(request)
        except Refused as refused:
            return self.refusal(refused)
        self.note(request, body)
        script = self.next_script()
        if script.refuse:
            status, error = self.refusals[script.refuse]
            headers = {"Retry-After": str(script.retry_after_s)} if script.retry_after_s is not None else {}
            error = {"message": f"Words about {script.refuse}.", "param": None, **error}
            return web.json_response({"error": error}, status=status, headers={"x-request-id": "req_1", **headers})
        if body.get("stream"):
            return await self._streamed(request, body, script)
        answer = _completion(body, script)
        response = web.json_response(answer, headers={"x-request-id": "req_1"})
        response.body = response.text.encode() if response.text else b""
        return await self.whole(request, script, response)

    def _batched(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request of a batch."""
        self.seen.append(Seen("/v1/batches", {}, body, ("", 0)))
        return _completion(body, self.next_script())

    async def chat_of(self, request: web.Request) -> dict[str, Any]:
        """Return the request's body, or raise Refused."""
        body = await json_of(request)
        check_chat(body, models=MODELS | self.newer)
        assert isinstance(body, dict)
        return body

    async def _streamed(self, request: web.Request, body: dict[str, Any], script: Script) -> web.StreamResponse:
        count = body.get("n") or 1
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))

        def chunk(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
            made = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
            made |= {"choices": choices} | ({"usage": usage} if wants_usage else {})
            return event(made)

        def choices(delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> bytes:
            each = {"delta": delta, "finish_reason": finish, "logprobs": logprobs}
            return chunk([{"index": i, **each} for i in range(count)])

        pieces = [
            choices(
                delta, logprobs=_logprobs(delta["content"]) if body.get("logprobs") and "content" in delta else None
            )
            for delta in deltas_of(script)
        ]
        closing = [choices({}, script.reason)]
        if wants_usage and script.counts is not None:
            closing.append(chunk([], usage_of(script.counts)))
        if script.end_mark:
            closing.append(b"data: [DONE]\n\n")
        opening = [choices({"role": "assistant", "content": ""})]
        return await self.stream(
            request,
            script,
            pieces,
            opening=[*self.preamble(), *opening],
            closing=closing,
            malformed=b'data: {"id": "chatcmpl-1", "choices": [{"ind\n\n',
            failure=event({"error": {"message": "The server had an error.", "type": "server_error", "code": None}}),
            headers={"Content-Type": "text/event-stream; charset=utf-8", "x-request-id": "req_1"},
        )


def _completion(body: dict[str, Any], script: Script) -> dict[str, Any]:
    """Return a whole answer."""
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {"index": i, "message": message_of(script), "finish_reason": script.reason, "logprobs": logs}
            for i in range(body.get("n") or 1)
            for logs in [_logprobs("".join(script.text)) if body.get("logprobs") else None]
        ],
    }
    if script.counts is not None:
        answer["usage"] = usage_of(script.counts)
    return answer


async def json_of(request: web.Request) -> Any:
    """Return a request's JSON, or raise Refused."""
    if request.content_type != "application/json":
        raise invalid("Unsupported media type.", None)
    try:
        return json.loads(await request.read())
    except ValueError:
        raise invalid("We could not parse the JSON body of your request.", None) from None


def check_chat(body: Any, *, models: frozenset[str] = MODELS) -> None:
    """Raise Refused, as the service would, for a request that is wrong."""
    if not isinstance(body, dict):
        raise invalid("The body must be an object.", None)
    streamed = body.get("stream")
    hint = params.CompletionCreateParamsStreaming if streamed is True else params.CompletionCreateParamsNonStreaming
    try:
        shapes.check(body, hint)
    except shapes.Wrong as wrong:
        code = {"unknown": "unknown_parameter", "missing": "missing_required_parameter"}.get(wrong.kind, "invalid_type")
        words = f"Unknown parameter: '{wrong.path}'." if wrong.kind == "unknown" else f"Invalid: {wrong.message}."
        raise invalid(words, wrong.path, code) from None
    if body["model"] not in models:
        words = f"The model `{body['model']}` does not exist or you do not have access to it."
        raise Refused(404, words, kind="invalid_request_error", code="model_not_found")
    for name, (low, high) in _NUMBERS.items():
        value = body.get(name)
        if value is not None and (value < low or (high is not None and value > high)):
            raise invalid(f"Invalid '{name}': out of range.", name, "decimal_above_max_value")
    if not body["messages"]:
        raise invalid("Invalid 'messages': empty array.", "messages", "empty_array")
    stops = body.get("stop")
    if isinstance(stops, list) and len(stops) > 4:
        raise invalid("Invalid 'stop': array too long.", "stop", "array_above_max_length")
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise invalid("'top_logprobs' needs 'logprobs'.", "top_logprobs")
    if body.get("stream_options") is not None and not streamed:
        raise invalid("'stream_options' is only allowed when 'stream' is enabled.", "stream_options")
    if "parallel_tool_calls" in body and not body.get("tools"):
        raise invalid("'parallel_tool_calls' is only allowed when 'tools' are specified.", "parallel_tool_calls")
    if body["model"].startswith(_REASONING_MODELS):
        for name in ("max_tokens", "temperature", "top_p", "logprobs", "presence_penalty", "frequency_penalty"):
            if name in body:
                raise invalid(f"Unsupported parameter: '{name}'.", name, "unsupported_parameter")
    elif "reasoning_effort" in body:
        raise invalid("Unrecognized request argument supplied: reasoning_effort", "reasoning_effort")
    _check_messages(body)
    _check_tools(body)


def _check_messages(body: dict[str, Any]) -> None:
    open_calls: set[str] = set()
    for index, message in enumerate(body["messages"]):
        where = f"messages.[{index}]"
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise invalid("A 'tool' message must answer a preceding 'tool_calls'.", f"{where}.role")
            open_calls.discard(message["tool_call_id"])
        elif open_calls:
            raise invalid("'tool_calls' must be followed by tool messages for each id.", f"{where}.role")
        for call in message.get("tool_calls") or ():
            open_calls.add(call["id"])
        if message["role"] == "assistant" and message.get("content") is None and not message.get("tool_calls"):
            raise invalid("An assistant message needs content or tool_calls.", f"{where}.content")
        if isinstance(message.get("content"), list):
            for part in message["content"]:
                if part["type"] == "image_url":
                    _check_image(part["image_url"]["url"], where)
    form = (body.get("response_format") or {}).get("type")
    if form == "json_object" and "json" not in json.dumps(body["messages"]).lower():
        raise invalid("'messages' must contain the word 'json' to use 'json_object'.", "messages")


def _check_image(url: str, where: str) -> None:
    if url.startswith("https://"):
        return
    head, _, data = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        raise invalid("Invalid image URL.", f"{where}.content", "invalid_image_url")
    try:
        base64.b64decode(data, validate=True)
    except binascii.Error:
        raise invalid("Invalid base64 image_url.", f"{where}.content", "invalid_base64") from None


def _check_tools(body: dict[str, Any]) -> None:
    names = [(tool["type"], tool[tool["type"]]["name"]) for tool in body.get("tools") or ()]
    if body.get("tools") == []:
        raise invalid("Invalid 'tools': empty array.", "tools", "empty_array")
    choice = body.get("tool_choice")
    if choice is not None and not names:
        raise invalid("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if isinstance(choice, dict) and (choice["type"], choice[choice["type"]]["name"]) not in names:
        raise invalid("Tool choice not found in 'tools'.", "tool_choice")


def event(value: Any) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def deltas_of(script: Script) -> list[dict[str, Any]]:
    """Return the pieces of a streamed message."""
    made: list[dict[str, Any]] = [{"reasoning_content": piece} for piece in script.reasoning]
    made += [{"content": piece} for piece in script.text]
    if script.refusal:
        made.append({"refusal": script.refusal})
    for index, call in enumerate(script.calls):
        head = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        made.append({"tool_calls": [head]})
        made += [{"tool_calls": [{"index": index, "function": {"arguments": a}}]} for a in call.arguments]
    return made


def message_of(script: Script) -> dict[str, Any]:
    """Return a whole message."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(script.text) or None, "refusal": None}
    if script.refusal:
        message["refusal"] = script.refusal
    if script.reasoning:
        message["reasoning_content"] = "".join(script.reasoning)
    if script.calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": "".join(c.arguments)}}
            for c in script.calls
        ]
    return message


def usage_of(counts: Counts) -> dict[str, Any]:
    """Return a usage object."""
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
        "prompt_tokens_details": {"cached_tokens": counts.cached},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
    }


def _logprobs(text: str) -> dict[str, Any]:
    entry = {"token": text, "logprob": -0.5, "bytes": list(text.encode())}
    return {"content": [{**entry, "top_logprobs": [entry]}], "refusal": None}
