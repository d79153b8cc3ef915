"""The task API's errors."""

from __future__ import annotations

from typing import Final

from moa.common.v1 import error_pb2
from services.common.dialects.shape import BAD_REQUEST, MESSAGE, Dialect

_KEYLESS: Final = "Invalid API key"

TASK: Final = Dialect(
    name="task",
    services=("moa.task.v1.ImageTaskService",),
    large=("moa.task.v1.ImageTaskService",),
    envelope={"code": 1, "message": MESSAGE},
    statuses=dict.fromkeys(BAD_REQUEST, 400),
    variants={
        **{
            reason: {"code": 1, "message": "failed", "detail": MESSAGE}
            for reason in (error_pb2.REASON_MALFORMED, *BAD_REQUEST)
        },
        error_pb2.REASON_UNAUTHENTICATED: {"code": 1, "message": _KEYLESS},
    },
)
"""The task API's creation: `{"code", "message"}`, and `detail` for a bad request."""

TASK_QUERY: Final = Dialect(
    name="task_query",
    services=("moa.task.v1.ImageTaskQueryService",),
    envelope=TASK.envelope,
    statuses=TASK.statuses,
    variants={**TASK.variants, error_pb2.REASON_UNAUTHENTICATED: {"code": 401, "message": _KEYLESS}},
)
"""The task API's query, which words a bad key its own way."""
