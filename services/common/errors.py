"""Every failure that Moa tells a caller about, as one exception tree.

Each class fixes one `reason` of `moa.common.v1.Reason`, whose rule in the contract says its statuses, whose fault it is
and whether it passes. How each dialect words it is `services.common.dialects`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from moa.common.v1 import error_pb2
from moa.common.v1.error_pb2 import Reason
from services.common.scrub import scrub


class MoaError(Exception):
    """A failure with a reason that the caller may know.

    Args:
        message: One sentence for the caller, without internals. It may hold a provider's words: secrets are taken out.
        param: The request field at fault, in the caller's spelling; secrets are taken out of it too.
        retry_after_s: Seconds after which a retry can succeed; None when unknown or no use.
    """

    reason: ClassVar[Reason.ValueType] = error_pb2.REASON_INTERNAL

    def __init__(self, message: str, *, param: str = "", retry_after_s: float | None = None) -> None:
        self.message = scrub(_sendable(message))
        self.param = scrub(_sendable(param))
        super().__init__(self.message)
        self.retry_after_s = retry_after_s
        self.headers: tuple[tuple[str, str], ...] = ()
        """Response headers that tell the caller more; lost when the error travels to another service."""
        self.logged = False
        """Whether what is logged of its request tells of it already."""


def _sendable(text: str) -> str:
    """Return a text without halves of surrogate pairs, which no answer can hold: callers' names may have them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class Malformed(MoaError):
    reason = error_pb2.REASON_MALFORMED


class InvalidField(MoaError):
    reason = error_pb2.REASON_INVALID_FIELD


class Unsupported(MoaError):
    reason = error_pb2.REASON_UNSUPPORTED


class ContextTooLong(MoaError):
    reason = error_pb2.REASON_CONTEXT_TOO_LONG


class ContentPolicy(MoaError):
    reason = error_pb2.REASON_CONTENT_POLICY


class TooLarge(MoaError):
    reason = error_pb2.REASON_TOO_LARGE


class UnsupportedMedia(MoaError):
    reason = error_pb2.REASON_UNSUPPORTED_MEDIA


class Unauthenticated(MoaError):
    reason = error_pb2.REASON_UNAUTHENTICATED


class PermissionDenied(MoaError):
    reason = error_pb2.REASON_PERMISSION_DENIED


class QuotaExhausted(MoaError):
    reason = error_pb2.REASON_QUOTA_EXHAUSTED


class RateLimited(MoaError):
    reason = error_pb2.REASON_RATE_LIMITED


class NoCredit(MoaError):
    reason = error_pb2.REASON_NO_CREDIT


class NotFound(MoaError):
    reason = error_pb2.REASON_NOT_FOUND


class ModelNotFound(MoaError):
    reason = error_pb2.REASON_MODEL_NOT_FOUND


class ProviderNotConfigured(MoaError):
    reason = error_pb2.REASON_PROVIDER_NOT_CONFIGURED


class ModelRetired(MoaError):
    reason = error_pb2.REASON_MODEL_RETIRED


class Conflict(MoaError):
    reason = error_pb2.REASON_CONFLICT


class MethodNotAllowed(MoaError):
    reason = error_pb2.REASON_METHOD_NOT_ALLOWED


class RequestRunning(MoaError):
    reason = error_pb2.REASON_REQUEST_RUNNING


class IdempotencyKeyReused(MoaError):
    reason = error_pb2.REASON_IDEMPOTENCY_KEY_REUSED


class AnswerLost(MoaError):
    reason = error_pb2.REASON_ANSWER_LOST


class ModelMisconfigured(MoaError):
    reason = error_pb2.REASON_MODEL_MISCONFIGURED


class UpstreamAuth(MoaError):
    reason = error_pb2.REASON_UPSTREAM_AUTH
    words: str = ""
    """What the provider said, without secrets: for the operator, never for callers."""


class UpstreamUnpaid(UpstreamAuth):
    """The operator's account with the provider has no credit left; to callers a matter of the gateway's credentials."""


class UpstreamRateLimited(MoaError):
    reason = error_pb2.REASON_UPSTREAM_RATE_LIMITED


class UpstreamOverloaded(MoaError):
    reason = error_pb2.REASON_UPSTREAM_OVERLOADED


class UpstreamTimeout(MoaError):
    reason = error_pb2.REASON_UPSTREAM_TIMEOUT


class UpstreamBroken(MoaError):
    reason = error_pb2.REASON_UPSTREAM_BROKEN


class UpstreamFailed(MoaError):
    reason = error_pb2.REASON_UPSTREAM_FAILED


class UpstreamRejected(MoaError):
    reason = error_pb2.REASON_UPSTREAM_REJECTED


class Unavailable(MoaError):
    reason = error_pb2.REASON_UNAVAILABLE


class QueueFull(MoaError):
    reason = error_pb2.REASON_QUEUE_FULL


class DeadlineExceeded(MoaError):
    reason = error_pb2.REASON_DEADLINE_EXCEEDED


class Cancelled(MoaError):
    reason = error_pb2.REASON_CANCELLED


class Internal(MoaError):
    reason = error_pb2.REASON_INTERNAL


class StorageFailed(MoaError):
    reason = error_pb2.REASON_STORAGE_FAILED


RULES: Final[Mapping[Reason.ValueType, error_pb2.ReasonRule]] = {
    reason: Reason.DESCRIPTOR.values_by_number[reason].GetOptions().Extensions[error_pb2.rule]
    for reason in Reason.values()
    if reason != error_pb2.REASON_UNSPECIFIED
}
"""What the contract says of each reason."""

HTTP_STATUS: Final[Mapping[Reason.ValueType, int]] = {reason: rule.http for reason, rule in RULES.items()}
"""What a REST caller sees, unless the dialect says otherwise (`services.common.dialects`)."""


def passes(error: MoaError) -> bool:
    """Return whether the same request may succeed later with nobody changing anything."""
    return RULES[error.reason].passing


def word(reason: Reason.ValueType) -> str:
    """Return the reason's constant name as dialects and logs print it: `quota_exhausted`."""
    return Reason.Name(reason).removeprefix("REASON_").lower()


BY_REASON: dict[Reason.ValueType, type[MoaError]] = {cls.reason: cls for cls in MoaError.__subclasses__()}
BY_WORD: dict[str, type[MoaError]] = {word(reason): cls for reason, cls in BY_REASON.items()}


def detail_of(error: MoaError, request_id: str) -> error_pb2.ErrorDetail:
    """Return the error as it travels in a status or a stream's last event."""
    detail = error_pb2.ErrorDetail(
        reason=error.reason,
        message=error.message,
        param=error.param,
        request_id=request_id,
        http_status=HTTP_STATUS[error.reason],
    )
    if error.retry_after_s is not None:
        detail.retry_after.FromMilliseconds(int(error.retry_after_s * 1000))
    return detail


def error_of(detail: error_pb2.ErrorDetail) -> MoaError:
    """Return the exception that a travelled error stands for."""
    kind = BY_REASON.get(detail.reason, Internal)
    retry = detail.retry_after.ToMilliseconds() / 1000 if detail.HasField("retry_after") else None
    return kind(detail.message, param=detail.param, retry_after_s=retry)
