"""Google's Gemini API, as strict as the real one: types from `google-genai`, rules from its API reference."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any

from aiohttp import web
from google.genai import types
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.emulators.base import Emulator, Seen
from tests.emulators.script import Counts, Script

KEYS = frozenset({"AIza-good", "AIza-also-good"})
MODELS = frozenset(
    {"gemini-2.5-flash", "gemini-3.5-flash", "gemini-3.5-flash-lite", "gemini-3.8-flash", "gemini-3.1-flash-lite"}
    | {
        "gemini-2.5-pro",
        "gemini-2.0-flash-exp",
        "gemini-2.0-flash-lite",
        "gemini-3-pro-preview",
        "gemini-4-argon",
        "gemini-2.5-flash-image",
    },
)
_THINKING = ("gemini-2.5", "gemini-3")
SIGNATURE = b"proof of thought"
SKIP = base64.urlsafe_b64decode("skip_thought_signature_validator")
"""What Google takes in the place of a signature that is lost."""

FINISHES = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
_MIMES = ("image/png", "image/jpeg", "image/webp", "audio/", "video/", "application/pdf", "text/plain")
_DATA = ("text", "inline_data", "function_call", "function_response", "file_data", "executable_code")

REFUSALS: Mapping[str, tuple[int, str, list[dict[str, Any]]]] = {
    "upstream_auth": (400, "INVALID_ARGUMENT", [{"@type": _ERROR_INFO, "reason": "API_KEY_INVALID"}]),
    "model_not_found": (404, "NOT_FOUND", []),
    "upstream_rejected": (400, "INVALID_ARGUMENT", []),
    "upstream_rate_limited": (429, "RESOURCE_EXHAUSTED", [{"@type": _RETRY_INFO, "retryDelay": "17s"}]),
    "upstream_failed": (500, "INTERNAL", []),
    "upstream_overloaded": (503, "UNAVAILABLE", []),
    "upstream_timeout": (504, "DEADLINE_EXCEEDED", []),
}


class Generation(types.GenerationConfig):
    """`generationConfig`, with what the SDK sends beside its type."""

    image_config: types.ImageConfig | None = None


class Body(BaseModel):
    """The body of `generateContent`."""

    model_config = ConfigDict(extra="forbid")

    contents: list[types.Content] = Field(min_length=1)
    systemInstruction: types.Content | None = None  # noqa: N815  # the wire's name
    tools: list[types.Tool] | None = None
    toolConfig: types.ToolConfig | None = None  # noqa: N815
    safetySettings: list[types.SafetySetting] | None = None  # noqa: N815
    generationConfig: Generation | None = None  # noqa: N815
    cachedContent: str | None = None  # noqa: N815
    model: str | None = None


class Refused(Exception):
    """A refusal in Google's form."""

    def __init__(self, status: int, code: str, message: str, details: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"code": status, "message": message, "status": code, "details": list(details)}


def invalid(message: str) -> Refused:
    """Return a refusal of a bad request."""
    return Refused(400, "INVALID_ARGUMENT", message)


class GeminiEmulator(Emulator):
    """`/v1beta/models/{model}:generateContent`, `:streamGenerateContent`, `:countTokens`, and the list."""

    keys: Collection[str] = KEYS
    """The keys that are good."""
    page: int = 1000
    """The most models of a page."""

    def __init__(self) -> None:
        super().__init__()
        from tests.emulators.gemini_batches import Batches  # it needs what is here

        self.batches = Batches(self._check_key, self._refusal, self._batched)

    def _batched(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request of a batch."""
        self.seen.append(Seen("/v1beta/batches", {}, body, ("", 0)))
        script = self.next_script()
        return _chunk(parts_of(script), 1, FINISHES[script.reason], script.counts, share=1.0)

    @property
    def base_url(self) -> str:
        """What catalogue rows write."""
        return f"{self.url}/v1beta"

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [
            *self.batches.routes(),
            web.post("/v1beta/models/{model}:{method}", self._call),
            web.get("/v1beta/models", self._list),
        ]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_key(request)
        except Refused as refused:
            return self._refusal(refused)
        names = sorted(MODELS)
        start = int(request.query.get("pageToken") or 0)
        stop = start + min(int(request.query.get("pageSize") or 50), self.page)
        page: dict[str, Any] = {"models": [_described(name) for name in names[start:stop]]}
        if stop < len(names):
            page["nextPageToken"] = str(stop)
        return web.json_response(page)

    def _check_key(self, request: web.Request) -> None:
        key = request.headers.get("x-goog-api-key") or request.query.get("key")
        if not key:
            raise Refused(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers.")
        if key not in self.keys:
            details = [{"@type": _ERROR_INFO, "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
            raise Refused(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", details)

    def _refusal(self, refused: Refused) -> web.Response:
        self.refused.append((refused.status, str(refused)))
        return web.json_response({"error": refused.error}, status=refused.status)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        model, method = request.match_info["model"], request.match_info["method"]
        try:
            self._check_key(request)
            if model not in MODELS:
                raise Refused(404, "NOT_FOUND", f"models/{model} is not found for API version v1beta.")
            body = await json_of(request)
            if method == "countTokens":
                inner = body.get("generateContentRequest") or {"contents": body.get("contents")}
                check(inner, model)
                self.note(request, body)
                return web.json_response({"totalTokens": 31})
            if method not in ("generateContent", "streamGenerateContent"):
                raise Refused(404, "NOT_FOUND", "Unknown method.")
            check(body, model)
        except Refused as refused:
            return self._refusal(refused)
        self.note(request, body)
        script = self.next_script()
        streamed = method == "streamGenerateContent"
        if script.refuse == "content_policy":
            words = f"Words about {script.refuse}."
            blocked = {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": words}}
            return _answered(blocked, streamed)
        if script.refuse:
            status, code, details = REFUSALS[script.refuse]
            made = Refused(status, code, f"Words about {script.refuse}.", details)
            return web.json_response({"error": made.error}, status=status)
        config = body.get("generationConfig") or {}
        count, logs = config.get("candidateCount") or 1, bool(config.get("responseLogprobs"))
        if not streamed:
            answer = _chunk(parts_of(script), count, FINISHES[script.reason], script.counts, share=1.0, logs=logs)
            response = web.Response(body=json.dumps(answer).encode(), content_type="application/json")
            return await self.whole(request, script, response)
        if request.query.get("alt") != "sse":
            raise web.HTTPNotImplemented(text="only alt=sse is emulated")
        parts = parts_of(script)
        pieces = [
            event(_chunk([part], count, None, script.counts, share=(i + 1) / len(parts), logs=logs))
            for i, part in enumerate(parts)
        ]
        closing = [event(_chunk([{"text": ""}], count, FINISHES[script.reason], script.counts, share=1.0))]
        return await self.stream(
            request,
            script,
            pieces,
            closing=closing,
            malformed=b'data: {"candidates": [{"content": {"par\r\n\r\n',
            failure=event({"error": {"code": 500, "message": "Internal error.", "status": "INTERNAL"}}),
            headers={"Content-Type": "text/event-stream"},
        )


async def json_of(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise invalid("Invalid JSON payload received.") from None
    if not isinstance(body, dict):
        raise invalid("Invalid JSON payload received.")
    return body


def _answered(value: Any, streamed: bool) -> web.Response:
    if streamed:
        return web.Response(body=event(value), content_type="text/event-stream")
    return web.json_response(value)


def event(value: Any) -> bytes:
    """Return a server-sent event, with Google's CR LF."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\r\n\r\n"


def parts_of(script: Script) -> list[dict[str, Any]]:
    """Return the parts of an answer, one a piece."""
    made: list[dict[str, Any]] = [{"text": piece, "thought": True} for piece in script.reasoning]
    made += [{"text": piece} for piece in script.text]
    for index, call in enumerate(script.calls):
        part: dict[str, Any] = {"functionCall": {"name": call.name, "args": json.loads("".join(call.arguments))}}
        if index == 0:
            part["thoughtSignature"] = base64.b64encode(SIGNATURE + script.mark.encode()).decode()
        made.append(part)
    return made


def _chunk(
    parts: list[dict[str, Any]],
    count: int,
    finish: str | None,
    counts: Counts | None,
    *,
    share: float,
    logs: bool = False,
) -> dict[str, Any]:
    content = {"parts": parts, "role": "model"}
    ended: dict[str, Any] = {"finishReason": finish} if finish else {}
    text = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
    if logs and text:
        token = {"token": text, "logProbability": -0.5}
        ended["logprobsResult"] = {"chosenCandidates": [token], "topCandidates": [{"candidates": [token]}]}
    made: dict[str, Any] = {
        "candidates": [{"content": content, **ended, "index": i} for i in range(count)],
        "modelVersion": "emulated",
        "responseId": "resp-1",
    }
    if counts is not None:
        made["usageMetadata"] = usage_of(counts, share)
    return made


def usage_of(counts: Counts, share: float = 1.0) -> dict[str, int]:
    """Return the counts as Google tells them: zeros are left out, and thoughts are no candidates."""
    said = counts.completion - counts.reasoning
    return {
        "promptTokenCount": counts.prompt,
        "candidatesTokenCount": max(1, round(said * share)),
        "totalTokenCount": counts.prompt + counts.completion,
        **({"thoughtsTokenCount": counts.reasoning} if counts.reasoning else {}),
        **({"cachedContentTokenCount": counts.cached} if counts.cached else {}),
    }


def check(raw: dict[str, Any], model: str) -> Body:
    """Raise Refused, as the service would, for a request that is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the SDK's types only warn of an unknown enum value
            body = Body.model_validate(raw)
    except (ValidationError, UserWarning) as wrong:
        raise invalid(f"Invalid JSON payload received. {wrong}") from None
    _check_enums(body)
    calls: list[types.FunctionCall] = []
    for content in body.contents:
        calls = _check_content(content, calls, model)
    if body.contents[-1].role != "user":
        raise invalid("Please ensure that the last turn is from the user.")
    _check_config(body.generationConfig, model)
    names = [f.name for tool in body.tools or () for f in tool.function_declarations or ()]
    for tool in body.tools or ():
        for declared in tool.function_declarations or ():
            if declared.parameters is not None and declared.parameters_json_schema is not None:
                raise invalid("Only one of parameters and parametersJsonSchema may be set.")
    choice = body.toolConfig.function_calling_config if body.toolConfig else None
    if choice is not None:
        if not names:
            raise invalid("Function calling config is set without function_declarations.")
        if choice.allowed_function_names and choice.mode not in ("ANY", "VALIDATED"):
            raise invalid("allowedFunctionNames needs mode ANY.")
        if set(choice.allowed_function_names or ()) - set(names):
            raise invalid("allowedFunctionNames names an undeclared function.")
    return body


def _check_enums(value: Any) -> None:
    """Refuse enum members that the SDK's lenient enums made up."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            _check_enums(getattr(value, name))
    elif isinstance(value, list):
        for inner in value:
            _check_enums(inner)
    elif isinstance(value, Enum) and value not in type(value).__members__.values():
        raise invalid(f"Invalid value: {value!r}.")


def _check_content(content: types.Content, before: list[types.FunctionCall], model: str) -> list[types.FunctionCall]:
    """Check one turn after the calls `before`; give the calls that it makes."""
    if content.role not in ("user", "model"):
        raise invalid("Please use a valid role: user, model.")
    if not content.parts:
        raise invalid("Content without parts.")
    calls: list[types.FunctionCall] = []
    responses = 0
    for part in content.parts:
        if sum(getattr(part, name) is not None for name in _DATA) != 1:
            raise invalid("required oneof field 'data' must have one initialized field")
        if part.inline_data is not None and not (part.inline_data.mime_type or "").startswith(_MIMES):
            raise invalid(f"Unsupported MIME type: {part.inline_data.mime_type}")
        if part.function_call is not None:
            signed = part.thought_signature or b""
            if model.startswith("gemini-3") and not calls and not (signed == SKIP or signed.startswith(SIGNATURE)):
                raise invalid("Function call is missing a thought_signature in functionCall parts.")
            calls.append(part.function_call)
        if part.function_response is not None:
            responses += 1
            if part.function_response.name not in {call.name for call in before}:
                raise invalid("Function response without its call.")
    if before and responses != len(before):
        raise invalid("The number of function response parts must equal that of function call parts.")
    return calls


def _check_config(config: Generation | None, model: str) -> None:
    if config is None:
        return
    for value, low, high in (
        (config.temperature, 0, 2),
        (config.top_p, 0, 1),
        (config.top_k, 1, 100),
        (config.candidate_count, 1, 8),
        (config.max_output_tokens, 1, 65536),
        (config.presence_penalty, -2, 2),
        (config.seed, -(2**31), 2**31 - 1),
    ):
        if value is not None and not low <= value <= high:
            raise invalid(f"{value} is out of the supported range from {low} to {high}.")
    if len(config.stop_sequences or ()) > 5:
        raise invalid("The number of stop sequences must be at most 5.")
    if config.response_json_schema is not None and config.response_mime_type != "application/json":
        raise invalid("responseJsonSchema needs responseMimeType application/json.")
    if config.response_mime_type == "text/x.enum" and not (config.response_schema and config.response_schema.enum):
        raise invalid("text/x.enum needs a responseSchema with an enum.")
    thinking = config.thinking_config
    if thinking is not None:
        if not model.startswith(_THINKING):
            raise invalid("Thinking is not enabled for this model.")
        if thinking.thinking_level is not None and not model.startswith("gemini-3"):
            raise invalid("Thinking level is not supported for this model.")
        if thinking.thinking_level is not None and thinking.thinking_budget is not None:
            raise invalid("Only one of thinkingLevel and thinkingBudget may be set.")


def _described(name: str) -> dict[str, Any]:
    """Return a model as the list has it."""
    return {
        "name": f"models/{name}",
        "displayName": name,
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens", "batchGenerateContent"],
        "thinking": True,
    }
