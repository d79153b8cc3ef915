"""The modules that a piece of work passes are those that docs/decisions/0013-layout.md lists, no more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.walks import deltas, documented

_COUNT = 30
_MOST = 9
"""Modules that somebody reads at most who follows one delta."""


async def test_a_delta_passes_the_modules_that_the_page_lists(tmp_path: Path) -> None:
    """Each delta of a streamed chat passes those in the router and in the text service, nine together; and those that
    carry it from one to the other, as gRPC does elsewhere."""
    router, text = await deltas.walked(tmp_path, _COUNT)
    carrying = documented.walk("a delta, between the two")
    assert _at_each(router) | _at_each(text) >= carrying
    assert _at_each(router) - carrying == documented.walk("a delta, in the router")
    assert _at_each(text) - carrying == documented.walk("a delta, in the text service")
    assert len((_at_each(router) | _at_each(text)) - carrying) <= _MOST


def _at_each(passed: Counter[str]) -> set[str]:
    return {module.removesuffix(".py") for module, count in passed.items() if count >= _COUNT}
