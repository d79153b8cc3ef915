"""Measure the console's first paint on a slow phone: `python -m tests.e2e.paint http://127.0.0.1:8080`.

The profile is Lighthouse's for phones: a processor four times slower, 150 ms for each answer to begin, 1.6 Mbit/s down
and 0.75 Mbit/s up, nothing cached. The gateway runs already; each line is a browser of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

from tests.e2e import browser

RUNS: Final = 5
SLOW: Final = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1_638_400 / 8,
    "uploadThroughput": 768_000 / 8,
}
_SEEN: Final = "Object.fromEntries(performance.getEntriesByType('paint').map(one => [one.name, one.startTime]))"


async def first_paint(url: str) -> tuple[float, float]:
    """Return when something of a page's content was seen first, and when its form was, in milliseconds."""
    async with browser.browser("about:blank") as page:
        await page.size(360, 740)
        await page.call("Network.enable")
        await page.call("Network.setCacheDisabled", cacheDisabled=True)
        await page.call("Network.emulateNetworkConditions", **SLOW)
        await page.call("Emulation.setCPUThrottlingRate", rate=4)
        await page.go(url)
        ready = await page.until("document.querySelector('form#login') && performance.now()")
        return (await page.run(_SEEN))["first-contentful-paint"], ready


async def main(url: str) -> None:
    """Print what each run measured."""
    for _ in range(RUNS):
        painted, ready = await first_paint(url)
        print(f"first paint {painted:.0f} ms, form {ready:.0f} ms (load {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
