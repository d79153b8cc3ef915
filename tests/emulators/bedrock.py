"""AWS Bedrock's Converse API, as strict as the real one: signatures, botocore's service model, the models' rules."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from tests.emulators.aws import (
    REGION,
    AwsRefused,
    Temporary,
    check_shape,
    event_frame,
    exception_frame,
    service_model,
    verify_signature,
)
from tests.emulators.base import Emulator
from tests.emulators.script import Counts, Script

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OPUS = "global.anthropic.claude-opus-4-7"
NOVA = "amazon.nova-lite-v1:0"
MODELS = frozenset({CLAUDE, OPUS, NOVA})
_EFFORTS = ("low", "medium", "high")
NEEDS_PROFILE = frozenset({"anthropic.claude-sonnet-4-5-20250929-v1:0"})
SIGNATURE = "signed-by-the-emulator=="

FINISHES = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "content_filtered"}
REFUSALS: Mapping[str, tuple[int, str]] = {
    "upstream_auth": (403, "AccessDeniedException"),
    "model_not_found": (404, "ResourceNotFoundException"),
    "upstream_rejected": (400, "ValidationException"),
    "upstream_rate_limited": (429, "ThrottlingException"),
    "upstream_failed": (500, "InternalServerException"),
    "upstream_overloaded": (503, "ServiceUnavailableException"),
    "upstream_timeout": (408, "ModelTimeoutException"),
}
_MAGIC = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}
_MODEL = service_model("bedrock-runtime")


def invalid(message: str) -> AwsRefused:
    """Return a refusal of a bad request."""
    return AwsRefused(400, "ValidationException", message)


class BedrockEmulator(Emulator):
    """`/model/{id}/converse`, `/converse-stream`, `/count-tokens`, and the control plane's list.

    Args:
        issued: Temporary credentials that are good, by access key.
    """

    def __init__(self, issued: Mapping[str, Temporary] | None = None) -> None:
        super().__init__()
        self._issued = issued

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [
            web.post("/model/{model}/{method}", self._call),
            web.get("/foundation-models", self._list),
            web.get("/inference-profiles", self._profiles),
        ]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        try:
            verify_signature(request, b"", service="bedrock", issued=self._issued)
        except AwsRefused as refused:
            self.refused.append((refused.status, str(refused)))
            return refused.response()
        summaries = [
            _summary(NOVA, ["ON_DEMAND"]),
            *(_summary(name, ["INFERENCE_PROFILE"]) for name in sorted(NEEDS_PROFILE)),
        ]
        return web.json_response({"modelSummaries": summaries})

    async def _profiles(self, request: web.Request) -> web.StreamResponse:
        try:
            verify_signature(request, b"", service="bedrock", issued=self._issued)
        except AwsRefused as refused:
            self.refused.append((refused.status, str(refused)))
            return refused.response()
        names = sorted(MODELS - {NOVA})
        start = int(request.query.get("nextToken") or 0)
        page = {
            "inferenceProfileSummaries": [_profile(name) for name in names[start : start + 1]],
            "nextToken": str(start + 1) if start + 1 < len(names) else None,
        }
        return web.json_response(page)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        model, method = request.match_info["model"], request.match_info["method"]
        try:
            verify_signature(request, raw, service="bedrock", issued=self._issued)
            body = _checked(raw, method)
            if model in NEEDS_PROFILE:
                raise invalid(f"Invocation of model ID {model} with on-demand throughput isn't supported.")
            if model not in MODELS:
                raise invalid("The provided model identifier is invalid.")
            if method != "count-tokens":
                check(body, model)
        except AwsRefused as refused:
            self.refused.append((refused.status, str(refused)))
            return refused.response()
        self.note(request, body)
        if method == "count-tokens":
            return web.json_response({"inputTokens": 29})
        script = self.next_script()
        if script.refuse:
            made = AwsRefused(*REFUSALS[script.refuse], f"Words about {script.refuse}.").response()
            if script.retry_after_s is not None:
                made.headers["Retry-After"] = str(script.retry_after_s)
            return made
        if method == "converse":
            answer: dict[str, Any] = {
                "output": {"message": {"role": "assistant", "content": blocks_of(script)}},
                "stopReason": FINISHES[script.reason],
                "metrics": {"latencyMs": 12},
            }
            if script.counts is not None:
                answer["usage"] = usage_of(script.counts)
            headers = {"x-amzn-requestid": "aws-req-1"}
            response = web.Response(body=json.dumps(answer).encode(), content_type="application/json", headers=headers)
            return await self.whole(request, script, response)
        pieces = pieces_of(script)
        # As the real service does: the counts before the stop for tools, after it else.
        closing = [_event("messageStop", {"stopReason": FINISHES[script.reason]})]
        if script.counts is not None:
            counts = _event("metadata", {"usage": usage_of(script.counts), "metrics": {"latencyMs": 12}})
            closing.insert(0 if script.calls else 1, counts)
        return await self.stream(
            request,
            script,
            pieces,
            opening=[_event("messageStart", {"role": "assistant"})],
            closing=closing,
            malformed=event_frame("contentBlockDelta", b'{"contentBlockIndex": 0, "delta": {"te'),
            failure=exception_frame("modelStreamErrorException", b'{"message": "broke", "originalStatusCode": 500}'),
            headers={"Content-Type": "application/vnd.amazon.eventstream", "x-amzn-requestid": "aws-req-1"},
        )


def _checked(raw: bytes, method: str) -> dict[str, Any]:
    operations = {"converse": "Converse", "converse-stream": "ConverseStream", "count-tokens": "CountTokens"}
    if method not in operations:
        raise AwsRefused(404, "UnknownOperationException", "no such operation")
    try:
        body = json.loads(raw)
    except ValueError:
        raise AwsRefused(400, "SerializationException", "not JSON") from None
    shape = _MODEL.operation_model(operations[method]).input_shape
    assert shape is not None
    check_shape(body, shape)
    assert isinstance(body, dict)
    return body


def check(body: dict[str, Any], model: str) -> None:
    """Raise AwsRefused for what the service model allows but the service does not."""
    if not body.get("messages"):
        raise invalid("messages must not be empty.")
    expected = "user"
    calls: set[str] = set()
    for index, message in enumerate(body["messages"]):
        if message["role"] != expected:
            raise invalid("A conversation must alternate between user and assistant roles, and start with user.")
        expected = "assistant" if expected == "user" else "user"
        calls = _check_blocks(message["content"], calls, f"messages.{index}")
    if body["messages"][-1]["role"] == "assistant":
        _check_prefill(body["messages"][-1]["content"], body)
    tools = body.get("toolConfig")
    if tools is None and any("toolUse" in b or "toolResult" in b for m in body["messages"] for b in m["content"]):
        raise invalid("The toolConfig field must be defined when using toolUse and toolResult content blocks.")
    if tools is not None:
        named = tools.get("toolChoice", {}).get("tool", {}).get("name")
        if named is not None and named not in {t["toolSpec"]["name"] for t in tools["tools"]}:
            raise invalid("toolChoice names an unknown tool.")
    _check_thinking(body, model)


def _check_prefill(blocks: list[dict[str, Any]], body: dict[str, Any]) -> None:
    """Check that the beginning of an answer can be gone on from."""
    if "thinking" in body.get("additionalModelRequestFields", {}):
        raise invalid(
            "Your API request included an `assistant` message in the final position, which would pre-fill it."
        )
    if blocks[-1].get("text", "") != blocks[-1].get("text", "").rstrip():
        raise invalid("final assistant content cannot end with trailing whitespace")


def _check_blocks(blocks: list[dict[str, Any]], before: set[str], where: str) -> set[str]:
    """Check one turn after the calls `before`; give the calls that it makes."""
    if not blocks:
        raise invalid(f"The content field in the Message object at {where} is empty.")
    results = {block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block}
    if results != before:
        raise invalid(f"{where}: toolResult blocks must match the toolUse blocks of the turn before.")
    for call_id in (*results, *(block["toolUse"]["toolUseId"] for block in blocks if "toolUse" in block)):
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call_id):
            raise invalid(f"Value '{call_id}' at '{where}.toolUseId' failed to satisfy constraint: [a-zA-Z0-9_-]+")
    for block in blocks:
        if "text" in block and not block["text"].strip():
            raise invalid(f"The text field in the ContentBlock object at {where} is blank.")
        if "image" in block:
            data = base64.b64decode(block["image"]["source"]["bytes"])
            if not data.startswith(_MAGIC[block["image"]["format"]]):
                raise invalid(f"{where}: Could not process image")
        reasoning = block.get("reasoningContent", {}).get("reasoningText")
        if reasoning is not None and "signature" not in reasoning:
            raise invalid(f"{where}.thinking.signature: Field required")
        if reasoning is not None and not reasoning["signature"].startswith(SIGNATURE):
            raise invalid(f"{where}: Invalid `signature` in `thinking` block")
        for each in block.get("toolResult", {}).get("content", ()):
            if "text" in each and not each["text"].strip():
                raise invalid(f"The text field in the ContentBlock object at {where}.toolResult is blank.")
    return {block["toolUse"]["toolUseId"] for block in blocks if "toolUse" in block}


def _check_thinking(body: dict[str, Any], model: str) -> None:
    more = body.get("additionalModelRequestFields") or {}
    config = body.get("inferenceConfig", {})
    opus = {"thinking", "output_config", "top_k"}
    allowed = {CLAUDE: {"thinking", "top_k"}, OPUS: opus, NOVA: {"inferenceConfig"}}[model]
    if set(more) - allowed:
        raise invalid(f"Malformed input request: extraneous key {sorted(set(more) - allowed)} is not permitted")
    thinking = more.get("thinking")
    if thinking is None:
        return
    if model == OPUS:
        if thinking != {"type": "adaptive"} or more.get("output_config", {}).get("effort") not in _EFFORTS:
            raise invalid("thinking.type: this model takes adaptive thinking with an effort")
    elif set(thinking) != {"type", "budget_tokens"} or thinking["type"] != "enabled":
        raise invalid("thinking: Input should be a valid dictionary")
    elif thinking["budget_tokens"] < 1024:
        raise invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    elif thinking["budget_tokens"] >= config.get("maxTokens", 0):
        raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`")
    if config.get("temperature", 1) != 1 or "top_k" in more or config.get("topP", 1) < 0.95:
        raise invalid("`temperature` may only be set to 1 when thinking is enabled.")
    choice = body.get("toolConfig", {}).get("toolChoice", {"auto": {}})
    if "auto" not in choice:
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")
    for message in body["messages"]:
        blocks = message["content"]
        if any("toolUse" in block for block in blocks) and "reasoningContent" not in blocks[0]:
            raise invalid("Expected `thinking` or `redacted_thinking`, but found `tool_use`.")


def blocks_of(script: Script) -> list[dict[str, Any]]:
    """Return the blocks of a whole message."""
    made: list[dict[str, Any]] = []
    if script.reasoning:
        text = {"text": "".join(script.reasoning), "signature": SIGNATURE + script.mark}
        made.append({"reasoningContent": {"reasoningText": text}})
    if script.text:
        made.append({"text": "".join(script.text)})
    for call in script.calls:
        arguments = json.loads("".join(call.arguments))
        made.append({"toolUse": {"toolUseId": call.id, "name": call.name, "input": arguments}})
    return made


def pieces_of(script: Script) -> list[bytes]:
    """Return the events of a streamed message."""
    made: list[bytes] = []
    block = 0

    def delta(value: dict[str, Any]) -> None:
        # The real service pads its events, against guesses at their content from their length.
        made.append(_event("contentBlockDelta", {"contentBlockIndex": block, "delta": value, "p": "abcdefgh"}))

    def stop() -> None:
        nonlocal block
        made[-1] += _event("contentBlockStop", {"contentBlockIndex": block})
        block += 1

    for piece in script.reasoning:
        delta({"reasoningContent": {"text": piece}})
    if script.reasoning:
        delta({"reasoningContent": {"signature": SIGNATURE + script.mark}})
        stop()
    for piece in script.text:
        delta({"text": piece})
    if script.text:
        stop()
    for call in script.calls:
        start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
        made.append(_event("contentBlockStart", {"contentBlockIndex": block, "start": start}))
        for arguments in call.arguments:
            delta({"toolUse": {"input": arguments}})
        stop()
    return made


def _event(name: str, value: dict[str, Any]) -> bytes:
    return event_frame(name, json.dumps(value, ensure_ascii=False).encode())


def usage_of(counts: Counts) -> dict[str, int]:
    """Return the counts as Bedrock tells them: what came from the cache is apart."""
    made = {
        "inputTokens": counts.prompt - counts.cached - counts.written,
        "outputTokens": counts.completion,
        "totalTokens": counts.prompt + counts.completion,
    }
    if counts.cached or counts.written:
        made |= {"cacheReadInputTokens": counts.cached, "cacheWriteInputTokens": counts.written}
    return made


def _summary(name: str, types: list[str]) -> dict[str, Any]:
    """Return a foundation model as the list has it."""
    return {
        "modelId": name,
        "modelArn": f"arn:aws:bedrock:{REGION}::foundation-model/{name}",
        "inputModalities": ["TEXT", "IMAGE"],
        "outputModalities": ["TEXT"],
        "inferenceTypesSupported": types,
        "modelLifecycle": {"status": "ACTIVE"},
    }


def _profile(name: str) -> dict[str, Any]:
    """Return an inference profile as the list has it."""
    model = name.partition(".")[2]
    return {
        "inferenceProfileId": name,
        "inferenceProfileArn": f"arn:aws:bedrock:{REGION}:1:inference-profile/{name}",
        "models": [{"modelArn": f"arn:aws:bedrock:{REGION}::foundation-model/{model}"}],
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
    }
