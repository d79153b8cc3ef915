"""Shadows: targets that are asked too, whose answers nobody is given."""

from __future__ import annotations

import asyncio

import pytest

from services.catalogue import RouteTarget
from services.common import errors
from tests.router.routed import world
from tests.router.world import World


class TestShadows:
    """Shadows: asked too, heard by nobody, paid by the operator."""

    def shadowed(self) -> World:
        played = world("a", RouteTarget(model="b", shadow=0.5))
        played.chance = 0.4
        return played

    async def drained(self, played: World) -> None:
        while len(played.operations.shadows):
            await asyncio.sleep(0)

    async def test_a_shadow_is_asked_too_and_books_nothing(self) -> None:
        """With a copy of the request, once another has begun to answer; its service is told no reservation."""
        played = self.shadowed()
        said_text, _, _ = await played.ask("a question", model="team")
        await self.drained(played)
        assert (said_text, played.order) == ("I am a", "ab")
        assert played.asked[1].messages == ("a question",)
        assert played.asked[1].reservation == ""
        assert played.ledger.rows == [("r1", 7, 5, "a")]
        assert not played.ledger.open

    async def test_its_failure_is_nobodys(self) -> None:
        """Nor is it asked where nobody answers the caller."""
        played = self.shadowed()
        played.play("b", errors.UpstreamFailed("no"))
        assert (await played.ask(model="team"))[0] == "I am a"
        await self.drained(played)
        for _ in range(3):
            played.play("a", errors.UpstreamAuth("no"))
        played.asked.clear()
        with pytest.raises(errors.UpstreamAuth):
            await played.ask(model="team")
        await self.drained(played)
        assert "b" not in played.order

    async def test_it_ends_with_its_router(self) -> None:
        """A shadow that says nothing keeps no router from ending."""
        played = self.shadowed()
        played.play("b", asyncio.Event())
        await played.ask(model="team")
        while len(played.calls) < 2:
            await asyncio.sleep(0)
        await played.operations.aclose()
        assert played.calls[1].ended == "cancelled"
