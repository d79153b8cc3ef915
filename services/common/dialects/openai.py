"""The errors of OpenAI's API. Its names of requests' fields stand beside the bodies, in the router."""

from __future__ import annotations

from typing import Final

from moa.common.v1 import error_pb2
from services.common.dialects.shape import BAD_REQUEST, CODES, MESSAGE, PARAM, Dialect, StreamEnd
from services.common.errors import HTTP_STATUS

_CHAT: Final = "use POST /v1/chat/completions"
_WHOLE: Final = f"conversations are not kept here; {_CHAT} with all messages"
_INLINE: Final = "files are sent inside a request here: file_data, input_audio or image_url of a message's parts"
_ONE_BY_ONE: Final = "there are no batches of requests here; send them one by one"
_SPOKEN: Final = f"no model makes or writes down speech at this path; {_CHAT} with input_audio, where a model takes it"
_LISTED: Final = "GET /v1/models lists what there is"
_USAGE: Final = "GET /account/usage tells what was used"

OPENAI: Final = Dialect(
    name="openai",
    services=("moa.router.v1.OpenAIService",),
    large=("moa.router.v1.OpenAIService",),
    strays=("/v1/",),
    # Anthropic's, and OpenAI's own of other years, among them.
    unserved={
        "/v1/completions": f"{_CHAT}, with the prompt as a user's message",
        "/v1/complete": f"{_CHAT}, with the prompt as a user's message",
        "/v1/edits": f"{_CHAT}, with the instruction and the text as a user's message",
        "/v1/chat/completions": f"answers are not kept here; {_CHAT} again",
        "/v1/assistants": _WHOLE,
        "/v1/threads": _WHOLE,
        "/v1/realtime": f"{_CHAT} with stream: true",
        "/v1/audio": _SPOKEN,
        "/v1/moderations": f"no model sorts texts by policy here; {_CHAT} and ask one",
        "/v1/rerank": "use POST /v1/embeddings, and compare the vectors",
        "/v1/batches": _ONE_BY_ONE,
        "/v1/files": _INLINE,
        "/v1/uploads": _INLINE,
        "/v1/containers": _INLINE,
        "/v1/vector_stores": "texts are not kept here; use POST /v1/embeddings, and search your own store",
        "/v1/fine_tuning": f"models are not trained here; {_LISTED}",
        "/v1/fine-tunes": f"models are not trained here; {_LISTED}",
        "/v1/evals": f"evaluations are not run here; {_CHAT}",
        "/v1/videos": f"no model makes videos here; {_LISTED}",
        "/v1/engines": _LISTED,
        "/v1/images": "use POST /v1/images/generations, /v1/images/edits or /v1/images/variations",
        "/v1/usage": _USAGE,
        "/v1/organization": _USAGE,
        "/v1/dashboard": _USAGE,
    },
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
    # Chats alone have the mark: events of images tell by their names what they are.
    stream_end=StreamEnd(mark="[DONE]"),
)
"""OpenAI's: `{"error": {"message", "type", "param", "code"}}`."""
