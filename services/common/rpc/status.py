"""Between Moa's errors and gRPC statuses: one table each way.

A failed call carries the reason twice: as `grpc-status-details-bin` (a `google.rpc.Status` with an `ErrorDetail`)
for gRPC callers, and as plain trailers that the edge's script reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
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

CODE_BY_NUMBER: Final = {code.value[0]: code for code in C}
"""gRPC's statuses."""
CODE: Final[Mapping[Reason.ValueType, grpc.StatusCode]] = {
    reason: CODE_BY_NUMBER[rule.grpc] for reason, rule in errors.RULES.items()
}
"""What a gRPC caller sees."""

GONE: Final = frozenset((C.UNAVAILABLE, C.CANCELLED))
"""What a call without words of a handler's ends with where its process goes. Cancelled is not the caller's doing, which
raises asyncio.CancelledError: a server that stops resets so what has arrived and no handler has begun, and of a hundred
calls a second there are always some."""

_BARE: dict[grpc.StatusCode, type[errors.MoaError]] = {
    C.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    **dict.fromkeys(GONE, errors.Unavailable),
    C.UNAUTHENTICATED: errors.Unavailable,  # between services: a certificate or credential, not the caller's key
    C.RESOURCE_EXHAUSTED: errors.TooLarge,  # gRPC's own: a message over its size limit
}


def trailers_of(error: errors.MoaError, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailing metadata that a failed call ends with."""
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
    """Return the exception behind a failed call to another Moa service."""
    for key, value in failure.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            rich = status_pb2.Status.FromString(value)
            for packed in rich.details:
                detail = error_pb2.ErrorDetail()
                if packed.Unpack(detail):
                    return error_of(detail)
    kind = _BARE.get(failure.code(), errors.Internal)
    if failure.code() is C.UNAUTHENTICATED:
        return kind("a part of the gateway is refused by another; its operator must look at it", retry_after_s=5)
    if kind is errors.Unavailable:
        return kind("a part of the gateway is not reachable; try again", retry_after_s=1)
    if kind is errors.TooLarge:
        return kind("a message inside the gateway was too large")
    return kind(f"a call inside the gateway failed ({failure.code().name.lower()})")
