"""Refuse what a model cannot do, by the catalogue's word, before anything is sent. Nothing is dropped in silence."""

from __future__ import annotations

from google.protobuf.message import Message

from moa.text.v1.text_pb2 import ReasoningOptions
from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model
from services.common import limits
from services.common.errors import Unsupported

_NO_EFFORT = (ReasoningOptions.EFFORT_UNSPECIFIED, ReasoningOptions.EFFORT_NONE)


def check(request: GenerateTextRequest, model: Model) -> None:
    """Raise InvalidField for a field that is wrong for every model, Unsupported for one that `model` cannot do.

    The model's `limits` say more than the contract: `unsupported` lists request fields that it does not take, `stop`
    how many strings, `candidates` how many answers.
    """
    limits.check(request)
    limits.check_able(request, model)
    _check_count(request.candidates, model.limits.candidates, "candidates")
    _check_count(len(request.stop), model.limits.stop, "stop")
    if request.HasField("reasoning") and not model.can("reasoning"):
        wanted = request.reasoning
        if wanted.HasField("budget_tokens") or wanted.effort not in _NO_EFFORT:
            field = "budget_tokens" if wanted.HasField("budget_tokens") else "effort"
            raise Unsupported(f"model {model.id!r} does not reason", param=f"reasoning.{field}")
    for field in model.limits.unsupported:
        if _is_set(request, field):
            raise Unsupported(f"model {model.id!r} does not take {field}", param=field)


def _check_count(count: int, most: int | None, field: str) -> None:
    if most is not None and count > most:
        raise Unsupported(f"at most {most} {field} are taken", param=field)


def _is_set(request: GenerateTextRequest, field: str) -> bool:
    """Return whether a field, of the request or of its sampling, was given."""
    holder: Message = request if field in request.DESCRIPTOR.fields_by_name else request.sampling
    if holder.DESCRIPTOR.fields_by_name[field].has_presence:
        return holder.HasField(field)
    return bool(getattr(holder, field))
