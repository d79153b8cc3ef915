"""How each dialect words a failure: one table, from which the router renders in-band errors and the edge's Lua.

A dialect has an envelope (a JSON shape with placeholders), statuses where it departs from
`services.common.errors.HTTP_STATUS`, and words for each reason. `gateway.render` writes the same table into the
edge's script, so each envelope exists once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from moa.common.v1 import error_pb2
from moa.common.v1.error_pb2 import Reason
from services.common.errors import HTTP_STATUS, MoaError, word

MESSAGE: Final = "$message"
"""Placeholder for the sentence."""
PARAM: Final = "$param"
"""Placeholder for the field at fault; null when there is none."""
FIELD: Final = "$field"
"""As PARAM, but an empty string when there is none."""
STATUS: Final = "$status"
"""Placeholder for the HTTP status, a number."""
REQUEST_ID: Final = "$request_id"
"""Placeholder for the request's id."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One dialect's errors.

    `envelope` is nested dicts and lists whose leaves are literals, the placeholders above, or `"$<word>"` naming an
    entry of `words`. `words[name]` maps a reason to a literal; `defaults[name]` is the literal of every other reason.
    `variants` are envelopes of other shapes, for the reasons that a dialect words apart. `fields` gives this dialect's
    names of the contract's fields where they differ and its errors name fields.
    """

    name: str
    envelope: Mapping[str, Any]
    statuses: Mapping[Reason.ValueType, int] = field(default_factory=dict)
    words: Mapping[str, Mapping[Reason.ValueType, str | int | None]] = field(default_factory=dict)
    defaults: Mapping[str, str | int | None] = field(default_factory=dict)
    variants: Mapping[Reason.ValueType, Mapping[str, Any]] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)

    def spelled(self, param: str) -> str:
        """Give the caller's name of the field at fault (`messages[1].parts[0]`), which is named as the contract has it.

        A field that is called otherwise here stands for the whole path; `head.name` renames what is below a head.
        """
        head, *below = param.split(".")
        head_name = head.partition("[")[0]
        if head_name in self.fields:
            return self.fields[head_name]
        spelled = [head]
        for segment in below:
            name, bracket, index = segment.partition("[")
            spelled.append(self.fields.get(f"{head_name}.{name}", name) + bracket + index)
        return ".".join(spelled)

    def status(self, reason: Reason.ValueType) -> int:
        """Give the HTTP status of a reason in this dialect."""
        return self.statuses.get(reason) or HTTP_STATUS[reason]

    def render(self, error: MoaError, *, request_id: str = "") -> dict[str, Any]:
        """Give the error as this dialect's JSON object."""
        values: dict[str, Any] = {
            MESSAGE: error.message,
            PARAM: error.param or None,
            FIELD: error.param,
            STATUS: self.status(error.reason),
            REQUEST_ID: request_id,
        }
        for name, table in self.words.items():
            values[f"${name}"] = table.get(error.reason, self.defaults.get(name))
        return _filled(self.variants.get(error.reason, self.envelope), values)


def _filled(shape: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _leaf(value, values) for key, value in shape.items()}


def _leaf(shape: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(shape, Mapping):
        return _filled(shape, values)
    if isinstance(shape, list):
        return [_leaf(each, values) for each in shape]
    return values[shape] if isinstance(shape, str) and shape.startswith("$") else shape


_CODES: Final = {reason: word(reason) for reason in HTTP_STATUS}

NATIVE: Final = Dialect(
    name="native",
    envelope={"detail": MESSAGE, "code": "$code"},
    words={"code": _CODES},
)
"""The native API: `{"detail", "code"}`."""

_BAD_REQUEST = (
    error_pb2.REASON_INVALID_FIELD,
    error_pb2.REASON_UNSUPPORTED,
    error_pb2.REASON_UNSUPPORTED_MEDIA,
)

OPENAI: Final = Dialect(
    name="openai",
    envelope={"error": {"message": MESSAGE, "type": "$type", "param": PARAM, "code": "$code"}},
    statuses=dict.fromkeys(_BAD_REQUEST, 400),
    words={
        "type": {
            error_pb2.REASON_UNAUTHENTICATED: "authentication_error",
            error_pb2.REASON_PERMISSION_DENIED: "permission_error",
            error_pb2.REASON_NOT_FOUND: "not_found_error",
            error_pb2.REASON_MODEL_NOT_FOUND: "not_found_error",
            error_pb2.REASON_PROVIDER_NOT_CONFIGURED: "not_found_error",
            error_pb2.REASON_QUOTA_EXHAUSTED: "insufficient_quota",
            error_pb2.REASON_NO_CREDIT: "insufficient_quota",
            error_pb2.REASON_RATE_LIMITED: "rate_limit_error",
            error_pb2.REASON_UPSTREAM_RATE_LIMITED: "rate_limit_error",
            error_pb2.REASON_REQUEST_RUNNING: "idempotency_error",
            error_pb2.REASON_IDEMPOTENCY_KEY_REUSED: "idempotency_error",
            error_pb2.REASON_ANSWER_LOST: "idempotency_error",
            **dict.fromkeys((r for r, s in HTTP_STATUS.items() if s >= 500), "server_error"),
        },
        "code": {
            **_CODES,
            # The constants that OpenAI's own API answers with, where it has one.
            error_pb2.REASON_UNAUTHENTICATED: "invalid_api_key",
            error_pb2.REASON_QUOTA_EXHAUSTED: "insufficient_quota",
            error_pb2.REASON_RATE_LIMITED: "rate_limit_exceeded",
            error_pb2.REASON_UPSTREAM_RATE_LIMITED: "rate_limit_exceeded",
            error_pb2.REASON_CONTEXT_TOO_LONG: "context_length_exceeded",
            error_pb2.REASON_CONTENT_POLICY: "content_policy_violation",
            error_pb2.REASON_INVALID_FIELD: "invalid_value",
            error_pb2.REASON_UNSUPPORTED: "unsupported_value",
        },
    },
    defaults={"type": "invalid_request_error"},
    fields={
        "messages.parts": "content",
        "image_data": "image",
        "candidates": "n",
        "count": "n",
        "width": "size",
        "height": "size",
    },
)
"""OpenAI's: `{"error": {"message", "type", "param", "code"}}`."""

_GOOGLE_STATUS: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ABORTED",
    410: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""The canonical code of each status (google.rpc.Code's HTTP mapping, and the nearest for the rest)."""

_IN_GOOGLE: Final[Mapping[Reason.ValueType, int]] = dict.fromkeys(_BAD_REQUEST, 400)

_CONFIG: Final = "generationConfig"

GOOGLE: Final = Dialect(
    name="google",
    envelope={
        "error": {
            "code": STATUS,
            "message": MESSAGE,
            "status": "$status_word",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "$info",
                    "domain": "moa",
                    "metadata": {"field": FIELD},
                }
            ],
        }
    },
    statuses=_IN_GOOGLE,
    words={
        "status_word": {r: _GOOGLE_STATUS[_IN_GOOGLE.get(r, status)] for r, status in HTTP_STATUS.items()},
        "info": {
            **{reason: code.upper() for reason, code in _CODES.items()},
            # The constants that Google's own API answers with.
            error_pb2.REASON_UNAUTHENTICATED: "API_KEY_INVALID",
            error_pb2.REASON_RATE_LIMITED: "RATE_LIMIT_EXCEEDED",
            error_pb2.REASON_UPSTREAM_RATE_LIMITED: "RATE_LIMIT_EXCEEDED",
        },
    },
    fields={
        # The system's message is none of the contents, so the contract's indices do not count them.
        "messages": "contents",
        "prompt": "contents",
        "images": "contents",
        "image_data": "contents",
        "image_url": "contents",
        "n": f"{_CONFIG}.candidateCount",
        "count": f"{_CONFIG}.candidateCount",
        "candidates": f"{_CONFIG}.candidateCount",
        "max_tokens": f"{_CONFIG}.maxOutputTokens",
        "temperature": f"{_CONFIG}.temperature",
        "top_p": f"{_CONFIG}.topP",
        "top_k": f"{_CONFIG}.topK",
        "seed": f"{_CONFIG}.seed",
        "stop": f"{_CONFIG}.stopSequences",
        "logprobs": f"{_CONFIG}.responseLogprobs",
        "top_logprobs": f"{_CONFIG}.logprobs",
        "presence_penalty": f"{_CONFIG}.presencePenalty",
        "frequency_penalty": f"{_CONFIG}.frequencyPenalty",
        "response_format": f"{_CONFIG}.responseSchema",
        "reasoning": f"{_CONFIG}.thinkingConfig",
        "width": f"{_CONFIG}.imageConfig.imageSize",
        "height": f"{_CONFIG}.imageConfig.imageSize",
        "size": f"{_CONFIG}.imageConfig.imageSize",
        "aspect_ratio": f"{_CONFIG}.imageConfig.aspectRatio",
        "tool_choice": "toolConfig",
    },
)
"""Google's: `{"error": {"code", "message", "status", "details"}}`, a `google.rpc.Status` as its REST APIs print it."""

_KEYLESS: Final = "Invalid API key"

TASK: Final = Dialect(
    name="task",
    envelope={"code": 1, "message": MESSAGE},
    statuses=dict.fromkeys(_BAD_REQUEST, 400),
    variants={
        **{
            reason: {"code": 1, "message": "failed", "detail": MESSAGE}
            for reason in (error_pb2.REASON_MALFORMED, *_BAD_REQUEST)
        },
        error_pb2.REASON_UNAUTHENTICATED: {"code": 1, "message": _KEYLESS},
    },
)
"""The task API's creation: `{"code", "message"}`, and `detail` for a bad request."""

TASK_QUERY: Final = Dialect(
    name="task_query",
    envelope=TASK.envelope,
    statuses=TASK.statuses,
    variants={**TASK.variants, error_pb2.REASON_UNAUTHENTICATED: {"code": 401, "message": _KEYLESS}},
)
"""The task API's query, which words a bad key its own way."""

PREDICTIONS: Final = Dialect(
    name="predictions",
    envelope={"title": "$title", "detail": MESSAGE, "status": STATUS},
    # The document refuses by 400 what a model path does not take.
    statuses={error_pb2.REASON_UNSUPPORTED: 400},
    words={
        "title": {
            error_pb2.REASON_MALFORMED: "Invalid request",
            error_pb2.REASON_INVALID_FIELD: "Input validation failed",
            error_pb2.REASON_UNSUPPORTED: "Input validation failed",
            error_pb2.REASON_UNAUTHENTICATED: "Unauthenticated",
            error_pb2.REASON_PERMISSION_DENIED: "Permission denied",
            error_pb2.REASON_NO_CREDIT: "Insufficient credit",
            error_pb2.REASON_NOT_FOUND: "Not found",
            error_pb2.REASON_MODEL_NOT_FOUND: "Model not found",
            error_pb2.REASON_CONFLICT: "Conflict",
            error_pb2.REASON_IDEMPOTENCY_KEY_REUSED: "Idempotency key reused",
            error_pb2.REASON_QUOTA_EXHAUSTED: "Too many requests",
            error_pb2.REASON_RATE_LIMITED: "Too many requests",
            **dict.fromkeys((r for r, s in HTTP_STATUS.items() if s >= 500), "Internal server error"),
        }
    },
    defaults={"title": "Invalid request"},
)
"""The predictions API's: a problem, `{"title", "detail", "status"}`."""

DESK: Final = Dialect(
    name="desk",
    envelope={"error_code": "$error_code", "message": MESSAGE},
    variants={error_pb2.REASON_MALFORMED: {"detail": MESSAGE}},
    words={
        "error_code": {
            **{reason: code.upper() for reason, code in _CODES.items()},
            error_pb2.REASON_INVALID_FIELD: "INVALID_INPUT",
            error_pb2.REASON_UNSUPPORTED: "INVALID_INPUT",
            error_pb2.REASON_STORAGE_FAILED: "S3_UPLOAD_FAILED",
        }
    },
)
"""The desk API's: `{"error_code", "message"}`, and `{"detail"}` for a body that cannot be read."""

DIALECTS: Final[Mapping[str, Dialect]] = {
    d.name: d for d in (NATIVE, OPENAI, GOOGLE, TASK, TASK_QUERY, PREDICTIONS, DESK)
}
"""Every dialect by name; the edge's routes name them."""
