"""Read what a provider says of its limits beside an answer: `x-ratelimit-*`, and Anthropic's names of the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from moa.common.v1.rates_pb2 import UpstreamRates

MOST: Final = 2**31 - 1
"""Larger numbers are none that a limit has."""
_NAMES: Final = (
    (
        *("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"),
        *("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens"),
    ),
    (
        *("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining"),
        *("anthropic-ratelimit-tokens-limit", "anthropic-ratelimit-tokens-remaining"),
    ),
)


def rates_in(headers: Mapping[str, str]) -> UpstreamRates | None:
    """Return what an answer's headers say; None where they say nothing that can be used.

    What is left is told beside its limit alone, and is no more than that.
    """
    for requests, requests_left, tokens, tokens_left in _NAMES:
        if requests not in headers and tokens not in headers:
            continue
        a_minute, of_tokens = _count(headers.get(requests)), _count(headers.get(tokens))
        if not a_minute and not of_tokens:
            continue
        rates = UpstreamRates()
        if a_minute:
            rates.requests_per_minute = a_minute
            if (left := _count(headers.get(requests_left))) is not None:
                rates.requests_left = min(left, a_minute)
        if of_tokens:
            rates.tokens_per_minute = of_tokens
            if (left := _count(headers.get(tokens_left))) is not None:
                rates.tokens_left = min(left, of_tokens)
        return rates
    return None


def _count(text: str | None) -> int | None:
    """Return a count; None for what is none: too large, negative, with a sign or a point, in other digits."""
    if text is None or len(text) > 10 or not text.isascii() or not text.isdigit():
        return None
    count = int(text)
    return count if count <= MOST else None
