"""The errors of OpenAI's Responses API, which its other paths have too; its streams end in an event of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.common.dialects.openai import OPENAI
from services.common.dialects.shape import StreamEnd

_WHOLE: Final = "use POST /v1/responses, and GET, DELETE, /cancel and /input_items of /v1/responses/{id}"

RESPONSES: Final = replace(
    OPENAI,
    name="responses",
    services=("moa.router.v1.ResponsesService",),
    large=("moa.router.v1.ResponsesService",),
    strays=("/v1/responses", "/v1/conversations"),
    unserved={
        "/v1/responses/compact": "conversations are not shortened here; send fewer items, or use truncation at OpenAI",
        "/v1/responses": _WHOLE,
        "/v1/conversations": "use POST /v1/conversations, and /items of /v1/conversations/{id}",
    },
    # `response.completed`, `response.incomplete` or `response.failed` is the last event.
    stream_end=StreamEnd(),
)
"""OpenAI's: `{"error": {"message", "type", "param", "code"}}`."""
