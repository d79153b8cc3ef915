"""What a caller asks of a language model, checked against what the model can do."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from inference.text.tools import Tools, tools_from
from inference.text.turns import Turn, turns_from
from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model
from services.common.errors import InvalidField, Unsupported

MAX_CANDIDATES = 8
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAsk:
    """A request for an answer, with every default filled in."""

    turns: tuple[Turn, ...]
    """In order."""
    goes_on: bool = False
    """Whether the last turn is the beginning of the answer."""
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0: all."""
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
    tools: Tools | None = None
    """What the model may call."""


def ask_from(request: text_service_pb2.GenerateTextRequest, model: Model) -> TextAsk:
    """Read a request. Unset fields take the catalogue's defaults for the model.

    Raises InvalidField for what is out of range, Unsupported for what no model of this service does.
    """
    sampling = request.sampling
    unset = model.defaults

    def number(field: str, low: float, high: float, default: float) -> float:
        given = sampling.HasField(field)  # type: ignore[arg-type]  # the names below are the message's
        value = float(getattr(sampling, field) if given else unset.get(field, default))
        if not math.isfinite(value) or not low <= value <= high:
            raise InvalidField(f"{field} must be from {low:g} to {high:g}", param=field)
        return value

    top_k = int(number("top_k", 1 if sampling.HasField("top_k") else 0, 2**31, 0))
    if sampling.top_logprobs > MAX_TOP_LOGPROBS:
        raise InvalidField(f"top_logprobs must be from 0 to {MAX_TOP_LOGPROBS}", param="top_logprobs")
    if sampling.top_logprobs and not sampling.logprobs:
        raise InvalidField("top_logprobs needs logprobs", param="top_logprobs")
    if request.candidates > MAX_CANDIDATES:
        raise InvalidField(f"at most {MAX_CANDIDATES} candidates", param="candidates")
    for name in request.vendor.names if request.strict else ():
        raise Unsupported(f"{name} has no effect on this model, and this request ignores nothing (strict)", param=name)
    seed = sampling.seed if sampling.HasField("seed") else secrets.randbits(62)
    turns = turns_from(request.messages, model)
    return TextAsk(
        turns=turns,
        goes_on=model.can("prefill") and turns[-1].role == "assistant" and not turns[-1].calls,
        max_tokens=_bound(request, model),
        stop=_stops(request.stop),
        temperature=number("temperature", 0, 2, 1.0),
        top_p=number("top_p", 0, 1, 1.0),
        top_k=top_k,
        seed=seed,
        presence_penalty=number("presence_penalty", -2, 2, 0.0),
        frequency_penalty=number("frequency_penalty", -2, 2, 0.0),
        logit_bias=_biases(sampling),
        logprobs=sampling.logprobs,
        top_logprobs=sampling.top_logprobs,
        candidates=max(1, request.candidates),
        include_reasoning=request.reasoning.include,
        think=request.reasoning.effort != text_pb2.ReasoningOptions.EFFORT_NONE,
        schema=_schema(request, model),
        tools=tools_from(request.tools, request.tool_choice, model),
    )


def _schema(request: text_service_pb2.GenerateTextRequest, model: Model) -> str | None:
    kind = request.response_format.kind
    if kind in (text_pb2.ResponseFormat.KIND_UNSPECIFIED, text_pb2.ResponseFormat.KIND_TEXT):
        return None
    needed = "json_schema" if kind == text_pb2.ResponseFormat.KIND_JSON_SCHEMA else "json"
    if not model.can(needed):
        raise Unsupported(f"model {model.id} cannot be limited to JSON", param="response_format")
    if kind == text_pb2.ResponseFormat.KIND_JSON_OBJECT:
        return '{"type": "object"}'
    return request.response_format.schema_json or "{}"


def _bound(request: text_service_pb2.GenerateTextRequest, model: Model) -> int:
    if not request.HasField("max_tokens"):
        return model.default_max_tokens
    if request.max_tokens < 1:
        raise InvalidField("max_tokens must be positive", param="max_tokens")
    return min(request.max_tokens, model.max_output_tokens or request.max_tokens)


def _stops(given: Sequence[str]) -> tuple[str, ...]:
    if len(given) > MAX_STOPS:
        raise InvalidField(f"at most {MAX_STOPS} stop strings", param="stop")
    if not all(given):
        raise InvalidField("a stop string must not be empty", param="stop")
    return tuple(given)


def _biases(sampling: text_pb2.Sampling) -> tuple[tuple[int, float], ...]:
    for bias in sampling.logit_bias.values():
        if not -100 <= bias <= 100:  # NaN fails too
            raise InvalidField("a logit bias must be from -100 to 100", param="logit_bias")
    return tuple(sorted(sampling.logit_bias.items()))
