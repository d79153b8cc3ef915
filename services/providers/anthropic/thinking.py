"""How Claude is told to think, here and at others who serve it, and which of its thoughts it takes back."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

from moa.text.v1.text_pb2 import Part, ReasoningOptions, Role, ToolChoice
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.providers.text.ignored import Ignored
from services.providers.text.thinking import BUDGETS, effort_of, effort_within, largest_budget

Json = dict[str, Any]

SIGNER: Final = "anthropic"
"""Whose signatures Claude takes back."""
OMITTED: Final = b"omitted:"
"""Stands before the signature of a thought whose text was left out: a thought that only Claude can read has no text
either, and is given back in another form. No signature has a colon."""
_MIN_BUDGET: Final = 1024
_LEAST_TOP_P: Final = 0.95
"""Of Claude while it thinks."""


def thinking(request: GenerateTextRequest, model: Model, most: int, ignored: Ignored, *, word: str = "") -> Json:
    """Extended thinking, where an effort or a budget asks for it: to show reasoning is not to ask for some.

    It takes no other sampling, no forced tool and no prefill. Models of 4.6 and later decide by an effort
    (`limits: {thinking: adaptive}`), earlier ones take a budget below `max_tokens`. `word` is the effort in Claude's
    own words, where the caller gave it so.
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
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": word or effort_of(wanted, ignored)}}
    if most <= _MIN_BUDGET:
        ignored.add(field, f"this model reasons only with max_tokens above {_MIN_BUDGET}")
        return {}
    budget = wanted.budget_tokens if wanted.HasField("budget_tokens") else BUDGETS[wanted.effort]
    if budget < _MIN_BUDGET:
        ignored.nearest(field, _MIN_BUDGET, f"this model's budget is at least {_MIN_BUDGET}")
        budget = _MIN_BUDGET
    largest = max(_MIN_BUDGET, largest_budget(most))
    if budget > largest:
        used = largest if wanted.HasField("budget_tokens") else effort_within(largest)
        ignored.nearest(field, used, f"max_tokens of {most} leaves no room for the answer beside more reasoning")
        budget = largest
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def fit_sampling(config: Json, more: Json, ignored: Ignored, *, top_p: str) -> None:
    """Take out what Claude does not take while it thinks: every temperature but 1, `top_k`, a small `top_p`.

    `config` and `more` hold the sampling, `top_k` in `more`; `top_p` is what it is called there.
    """
    if config.pop("temperature", 1) != 1:
        ignored.add("temperature", "this model does not take temperature while it reasons")
    if more.pop("top_k", None) is not None:
        ignored.add("top_k", "this model does not take top_k while it reasons")
    if config.get(top_p, 1) < _LEAST_TOP_P:
        del config[top_p]
        ignored.add("top_p", f"this model takes top_p from {_LEAST_TOP_P} while it reasons")


def _leaves_no_room(request: GenerateTextRequest) -> bool:
    """Return whether the answer's beginning is fixed: a tool that must be called, or a prefill."""
    forced = request.tool_choice.mode in (ToolChoice.MODE_REQUIRED, ToolChoice.MODE_NAMED)
    return forced or request.messages[-1].role == Role.ROLE_ASSISTANT


def text_of(signature: bytes) -> str:
    """Return a signature as text, as it came; what no vendor writes as text, in base64."""
    try:
        return signature.decode("ascii")
    except UnicodeDecodeError:
        return b64encode(signature).decode()


def is_provable(part: Part) -> bool:
    """Return whether Claude takes a turn's reasoning back: with its own signature, which proves it."""
    return bool(part.reasoning.signature) and part.reasoning.signer in ("", SIGNER)


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
