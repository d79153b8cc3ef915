"""Anthropic's Messages API, as strict as the real one: fields, types and words of its reference, and the models' rules.

platform.claude.com/docs/en/api/messages, …/models/list, …/errors, build-with-claude/extended-thinking and streaming.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from tests.emulators.anthropic_batches import Batches
from tests.emulators.anthropic_requests import MODELS, SIGNATURE, Refused, check_headers, counted, created
from tests.emulators.base import Emulator, Seen
from tests.emulators.script import Counts, Script

FINISHES = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}
REFUSALS: Mapping[str, tuple[int, str]] = {
    "upstream_auth": (401, "authentication_error"),
    "model_not_found": (404, "not_found_error"),
    "upstream_rejected": (400, "invalid_request_error"),
    "upstream_rate_limited": (429, "rate_limit_error"),
    "upstream_failed": (500, "api_error"),
    "upstream_overloaded": (529, "overloaded_error"),
    "upstream_timeout": (504, "timeout_error"),
}


class AnthropicEmulator(Emulator):
    """`/v1/messages`, `/v1/messages/count_tokens` and `/v1/models`."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = Batches(lambda: self.url, self._batched)

    def _batched(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the message that answers a request of a batch."""
        self.seen.append(Seen("/v1/messages/batches", {}, body, ("", 0)))
        script = self.next_script()
        counts = script.counts or Counts()
        return {**_message(body), "content": blocks_of(script), **ended(script), "usage": usage_of(counts)}

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [
            *self.batches.routes(),
            web.post("/v1/messages", self._create),
            web.post("/v1/messages/count_tokens", self._count),
            web.get("/v1/models", self._list),
        ]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        try:
            check_headers(request)
        except Refused as refused:
            return self._refusal(refused)
        after = request.query.get("after_id")
        start = MODELS.index(after) + 1 if after else 0
        page = MODELS[start : start + 1]  # whatever `limit` says, so that there are pages
        made = {"data": [_described(name) for name in page], "has_more": start + 1 < len(MODELS)}
        return web.json_response({**made, "first_id": page[0], "last_id": page[-1]})

    def _refusal(self, refused: Refused) -> web.Response:
        self.refused.append((refused.status, str(refused)))
        return refused.response()

    async def _count(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await counted(request)
        except Refused as refused:
            return self._refusal(refused)
        self.note(request, body)
        return web.json_response({"input_tokens": 23})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await created(request)
        except Refused as refused:
            return self._refusal(refused)
        self.note(request, body)
        script = self.next_script()
        if script.refuse:
            made = Refused(*REFUSALS[script.refuse], f"Words about {script.refuse}.").response()
            if script.retry_after_s is not None:
                made.headers["retry-after"] = str(script.retry_after_s)
            return made
        headers = {"request-id": "req_1"}
        if not body.get("stream"):
            answer = {**_message(body), "content": blocks_of(script), **ended(script)}
            if script.counts is not None:
                answer["usage"] = usage_of(script.counts)
            response = web.Response(body=json.dumps(answer).encode(), content_type="application/json", headers=headers)
            return await self.whole(request, script, response)
        begun, last = _message(body), {"type": "message_delta", "delta": ended(script)}
        if script.counts is not None:
            counts = usage_of(script.counts)
            begun["usage"] = {**counts, "output_tokens": 1}
            # The end tells the completion's alone, or all again as null.
            last["usage"] = {name: counts[name] if name.startswith("output") else None for name in counts}
        opening = [event({"type": "message_start", "message": begun}), event({"type": "ping"})]
        return await self.stream(
            request,
            script,
            pieces_of(script),
            opening=opening,
            closing=[event(last) + event({"type": "message_stop"})],
            malformed=b'event: content_block_delta\ndata: {"type": "content_block_delta", "ind\n\n',
            failure=event({"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}),
            headers={"Content-Type": "text/event-stream; charset=utf-8", **headers},
        )


def _message(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as it begins."""
    made = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": []}
    return {**made, "stop_reason": None, "stop_sequence": None}


def ended(script: Script) -> dict[str, Any]:
    """Return how a message ended."""
    made: dict[str, Any] = {"stop_reason": FINISHES[script.reason], "stop_sequence": None}
    if script.refusal:
        made["stop_details"] = {"type": "refusal", "category": None, "explanation": script.refusal}
    return made


def blocks_of(script: Script) -> list[dict[str, Any]]:
    """Return the blocks of a whole message."""
    made: list[dict[str, Any]] = []
    if script.reasoning:
        signature = SIGNATURE + script.mark
        made.append({"type": "thinking", "thinking": "".join(script.reasoning), "signature": signature})
    if script.text:
        made.append({"type": "text", "text": "".join(script.text), "citations": None})
    for call in script.calls:
        arguments = json.loads("".join(call.arguments))
        made.append({"type": "tool_use", "id": call.id, "name": call.name, "input": arguments})
    return made


def pieces_of(script: Script) -> list[bytes]:
    """Return the events of a streamed message, a script's piece each; a block's beginning and end go with a piece."""
    made: list[bytes] = []
    place = 0

    def block(start: dict[str, Any], deltas: Sequence[dict[str, Any]], *, joined: int = 0) -> None:
        nonlocal place
        events = [event({"type": "content_block_delta", "index": place, "delta": delta}) for delta in deltas] or [b""]
        events[0] = event({"type": "content_block_start", "index": place, "content_block": start}) + events[0]
        events[-1] += event({"type": "content_block_stop", "index": place})
        made.extend(events[: len(events) - joined])
        for more in events[len(events) - joined :]:
            made[-1] += more
        place += 1

    if script.reasoning:
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in script.reasoning]
        signed = {"type": "signature_delta", "signature": SIGNATURE + script.mark}
        block({"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signed], joined=1)
    if script.text:
        block({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in script.text])
    for call in script.calls:
        arguments = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *call.arguments)]
        block({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}, arguments)
    return made


def event(value: Mapping[str, Any]) -> bytes:
    """Return a server-sent event, named as its type."""
    return f"event: {value['type']}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def usage_of(counts: Counts) -> dict[str, Any]:
    """Return the counts as Anthropic tells them: what came from the cache is apart."""
    return {
        "input_tokens": counts.prompt - counts.cached - counts.written,
        "cache_creation_input_tokens": counts.written,
        "cache_read_input_tokens": counts.cached,
        "output_tokens": counts.completion,
        "output_tokens_details": {"thinking_tokens": counts.reasoning},
    }


def _described(name: str) -> dict[str, Any]:
    """Return a model as the list has it."""
    able = {"image_input": {"supported": True}, "structured_outputs": {"supported": True}}
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2026-01-02T00:00:00Z",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
        "capabilities": {**able, "thinking": {"supported": True}},
    }
