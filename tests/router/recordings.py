"""Answers as vendors send them, with what no contract types. Made by hand after the vendors' documents."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

Json = dict[str, Any]


class Said(NamedTuple):
    """What the model said, as the first candidate of an answer: the same in every API."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, Any], ...] = ()
    """Name and arguments of each."""
    refusal: str = ""


HI: Final = Said("Hi")
UNHEARD: Final = "unsupported"
"""How an answer ends that holds what no event has a form for."""


class Recording(NamedTuple):
    """One answer: whole, or in pieces."""

    vendor: str
    pieces: list[Any]
    """JSON objects, each one event; bytes are sent as they are."""
    streamed: bool = True
    says: Said = Said()
    ends: str = ""
    """The error that the answer ends with, after what it says; empty: none."""
    elsewhere: str = ""
    """The same for callers of other APIs than the vendor's."""
    candidates: int = 1


def chunk(delta: Json | None = None, finish: str | None = None, choice: Json | None = None, **more: Any) -> Json:
    """Return a chunk of OpenAI's stream."""
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
    chunk({"role": "assistant", "content": ""}, **_OPENAI_HEAD, obfuscation="x1"),
    chunk({"content": "Hi"}, **_OPENAI_HEAD, obfuscation="x2"),
    chunk({"annotations": [_CITED]}, **_OPENAI_HEAD),
    chunk({"content": " there"}, **_OPENAI_HEAD),
    chunk({}, "stop", **_OPENAI_HEAD),
    chunk(
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
    chunk({"role": "assistant", "content": "Hi"}, choice={"content_filter_results": _SAFE}, system_fingerprint="fp_1"),
    chunk({}, "stop", choice={"content_filter_results": {}}, system_fingerprint="fp_1"),
    chunk(usage=_USAGE, system_fingerprint="fp_1"),
]
_DETAIL = {"type": "reasoning.text", "text": "hm", "format": "unknown", "index": 0}
_OPENROUTER = [
    chunk({"role": "assistant", "content": "", "reasoning": "hm", "reasoning_details": [_DETAIL]}, provider="Fast"),
    chunk({"content": "Hi"}, choice={"native_finish_reason": None}, provider="Fast"),
    chunk(
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
    chunk({}, "tool_calls", choice={"native_finish_reason": "STOP"}, provider="Fast"),
    chunk(
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


def piece(parts: list[Json] | None = None, candidate: Json | None = None, **more: Any) -> Json:
    """Return a piece of Gemini's stream, or a whole answer."""
    made: Json = {"candidates": [{"index": 0, **(candidate or {})}]}
    if parts is not None:
        made["candidates"][0]["content"] = {"role": "model", "parts": parts}
    return {**made, "modelVersion": "gemini-3-flash-001", "responseId": "r1", **more}


_COUNTS: Json = {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14}
_RATED = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]
_GROUNDED = [
    piece([{"text": "Let me ", "thought": True}], {"safetyRatings": _RATED}),
    piece([{"text": "It "}], {"safetyRatings": _RATED}),
    piece([{"text": "is 1.", "thoughtSignature": "c2ln"}]),
    piece(
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
            "totalTokenCount": 17,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
            "toolUsePromptTokenCount": 3,
            "trafficType": "ON_DEMAND",
        },
        modelStatus={"modelStage": "STABLE"},
    ),
]
_CODED = [
    piece([{"text": "It is 1."}]),
    piece([{"executableCode": {"language": "PYTHON", "code": "print(1)"}}]),
    piece([{"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}], {"finishReason": "STOP"}),
]
_SCORED: Json = piece(
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
_MALFORMED: Json = piece(
    [{"text": "I call"}],
    {"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "Malformed function call: f(a=)"},
    usageMetadata=_COUNTS,
)
_WITHHELD: Json = piece([{"text": "Once"}], {"finishReason": "RECITATION"}, usageMetadata=_COUNTS)

_HI: Final = Said("Hi")
_STOPPED: Final = "upstream_failed"

RECORDINGS: dict[str, Recording] = {
    "openai": Recording("openai", _OPENAI, says=Said("Hi there")),
    "openai, whole": Recording("openai", [_OPENAI_WHOLE], streamed=False, says=_HI),
    "azure": Recording("openai", _AZURE, says=_HI),
    "openrouter": Recording("openai", _OPENROUTER, says=Said("Hi", "hm", (("f", {}),))),
    "perplexity, whole": Recording("openai", [_PERPLEXITY], streamed=False, says=_HI),
    "gemini, grounded": Recording("google", _GROUNDED, says=Said("It is 1.", "Let me ", (("f", {"a": 1}),))),
    "gemini, coded": Recording("google", _CODED, says=Said("It is 1."), elsewhere="unsupported"),
    "gemini, scored": Recording("google", [_SCORED], streamed=False, says=_HI),
    "gemini, blocked": Recording("google", [_BLOCKED], streamed=False, elsewhere="content_policy"),
    "gemini, blocked in a stream": Recording("google", [_BLOCKED], elsewhere="content_policy"),
    "gemini, malformed call": Recording(
        "google", [_MALFORMED], streamed=False, says=Said("I call"), elsewhere=_STOPPED
    ),
    "gemini, malformed call in a stream": Recording("google", [_MALFORMED], says=Said("I call"), elsewhere=_STOPPED),
    "gemini, withheld": Recording("google", [_WITHHELD], says=Said("Once")),
}
