"""The long journeys of people at the console: `make browser` runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e import consoles
from tests.e2e.consoles import House
from tests.emulators.script import Script

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with consoles.house(tmp_path_factory.mktemp("journeys")) as running:
        yield running


async def test_an_answer_that_breaks_off_is_kept(house: House) -> None:
    """What had come is shown with why it ended, and asking again is a branch beside it; a stopped one is kept too."""
    broken, whole, held = Script(text=("Once ", "upon"), cut_at=1), Script(text=("Again.",)), Script(hold_at=2)
    async with house.played(broken, whole, held) as upstream, consoles.at(house) as console:
        page = console.page
        await console.sign_up(house)
        await console.visit("chat")
        await console.ask("Tell me a story")
        await console.sees("Once", ".answer")
        await page.until("document.querySelector('.answer [role=alert] button') !== null")
        await page.run("document.querySelector('.answer [role=alert] button').click()")
        await console.sees("Again.", ".answer")
        await console.sees("2 / 2")
        await console.ask("And then")
        await console.sees("Hello", ".messages > :nth-last-child(2)")
        await page.click("#stop")
        await page.until("document.querySelector('#send') !== null")
        await console.sees("Stopped.")
        await asyncio.wait_for(held.left.wait(), 20)
        assert not upstream.refused
        await console.unharmed()
