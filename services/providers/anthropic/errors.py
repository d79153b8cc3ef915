"""What Anthropic's types of errors mean (platform.claude.com/docs/en/api/errors)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from services.common import errors
from services.providers.http import retry_after
from services.providers.http.classify import classified

CODES: Final[Mapping[str, type[errors.MoaError]]] = {
    "invalid_request_error": errors.UpstreamRejected,
    "authentication_error": errors.UpstreamAuth,
    "billing_error": errors.UpstreamUnpaid,
    "permission_error": errors.UpstreamAuth,
    "not_found_error": errors.ModelNotFound,
    "conflict_error": errors.UpstreamFailed,
    "request_too_large": errors.TooLarge,
    "rate_limit_error": errors.UpstreamRateLimited,
    "api_error": errors.UpstreamFailed,
    "timeout_error": errors.UpstreamTimeout,
    "overloaded_error": errors.UpstreamOverloaded,
}


class Failure(Struct, gc=False):
    """An error."""

    type: str | None = None
    message: str | None = None


class Refused(Struct, gc=False):
    """The body of a refusal, and the data of an `error` event."""

    error: Failure


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> errors.MoaError:
    """Return the error behind a refusal."""
    try:
        failure = msgspec.json.decode(body, type=Refused).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        failure = Failure()
    return failed(status, failure, retry_after.from_headers(headers))


def failed(status: int, failure: Failure, retry_after_s: float | None = None) -> errors.MoaError:
    """Return the error that an error object stands for; `status` is 0 when it came inside a stream."""
    return classified(
        status, codes=CODES, code=failure.type or "", words=failure.message or "", retry_after_s=retry_after_s
    )
