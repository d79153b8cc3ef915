"""The errors of OpenAI's API."""

from __future__ import annotations

from typing import Final

from moa.common.v1 import error_pb2
from services.common.dialects.shape import BAD_REQUEST, CODES, MESSAGE, PARAM, Dialect, StreamEnd
from services.common.errors import HTTP_STATUS

OPENAI: Final = Dialect(
    name="openai",
    services=("moa.router.v1.OpenAIService",),
    large=("moa.router.v1.OpenAIService",),
    strays="/v1/",
    envelope={"error": {"message": MESSAGE, "type": "$type", "param": PARAM, "code": "$code"}},
    statuses=dict.fromkeys(BAD_REQUEST, 400),
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
            **CODES,
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
        "texts": "input",
        "token_lists": "input",
        "tool_choice.parallel": "parallel_tool_calls",
        "reasoning.effort": "reasoning_effort",
        "reasoning.budget_tokens": "reasoning_effort",
        "response_format.kind": "response_format.type",
        "response_format.schema_json": "response_format.json_schema.schema",
    },
    # Chats alone have the mark: events of images tell by their names what they are.
    stream_end=StreamEnd(mark="[DONE]"),
)
"""OpenAI's: `{"error": {"message", "type", "param", "code"}}`."""
