"""What a router gives back, or is being lent, is neither its own nor auth's for a moment: nobody is refused for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from services.quota_client._lease_store import Demand
from services.quota_client.amounts import Amount
from tests.auth.asking import Router, reserve
from tests.auth.conftest import Admit, Auth


class _Held:
    """Keeps back what a router returns by itself, so that only who asks for it to be booked has it booked.

    Args:
        until_refused: Lets it go once a request was refused, and tells of the refusal when it is booked.
    """

    def __init__(self, router: Router, *, until_refused: bool = False) -> None:
        self._router = router
        self._until_refused = until_refused
        self.go = asyncio.Event()
        router.between(self._between)

    async def _between(self, name: str, request: Any, call: Callable[[], Awaitable[Any]]) -> Any:
        task = asyncio.current_task()
        if name == "ReturnLeases" and task is not None and task.get_name() == "settling":
            await self.go.wait()
        try:
            return await call()
        except grpc.aio.AioRpcError:
            if name == "Admit" and self._until_refused:
                self.go.set()
                await self._router.returned()
            raise


async def _used_up(auth: Auth, admit: Admit) -> tuple[Router, str]:
    """A router that has lent all of a key's 1,000 tokens, of which 700 are idle again."""
    _, _, key = await auth.account(tokens=1000)
    router = await admit(auth)
    assert isinstance(router, Router)
    first = await reserve(router, key, 700)
    assert (await reserve(router, key, 300)).tokens == 300
    first.release()
    return router, key


@pytest.mark.parametrize("least", [700, 50])
async def test_what_is_being_given_back_is_had(auth: Auth, admit: Admit, least: int) -> None:
    """It was recalled for another's sake a moment before, and auth has not booked it."""
    router, key = await _used_up(auth, admit)
    held = _Held(router)
    router.recalled(key)
    assert (await reserve(router, key, 700, min_tokens=least)).tokens == 700
    held.go.set()


async def test_a_refusal_that_was_overtaken_by_what_was_given_back_does_not_count(auth: Auth, admit: Admit) -> None:
    """Auth refused before it booked the return, and was heard after it had confirmed it."""
    router, key = await _used_up(auth, admit)
    _Held(router, until_refused=True)
    router.recalled(key)
    assert (await reserve(router, key, 700)).tokens == 700


async def test_what_is_recalled_before_it_is_used_is_had_again(
    auth: Auth, admit: Admit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh has it given back between the answer that lends it and the request that waits for it."""
    router, key = await _used_up(auth, admit)
    held = _Held(router)
    helped = Demand.helped

    def recalled(demand: Demand, wanted: Amount, given: Amount, now: float) -> None:
        monkeypatch.setattr(Demand, "helped", helped)
        helped(demand, wanted, given, now)
        router.recalled(key)

    router.recalled(key)
    # The last that is done with an answer.
    monkeypatch.setattr(Demand, "helped", recalled)
    assert (await reserve(router, key, 700)).tokens == 700
    held.go.set()


async def test_what_is_being_lent_ahead_of_need_is_had(auth: Auth, admit: Admit) -> None:
    """Its answer is heard after a request was refused that needs it, too."""
    _, _, key = await auth.account(tokens=1000)
    router = await admit(auth)
    assert isinstance(router, Router)
    refused = asyncio.Event()
    ahead = 0

    async def between(name: str, request: Any, call: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal ahead
        try:
            answer = await call()
        except grpc.aio.AioRpcError:
            refused.set()
            raise
        if name == "Admit" and not request.HasField("need"):
            ahead += answer.grant.lease.amount.tokens
            await refused.wait()
            # The refusal goes through a few tasks before it is heard.
            for _ in range(50):
                await asyncio.sleep(0)
        return answer

    router.between(between)
    await reserve(router, key, 100)
    await reserve(router, key, 40)
    assert (await reserve(router, key, 860)).tokens == 860
    assert ahead > 0
