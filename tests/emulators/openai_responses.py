"""OpenAI's Responses API, as strict as the real one: types from the `openai` package, rules from its API reference.

It stores nothing, and so takes no item by its id, and reasoning with what is sealed alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from openai.types.responses import response_create_params as params

from tests.emulators import shapes
from tests.emulators.openai import MODELS, OpenAIEmulator, Refused, invalid, json_of
from tests.emulators.script import Counts, Script

SEALED = "gAAAAAB-sealed-"
"""How what stands for the emulator's reasoning begins; it is checked to the letter."""
_NUMBERS = {"temperature": (0, 2), "top_p": (0, 1), "max_output_tokens": (16, None), "top_logprobs": (0, 20)}
_REASONING_MODELS = ("o1", "o3", "o4", "gpt-5", "gpt-6")
_IDS = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}
_WORDS = {"function_call": "arguments", "custom_tool_call": "input"}

Json = dict[str, Any]


class ResponsesEmulator(OpenAIEmulator):
    """`POST /v1/responses`, beside what OpenAI has."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [web.post("/v1/responses", self.responses), *super().routes()]

    async def responses(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation."""
        try:
            body = await self.response_of(request)
        except Refused as refused:
            return self.refusal(refused)
        self.note(request, body)
        script = self.next_script()
        if script.refuse:
            status, error = self.refusals[script.refuse]
            headers = {"Retry-After": str(script.retry_after_s)} if script.retry_after_s is not None else {}
            error = {"message": f"Words about {script.refuse}.", "param": None, **error}
            return web.json_response({"error": error}, status=status, headers={"x-request-id": "req_1", **headers})
        told = Told(body, script)
        if not body.get("stream"):
            made = web.json_response(told.response(), headers={"x-request-id": "req_1"})
            made.body = made.text.encode() if made.text else b""
            return await self.whole(request, script, made)
        opening, pieces, closing = told.events()
        return await self.stream(
            request,
            script,
            pieces,
            opening=opening,
            closing=closing,
            malformed=b'event: response.output_text.delta\ndata: {"type": "response.output_te\n\n',
            failure=told.failure(),
            headers={"Content-Type": "text/event-stream; charset=utf-8", "x-request-id": "req_1"},
        )

    async def response_of(self, request: web.Request) -> Json:
        """Return the request's body. Raises Refused."""
        self.check_key(request)
        body: Json = await json_of(request)
        check(body, models=self.models())
        return body

    def models(self) -> frozenset[str]:
        """Return the models that there are."""
        return MODELS | self.newer


class Told:
    """What a script says, as this API tells it."""

    def __init__(self, body: Json, script: Script) -> None:
        self._body, self._script = body, script
        self._spaces = spaces_of(body)
        self._custom = {name for name, (_, kind) in self._spaces.items() if kind == "custom"}
        self._sequence = 0

    def items(self) -> list[tuple[Json, list[tuple[str, str]]]]:
        """Return the whole items, each with its pieces: the event's name, and what it says."""
        script, found = self._script, []
        if script.reasoning:
            text = "".join(script.reasoning)
            summary = bool((self._body.get("reasoning") or {}).get("summary"))
            # Without a wish for a summary open models show what they think; OpenAI's own show nothing.
            item: Json = {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}] if summary else []}
            if not summary:
                item["content"] = [{"type": "reasoning_text", "text": text}]
            item["encrypted_content"] = SEALED + script.mark
            name = "reasoning_summary_text" if summary else "reasoning_text"
            found.append((item, [(name, piece) for piece in script.reasoning]))
        content, pieces = [], []
        if script.text:
            text = "".join(script.text)
            content.append({"type": "output_text", "text": text, "annotations": [], "logprobs": self._logprobs(text)})
            pieces += [("output_text", piece) for piece in script.text]
        if script.refusal:
            content.append({"type": "refusal", "refusal": script.refusal})
            pieces.append(("refusal", script.refusal))
        if content:
            found.append(({"type": "message", "role": "assistant", "content": content}, pieces))
        for call in script.calls:
            kind = "custom_tool_call" if call.name in self._custom else "function_call"
            name = "custom_tool_call_input" if call.name in self._custom else "function_call_arguments"
            space = self._spaces.get(call.name, ("", ""))[0]
            item = {"type": kind, "call_id": call.id, "name": call.name, _WORDS[kind]: "".join(call.arguments)}
            if space:
                item["namespace"] = space
            found.append((item, [(name, piece) for piece in call.arguments]))
        for index, (item, _) in enumerate(found):
            item |= {"id": f"{_IDS[item['type']]}_{index}", "status": "completed"}
        return found

    def _logprobs(self, text: str) -> list[Json]:
        if "message.output_text.logprobs" not in (self._body.get("include") or ()):
            return []
        entry = {"token": text, "logprob": -0.5, "bytes": list(text.encode())}
        return [{**entry, "top_logprobs": [entry]}]

    def response(self, status: str = "") -> Json:
        """Return the response; whole, or with a status as it is before its end."""
        script = self._script
        cut = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(script.finish)
        asked: Json = {name: self._body[name] for name in ("instructions", "tools") if name in self._body}
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "status": status or ("incomplete" if cut else "completed"),
            "model": self._body["model"],
            "output": [] if status else [item for item, _ in self.items()],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "error": None,
            "incomplete_details": {"reason": cut} if cut and not status else None,
            "usage": usage_of(script.counts) if script.counts is not None and not status else None,
            **asked,
        }

    def failure(self) -> bytes:
        """Return the event of a failure of the server."""
        error = {"code": "server_error", "message": "The server had an error."}
        return self._event("response.failed", response={**self.response("failed"), "error": error})

    def events(self) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Return what opens a stream, its pieces, of which each says something of the script, and what closes it."""
        opening = [
            self._event(f"response.{name}", response=self.response("in_progress"))
            for name in ("created", "in_progress")
        ]
        pieces, tail = [], b""
        for index, (item, said) in enumerate(self.items()):
            parts = self._parts(index, item, said)
            pieces += [tail + parts[0], *parts[1:-1]]
            tail = parts[-1]
        end = self.response()
        return opening, pieces, [tail + self._event(f"response.{end['status']}", response=end)]

    def _parts(self, index: int, item: Json, said: list[tuple[str, str]]) -> list[bytes]:
        """Return an item's events, each piece in one, and what ends it."""
        empty: Json = {"content": [], "summary": [], "arguments": "", "input": "", "encrypted_content": None}
        begun = {**item, **{name: value for name, value in empty.items() if name in item}, "status": "in_progress"}
        place = {"item_id": item["id"], "output_index": index}
        head = self._event("response.output_item.added", output_index=index, item=begun)
        if said[0][0] == "reasoning_summary_text":
            part = {"type": "summary_text", "text": ""}
            head += self._event("response.reasoning_summary_part.added", **place, summary_index=0, part=part)
        made = []
        for kind, piece in said:
            where: Json = {"summary_index": 0} if kind == "reasoning_summary_text" else {}
            if kind == "reasoning_text":
                where["content_index"] = 0
            if kind in ("output_text", "refusal"):
                where = {"content_index": 0 if kind == "output_text" else len(item["content"]) - 1}
            if kind == "output_text":
                where["logprobs"] = self._logprobs(piece)
            made.append(self._event(f"response.{kind}.delta", **place, **where, delta=piece))
        return [head + made[0], *made[1:], self._event("response.output_item.done", output_index=index, item=item)]

    def _event(self, kind: str, **fields: Any) -> bytes:
        value = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return f"event: {kind}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def spaces_of(body: Json) -> dict[str, tuple[str, str]]:
    """Return the namespace and the kind of each tool that is offered, by its name: beside the items or in one."""
    items = body["input"] if isinstance(body.get("input"), list) else []
    offered = [*(body.get("tools") or ()), *(tool for item in items for tool in item.get("tools", ()))]
    found = {tool["name"]: ("", tool["type"]) for tool in offered if "name" in tool and tool["type"] != "namespace"}
    for space in offered:
        if space["type"] == "namespace":
            found |= {tool["name"]: (space["name"], tool["type"]) for tool in space["tools"]}
    return found


def usage_of(counts: Counts) -> Json:
    """Return a usage object."""
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": counts.written},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.prompt + counts.completion,
    }


def check(body: Any, *, models: frozenset[str]) -> None:
    """Raise Refused, as the service would, for a request that is wrong."""
    if not isinstance(body, dict):
        raise invalid("The body must be an object.", None)
    hint = (
        params.ResponseCreateParamsStreaming if body.get("stream") is True else params.ResponseCreateParamsNonStreaming
    )
    try:
        shapes.check(_with_ids(body), hint)
    except shapes.Wrong as wrong:
        code = {"unknown": "unknown_parameter", "missing": "missing_required_parameter"}.get(wrong.kind, "invalid_type")
        raise invalid(f"Invalid: {wrong.message}.", wrong.path, code) from None
    if body.get("model") not in models:
        raise Refused(404, "The model does not exist.", kind="invalid_request_error", code="model_not_found")
    for name, (low, high) in _NUMBERS.items():
        value = body.get(name)
        if value is not None and (value < low or (high is not None and value > high)):
            raise invalid(f"Invalid '{name}': out of range.", name, "integer_below_min_value")
    if body.get("store") is not False:
        raise invalid("This organisation stores nothing.", "store")
    thinks = body["model"].startswith(_REASONING_MODELS)
    for name in ("temperature", "top_p") if thinks else ("reasoning",):
        if name in body:
            raise invalid(f"Unsupported parameter: '{name}'.", name, "unsupported_parameter")
    form = ((body.get("text") or {}).get("format") or {}).get("type")
    if form == "json_object" and "json" not in json.dumps(body["input"]).lower():
        raise invalid("'input' must contain the word 'json' to use 'json_object'.", "input")
    _check_tools(body)
    _check_items(body["input"])


def _with_ids(body: Json) -> Json:
    """Return a body whose reasoning has ids, which its type wants and the service does without where it is sealed."""
    items = body.get("input")
    if not isinstance(items, list):
        return body
    named = [{"id": "rs_x", **item} if item.get("type") == "reasoning" else item for item in items]
    return {**body, "input": named}


def _check_tools(body: Json) -> None:
    names = {(tool["type"], tool.get("name")) for tool in body.get("tools") or ()}
    choice = body.get("tool_choice")
    if (choice is not None or "parallel_tool_calls" in body) and not names:
        raise invalid("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if isinstance(choice, dict) and (choice["type"], choice.get("name")) not in names:  # of mcp the server is named
        raise invalid("Tool choice not found in 'tools'.", "tool_choice")


def _check_items(items: Any) -> None:
    if not items:
        raise invalid("Missing required parameter: 'input'.", "input", "missing_required_parameter")
    calls: dict[str, str] = {}
    for index, item in enumerate(items if isinstance(items, list) else ()):
        where, kind = f"input[{index}]", item.get("type", "message")
        if kind == "reasoning":
            sealed = item.get("encrypted_content") or ""
            if "id" in item or not sealed.startswith(SEALED):
                raise invalid("The encrypted content could not be verified.", where, "invalid_encrypted_content")
        elif kind in _WORDS:
            calls[item["call_id"]] = kind
        elif kind.endswith("_call_output") and calls.pop(item["call_id"], "") != kind.removesuffix("_output"):
            raise invalid(f"No tool call found for {kind} with call_id {item['call_id']}.", where)
        for part in item["content"] if isinstance(item.get("content"), list) else ():
            if part["type"] == "input_image" and not part["image_url"].startswith(("data:image/", "https://")):
                raise invalid("Invalid image.", where, "invalid_image_url")
    if calls:
        raise invalid(f"No tool output found for {next(iter(calls))}.", "input")
