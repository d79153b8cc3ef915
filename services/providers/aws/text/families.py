"""Where the models behind Converse differ: the fields beyond Converse's own, by the vendor in a model's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from moa.text.v1.text_pb2 import ReasoningOptions
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.catalogue import Model
from services.common.errors import InvalidField, Unsupported

Json = dict[str, Any]

_MIN_BUDGET: Final = 1024
_BUDGETS: Final = {
    ReasoningOptions.EFFORT_UNSPECIFIED: 4096,
    ReasoningOptions.EFFORT_MINIMAL: 1024,
    ReasoningOptions.EFFORT_LOW: 1024,
    ReasoningOptions.EFFORT_MEDIUM: 4096,
    ReasoningOptions.EFFORT_HIGH: 16384,
}
_WORDS: Final = {
    ReasoningOptions.EFFORT_MINIMAL: "low",
    ReasoningOptions.EFFORT_LOW: "low",
    ReasoningOptions.EFFORT_MEDIUM: "medium",
    ReasoningOptions.EFFORT_HIGH: "high",
}


def _no_reasoning(request: GenerateTextRequest, model: Model, most: int) -> Json:
    """A model that reasons as it likes, or not at all."""
    if request.reasoning.HasField("budget_tokens"):
        raise Unsupported(f"model {model.id!r} takes no budget", param="reasoning.budget_tokens")
    if request.reasoning.effort:
        raise Unsupported(f"model {model.id!r} takes no effort", param="reasoning.effort")
    return {}


def _claude_thinking(request: GenerateTextRequest, model: Model, most: int) -> Json:
    """Extended thinking: a budget below `max_tokens`, incompatible with other sampling.

    https://docs.claude.com/en/docs/build-with-claude/extended-thinking
    """
    wanted = request.reasoning
    asked = wanted.HasField("budget_tokens") or bool(wanted.effort)
    if wanted.effort == ReasoningOptions.EFFORT_NONE or not (asked or wanted.include) or not model.can("reasoning"):
        return {}
    if _continues_without_reasoning(request):
        # A turn that began without thinking must go on without it.
        return {}
    if most <= _MIN_BUDGET:
        if asked:
            raise InvalidField(f"this model reasons only with max_tokens above {_MIN_BUDGET}", param="max_tokens")
        return {}
    budget = wanted.budget_tokens if wanted.HasField("budget_tokens") else _BUDGETS[wanted.effort]
    if budget < _MIN_BUDGET:
        raise InvalidField(f"this model's budget is at least {_MIN_BUDGET}", param="reasoning.budget_tokens")
    for field in ("temperature", "top_k"):
        if request.sampling.HasField(field):
            raise Unsupported(f"this model does not take {field} while it reasons", param=field)
    return {"thinking": {"type": "enabled", "budget_tokens": min(budget, most - 1)}}


def _continues_without_reasoning(request: GenerateTextRequest) -> bool:
    """Tell whether the latest assistant turn called tools and does not show its reasoning."""
    for message in reversed(request.messages):
        kinds = {part.WhichOneof("part") for part in message.parts}
        if "tool_call" in kinds:
            return "reasoning" not in kinds
        if "tool_result" not in kinds:
            return False
    return False


def _nova_reasoning(request: GenerateTextRequest, model: Model, most: int) -> Json:
    """Nova 2's effort (docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html)."""
    wanted = request.reasoning
    if wanted.HasField("budget_tokens"):
        raise Unsupported(f"model {model.id!r} takes an effort, not a budget", param="reasoning.budget_tokens")
    if wanted.effort not in _WORDS:
        return {}
    return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": _WORDS[wanted.effort]}}


def _word_effort(request: GenerateTextRequest, model: Model, most: int) -> Json:
    """gpt-oss's effort."""
    if request.reasoning.HasField("budget_tokens"):
        raise Unsupported(f"model {model.id!r} takes an effort, not a budget", param="reasoning.budget_tokens")
    return {"reasoning_effort": _WORDS[request.reasoning.effort]} if request.reasoning.effort in _WORDS else {}


@dataclass(frozen=True)
class Family:
    """One vendor's models. `top_k` gives the fields for a value, None where there is none."""

    reasoning: Callable[[GenerateTextRequest, Model, int], Json] = _no_reasoning
    top_k: Callable[[int], Json] | None = None


_FAMILIES: Final = {
    "anthropic": Family(_claude_thinking, lambda k: {"top_k": k}),
    "amazon": Family(_nova_reasoning, lambda k: {"inferenceConfig": {"topK": k}}),
    "openai": Family(_word_effort),
}


def family_of(name: str) -> Family:
    """Give the family of an upstream model: `anthropic.claude-…`, `us.anthropic.claude-…`, `amazon.nova-…`."""
    return next((family for vendor, family in _FAMILIES.items() if f".{vendor}." in f".{name}"), Family())
