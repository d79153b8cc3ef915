"""Answers as vendors send them, with what no contract types. Made by hand after the vendors' documents."""

from __future__ import annotations

from typing import Any, NamedTuple

Json = dict[str, Any]


class Recording(NamedTuple):
    """One answer: whole, or in pieces."""

    vendor: str
    pieces: list[Json]
    streamed: bool = True


def _chunk(delta: Json | None = None, finish: str | None = None, choice: Json | None = None, **more: Any) -> Json:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, **(choice or {})}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5.1-2026-01-02"}
    return {**head, "choices": choices, **more}


_OPENAI_HEAD: Json = {"service_tier": "default", "system_fingerprint": "fp_1"}
_CITED = {
    "type": "url_citation",
    "url_citation": {"start_index": 0, "end_index": 2, "url": "https://a.b", "title": "t"},
}
_USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
_SAFE = {"hate": {"filtered": False, "severity": "safe"}}

_OPENAI = [
    _chunk({"role": "assistant", "content": ""}, **_OPENAI_HEAD, obfuscation="x1"),
    _chunk({"content": "Hi"}, **_OPENAI_HEAD, obfuscation="x2"),
    _chunk({"annotations": [_CITED]}, **_OPENAI_HEAD),
    _chunk({"content": " there"}, **_OPENAI_HEAD),
    _chunk({}, "stop", **_OPENAI_HEAD),
    _chunk(
        **_OPENAI_HEAD,
        usage={
            **_USAGE,
            "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2, "accepted_prediction_tokens": 1},
        },
    ),
]
_OPENAI_WHOLE: Json = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5.1-2026-01-02",
    **_OPENAI_HEAD,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi", "refusal": None, "annotations": [_CITED]},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {**_USAGE, "completion_tokens_details": {"reasoning_tokens": 0, "rejected_prediction_tokens": 4}},
}
_AZURE = [
    {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
    _chunk({"role": "assistant", "content": "Hi"}, choice={"content_filter_results": _SAFE}, system_fingerprint="fp_1"),
    _chunk({}, "stop", choice={"content_filter_results": {}}, system_fingerprint="fp_1"),
    _chunk(usage=_USAGE, system_fingerprint="fp_1"),
]
_DETAIL = {"type": "reasoning.text", "text": "hm", "format": "unknown", "index": 0}
_OPENROUTER = [
    _chunk({"role": "assistant", "content": "", "reasoning": "hm", "reasoning_details": [_DETAIL]}, provider="Fast"),
    _chunk({"content": "Hi"}, choice={"native_finish_reason": None}, provider="Fast"),
    _chunk(
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                    "extra_content": {"google": {"thought_signature": "c2ln"}},
                }
            ]
        },
        provider="Fast",
    ),
    _chunk({}, "tool_calls", choice={"native_finish_reason": "STOP"}, provider="Fast"),
    _chunk(
        provider="Fast",
        usage={
            **_USAGE,
            "cost": 0.0001,
            "cost_details": {"upstream_inference_cost": 0.0001},
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 7},
        },
    ),
]
_PERPLEXITY: Json = {
    "id": "p1",
    "object": "chat.completion",
    "created": 1,
    "model": "sonar",
    "citations": ["https://a.b"],
    "search_results": [{"title": "t", "url": "https://a.b"}],
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {**_USAGE, "search_context_size": "low"},
}


def _piece(parts: list[Json] | None = None, candidate: Json | None = None, **more: Any) -> Json:
    made: Json = {"candidates": [{"index": 0, **(candidate or {})}]}
    if parts is not None:
        made["candidates"][0]["content"] = {"role": "model", "parts": parts}
    return {**made, "modelVersion": "gemini-3-flash-001", "responseId": "r1", **more}


_COUNTS: Json = {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14}
_RATED = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]
_GROUNDED = [
    _piece([{"text": "Let me ", "thought": True}], {"safetyRatings": _RATED}),
    _piece([{"executableCode": {"language": "PYTHON", "code": "print(1)"}}]),
    _piece([{"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}]),
    _piece([{"text": "It "}], {"safetyRatings": _RATED}),
    _piece([{"text": "is 1.", "thoughtSignature": "c2ln"}]),
    _piece(
        [{"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"}],
        {
            "finishReason": "STOP",
            "finishMessage": "done",
            "citationMetadata": {"citationSources": [{"uri": "https://a.b"}]},
            "groundingMetadata": {"webSearchQueries": ["q"], "groundingChunks": [{"web": {"uri": "https://a.b"}}]},
            "urlContextMetadata": {"urlMetadata": [{"retrievedUrl": "https://a.b"}]},
            "tokenCount": 5,
        },
        usageMetadata={
            **_COUNTS,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
            "toolUsePromptTokenCount": 0,
            "trafficType": "ON_DEMAND",
        },
        modelStatus={"modelStage": "STABLE"},
    ),
]
_SCORED: Json = _piece(
    [{"text": "Hi"}],
    {
        "finishReason": "STOP",
        "avgLogprobs": -0.5,
        "logprobsResult": {
            "chosenCandidates": [{"token": "Hi", "logProbability": -0.5, "tokenId": 7}],
            "topCandidates": [{"candidates": [{"token": "Hi", "logProbability": -0.5}]}],
        },
    },
    usageMetadata=_COUNTS,
    createTime="2026-01-01T00:00:00Z",
)
_BLOCKED: Json = {
    "promptFeedback": {"blockReason": "SAFETY", "safetyRatings": _RATED},
    "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
    "modelVersion": "gemini-3-flash-001",
    "responseId": "r1",
}
_MALFORMED: Json = _piece(
    [{"text": "I call"}],
    {"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "Malformed function call: f(a=)"},
    usageMetadata=_COUNTS,
)
_WITHHELD: Json = _piece([{"text": "Once"}], {"finishReason": "RECITATION"}, usageMetadata=_COUNTS)

RECORDINGS: dict[str, Recording] = {
    "openai": Recording("openai", _OPENAI),
    "openai, whole": Recording("openai", [_OPENAI_WHOLE], streamed=False),
    "azure": Recording("openai", _AZURE),
    "openrouter": Recording("openai", _OPENROUTER),
    "perplexity, whole": Recording("openai", [_PERPLEXITY], streamed=False),
    "gemini, grounded": Recording("google", _GROUNDED),
    "gemini, scored": Recording("google", [_SCORED], streamed=False),
    "gemini, blocked": Recording("google", [_BLOCKED], streamed=False),
    "gemini, blocked in a stream": Recording("google", [_BLOCKED]),
    "gemini, malformed call": Recording("google", [_MALFORMED], streamed=False),
    "gemini, malformed call in a stream": Recording("google", [_MALFORMED]),
    "gemini, withheld": Recording("google", [_WITHHELD]),
}
