"""The account that the router names is the tenant among whom an engine is shared."""

from __future__ import annotations

from moa.image.v1 import image_pb2
from tests.inference.harness import IMAGE, Client, Running, small, until


async def test_the_account_of_a_call_is_its_tenant(running: Running, client: Client) -> None:
    """Orders of two accounts are two tenants' while they run; without one they share a nameless tenant."""
    await client.image(**small(diffusion=image_pb2.Diffusion(steps=1)))  # loaded
    with running.held(IMAGE) as engine:
        calls = [client.image_call(("x-moa-account", name), **small()) for name in ("acct-1", "acct-2")]
        calls.append(client.image_call(**small()))
        await until(lambda: len(engine._queue.everyone()) == len(calls))
        tenants = {order.tenant for order in engine._queue.everyone()}
        for call in calls:
            call.cancel()
    assert tenants == {"acct-1", "acct-2", ""}
