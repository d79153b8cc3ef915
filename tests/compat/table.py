"""The table of clients, for a person."""

from __future__ import annotations

from collections.abc import Sequence

from tests.compat.runner import Result


def lines(results: Sequence[Result]) -> list[str]:
    """Return a line for each client and vendor: what was well, what failed, then why, one a line."""
    made: list[str] = []
    wide = max((len(result.client) for result in results), default=0)
    pairs = list(dict.fromkeys((result.client, result.vendor) for result in results))
    for client, vendor in pairs:
        own = [result for result in results if (result.client, result.vendor) == (client, vendor)]
        words = " ".join(f"{result.scenario}:{_word(result)}" for result in own)
        made.append(f"{client:{wide}}  {vendor:6}  {words}")
    return [*made, *faults(results)]


def faults(results: Sequence[Result]) -> list[str]:
    """Return a line for each scenario that failed, with why."""
    return [f"{each.client} {each.vendor} {each.scenario}: {each.why}" for each in results if each.why]


def _word(result: Result) -> str:
    if result.why:
        return "FAILED"
    return "ok(no-thoughts)" if result.forgets else "ok"
