"""Choose the next token of one answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from inference.text.answer import Score
from inference.text.ask import TextAsk

TokenText = Callable[[int], tuple[str, bytes]]
"""A token id's text and bytes."""


class Sampler:
    """Samples one candidate with a generator of its own, so that its tokens do not depend on who else is running.

    Args:
        ask: What was asked.
        candidate: Which candidate; each has the next seed.
        text_of: How a token is shown in a score.
    """

    def __init__(self, ask: TextAsk, candidate: int, text_of: TokenText) -> None:
        self._ask = ask
        self._text_of = text_of
        self._generator = torch.Generator().manual_seed((ask.seed + candidate) % (1 << 64))
        self._counts: Counter[int] = Counter()

    def pick(self, logits: Tensor, allowed: Tensor | None = None) -> tuple[int, Score | None]:
        """Choose from `logits` (vocabulary,), float32 on CPU; `allowed` masks tokens out."""
        ask = self._ask
        shaped = self._penalised(logits)
        if allowed is not None:
            shaped = shaped.masked_fill(~allowed, float("-inf"))
        token = int(shaped.argmax()) if ask.temperature == 0 else self._sampled(shaped / ask.temperature)
        self._counts[token] += 1
        return token, self._score(logits, token) if ask.logprobs else None

    def _penalised(self, logits: Tensor) -> Tensor:
        """OpenAI's formula: logit - count * frequency - (count > 0) * presence, over generated tokens; then biases."""
        ask = self._ask
        if not ask.logit_bias and not ((ask.presence_penalty or ask.frequency_penalty) and self._counts):
            return logits
        logits = logits.clone()
        if ask.presence_penalty or ask.frequency_penalty:
            for token, count in self._counts.items():
                logits[token] -= count * ask.frequency_penalty + ask.presence_penalty
        for token, bias in ask.logit_bias:
            if 0 <= token < logits.shape[0]:
                logits[token] += bias
        return logits

    def _sampled(self, logits: Tensor) -> int:
        ask = self._ask
        if ask.top_k and ask.top_k < logits.shape[0]:
            kept, places = logits.topk(ask.top_k)
        else:
            kept, places = logits.sort(descending=True)
        chances = kept.softmax(-1)
        if ask.top_p < 1:
            # Keep every token before which less than top_p has been gathered: at least the first.
            chances = chances.masked_fill(chances.cumsum(-1) - chances > ask.top_p, 0.0)
            chances[0] = max(float(chances[0]), 1e-12)
        at = torch.multinomial(chances, 1, generator=self._generator)
        return int(places[at])

    def _score(self, logits: Tensor, token: int) -> Score:
        scores = logits.log_softmax(-1)
        top: tuple[Score, ...] = ()
        if self._ask.top_logprobs:
            values, places = scores.topk(min(self._ask.top_logprobs, scores.shape[0]))
            top = tuple(
                Score(*self._text_of(place), value)
                for value, place in zip(values.tolist(), places.tolist(), strict=True)
            )
        return Score(*self._text_of(token), float(scores[token]), top)
