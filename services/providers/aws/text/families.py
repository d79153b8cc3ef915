"""Where the models behind Converse differ: the fields beyond Converse's own, by the vendor in a model's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from moa.text.v1.text_pb2 import Part, ReasoningOptions, Role, ToolChoice
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.providers.text.ignored import Ignored
from services.providers.text.thinking import largest_budget

Json = dict[str, Any]

_MIN_BUDGET: Final = 1024
_BUDGETS: Final = {
    ReasoningOptions.EFFORT_UNSPECIFIED: 4096,
    ReasoningOptions.EFFORT_MINIMAL: 1024,
    ReasoningOptions.EFFORT_LOW: 1024,
    ReasoningOptions.EFFORT_MEDIUM: 4096,
    ReasoningOptions.EFFORT_HIGH: 16384,
    ReasoningOptions.EFFORT_XHIGH: 32768,
}
_HIGH_BUDGET: Final = 12_288
"""Budgets from here on are nearer to a high effort."""
CLAUDE: Final = "anthropic"
"""Whose signatures Claude takes back."""
_WORDS: Final = {
    ReasoningOptions.EFFORT_MINIMAL: "low",
    ReasoningOptions.EFFORT_LOW: "low",
    ReasoningOptions.EFFORT_MEDIUM: "medium",
    ReasoningOptions.EFFORT_HIGH: "high",
    ReasoningOptions.EFFORT_XHIGH: "high",
}
_EXACT: Final = (ReasoningOptions.EFFORT_LOW, ReasoningOptions.EFFORT_MEDIUM, ReasoningOptions.EFFORT_HIGH)
"""Efforts that are words of these vendors too."""
_LEAST_TOP_P: Final = 0.95
"""Of Claude while it thinks."""


def _no_reasoning(request: GenerateTextRequest, model: Model, most: int, ignored: Ignored) -> Json:
    """A model that reasons as it likes, or not at all."""
    if request.reasoning.HasField("budget_tokens"):
        ignored.add("reasoning.budget_tokens", f"model {model.id!r} takes no budget")
    if request.reasoning.effort:
        ignored.add("reasoning.effort", f"model {model.id!r} takes no effort")
    return {}


def _claude_thinking(request: GenerateTextRequest, model: Model, most: int, ignored: Ignored) -> Json:
    """Extended thinking, where an effort or a budget asks for it: to show reasoning is not to ask for some.

    It takes no other sampling, no forced tool and no prefill. Models of 4.6 and later decide by an effort
    (`limits: {thinking: adaptive}`), earlier ones take a budget below `max_tokens`.
    https://docs.claude.com/en/docs/build-with-claude/extended-thinking
    """
    wanted = request.reasoning
    asked = wanted.HasField("budget_tokens") or bool(wanted.effort)
    if wanted.effort == ReasoningOptions.EFFORT_NONE or not asked or not model.can("reasoning"):
        return {}
    field = "reasoning.budget_tokens" if wanted.HasField("budget_tokens") else "reasoning.effort"
    if _leaves_no_room(request):
        ignored.add(field, "this model does not reason where a tool is forced or the answer's beginning is given")
        return {}
    if _continues_without_reasoning(request):
        ignored.add(field, "this model does not reason in a turn whose calls came without reasoning that it signed")
        return {}
    if model.limits.thinking == "adaptive":
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": _effort_of(wanted, ignored)}}
    if most <= _MIN_BUDGET:
        ignored.add(field, f"this model reasons only with max_tokens above {_MIN_BUDGET}")
        return {}
    budget = wanted.budget_tokens if wanted.HasField("budget_tokens") else _BUDGETS[wanted.effort]
    if budget < _MIN_BUDGET:
        ignored.nearest(field, _MIN_BUDGET, f"this model's budget is at least {_MIN_BUDGET}")
        budget = _MIN_BUDGET
    largest = max(_MIN_BUDGET, largest_budget(most))
    if budget > largest:
        used = largest if wanted.HasField("budget_tokens") else _effort_within(largest)
        ignored.nearest(field, used, f"max_tokens of {most} leaves no room for the answer beside more reasoning")
        budget = largest
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _effort_within(budget: int) -> str:
    """Return the largest effort whose budget is at most so much."""
    fitting = [effort for effort, word in _WORDS.items() if _BUDGETS[effort] <= budget and effort in _EXACT]
    return _WORDS[max(fitting)]


def _claude_sampling(config: Json, more: Json, ignored: Ignored) -> None:
    """Take out what Claude does not take while it thinks: every temperature but 1, `top_k`, a small `top_p`."""
    if config.pop("temperature", 1) != 1:
        ignored.add("temperature", "this model does not take temperature while it reasons")
    if more.pop("top_k", None) is not None:
        ignored.add("top_k", "this model does not take top_k while it reasons")
    if config.get("topP", 1) < _LEAST_TOP_P:
        del config["topP"]
        ignored.add("top_p", f"this model takes top_p from {_LEAST_TOP_P} while it reasons")


def _any_sampling(config: Json, more: Json, ignored: Ignored) -> None:
    """A model that takes the same sampling whether it reasons or not."""


def _effort_of(wanted: ReasoningOptions, ignored: Ignored) -> str:
    """Return the effort, or the one nearest to it or to a budget."""
    if wanted.effort in _WORDS:
        word = _WORDS[wanted.effort]
        if wanted.effort not in _EXACT:
            ignored.nearest("reasoning.effort", word, "this model's efforts are low, medium and high")
        return word
    budget = wanted.budget_tokens
    word = "low" if budget < _BUDGETS[ReasoningOptions.EFFORT_MEDIUM] else "medium" if budget < _HIGH_BUDGET else "high"
    ignored.nearest("reasoning.budget_tokens", word, "this model takes an effort, not a budget")
    return word


def _leaves_no_room(request: GenerateTextRequest) -> bool:
    """Return whether the answer's beginning is fixed: a tool that must be called, or a prefill."""
    forced = request.tool_choice.mode in (ToolChoice.MODE_REQUIRED, ToolChoice.MODE_NAMED)
    return forced or request.messages[-1].role == Role.ROLE_ASSISTANT


def is_provable(part: Part) -> bool:
    """Return whether Claude takes a turn's reasoning back: with its own signature, which proves it."""
    return bool(part.reasoning.signature) and part.reasoning.signer in ("", CLAUDE)


def _continues_without_reasoning(request: GenerateTextRequest) -> bool:
    """Return whether the latest assistant turn called tools and does not prove its reasoning.

    A turn that began without thinking must go on without it.
    """
    for message in reversed(request.messages):
        kinds = {part.WhichOneof("part") for part in message.parts}
        if "tool_call" in kinds:
            return not any(part.HasField("reasoning") and is_provable(part) for part in message.parts)
        if "tool_result" not in kinds:
            return False
    return False


def _nova_reasoning(request: GenerateTextRequest, model: Model, most: int, ignored: Ignored) -> Json:
    """Nova 2's effort (docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html)."""
    wanted = request.reasoning
    if wanted.effort not in _WORDS and not wanted.HasField("budget_tokens"):
        return {}
    return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": _effort_of(wanted, ignored)}}


def _word_effort(request: GenerateTextRequest, model: Model, most: int, ignored: Ignored) -> Json:
    """gpt-oss's effort. It always reasons."""
    wanted = request.reasoning
    if wanted.effort == ReasoningOptions.EFFORT_NONE:
        ignored.add("reasoning.effort", f"model {model.id!r} always reasons")
    if wanted.effort not in _WORDS and not wanted.HasField("budget_tokens"):
        return {}
    return {"reasoning_effort": _effort_of(wanted, ignored)}


@dataclass(frozen=True)
class Family:
    """One vendor's models. `top_k` gives the fields for a value, None where there is none."""

    vendor: str = "amazon"
    reasoning: Callable[[GenerateTextRequest, Model, int, Ignored], Json] = _no_reasoning
    top_k: Callable[[int], Json] | None = None
    fit_sampling: Callable[[Json, Json, Ignored], None] = _any_sampling
    """Takes out of the sampling what a model does not take while it reasons."""
    caches: bool = False
    """Whether prompts are kept where they are marked."""


_FAMILIES: Final = {
    CLAUDE: Family(CLAUDE, _claude_thinking, lambda k: {"top_k": k}, _claude_sampling, caches=True),
    "amazon": Family("amazon", _nova_reasoning, lambda k: {"inferenceConfig": {"topK": k}}, caches=True),
    "openai": Family("openai", _word_effort),
}


def family_of(name: str) -> Family:
    """Return the family of an upstream model: `anthropic.claude-…`, `us.anthropic.claude-…`, `amazon.nova-…`."""
    return next((family for vendor, family in _FAMILIES.items() if f".{vendor}." in f".{name}"), Family())
