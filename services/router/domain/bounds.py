"""How many tokens a request can cost at most, told without a tokenizer.

A token of the tokenizers in use (byte-level BPE, SentencePiece with byte fallback) stands for at least one byte, so
the bytes of the text bound its tokens from above. Templates add constants; a picture is bounded by the rule of its
model's owner, at its own size where that can be read.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final, NamedTuple

from moa.text.v1 import text_service_pb2
from services.catalogue import FEMTO_A_NANO, Model, rounded_up, today
from services.common.errors import ContextTooLong
from services.quota_client.amounts import UNLIMITED
from services.router.domain.prompt import Prompt, size_of


class Rates(NamedTuple):
    """What a token costs at most, in femto-dollars, whichever of some models answers."""

    prompt: int
    completion: int

    @classmethod
    def of(
        cls, models: Iterable[Model], prompt: int | None = None, day: dt.date | None = None, *, sound: bool = False
    ) -> Rates:
        """Return the highest of each on a day, or today; a model without prices costs nothing.

        `prompt` bounds the prompt's tokens, by which some prices go; none: whatever it is. `sound`: whether some may
        be sound.
        """
        day = day or today()
        most = [price.most(prompt, sound=sound) for model in models if (price := model.price(day)) is not None]
        return cls(max(prompt for prompt, _ in most), max(completion for _, completion in most)) if most else _FREE

    def nano_usd(self, prompt: int, completion: int) -> int:
        """Return what so many tokens cost at most, in nano-dollars."""
        return rounded_up(prompt * self.prompt + completion * self.completion)

    def affordable(self, nano_usd: int, prompt: int) -> int:
        """Return how many tokens of completion so much pays for, beside the prompt."""
        left = nano_usd * FEMTO_A_NANO - prompt * self.prompt
        return left // self.completion if self.completion else UNLIMITED


_FREE = Rates(0, 0)
LONGEST_TOKEN_BYTES = 128
"""Bytes of the longest tokens of the vocabularies in use (runs of spaces)."""


def fits_context(prompt: int, context_tokens: int) -> bool:
    """Return whether a prompt of this bound can fit, without a tokenizer's work: megabytes of text plainly cannot."""
    return not context_tokens or prompt // LONGEST_TOKEN_BYTES <= context_tokens


def check_context(prompt: int, model: Model) -> None:
    """Raise ContextTooLong where a prompt of this bound plainly does not fit."""
    if not fits_context(prompt, model.context_tokens):
        raise ContextTooLong(
            f"the prompt is longer than the {model.context_tokens} tokens of {model.id}'s context", param="messages"
        )


def bounded(tokens: int, model: Model) -> int:
    """Return a bound on an answer's tokens that is never above the model's own."""
    return min(tokens, model.max_output_tokens) if model.max_output_tokens else tokens


def longest(models: Iterable[Model]) -> int:
    """Return how long an answer may be, whichever of the models gives it; `UNLIMITED` where that is not known."""
    return max([model.max_output_tokens or model.context_tokens or UNLIMITED for model in models])


_ANY_TAKES: Final = 8_192
"""A bound that models take whose longest answer nobody knows."""


def stated(left: int, prompt: int, model: Model, *, bounded: bool) -> int | None:
    """Return the bound on an answer's tokens that its model is told; None: the model's own.

    Where nobody bounded it, only what is left of a quota does, where that is less than the model would say: no more
    than fits beside the prompt, which some refuse.
    """
    left = max(1, left)
    if bounded:
        return min(left, model.max_output_tokens) if model.max_output_tokens else left
    if model.default_max_tokens:
        left = min(left, model.default_max_tokens)
    if left < model.max_output_tokens:
        return left
    # A longest answer that is not known may be far below the context, and most refuse a bound above it.
    if not model.max_output_tokens and left <= _ANY_TAKES and left + prompt < model.context_tokens:
        return left
    return None


def prompt_bound(prompt: Prompt, request: text_service_pb2.GenerateTextRequest, models: Iterable[Model]) -> int:
    """Bound the prompt's tokens from above, whichever of the models answers."""
    if not prompt.pictures:
        return prompt.bound
    known = prompt.sizes or [None] * len(prompt.pictures)
    sizes = [
        size or size_of(request.messages[number].parts[index].image)
        for (number, index), size in zip(prompt.pictures, known, strict=True)
    ]
    return prompt.bound + max(sum(_picture_bound(size, model) for size in sizes) for model in models)


def _picture_bound(size: tuple[int, int] | None, model: Model) -> int:
    return model.picture_rule.most() if size is None else model.picture_rule.of(*size)
