"""How much of an answer may be spent on reasoning: a budget out of the answer's bound, or an effort in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from moa.text.v1.text_pb2 import ReasoningOptions
from services.providers.text.ignored import Ignored

_ANSWERS_SHARE: Final = 4
"""One part of so many is kept for the answer."""
BUDGETS: Final[Mapping[ReasoningOptions.Effort.ValueType, int]] = {
    ReasoningOptions.EFFORT_UNSPECIFIED: 4096,
    ReasoningOptions.EFFORT_MINIMAL: 1024,
    ReasoningOptions.EFFORT_LOW: 1024,
    ReasoningOptions.EFFORT_MEDIUM: 4096,
    ReasoningOptions.EFFORT_HIGH: 16384,
    ReasoningOptions.EFFORT_XHIGH: 32768,
}
"""The budget that an effort stands for, where a model takes budgets."""
_HIGH_BUDGET: Final = 12_288
"""Budgets from here on are nearer to a high effort."""
WORDS: Final[Mapping[ReasoningOptions.Effort.ValueType, str]] = {
    ReasoningOptions.EFFORT_MINIMAL: "low",
    ReasoningOptions.EFFORT_LOW: "low",
    ReasoningOptions.EFFORT_MEDIUM: "medium",
    ReasoningOptions.EFFORT_HIGH: "high",
    ReasoningOptions.EFFORT_XHIGH: "high",
}
"""The efforts of models whose words are low, medium and high."""
EXACT: Final = (ReasoningOptions.EFFORT_LOW, ReasoningOptions.EFFORT_MEDIUM, ReasoningOptions.EFFORT_HIGH)
"""Efforts that are words of these models too."""


def largest_budget(most: int) -> int:
    """Return the largest budget of reasoning that leaves room for an answer within `most` tokens of both."""
    return most - most // _ANSWERS_SHARE


def effort_of(wanted: ReasoningOptions, ignored: Ignored) -> str:
    """Return the effort, of low, medium and high, or the one nearest to it or to a budget."""
    if wanted.effort in WORDS:
        word = WORDS[wanted.effort]
        if wanted.effort not in EXACT:
            ignored.nearest("reasoning.effort", word, "this model's efforts are low, medium and high")
        return word
    budget = wanted.budget_tokens
    word = "low" if budget < BUDGETS[ReasoningOptions.EFFORT_MEDIUM] else "medium" if budget < _HIGH_BUDGET else "high"
    ignored.nearest("reasoning.budget_tokens", word, "this model takes an effort, not a budget")
    return word


def effort_within(budget: int) -> str:
    """Return the largest effort whose budget is at most so much."""
    return WORDS[max(effort for effort in EXACT if BUDGETS[effort] <= budget)]
