"""Between Moa's errors and gRPC statuses: one table each way.

A failed call carries the reason twice: as `grpc-status-details-bin` (a `google.rpc.Status` with an `ErrorDetail`)
for gRPC callers, and as plain trailers that the edge's script reads.
"""

from __future__ import annotations

from urllib.parse import quote

import grpc
from google.protobuf import any_pb2
from google.rpc import status_pb2

from moa.common.v1 import error_pb2
from moa.common.v1.error_pb2 import Reason
from services.common import errors
from services.common.errors import detail_of, error_of

DETAILS_KEY = "grpc-status-details-bin"
REASON_KEY = "x-moa-reason"
PARAM_KEY = "x-moa-param"
RETRY_KEY = "retry-after"

C = grpc.StatusCode

CODE: dict[Reason.ValueType, grpc.StatusCode] = {
    error_pb2.REASON_MALFORMED: C.INVALID_ARGUMENT,
    error_pb2.REASON_INVALID_FIELD: C.INVALID_ARGUMENT,
    error_pb2.REASON_UNSUPPORTED: C.INVALID_ARGUMENT,
    error_pb2.REASON_CONTEXT_TOO_LONG: C.INVALID_ARGUMENT,
    error_pb2.REASON_CONTENT_POLICY: C.INVALID_ARGUMENT,
    error_pb2.REASON_TOO_LARGE: C.INVALID_ARGUMENT,
    error_pb2.REASON_UNSUPPORTED_MEDIA: C.INVALID_ARGUMENT,
    error_pb2.REASON_UNAUTHENTICATED: C.UNAUTHENTICATED,
    error_pb2.REASON_PERMISSION_DENIED: C.PERMISSION_DENIED,
    error_pb2.REASON_QUOTA_EXHAUSTED: C.RESOURCE_EXHAUSTED,
    error_pb2.REASON_RATE_LIMITED: C.RESOURCE_EXHAUSTED,
    error_pb2.REASON_NO_CREDIT: C.FAILED_PRECONDITION,
    error_pb2.REASON_NOT_FOUND: C.NOT_FOUND,
    error_pb2.REASON_MODEL_NOT_FOUND: C.NOT_FOUND,
    error_pb2.REASON_PROVIDER_NOT_CONFIGURED: C.NOT_FOUND,
    error_pb2.REASON_MODEL_RETIRED: C.FAILED_PRECONDITION,
    error_pb2.REASON_CONFLICT: C.ABORTED,
    error_pb2.REASON_METHOD_NOT_ALLOWED: C.UNIMPLEMENTED,
    # Upstream failures must not read as UNAVAILABLE or INTERNAL: the edge's outlier detection would eject a
    # healthy worker for its provider's fault, and clients would replay a generation.
    error_pb2.REASON_UPSTREAM_AUTH: C.FAILED_PRECONDITION,
    error_pb2.REASON_UPSTREAM_RATE_LIMITED: C.RESOURCE_EXHAUSTED,
    error_pb2.REASON_UPSTREAM_OVERLOADED: C.RESOURCE_EXHAUSTED,
    error_pb2.REASON_UPSTREAM_TIMEOUT: C.DEADLINE_EXCEEDED,
    error_pb2.REASON_UPSTREAM_BROKEN: C.ABORTED,
    error_pb2.REASON_UPSTREAM_FAILED: C.ABORTED,
    error_pb2.REASON_UPSTREAM_REJECTED: C.INVALID_ARGUMENT,
    error_pb2.REASON_UNAVAILABLE: C.UNAVAILABLE,
    error_pb2.REASON_QUEUE_FULL: C.RESOURCE_EXHAUSTED,
    error_pb2.REASON_DEADLINE_EXCEEDED: C.DEADLINE_EXCEEDED,
    error_pb2.REASON_CANCELLED: C.CANCELLED,
    error_pb2.REASON_INTERNAL: C.INTERNAL,
    error_pb2.REASON_STORAGE_FAILED: C.INTERNAL,
}

_BARE: dict[grpc.StatusCode, type[errors.MoaError]] = {
    C.CANCELLED: errors.Cancelled,
    C.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    C.UNAVAILABLE: errors.Unavailable,
    C.UNAUTHENTICATED: errors.Internal,  # between services: a wrong service credential, not the caller's key
    C.RESOURCE_EXHAUSTED: errors.TooLarge,  # gRPC's own: a message over its size limit
}


def trailers_of(error: errors.MoaError, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """Give the trailing metadata that a failed call ends with."""
    packed = any_pb2.Any()
    packed.Pack(detail_of(error, request_id))
    rich = status_pb2.Status(code=CODE[error.reason].value[0], message=error.message, details=[packed])
    trailers: list[tuple[str, str | bytes]] = [
        (DETAILS_KEY, rich.SerializeToString()),
        (REASON_KEY, errors.word(error.reason)),
    ]
    if error.param:
        trailers.append((PARAM_KEY, quote(error.param, safe="[]. ")))
    if error.retry_after_s is not None:
        trailers.append((RETRY_KEY, str(max(1, int(error.retry_after_s + 0.999)))))
    trailers.extend(error.headers)
    return tuple(trailers)


def error_from_rpc(failure: grpc.aio.AioRpcError) -> errors.MoaError:
    """Give the exception behind a failed call to another Moa service."""
    for key, value in failure.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            rich = status_pb2.Status.FromString(value)
            for packed in rich.details:
                detail = error_pb2.ErrorDetail()
                if packed.Unpack(detail):
                    return error_of(detail)
    kind = _BARE.get(failure.code(), errors.Internal)
    if kind is errors.Unavailable:
        return kind("a part of the gateway is not reachable; try again", retry_after_s=1)
    if kind is errors.TooLarge:
        return kind("a message inside the gateway was too large")
    return kind(f"a call inside the gateway failed ({failure.code().name.lower()})")
