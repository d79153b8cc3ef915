"""What Bedrock's typed exceptions mean (botocore's `bedrock-runtime` service model, AWS common errors)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from services.common import errors
from services.providers.http import retry_after
from services.providers.http.classify import classified

CODES: Final[Mapping[str, type[errors.MoaError]]] = {
    "accessdeniedexception": errors.UpstreamAuth,
    "unrecognizedclientexception": errors.UpstreamAuth,
    "invalidsignatureexception": errors.UpstreamAuth,
    "incompletesignatureexception": errors.UpstreamAuth,
    "expiredtokenexception": errors.UpstreamAuth,
    "missingauthenticationtokenexception": errors.UpstreamAuth,
    "resourcenotfoundexception": errors.ModelNotFound,
    "validationexception": errors.UpstreamRejected,
    "throttlingexception": errors.UpstreamRateLimited,
    "servicequotaexceededexception": errors.UpstreamRateLimited,
    "serviceunavailableexception": errors.UpstreamOverloaded,
    "modelnotreadyexception": errors.UpstreamOverloaded,
    "modeltimeoutexception": errors.UpstreamTimeout,
    "modelerrorexception": errors.UpstreamFailed,
    "modelstreamerrorexception": errors.UpstreamFailed,
    "internalserverexception": errors.UpstreamFailed,
}
"""By lower-case name: HTTP errors are written `ThrottlingException`, those inside a stream `throttlingException`."""


class _Words(msgspec.Struct, rename={"capital": "Message"}):
    message: str = ""
    capital: str = ""


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> errors.MoaError:
    """Return the error behind a refusal. Its type stands in a header, as `ThrottlingException:http://…`."""
    name = headers.get("x-amzn-errortype", "").partition(":")[0]
    return failed(status, name, body, retry_after.from_headers(headers))


def failed(status: int, name: str, body: bytes, retry_after_s: float | None = None) -> errors.MoaError:
    """Return the error that an exception stands for; `status` is 0 when it came inside a stream."""
    try:
        words = msgspec.json.decode(body, type=_Words)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        words = _Words()
    detail = words.message or words.capital
    return classified(status, codes=CODES, code=name.lower(), words=detail, retry_after_s=retry_after_s)
