"""What a caller asks of a language model, checked against what the model can do."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference.text.tools import Tools, tools_from
from inference.text.turns import Turn, turns_from
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model
from services.common import limits
from services.common.errors import Unsupported

_NO_EFFORT: Final = (text_pb2.ReasoningOptions.EFFORT_UNSPECIFIED, text_pb2.ReasoningOptions.EFFORT_NONE)

_SETTINGS: Final = frozenset(limits.settings(text_pb2.Sampling))
_CHOICE: Final = text_pb2.ResponseFormat.KIND_CHOICE


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAsk:
    """A request for an answer, with every default filled in."""

    turns: tuple[Turn, ...]
    """In order."""
    goes_on: bool = False
    """Whether the last turn is the beginning of the answer."""
    max_tokens: int
    stop: tuple[str, ...] = ()
    stop_token_ids: Sequence[int] = ()
    """Tokens that end the answer, beside the model's own."""
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0: all."""
    min_p: float = 0.0
    """How likely a token must be, as a part of the likeliest."""
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    candidates: int = 1
    include_reasoning: bool = False
    think: bool = True
    """Whether a model that can choose should reason."""
    schema: str | None = None
    """JSON Schema that the answer must follow, as text; `{}` for any JSON; None for free text."""
    choices: tuple[str, ...] = ()
    """Of which the answer is one, as plain text; empty: it is not bound to any."""
    tools: Tools | None = None
    """What the model may call."""
    ignored: tuple[str, ...] = ()
    """Fields of the request that have no effect."""

    @property
    def held(self) -> bool:
        """Whether the answer's words are held to a form."""
        return self.schema is not None or bool(self.choices)

    @property
    def must_answer(self) -> bool:
        """Whether reasoning alone is no answer: a document or a call has to follow."""
        return self.held or (self.tools is not None and self.tools.required)


def ask_from(request: text_service_pb2.GenerateTextRequest, model: Model) -> TextAsk:
    """Read a request. Unset fields take the catalogue's defaults for the model.

    Raises InvalidField for what is outside the contract's limits, Unsupported for what the model does not do.
    """
    limits.check_for(request, model)
    sampling = request.sampling
    ignored = tuple(dict.fromkeys(_without_effect(request)))
    for name in ignored if request.strict else ():
        # The message is no place for the name, which each dialect spells in its own way.
        message = f"this has no effect on model {model.id!r}, and this request ignores nothing (strict)"
        raise Unsupported(message, param=name)
    turns = turns_from(request.messages)
    return TextAsk(
        turns=turns,
        goes_on=model.can("prefill") and turns[-1].role == "assistant" and not turns[-1].calls,
        max_tokens=_bound(request, model),
        stop=tuple(request.stop),
        **_settings(sampling, model),
        logit_bias=tuple(sorted(sampling.logit_bias.items())),
        logprobs=sampling.logprobs,
        top_logprobs=sampling.top_logprobs,
        candidates=max(1, request.candidates),
        include_reasoning=request.reasoning.include,
        think=request.reasoning.effort != text_pb2.ReasoningOptions.EFFORT_NONE,
        schema=_schema(request.response_format),
        choices=tuple(request.response_format.choices) if request.response_format.kind == _CHOICE else (),
        tools=tools_from(request.tools, request.tool_choice),
        ignored=ignored,
    )


def _without_effect(request: text_service_pb2.GenerateTextRequest) -> Iterator[str]:
    """Yield the names of hints that are read over: a model of one's own reasons by default or not at all."""
    if request.reasoning.HasField("budget_tokens"):
        yield "reasoning.budget_tokens"
    if request.reasoning.effort not in _NO_EFFORT:
        yield "reasoning.effort"
    if any(message.name for message in request.messages):
        yield "messages[].name"
    marked = (part.cache for message in request.messages for part in message.parts)
    if any(marked) or any(tool.cache for tool in request.tools):
        yield "cache_control"
    yield from request.vendor.names


def _settings(sampling: text_pb2.Sampling, model: Model) -> dict[str, Any]:
    """Return the settings of the sampling that are given, else those of the model's defaults."""
    defaults = {name: value for name, value in model.defaults.items() if name in _SETTINGS}
    return {"temperature": 1.0, "seed": secrets.randbits(62), **defaults, **dict(limits.given_settings(sampling))}


def _schema(form: text_pb2.ResponseFormat) -> str | None:
    if form.kind == text_pb2.ResponseFormat.KIND_JSON_OBJECT:
        return '{"type": "object"}'
    return (form.schema_json or "{}") if form.kind == text_pb2.ResponseFormat.KIND_JSON_SCHEMA else None


def _bound(request: text_service_pb2.GenerateTextRequest, model: Model) -> int:
    """Return how many tokens an answer may have; its engine has room for a context at most."""
    asked = request.max_tokens if request.HasField("max_tokens") else model.default_max_tokens or sys.maxsize
    return min(asked, model.max_output_tokens or asked)
