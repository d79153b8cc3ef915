"""What axe and the width of the screen say of a page of the console."""

from __future__ import annotations

from typing import Any, Final

from deploy.build.console import SOURCES
from tests.e2e.consoles import Console

AXE: Final = SOURCES / "node_modules" / "axe-core" / "axe.min.js"
"""Deque's checks of accessibility; `npm ci` in the console's sources fetches them, as `make browser` does."""
NOTHING_SCROLLS: Final = "document.documentElement.scrollWidth <= visualViewport.width"
"""`innerWidth` of a phone grows with what is too wide."""

_TOO_WIDE: Final = (
    "[...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll')"
    " && one.getBoundingClientRect().right > visualViewport.width).map(one => one.outerHTML.slice(0, 120))"
)


async def faults_of(console: Console) -> list[Any]:
    """Return what axe finds on the page."""
    assert AXE.is_file(), f"axe-core is missing: npm ci in {SOURCES}"
    await console.page.run(AXE.read_text() + ";0")
    found: list[Any] = await console.page.run(
        "axe.run().then(result => result.violations.map(one => [one.id, one.nodes.map(node => node.html)]))"
    )
    return found


async def passes(console: Console) -> None:
    """Fail where axe finds anything, the page is wider than the screen, or anything ran that should not."""
    found = await faults_of(console)
    assert not found, found
    assert await console.page.run(NOTHING_SCROLLS), await console.page.run(_TOO_WIDE)
    await console.unharmed()
