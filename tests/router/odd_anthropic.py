"""Answers of Anthropic's Messages in its own ways, as `odd_recordings` has those of others."""

from __future__ import annotations

from typing import Any

from tests.router.recordings import HI, UNHEARD, Json, Recording, Said


def _piece(kind: str, place: int = 0, **fields: Any) -> Json:
    return {"type": "content_block_delta", "index": place, "delta": {"type": kind, **fields}}


def _start(place: int = 0, **block: Any) -> Json:
    return {"type": "content_block_start", "index": place, "content_block": block}


_HEAD: Json = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-5-5"}


_MESSAGE: Json = {**_HEAD, "content": [], "stop_reason": None, "stop_sequence": None}


_BEGUN: Json = {"input_tokens": 5, "cache_read_input_tokens": 0, "service_tier": "standard", "inference_geo": "eu"}


_SEARCH: Json = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}


_SOURCE: Json = {"type": "char_location", "cited_text": "so it is", "document_index": 0, "document_title": "A book"}


def _messages(
    *pieces: Json, says: Said, ends: str = "", elsewhere: str | None = None, stop: str = "end_turn"
) -> Recording:
    begun = {"type": "message_start", "message": {**_MESSAGE, "usage": {**_BEGUN, "output_tokens": 1}}}
    stopped = {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 7}}
    events = [begun, {"type": "ping"}, *pieces, stopped, {"type": "message_stop"}]
    return Recording("anthropic", events, says=says, ends=ends, elsewhere=ends if elsewhere is None else elsewhere)


def _messages_whole(*blocks: Json, says: Said, elsewhere: str = "", stop: str | None = "end_turn") -> Recording:
    answer = {**_HEAD, "content": list(blocks), "stop_reason": stop, "usage": {**_BEGUN, "output_tokens": 7}}
    return Recording("anthropic", [answer], streamed=False, says=says, elsewhere=elsewhere)


ANTHROPIC: dict[str, Recording] = {
    "anthropic": _messages(
        _start(type="thinking", thinking="", signature=""),
        _piece("thinking_delta", thinking="hm"),
        _piece("signature_delta", signature="c2ln"),
        {"type": "content_block_stop", "index": 0},
        _start(1, type="text", text=""),
        _piece("text_delta", 1, text="Hi"),
        _piece("citations_delta", 1, citation=_SOURCE),
        _start(2, type="tool_use", id="c", name="f", input={}),
        _piece("input_json_delta", 2, partial_json='{"a":1}'),
        says=Said("Hi", "hm", (("f", {"a": 1}),)),
        stop="tool_use",
    ),
    "anthropic, whole": _messages_whole(
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "Hi", "citations": [_SOURCE]},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
        says=Said("Hi", "hm", (("f", {"a": 1}),)),
        stop="tool_use",
    ),
    "anthropic, two texts": _messages(
        _start(type="text", text=""),
        _piece("text_delta", text="H"),
        _start(1, type="text", text=""),
        _piece("text_delta", 1, text="i"),
        says=HI,
    ),
    "anthropic, without an end, whole": _messages_whole({"type": "text", "text": "Hi"}, says=HI, stop=None),
    "anthropic, a tool of its own": _messages(
        _piece("text_delta", text="Hi"), _start(1, **_SEARCH), says=HI, elsewhere=UNHEARD
    ),
    "anthropic, a tool of its own, whole": _messages_whole(
        {"type": "text", "text": "Hi"}, _SEARCH, says=HI, elsewhere=UNHEARD
    ),
    "anthropic, a piece of next year": _messages(
        _piece("text_delta", text="Hi"), _piece("hologram_delta", 0, data="x"), says=HI, elsewhere=UNHEARD
    ),
    "anthropic, a pause": _messages(
        _piece("text_delta", text="Hi"), says=HI, stop="pause_turn", elsewhere="upstream_failed"
    ),
    "anthropic, an error": _messages(
        _piece("text_delta", text="Hi"),
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        says=HI,
        ends="upstream_overloaded",
    ),
}
