"""Make the provider's request of a chat: of a large one in a thread, or in the helper process."""

from __future__ import annotations

from typing import Final, NamedTuple

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.helper_process import FEW_VALUES, HelperProcess, is_large_request
from services.common.rpc import call as calls
from services.providers.http.client import Outgoing
from services.providers.text.base import Adapter
from services.providers.text.ignored import Ignored
from services.text import capable
from services.text.targets import ADAPTERS, Target

_MANY: Final = 1_000
"""A chat with more messages than this is a large one, however few bytes it has."""


class Prepared(NamedTuple):
    """A request as its provider takes it."""

    outgoing: Outgoing
    ignored: list[str]
    """Fields without effect there."""


async def outgoing(
    request: GenerateTextRequest, model: Model, target: Target, *, stream: bool, helper: HelperProcess | None
) -> Prepared:
    """Return the HTTP request for a chat, which is checked; `stream`: whether the provider is asked for a stream.

    Raises InvalidField or Unsupported, with the field's name, for what the model or the provider cannot do.
    """
    many = len(request.messages) > _MANY
    if helper is None or not (many or is_large_request(request)):
        return _made(request, target.adapter, model, target.provider, stream=stream)
    provider, adapter, account = target.provider, target.adapter.name, calls.current().account
    if not many and sum(len(each.parts) for each in request.messages) <= FEW_VALUES:
        return await helper.in_thread(_made, account, request, target.adapter, model, provider, stream=stream)
    made = await helper.run(prepared, request.SerializeToString(), account, adapter, model, provider, stream=stream)
    request.stream = stream
    return made


def prepared(data: bytes, adapter: str, model: Model, provider: Provider, *, stream: bool) -> Prepared:
    """Return the HTTP request for a serialized chat. Raises as `outgoing`."""
    return _made(GenerateTextRequest.FromString(data), ADAPTERS[adapter], model, provider, stream=stream)


def _made(
    request: GenerateTextRequest, adapter: Adapter, model: Model, provider: Provider, *, stream: bool
) -> Prepared:
    ignored = Ignored.of(request)
    capable.check(request, model, adapter, ignored)
    request.stream = stream
    return Prepared(adapter.request_from(request, model, provider, ignored), ignored.names)
