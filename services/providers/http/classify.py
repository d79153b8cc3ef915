"""Turn a provider's refusal into one typed error: by HTTP status, then by the provider's typed code, never by prose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.common import errors
from services.common.scrub import scrub

MAX_WORDS: Final = 500
"""Longest piece of a provider's own text that is passed on, in characters."""
MAX_NAME: Final = 200
"""Longest name of a field, a code or a reason that is passed on."""

Codes = Mapping[str, type[errors.MoaError]]

_BY_STATUS: Final[Mapping[int, type[errors.MoaError]]] = {
    400: errors.UpstreamRejected,
    401: errors.UpstreamAuth,
    402: errors.UpstreamUnpaid,
    403: errors.UpstreamAuth,
    404: errors.UpstreamFailed,  # a wrong address; a missing model has a typed code
    408: errors.UpstreamTimeout,
    409: errors.UpstreamFailed,
    413: errors.TooLarge,
    415: errors.UnsupportedMedia,
    422: errors.UpstreamRejected,
    424: errors.UpstreamFailed,
    429: errors.UpstreamRateLimited,
    499: errors.UpstreamFailed,
    503: errors.UpstreamOverloaded,
    504: errors.UpstreamTimeout,
    524: errors.UpstreamTimeout,
    529: errors.UpstreamOverloaded,
}

_SENTENCE: Final[Mapping[type[errors.MoaError], str]] = {
    errors.UpstreamAuth: "the provider refused the gateway's credentials",
    errors.UpstreamUnpaid: "the gateway's account with the provider has no credit left",
    errors.UpstreamFailed: "the provider failed",
    errors.UpstreamTimeout: "the provider did not answer in time",
    errors.UpstreamOverloaded: "the provider is overloaded; try again",
    errors.UpstreamRateLimited: "the provider limits the gateway's rate; try again later",
    errors.ModelNotFound: "the provider does not have this model",
    errors.UpstreamRejected: "the provider rejected the request",
    errors.ContextTooLong: "the prompt does not fit the model's context",
    errors.ContentPolicy: "the provider refused the request for its content policy",
    errors.TooLarge: "the request is larger than the provider allows",
    errors.UnsupportedMedia: "the provider does not take this kind of file",
    errors.UpstreamBroken: "the provider's answer broke off",
}

_ABOUT_THE_CALLER: Final = (
    errors.UpstreamRejected,
    errors.ContextTooLong,
    errors.ContentPolicy,
    errors.TooLarge,
    errors.UnsupportedMedia,
)
"""Errors that speak of the caller's own request: only with these do the provider's words reach the caller."""


def words_of(text: str | None, limit: int = MAX_WORDS) -> str:
    """Return a provider's text as it may be passed on: without secrets, on one line, and not long.

    Secrets go first: the beginning of one that was cut is not known for what it is.
    """
    return " ".join(scrub(text or "").split())[:limit]


def name_of(text: str | None) -> str:
    """Return a provider's code or field name as it may be passed on."""
    return words_of(text, MAX_NAME)


def classified(
    status: int,
    *,
    codes: Codes,
    code: str = "",
    words: str = "",
    param: str = "",
    retry_after_s: float | None = None,
) -> errors.MoaError:
    """Return the error that an answer of HTTP `status` with the provider's `code` stands for.

    Args:
        status: The HTTP status; 0 when the failure came inside a stream, without one.
        codes: The protocol's typed codes, each with its error.
        code: The provider's typed code; a code that is not in `codes` leaves the decision to the status.
        words: The provider's own sentence. Passed on only where it speaks of the caller's request.
        param: The field at fault, if the provider names one.
        retry_after_s: When a retry can succeed, if the provider says so.
    """
    kind = codes.get(code)
    if kind is None:
        kind = _BY_STATUS.get(status, errors.UpstreamRejected if 400 <= status < 500 else errors.UpstreamFailed)
    if kind in _ABOUT_THE_CALLER:
        detail = words_of(words)
        sentence = f"{_SENTENCE[kind]}: {detail}" if detail else _SENTENCE[kind]
        return kind(sentence, param=name_of(param))
    # Credit does not come back by waiting.
    error = kind(_SENTENCE[kind], retry_after_s=None if kind is errors.UpstreamUnpaid else retry_after_s)
    if isinstance(error, errors.UpstreamAuth):
        error.words = words_of(words)
    return error
