"""Run the API tests that vendors publish with their clients against a gateway over strict fakes: `make vendor-tests`.

The tests are fetched in the source packages of the clients, not kept. What this gateway does not serve, or refuses on
purpose, is listed with the reason: it must fail, and everything else must pass.
`python -m tests.compat.published [NAME] [pytest's arguments]` runs one client's.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.compat.published import anthropic, google, openai
from tests.compat.published.suite import Suite

SUITES: Final = {suite.client: suite for suite in (openai.SUITE, google.SUITE, anthropic.SUITE)}


def _reason(reasons: Mapping[str, str], name: str) -> str:
    return next((reason for part, reason in reasons.items() if re.search(part, name)), "")


async def judged(suite: Suite, arguments: Sequence[str]) -> bool:
    """Run all of a client's tests; print what failed against what must. Return whether both are the same."""
    source = suite.fetched()
    with tempfile.TemporaryDirectory(prefix="moa-published-") as folder:
        async with suite.gateway(Path(folder) / "gateway") as stack:
            found = await asyncio.to_thread(suite.asked, source, Path(folder), stack, arguments)
    wrong = []
    counted: Counter[str] = Counter()
    for name, why in found.items():
        if apart := _reason(suite.elsewhere, name):
            counted[apart] += 1
            continue
        reason = _reason(suite.refused, name)
        counted[reason or "passed"] += 1
        if bool(why) != bool(reason):
            wrong.append(f"{name}: {why or f'passed, and is listed: {reason}'}")
    print(f"\n{suite.client} {suite.version}, {len(found)} of its own tests of the paths that are served:")
    print("\n".join(f"  {count:4} {what}" for what, count in counted.most_common()))
    print("\n".join(["", "Otherwise than listed:", *wrong] if wrong else ["", "All as listed."]))
    return bool(found) and not wrong


async def main(arguments: Sequence[str]) -> int:
    """Run one client's tests, or all. Return 0 where all fared as listed."""
    chosen, rest = list(SUITES.values()), list(arguments)
    if rest and rest[0] in SUITES:
        chosen = [SUITES[rest.pop(0)]]
    return 0 if all([await judged(suite, rest) for suite in chosen]) else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(sys.argv[1:])))
