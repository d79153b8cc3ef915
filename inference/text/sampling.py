"""Choose the next token of one answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inference.text.answer import Score
from inference.text.ask import TextAsk
from inference.text.language import Logits

TokenText = Callable[[int], tuple[str, bytes]]
"""A token id's text and bytes."""

_USUALLY_ENOUGH = 512
"""So many of the likeliest tokens nearly always hold `top_p`; sorting all of a large vocabulary takes milliseconds."""


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
        self._random = np.random.Generator(np.random.PCG64((ask.seed + candidate) % (1 << 64)))
        self._counts: Counter[int] = Counter()

    def pick(self, logits: Logits, allowed: NDArray[np.bool_] | None = None) -> tuple[int, Score | None]:
        """Choose from `logits`; `allowed` masks tokens out."""
        ask = self._ask
        shaped = self._penalised(logits)
        if allowed is not None:
            shaped = np.where(allowed, shaped, np.float32(-np.inf))
        token = int(shaped.argmax()) if ask.temperature == 0 else self._sampled(shaped / np.float64(ask.temperature))
        self._counts[token] += 1
        return token, self._score(logits, token) if ask.logprobs else None

    def _penalised(self, logits: Logits) -> Logits:
        """OpenAI's formula: logit - count * frequency - (count > 0) * presence, over generated tokens; then biases."""
        ask = self._ask
        if not ask.logit_bias and not ((ask.presence_penalty or ask.frequency_penalty) and self._counts):
            return logits
        logits = logits.copy()
        if ask.presence_penalty or ask.frequency_penalty:
            for token, count in self._counts.items():
                logits[token] -= count * ask.frequency_penalty + ask.presence_penalty
        for token, bias in ask.logit_bias:
            if 0 <= token < logits.shape[0]:
                logits[token] += bias
        return logits

    def _sampled(self, logits: NDArray[np.float64]) -> int:
        ask = self._ask
        if ask.top_k and ask.top_k < len(logits):
            places = _likeliest(logits, ask.top_k)
            chances = np.exp(logits[places] - logits[places[0]])
        else:
            places = None
            chances = np.exp(logits - logits.max())
        # The likeliest has 1 here.
        chances[chances < ask.min_p] = 0
        chances /= chances.sum()
        if ask.top_p < 1:
            places, chances = _nucleus(places, chances, ask.top_p)
        sums = chances.cumsum()
        # A draw below the sum of all falls on the first token whose sum exceeds it, so never on one without a chance.
        at = int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))
        at = min(at, int(np.flatnonzero(chances)[-1]))
        return at if places is None else int(places[at])

    def _score(self, logits: Logits, token: int) -> Score:
        shifted = logits.astype(np.float64) - float(logits.max())
        scores = shifted - np.log(np.exp(shifted).sum())
        top: tuple[Score, ...] = ()
        if self._ask.top_logprobs:
            places = _likeliest(scores, min(self._ask.top_logprobs, len(scores)))
            top = tuple(Score(*self._text_of(int(place)), float(scores[place])) for place in places)
        return Score(*self._text_of(token), float(scores[token]), top)


def _likeliest(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Return the places of the largest values, the largest first; of equal ones the first."""
    if count < len(values):
        least = np.partition(values, -count)[-count]
        places = np.flatnonzero(values >= least)
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")][:count]


def _nucleus(
    places: NDArray[np.intp] | None, chances: NDArray[np.float64], top_p: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Keep every token before which less than top_p has been gathered: at least the first. Chances add up to 1."""
    if places is None:
        places = _likeliest(chances, _USUALLY_ENOUGH)
        if chances[places].sum() < top_p:
            places = _likeliest(chances, len(chances))
        chances = chances[places]
    before = chances.cumsum() - chances
    kept = max(1, int((before < top_p).sum()))
    return places[:kept], chances[:kept]
