"""Count a prompt's tokens by the provider's own tokenizer."""

from __future__ import annotations

from moa.text.v1.text_service_pb2 import CountTokensRequest, GenerateTextRequest
from services.catalogue import Model
from services.common.errors import Unsupported
from services.providers.http.deadline import Deadline
from services.text.targets import Target


async def of_prompt(request: GenerateTextRequest, model: Model, target: Target) -> int:
    """Return the provider's count of a chat's prompt. Raises as `prompt_tokens`."""
    counted = CountTokensRequest(
        model=request.model, provider=request.provider, messages=request.messages, tools=request.tools
    )
    return await prompt_tokens(counted, model, target)


async def prompt_tokens(request: CountTokensRequest, model: Model, target: Target) -> int:
    """Return the provider's count. Raises Unsupported where its protocol has none."""
    adapter = target.adapter
    if adapter.count_request_from is None or adapter.count_from is None:
        raise Unsupported(f"provider {target.provider.id!r} does not count tokens", param="model")
    outgoing = adapter.count_request_from(request, model, target.provider)
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
