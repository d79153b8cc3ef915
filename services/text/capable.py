"""Hold a request to what a model can do, by the catalogue's word, before anything is sent.

What changes the answer's meaning is refused; what only tunes or hints is ignored by name.
"""

from __future__ import annotations

from typing import Any, Final

from moa.text.v1.text_pb2 import ReasoningOptions
from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model
from services.common import limits
from services.common.custom_calls import arguments_of
from services.common.errors import Unsupported
from services.common.foreign import owner_of
from services.providers.text import caching
from services.providers.text.base import Adapter
from services.providers.text.ignored import Ignored
from services.text import choice, json_object

_NO_EFFORT: Final = (ReasoningOptions.EFFORT_UNSPECIFIED, ReasoningOptions.EFFORT_NONE)
_DEFAULTS: Final = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""What every vendor takes for granted: to ask for it changes nothing."""
_MEANT: Final = frozenset(("logprobs", "top_logprobs"))
"""Of the sampling: what the answer must hold."""


def check(request: GenerateTextRequest, model: Model, adapter: Adapter, ignored: Ignored) -> None:
    """Take the hints out of a request that a model does not take, and note them.

    The model's `limits` say more than the contract: `unsupported` lists request fields that it does not take, `stop`
    how many strings, `candidates` how many answers.

    Raises InvalidField for a field that is wrong for every model, Unsupported for one that `model` cannot do and that
    changes what the answer means.
    """
    limits.check_for(request, model)
    limited = model.limits
    if limited.candidates is not None:
        _check_count(request.candidates, limited.candidates, "candidates")
    if limited.stop is not None:
        _check_count(len(request.stop), limited.stop, "stop")
    _check_foreign(request, model, adapter)
    check_custom(request, model, adapter)
    if request.HasField("response_format"):
        if json_object.is_emulated(request, model):
            json_object.ask_for_object(request)
        elif choice.is_emulated(request, adapter):
            choice.ask_for_choice(request)
    if request.HasField("reasoning") and "reasoning" not in model.capabilities:
        _drop_reasoning(request.reasoning, model, ignored)
    if request.HasField("sampling"):
        _drop_sampling(request, model, ignored)
    for field in limited.unsupported:
        if field in request.DESCRIPTOR.fields_by_name and _is_set(request, field):
            raise Unsupported(f"model {model.id!r} does not take {field}", param=field)
    if not adapter.caches and caching.is_marked(request):
        ignored.add("cache_control", "this provider caches prompts by itself")
    if request.vendor.names and request.vendor.vendor != adapter.vendor:
        ignored.extend(request.vendor.names)


def _check_count(count: int, most: int, field: str) -> None:
    if count > most:
        raise Unsupported(f"at most {most} {field} are taken", param=field)


def _check_foreign(request: GenerateTextRequest, model: Model, adapter: Adapter) -> None:
    """Raise Unsupported for a tool or a part that only another vendor knows."""
    known = adapter.own_kinds(model) if adapter.own_kinds is not None else adapter.vendor
    for index, tool in enumerate(request.tools):
        if not tool.name and tool.vendor.vendor != known:
            refusal = f"model {model.id!r} has none of the tools that run at {owner_of(tool)}"
            raise Unsupported(refusal, param=f"tools[{index}]")
    for number, message in enumerate(request.messages):
        for index, part in enumerate(message.parts):
            if part.HasField("vendor") and part.WhichOneof("part") is None and part.vendor.vendor != known:
                refusal = f"model {model.id!r} takes no parts of the kinds of {owner_of(part)}"
                raise Unsupported(refusal, param=f"messages[{number}].parts[{index}]")


def check_custom(request: GenerateTextRequest | CountTokensRequest, model: Model, adapter: Adapter) -> None:
    """Raise Unsupported for a custom tool where the protocol has none; make earlier calls of one calls of functions."""
    if adapter.custom_tools:
        return
    for index, tool in enumerate(request.tools):
        if tool.HasField("custom"):
            refusal = f"model {model.id!r} calls functions only; models of OpenAI's protocol take custom tools"
            raise Unsupported(refusal, param=f"tools[{index}].custom")
    for part in (part for message in request.messages for part in message.parts):
        if part.HasField("tool_call") and part.tool_call.custom:
            part.tool_call.arguments_json = arguments_of(part.tool_call)
            part.tool_call.custom = False


def _drop_reasoning(wanted: ReasoningOptions, model: Model, ignored: Ignored) -> None:
    """Take away what asks for reasoning; the wish to see it stays."""
    why = f"model {model.id!r} does not reason"
    if wanted.HasField("budget_tokens"):
        ignored.add("reasoning.budget_tokens", why)
        wanted.ClearField("budget_tokens")
    if wanted.effort not in _NO_EFFORT:
        ignored.add("reasoning.effort", why)
    wanted.effort = ReasoningOptions.EFFORT_UNSPECIFIED


def _drop_sampling(request: GenerateTextRequest, model: Model, ignored: Ignored) -> None:
    sampling: Any = request.sampling
    untaken: list[str] = [field for field in model.limits.unsupported if field in sampling.DESCRIPTOR.fields_by_name]
    untaken += limits.hints_beyond(sampling, model)
    for field in untaken:
        if not _is_set(sampling, field):
            continue
        if field in _MEANT:
            raise Unsupported(f"model {model.id!r} does not take {field}", param=field)
        if field not in _DEFAULTS or getattr(sampling, field) != _DEFAULTS[field]:
            ignored.add(field, f"model {model.id!r} does not take {field}")
        sampling.ClearField(field)


def _is_set(message: Any, field: str) -> bool:
    if message.DESCRIPTOR.fields_by_name[field].has_presence:
        return bool(message.HasField(field))
    return bool(getattr(message, field))
