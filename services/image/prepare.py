"""Make the provider's requests for images: with large pictures, in the helper process."""

from __future__ import annotations

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.common.helper_process import HelperProcess, is_large_request
from services.common.rpc import call as calls
from services.image.targets import ADAPTERS, Target
from services.providers.image.base import Call


async def provider_calls(
    taken: list[GenerateImageRequest], model: Model, target: Target, helper: HelperProcess | None
) -> list[Call]:
    """Return the provider's calls for a request, which is taken out of its list: the calls hold its pictures now.

    Raises Unsupported, with the field's name, for what cannot be said.
    """
    if helper is None or not is_large_request(taken[0]):
        return _calls(taken.pop(), target.adapter.name, model, target.provider)
    call, adapter, provider = calls.current(), target.adapter.name, target.provider
    return await helper.run(prepared, call.serialized(taken.pop()), call.account, adapter, model, provider)


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
