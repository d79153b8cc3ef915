"""Make the provider's requests for images: in the helper process, where large pictures are more than passed on."""

from __future__ import annotations

from typing import Final

from moa.image.v1.image_pb2 import Operation
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.common.helper_process import HelperProcess, is_large_request
from services.common.rpc import call as calls
from services.image.targets import ADAPTERS, Target
from services.providers.image.base import Call

_PASSING_ON: Final = frozenset((Operation.OPERATION_GENERATE, Operation.OPERATION_EDIT, Operation.OPERATION_VARIATION))
_HERE_BYTES: Final = 24 * 2**20


async def provider_calls(
    taken: list[GenerateImageRequest], model: Model, target: Target, helper: HelperProcess | None
) -> list[Call]:
    """Return the provider's calls for a request, which is taken out of its list: the calls hold its pictures now.

    Raises Unsupported, with the field's name, for what cannot be said.
    """
    adapter, provider = target.adapter.name, target.provider
    if helper is None or not is_large_request(taken[0]):
        return _calls(taken.pop(), adapter, model, provider)
    if _is_short(taken[0]):
        return await helper.in_thread(_calls, calls.current().account, taken.pop(), adapter, model, provider)
    data = taken.pop().SerializeToString()
    return await helper.run(prepared, data, calls.current().account, adapter, model, provider)


def _is_short(request: GenerateImageRequest) -> bool:
    """Return whether pictures are passed on as they are, which takes a thread a few milliseconds each."""
    if request.HasField("mask") or request.operation not in _PASSING_ON:
        return False
    return calls.current().request_bytes <= _HERE_BYTES


def prepared(data: bytes, adapter: str, model: Model, provider: Provider) -> list[Call]:
    """Return the provider's calls for a serialized request. Raises as `provider_calls`."""
    return _calls(GenerateImageRequest.FromString(data), adapter, model, provider)


def _calls(request: GenerateImageRequest, adapter: str, model: Model, provider: Provider) -> list[Call]:
    made = ADAPTERS[adapter].calls_from(request, model, provider)
    if request.HasField("seed"):
        return made
    # Without seeds, calls for as many images say the same: their pictures need be here once.
    by_count: dict[int, Call] = {}
    return [by_count.setdefault(call.count, call) for call in made]
