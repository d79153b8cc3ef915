"""What OpenAI's typed error codes mean (platform.openai.com/docs/guides/error-codes); compatible servers share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from services.common import errors
from services.providers.http import retry_after
from services.providers.http.classify import classified

CODES: Final[Mapping[str, type[errors.MoaError]]] = {
    "context_length_exceeded": errors.ContextTooLong,
    "string_above_max_length": errors.ContextTooLong,
    "content_filter": errors.ContentPolicy,
    "content_policy_violation": errors.ContentPolicy,
    "moderation_blocked": errors.ContentPolicy,
    "invalid_prompt": errors.ContentPolicy,
    "ResponsibleAIPolicyViolation": errors.ContentPolicy,
    "model_not_found": errors.ModelNotFound,
    "NotFoundError": errors.ModelNotFound,  # vLLM
    "DeploymentNotFound": errors.ModelNotFound,  # Azure
    "invalid_api_key": errors.UpstreamAuth,
    "invalid_organization": errors.UpstreamAuth,
    "unsupported_country_region_territory": errors.UpstreamAuth,
    "insufficient_quota": errors.UpstreamUnpaid,
    "billing_hard_limit_reached": errors.UpstreamUnpaid,
    "billing_not_active": errors.UpstreamUnpaid,
    "rate_limit_exceeded": errors.UpstreamRateLimited,
    "rate_limit_error": errors.UpstreamRateLimited,
    "overloaded_error": errors.UpstreamOverloaded,
    "timeout": errors.UpstreamTimeout,
    "image_parse_error": errors.UpstreamRejected,
    "invalid_image_format": errors.UnsupportedMedia,
    "invalid_base64": errors.UpstreamRejected,
}


class Failure(Struct, gc=False):
    """An error object. Some servers write numbers as codes."""

    message: str | None = None
    type: str | None = None
    code: str | int | None = None
    param: Any = None
    innererror: Failure | None = None


class Refused(Struct, gc=False):
    """The body of a refusal. Some compatible servers put the error's fields at the top."""

    error: Failure | str | None = None
    message: str | None = None
    type: str | None = None
    code: str | int | None = None
    param: Any = None


_decode: Final = msgspec.json.Decoder(Refused).decode


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> errors.MoaError:
    """Return the error behind a refusal."""
    failure = Failure()
    try:
        refused = _decode(body)
    except msgspec.MsgspecError:
        pass
    else:
        if isinstance(refused.error, Failure):
            failure = refused.error
        else:
            failure = Failure(refused.error or refused.message, refused.type, refused.code, refused.param)
    return failed(status, failure, retry_after.from_headers(headers))


def failed(status: int, failure: Failure, retry_after_s: float | None = None) -> errors.MoaError:
    """Return the error that an error object stands for; `status` is 0 when it came inside a stream."""
    inner = str(failure.innererror.code) if failure.innererror and failure.innererror.code else ""
    candidates = (inner, str(failure.code or ""), failure.type or "")
    code = next((c for c in candidates if c in CODES), "")
    if not status and isinstance(failure.code, int | str) and str(failure.code).isdigit():
        status = int(failure.code)  # vLLM and OpenRouter put the HTTP status into the stream's error
    return classified(
        status,
        codes=CODES,
        code=code,
        words=failure.message or "",
        param=failure.param if isinstance(failure.param, str) else "",
        retry_after_s=retry_after_s,
    )
