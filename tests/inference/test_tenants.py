"""The account that the router names, at the priority that it names, is whom an engine is shared among."""

from __future__ import annotations

from inference.fair import NAMELESS, Flow
from moa.image.v1 import image_pb2
from services.common.rpc import call as calls
from tests.inference.harness import CHAT, IMAGE, Client, Running, small, until

METADATA = (
    ((calls.ACCOUNT_KEY, "acct-1"),),
    ((calls.ACCOUNT_KEY, "acct-2"), (calls.PRIORITY_KEY, "high")),
    ((calls.ACCOUNT_KEY, "acct-2"), (calls.PRIORITY_KEY, "low")),
    (),
)
FLOWS = {Flow("acct-1", "normal"), Flow("acct-2", "high"), Flow("acct-2", "low"), NAMELESS}


async def test_an_orders_flow_is_its_calls(running: Running, client: Client) -> None:
    """Orders of images are shared by account and priority while they run; without either they share a nameless one."""
    await client.image(**small(diffusion=image_pb2.Diffusion(steps=1)))  # loaded
    with running.held(IMAGE) as engine:
        open_calls = [client.image_call(*metadata, **small()) for metadata in METADATA]
        await until(lambda: len(engine.jobs()) == len(open_calls))
        flows = {order.flow for order in engine.jobs()}
        for call in open_calls:
            call.cancel()
    assert flows == FLOWS


async def test_an_answers_flow_is_its_calls(running: Running, client: Client) -> None:
    """Answers are shared likewise."""
    await client.text("Hello")  # loaded
    with running.held(CHAT) as engine:
        open_calls = [client.text_call("Hello", metadata=metadata) for metadata in METADATA]
        await until(lambda: len(engine.jobs()) == len(open_calls))
        flows = {work.flow for work in engine.jobs()}
        for call in open_calls:
            call.cancel()
    assert flows == FLOWS
