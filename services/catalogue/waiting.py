"""How long a text answer is waited for that says nothing before it is whole.

A limit is on silence, and an answer that a provider gives whole is nothing but silence: it may take as long as a slow
model needs for the tokens that it may have. Answers that may be longer than that is worth are asked of the provider as
streams, whose pieces show that it works.
"""

from __future__ import annotations

import sys
from typing import Final

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Timeouts

WHOLE_TOKENS: Final = 2048
"""Answers that may be longer are asked for as streams even when the caller wants no stream: a whole one says nothing
for so long that neither a dead provider nor an impatient proxy between can be told from a busy one."""
UNASKED: Final = 4096
"""A longer answer whose caller gave no bound is not waited for as if it said nothing before its end: it streams."""
SLOW_TOKENS_PER_S: Final = 10.0
"""What a slow model writes."""


def may_be_long(request: GenerateTextRequest, model: Model) -> bool:
    """Return whether an answer may be so long that its provider is asked for a stream."""
    return _most(request, model) > WHOLE_TOKENS


def whole_s(timeouts: Timeouts, request: GenerateTextRequest, model: Model) -> float:
    """Return how long a provider may take to give an answer whole, from the request on."""
    return timeouts.connect_s + timeouts.first_token_s + _most(request, model, UNASKED) / SLOW_TOKENS_PER_S


def _most(request: GenerateTextRequest, model: Model, unasked: int = sys.maxsize) -> int:
    """Return how long an answer may be; where nobody gave a bound, `unasked` at most."""
    if request.HasField("max_tokens"):
        return request.max_tokens
    return model.default_max_tokens or min(model.longest_unasked or unasked, unasked)
