"""Where the models behind Converse differ: the fields beyond Converse's own, by the vendor in a model's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from moa.text.v1.text_pb2 import ReasoningOptions
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.providers.anthropic import thinking as claude
from services.providers.text.ignored import Ignored
from services.providers.text.thinking import WORDS, effort_of

Json = dict[str, Any]


def _no_reasoning(request: GenerateTextRequest, model: Model, most: int, ignored: Ignored) -> Json:
    """A model that reasons as it likes, or not at all."""
    if request.reasoning.HasField("budget_tokens"):
        ignored.add("reasoning.budget_tokens", f"model {model.id!r} takes no budget")
    if request.reasoning.effort:
        ignored.add("reasoning.effort", f"model {model.id!r} takes no effort")
    return {}


def _any_sampling(config: Json, more: Json, ignored: Ignored) -> None:
    """A model that takes the same sampling whether it reasons or not."""


def _nova_reasoning(request: GenerateTextRequest, model: Model, most: int, ignored: Ignored) -> Json:
    """Nova 2's effort (docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html)."""
    wanted = request.reasoning
    if wanted.effort not in WORDS and not wanted.HasField("budget_tokens"):
        return {}
    return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": effort_of(wanted, ignored)}}


def _word_effort(request: GenerateTextRequest, model: Model, most: int, ignored: Ignored) -> Json:
    """gpt-oss's effort. It always reasons."""
    wanted = request.reasoning
    if wanted.effort == ReasoningOptions.EFFORT_NONE:
        ignored.add("reasoning.effort", f"model {model.id!r} always reasons")
    if wanted.effort not in WORDS and not wanted.HasField("budget_tokens"):
        return {}
    return {"reasoning_effort": effort_of(wanted, ignored)}


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
    claude.SIGNER: Family(
        claude.SIGNER,
        claude.thinking,
        lambda k: {"top_k": k},
        partial(claude.fit_sampling, top_p="topP"),
        caches=True,
    ),
    "amazon": Family("amazon", _nova_reasoning, lambda k: {"inferenceConfig": {"topK": k}}, caches=True),
    "openai": Family("openai", _word_effort),
}


def family_of(name: str) -> Family:
    """Return the family of an upstream model: `anthropic.claude-…`, `us.anthropic.claude-…`, `amazon.nova-…`."""
    return next((family for vendor, family in _FAMILIES.items() if f".{vendor}." in f".{name}"), Family())
