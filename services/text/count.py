"""Count a prompt's tokens by the provider's own tokenizer."""

from __future__ import annotations

from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model, Provider
from services.common.errors import Unsupported
from services.common.helper_process import HelperProcess, is_large_request
from services.common.rpc import call as calls
from services.providers.http.client import Outgoing
from services.providers.http.deadline import Deadline
from services.text import capable
from services.text.targets import ADAPTERS, Target


async def of_prompt(
    request: GenerateTextRequest, model: Model, target: Target, helper: HelperProcess | None = None
) -> int:
    """Return the provider's count of a chat's prompt. Raises as `prompt_tokens`."""
    if target.adapter.count_request_from is None or helper is None or not is_large_request(request):
        return await prompt_tokens(_count_of(request), model, target)
    name, account = target.adapter.name, calls.current().account
    outgoing = await helper.run(prepared, request.SerializeToString(), account, name, model, target.provider)
    return await _asked(outgoing, target)


def prepared(data: bytes, adapter: str, model: Model, provider: Provider) -> Outgoing:
    """Return the HTTP request by which the prompt of a serialized chat is counted."""
    request_from = ADAPTERS[adapter].count_request_from
    assert request_from is not None
    return request_from(_count_of(GenerateTextRequest.FromString(data)), model, provider)


def _count_of(request: GenerateTextRequest) -> CountTokensRequest:
    return CountTokensRequest(
        model=request.model, provider=request.provider, messages=request.messages, tools=request.tools
    )


async def prompt_tokens(request: CountTokensRequest, model: Model, target: Target) -> int:
    """Return the provider's count. Raises Unsupported where its protocol has none."""
    request_from = target.adapter.count_request_from
    if request_from is None:
        raise Unsupported(f"provider {target.provider.id!r} does not count tokens", param="model")
    capable.check_custom(request, model, target.adapter)
    return await _asked(request_from(request, model, target.provider), target)


async def _asked(outgoing: Outgoing, target: Target) -> int:
    adapter = target.adapter
    if adapter.count_from is None:
        raise Unsupported(f"provider {target.provider.id!r} does not count tokens", param="model")
    with Deadline() as deadline:
        deadline.within(target.pool.timeouts.connect_s + target.pool.timeouts.first_token_s, "count")
        headers = await target.authority.headers(outgoing)
        reply = await target.pool.send(outgoing, headers)
        try:
            body = await reply.read_all()
        finally:
            reply.close()
    if reply.status != 200:
        raise target.error_from(reply.status, reply.headers, body)
    return adapter.count_from(body)
