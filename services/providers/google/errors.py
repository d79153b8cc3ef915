"""What Google's error statuses mean (google.rpc.Code, google.rpc.ErrorInfo, google.rpc.RetryInfo)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from services.common import errors
from services.providers.http import retry_after
from services.providers.http.classify import classified

CODES: Final[Mapping[str, type[errors.MoaError]]] = {
    # ErrorInfo.reason speaks first: a wrong key is an INVALID_ARGUMENT to Google.
    "API_KEY_INVALID": errors.UpstreamAuth,
    "API_KEY_EXPIRED": errors.UpstreamAuth,
    "API_KEY_SERVICE_BLOCKED": errors.UpstreamAuth,
    "SERVICE_DISABLED": errors.UpstreamAuth,
    "BILLING_DISABLED": errors.UpstreamUnpaid,
    "UNAUTHENTICATED": errors.UpstreamAuth,
    "PERMISSION_DENIED": errors.UpstreamAuth,
    "FAILED_PRECONDITION": errors.UpstreamAuth,  # billing, or the region of the gateway's account
    "INVALID_ARGUMENT": errors.UpstreamRejected,
    "OUT_OF_RANGE": errors.UpstreamRejected,
    "NOT_FOUND": errors.ModelNotFound,
    "RESOURCE_EXHAUSTED": errors.UpstreamRateLimited,
    "UNAVAILABLE": errors.UpstreamOverloaded,
    "DEADLINE_EXCEEDED": errors.UpstreamTimeout,
    "ABORTED": errors.UpstreamFailed,
    "CANCELLED": errors.UpstreamFailed,
    "INTERNAL": errors.UpstreamFailed,
    "UNKNOWN": errors.UpstreamFailed,
}


class Detail(Struct, gc=False, rename={"kind": "@type", "retry_delay": "retryDelay"}):
    """A typed detail of an error: RetryInfo, ErrorInfo and others."""

    kind: str = ""
    reason: str | None = None
    retry_delay: str | None = None


class Failure(Struct, gc=False):
    """An error, in Google's form."""

    code: int = 0
    message: str = ""
    status: str = ""
    details: list[Detail] | None = None


class Refused(Struct, gc=False):
    """The body of a refusal."""

    error: Failure


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> errors.MoaError:
    """Return the error behind a refusal. Without `alt=sse` Google wraps it in an array."""
    try:
        failure = msgspec.json.decode(body.strip().removeprefix(b"[").removesuffix(b"]"), type=Refused).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        failure = Failure()
    return failed(status, failure, retry_after.from_headers(headers))


def failed(status: int, failure: Failure, retry_after_s: float | None = None) -> errors.MoaError:
    """Return the error that an error object stands for."""
    details = failure.details or []
    reason = next((d.reason for d in details if d.reason in CODES), None)
    for detail in details:
        if detail.retry_delay:
            retry_after_s = retry_after.from_duration(detail.retry_delay)
    return classified(
        status or failure.code,
        codes=CODES,
        code=reason or failure.status,
        words=failure.message,
        retry_after_s=retry_after_s,
    )
