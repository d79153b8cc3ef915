"""The predictions API's errors."""

from __future__ import annotations

from typing import Final

from moa.common.v1 import error_pb2
from services.common.dialects.shape import MESSAGE, STATUS, Dialect
from services.common.errors import HTTP_STATUS

PREDICTIONS: Final = Dialect(
    name="predictions",
    services=("moa.task.v1.PredictionService",),
    large=("moa.task.v1.PredictionService",),
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
