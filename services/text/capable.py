"""Refuse what a model cannot do, by the catalogue's word, before anything is sent. Nothing is dropped in silence."""

from __future__ import annotations

import math
from collections.abc import Iterator

from google.protobuf.message import Message

from moa.text.v1.text_pb2 import ReasoningOptions, ResponseFormat, Role
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.catalogue import Model
from services.common.errors import InvalidField, Unsupported

_FORMATS = {ResponseFormat.KIND_JSON_OBJECT: "json", ResponseFormat.KIND_JSON_SCHEMA: "json_schema"}
_RANGES = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
_MAX_STOPS = 16
_MAX_CANDIDATES = 128
_MAX_TOP_LOGPROBS = 20


def check(request: GenerateTextRequest, model: Model) -> None:
    """Raise InvalidField for a field that is wrong for every model, Unsupported for one that `model` cannot do.

    The model's `limits` say more: `unsupported` lists request fields that it does not take, `stop` how many strings,
    `candidates` how many answers.
    """
    if not request.messages:
        raise InvalidField("at least one message is required", param="messages")
    if request.HasField("max_tokens") and request.max_tokens == 0:
        raise InvalidField("max_tokens must be positive", param="max_tokens")
    if request.HasField("sampling"):
        _check_sampling(request)
    if request.candidates > 1:
        _check_count(request.candidates, model.limits.get("candidates", _MAX_CANDIDATES), "candidates")
    if request.stop:
        _check_count(len(request.stop), model.limits.get("stop", _MAX_STOPS), "stop")
        if not all(request.stop):
            raise InvalidField("a stop string must not be empty", param="stop")
    for field, capability in _needs(request):
        if not model.can(capability):
            can = ", ".join(sorted(model.capabilities)) or "plain text only"
            raise Unsupported(f"model {model.id!r} does not support {capability} (it can do: {can})", param=field)
    for field in model.limits.get("unsupported", ()):
        if _is_set(request, field):
            raise Unsupported(f"model {model.id!r} does not take {field}", param=field)


def _needs(request: GenerateTextRequest) -> Iterator[tuple[str, str]]:
    """Give each field of the request that needs a capability, with the capability."""
    for index, message in enumerate(request.messages):
        for place, part in enumerate(message.parts):
            if part.HasField("image"):
                yield f"messages[{index}].parts[{place}].image", "vision"
        if message.role == Role.ROLE_UNSPECIFIED:
            raise InvalidField("a message needs a role", param=f"messages[{index}].role")
    if request.tools:
        yield "tools", "tools"
    if request.HasField("response_format") and request.response_format.kind in _FORMATS:
        yield "response_format", _FORMATS[request.response_format.kind]
    if request.candidates > 1:
        yield "candidates", "candidates"
    if request.HasField("sampling"):
        if request.sampling.HasField("seed"):
            yield "seed", "seed"
        if request.sampling.logprobs:
            yield "logprobs", "logprobs"
    if request.HasField("reasoning"):
        wanted = request.reasoning
        if wanted.HasField("budget_tokens"):
            yield "reasoning.budget_tokens", "reasoning"
        if wanted.effort not in (ReasoningOptions.EFFORT_UNSPECIFIED, ReasoningOptions.EFFORT_NONE):
            yield "reasoning.effort", "reasoning"


def _check_sampling(request: GenerateTextRequest) -> None:
    sampling = request.sampling
    for field, (low, high) in _RANGES.items():
        if sampling.HasField(field):  # type: ignore[arg-type]  # each name in _RANGES is a field
            value = getattr(sampling, field)
            if not math.isfinite(value) or not low <= value <= high:
                raise InvalidField(f"{field} must be from {low:g} to {high:g}", param=field)
    if sampling.HasField("top_k") and sampling.top_k == 0:
        raise InvalidField("top_k must be positive", param="top_k")
    if sampling.top_logprobs and not sampling.logprobs:
        raise InvalidField("top_logprobs needs logprobs", param="top_logprobs")
    if sampling.top_logprobs > _MAX_TOP_LOGPROBS:
        raise InvalidField(f"top_logprobs must be at most {_MAX_TOP_LOGPROBS}", param="top_logprobs")
    for bias in sampling.logit_bias.values():
        if not -100 <= bias <= 100:
            raise InvalidField("a logit bias must be from -100 to 100", param="logit_bias")


def _check_count(count: int, most: int, field: str) -> None:
    if count > most:
        raise Unsupported(f"at most {most} {field} are taken", param=field)


def _is_set(request: GenerateTextRequest, field: str) -> bool:
    """Tell whether a field, of the request or of its sampling, was given."""
    holder: Message = request if field in request.DESCRIPTOR.fields_by_name else request.sampling
    if holder.DESCRIPTOR.fields_by_name[field].has_presence:
        return holder.HasField(field)
    return bool(getattr(holder, field))
