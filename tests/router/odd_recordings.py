"""Answers as servers send them in their own ways, and with what not every caller's API has a form for.

Made by hand after the vendors' documents, and after what servers are known to send. Each says what the model said.
"""

from __future__ import annotations

from typing import Any

from tests.router.odd_anthropic import ANTHROPIC
from tests.router.recordings import HI, UNHEARD, Json, Recording, Said, chunk, piece

_USAGE: Json = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
_COUNTS: Json = {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14}
_AWS: Json = {"inputTokens": 9, "outputTokens": 5, "totalTokens": 14}
_BLOB: Json = {"mimeType": "image/png", "data": "aGk="}


def _whole(message: Json, finish: str | None = "stop", choice: Json | None = None, **more: Any) -> Json:
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "usage": _USAGE}
    given = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **(choice or {})}
    return {**head, "choices": [given], **more}


def _bare(**more: Any) -> Json:
    """Return a chunk with one choice, as it is given."""
    return {**chunk(), "choices": [{"index": 0, **more}]}


def _openai(*pieces: Json | bytes, says: Said, ends: str = "", elsewhere: str = "") -> Recording:
    """Return a stream with its end mark."""
    return Recording("openai", [*pieces, b"[DONE]"], says=says, ends=ends, elsewhere=elsewhere or ends)


def _openai_whole(answer: Json, says: Said, elsewhere: str = "") -> Recording:
    return Recording("openai", [answer], streamed=False, says=says, elsewhere=elsewhere)


_END = chunk({}, "stop")
_LAST = chunk(usage=_USAGE)
_CALLED = Said("", calls=(("f", {"a": 1}),))
_AUDIO: Json = {"id": "audio_1", "expires_at": 1, "data": "aGk=", "transcript": "Hi"}
_IMAGE: Json = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
_TOKENS: Json = {
    "content": [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}],
    "refusal": None,
}

OPENAI: dict[str, Recording] = {
    "an error as an object": _openai(
        chunk({"content": "Hi"}),
        {"object": "error", "message": "no", "type": "BadRequestError", "code": 400},
        says=HI,
        ends="upstream_rejected",
    ),
    "an error as a detail": _openai(chunk({"content": "Hi"}), {"detail": "no"}, _END, says=HI, ends="upstream_failed"),
    "an error as an event": _openai(
        chunk({"content": "Hi"}), b"event: error\ndata: no", _END, says=HI, ends="upstream_failed"
    ),
    "an error of a choice": _openai(
        chunk({"content": "Hi"}),
        chunk({}, "error", {"error": {"code": 503, "message": "no"}}),
        says=HI,
        ends="upstream_overloaded",
    ),
    "a piece of no known form": _openai(
        chunk({"content": "Hi"}), {"response": " there"}, _END, says=HI, ends="upstream_broken"
    ),
    "filters in pieces of their own": _openai(
        chunk({"role": "assistant", "content": "", "channel": "final"}),
        chunk({"content": "Hi"}),
        _bare(content_filter_results={"hate": {"filtered": False, "severity": "safe"}}, finish_reason=None),
        _bare(content_filter_offsets={"check_offset": 5}, delta={}, finish_reason="stop"),
        says=HI,
    ),
    "text beside no delta": _openai(
        _bare(text="Hi"), _bare(text=" there"), _bare(text="", finish_reason="stop"), says=Said("Hi there")
    ),
    "a message in a stream": _openai(
        _bare(delta={}, message={"role": "assistant", "content": "Hi"}), _END, _LAST, says=HI
    ),
    "a function of the old form": _openai(
        chunk({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"a"'}}),
        chunk({"function_call": {"arguments": ":1}"}}),
        chunk({}, "function_call"),
        says=_CALLED,
    ),
    "a function of the old form, whole": _openai_whole(
        _whole({"content": None, "function_call": {"name": "f", "arguments": '{"a":1}'}}, "function_call"), _CALLED
    ),
    "a custom call": _openai(
        chunk({"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}]}),
        chunk({}, "tool_calls"),
        says=Said(),
        ends=UNHEARD,
    ),
    "a call without a name": _openai(
        chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"arguments": "{}"}}]}),
        chunk({}, "tool_calls"),
        says=Said(),
        ends="upstream_broken",
    ),
    "a sound, whole": _openai_whole(_whole({"content": None, "audio": _AUDIO}), Said(), UNHEARD),
    "a sound": _openai(
        chunk({"audio": {"id": "audio_1", "transcript": "Hi"}}),
        chunk({"audio": {"data": "aGk="}}),
        chunk({"audio": {"expires_at": 1}}, "stop"),
        says=Said(),
        elsewhere=UNHEARD,
    ),
    "reasoning in its details alone": _openai(
        chunk({"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}),
        chunk({"content": "Hi"}),
        _END,
        says=Said("Hi", "hm"),
    ),
    "an image": _openai(chunk({"content": "Hi"}), chunk({"images": [_IMAGE]}), _END, _LAST, says=HI, elsewhere=UNHEARD),
    "an image, whole": _openai_whole(_whole({"content": "Hi", "images": [_IMAGE]}), HI, UNHEARD),
    "parts of a content": _openai(
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
        chunk({"content": [{"type": "text", "text": "Hi"}, {"type": "reference", "reference_ids": [1]}]}),
        chunk({"content": " there"}),
        _END,
        says=Said("Hi there", "hm"),
    ),
    "an image among parts": _openai(
        chunk({"content": [{"type": "text", "text": "Hi"}, _IMAGE]}), _END, says=HI, elsewhere=UNHEARD
    ),
    "no finish reason": _openai(chunk({"content": "Hi"}), says=HI),
    "no finish reason, whole": _openai_whole(_whole({"content": "Hi"}, None), HI),
    "a finish reason of its own": _openai(chunk({"content": "Hi"}), chunk({}, "eos"), says=HI),
    "numbers as texts": _openai(
        {**chunk({"content": "Hi"}), "id": 7},
        {
            "id": 7,
            "choices": [
                {"index": "0", "delta": {"tool_calls": [{"index": "0", "id": 5, "function": {"name": "f"}}]}},
            ],
        },
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": {"a": 1}}}]}),
        chunk({}, "tool_calls"),
        says=Said("Hi", calls=(("f", {"a": 1}),)),
    ),
    "a refusal": _openai(
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"refusal": "I can"}),
        chunk({"refusal": "not"}),
        _END,
        says=Said(refusal="I cannot"),
    ),
    "two candidates with tokens": _openai(
        chunk({"content": "Hi"}, choice={"logprobs": _TOKENS}),
        {**chunk(), "choices": [{"index": 1, "delta": {"content": "Ho"}, "finish_reason": None}]},
        _END,
        {**chunk(), "choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
        _LAST,
        says=HI,
    )._replace(candidates=2),
    "a stored answer, whole": _openai_whole(
        _whole(
            {"content": "Hi", "annotations": []},
            request_id="req_1",
            tool_choice=None,
            seed=7,
            top_p=1.0,
            temperature=1.0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            input_user="u",
            tools=None,
            metadata={"a": "b"},
            response_format=None,
            service_tier="default",
        ),
        HI,
    ),
    "a server's timings": _openai(
        chunk({"content": "Hi"}),
        chunk({}, "stop", choice={"stop_reason": 2, "token_ids": [1]}, timings={"predicted_ms": 1.5}),
        says=HI,
    ),
    "calls side by side": _openai(
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a"'}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        chunk({"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]}),
        chunk({}, "tool_calls"),
        says=Said(calls=(("f", {"a": 1}), ("g", {}))),
    ),
}


def _gemini(*pieces: Json | bytes, says: Said, ends: str = "", elsewhere: str = "") -> Recording:
    return Recording("google", list(pieces), says=says, ends=ends, elsewhere=elsewhere or ends)


_STOP: Json = {"finishReason": "STOP"}

GOOGLE: dict[str, Recording] = {
    "gemini, an image": _gemini(
        piece([{"text": "Hi"}]), piece([{"inlineData": _BLOB}], _STOP), says=HI, elsewhere=UNHEARD
    ),
    "gemini, a file": _gemini(
        piece([{"text": "Hi"}]), piece([{"fileData": {"fileUri": "https://a.b"}}], _STOP), says=HI, elsewhere=UNHEARD
    ),
    "gemini, a part of next year": _gemini(
        piece([{"text": "Hi"}]), piece([{"hologram": {"data": "x"}}], _STOP), says=HI, elsewhere=UNHEARD
    ),
    "gemini, no image": _gemini(piece([{"text": "Hi"}], {"finishReason": "NO_IMAGE"}, usageMetadata=_COUNTS), says=HI),
    "gemini, an unspecified end": _gemini(
        piece([{"text": "Hi"}], {"finishReason": "FINISH_REASON_UNSPECIFIED"}), says=HI
    ),
    "gemini, no finish reason, whole": Recording("google", [piece([{"text": "Hi"}])], streamed=False, says=HI),
    "gemini, an unexpected call": _gemini(
        piece([{"text": "Hi"}], {"finishReason": "UNEXPECTED_TOOL_CALL"}), says=HI, elsewhere="upstream_failed"
    ),
    "gemini, an error": _gemini(piece([{"text": "Hi"}], _STOP), {"detail": "no"}, says=HI, ends="upstream_failed"),
    "gemini, an error as an event": _gemini(
        piece([{"text": "Hi"}], _STOP), b"event: error\ndata: {}", says=HI, ends="upstream_failed"
    ),
    "gemini, an average alone": _gemini(piece([{"text": "Hi"}], {**_STOP, "avgLogprobs": -0.5}), says=HI),
    "gemini, a call of nothing": _gemini(
        piece([{"functionCall": {"name": "f", "args": None}}]),
        piece([{"functionCall": {"name": "g", "args": {"a": 1}}}], _STOP),
        says=Said(calls=(("f", {}), ("g", {"a": 1}))),
    ),
    "gemini, two candidates": _gemini(
        piece([{"text": "Hi"}], _STOP),
        {"candidates": [{"index": 1, "content": {"parts": [{"text": "Ho"}]}, **_STOP}]},
        says=HI,
    )._replace(candidates=2),
}


def _event(name: str, **value: Any) -> Json:
    return {name: value}


def _delta(block: int = 0, **delta: Any) -> Json:
    return _event("contentBlockDelta", contentBlockIndex=block, delta=delta)


def _converse(*pieces: Json, says: Said, ends: str = "") -> Recording:
    stop = _event("messageStop", stopReason="end_turn")
    counted = _event("metadata", usage=_AWS, metrics={"latencyMs": 1234})
    return Recording("aws", [*pieces, stop, counted], says=says, ends=ends, elsewhere=ends)


def _converse_whole(*blocks: Json, says: Said, ends: str = "", **more: Any) -> Recording:
    answer = {"output": {"message": {"role": "assistant", "content": list(blocks)}}, "stopReason": "end_turn", **more}
    answer |= {"usage": _AWS, "metrics": {"latencyMs": 1234}}
    return Recording("aws", [answer], streamed=False, says=says, ends=ends, elsewhere=ends)


_CITATION: Json = {
    "title": "t",
    "source": "s",
    "sourceContent": [{"text": "of the source"}],
    "location": {"documentChar": {"documentIndex": 0, "start": 0, "end": 9}},
}
_TOOL: Json = {"toolUseId": "c", "name": "f"}

BEDROCK: dict[str, Recording] = {
    "claude": _converse(
        _event("messageStart", role="assistant"),
        _delta(reasoningContent={"text": "hm"}),
        _delta(reasoningContent={"signature": "c2ln"}),
        _event("contentBlockStop", contentBlockIndex=0),
        _delta(1, text="Hi"),
        _event("contentBlockStart", contentBlockIndex=2, start={"toolUse": _TOOL}),
        _delta(2, toolUse={"input": '{"a":1}'}),
        says=Said("Hi", "hm", (("f", {"a": 1}),)),
    ),
    "claude, whole": _converse_whole(
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
        {"text": "Hi"},
        {"toolUse": {**_TOOL, "input": {"a": 1}}},
        says=Said("Hi", "hm", (("f", {"a": 1}),)),
        trace={"guardrail": {"actionReason": "none"}},
        additionalModelResponseFields={"stop_sequence": "END"},
        performanceConfig={"latency": "standard"},
        serviceTier={"type": "default"},
    ),
    "claude, cited": _converse(_delta(text="Hi"), _delta(citation=_CITATION), says=HI),
    "claude, cited, whole": _converse_whole(
        {"citationsContent": {"content": [{"text": "Hi"}], "citations": [_CITATION]}},
        {"text": " there"},
        says=Said("Hi there"),
    ),
    "claude, without an end, whole": _converse_whole({"text": "Hi"}, says=HI, stopReason=None),
    "converse, a tool at AWS": _converse(
        _delta(text="Hi"),
        _event(
            "contentBlockStart",
            contentBlockIndex=1,
            start={"toolUse": {**_TOOL, "type": "server_tool_use"}},
        ),
        says=HI,
        ends=UNHEARD,
    ),
    "converse, a tool's result": _converse(
        _delta(text="Hi"),
        _event("contentBlockStart", contentBlockIndex=1, start={"toolResult": {"toolUseId": "c"}}),
        says=HI,
        ends=UNHEARD,
    ),
    "converse, a block of next year": _converse(
        _delta(text="Hi"), _delta(1, hologram={"data": "x"}), says=HI, ends=UNHEARD
    ),
    **{
        f"converse, {kind}, whole": _converse_whole({"text": "Hi"}, {kind: value}, says=HI, ends=UNHEARD)
        for kind, value in {
            "image": {"format": "png", "source": {"bytes": "aGk="}},
            "audio": {"format": "wav", "source": {"bytes": "aGk="}},
            "searchResult": {"source": "s", "title": "t", "content": [{"text": "x"}]},
            "guardContent": {"text": {"text": "x"}},
            "document": {"name": "d", "source": {"text": "x"}},
        }.items()
    },
}


ODD: dict[str, Recording] = OPENAI | GOOGLE | BEDROCK | ANTHROPIC
