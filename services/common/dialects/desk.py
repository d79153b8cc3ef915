"""The desk API's errors."""

from __future__ import annotations

from typing import Final

from moa.common.v1 import error_pb2
from services.common.dialects.shape import CODES, MESSAGE, Dialect

DESK: Final = Dialect(
    name="desk",
    services=("moa.task.v1.DeskTaskService",),
    large=("moa.task.v1.DeskTaskService",),
    envelope={"error_code": "$error_code", "message": MESSAGE},
    variants={error_pb2.REASON_MALFORMED: {"detail": MESSAGE}},
    words={
        "error_code": {
            **{reason: code.upper() for reason, code in CODES.items()},
            error_pb2.REASON_INVALID_FIELD: "INVALID_INPUT",
            error_pb2.REASON_UNSUPPORTED: "INVALID_INPUT",
            error_pb2.REASON_STORAGE_FAILED: "S3_UPLOAD_FAILED",
        }
    },
)
"""The desk API's: `{"error_code", "message"}`, and `{"detail"}` for a body that cannot be read."""
