"""On which of a key's budgets a request counts, remembered: names of models and tags repeat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from moa.quota.v1 import quota_pb2
from services.quota_client.budgets import counts

_MEMO_SIZE: Final = 4096


class Budgets:
    """The budgets that requests of a key may count on.

    Args:
        parts: As auth said.
    """

    __slots__ = ("_memo", "_parts")

    def __init__(self, parts: Sequence[quota_pb2.Budget] = ()) -> None:
        self._parts = tuple(parts)
        self._memo: dict[tuple[str, str, tuple[str, ...]], tuple[str, ...]] = {}

    def of(self, provider: str, model: str, tags: tuple[str, ...]) -> tuple[str, ...]:
        """Return the ids of those on which a request counts, in alphabetical order."""
        asked = provider, model, tags
        found = self._memo.get(asked)
        if found is None:
            found = tuple(sorted(part.budget_id for part in self._parts if counts(part, provider, model, tags)))
            if len(self._memo) >= _MEMO_SIZE:
                # Tags come from callers: a memo must not grow with them.
                self._memo.clear()
            self._memo[asked] = found
        return found

    def covers(self, parts: Sequence[quota_pb2.Budget]) -> bool:
        """Return whether requests count on these as on those."""
        return list(map(_part, self._parts)) == list(map(_part, parts))


def renewed(before: Budgets | None, grant: quota_pb2.Grant) -> Budgets:
    """Return the budgets that a grant names; those of before, with what they remember, if they are."""
    return before if before is not None and before.covers(grant.budgets) else Budgets(grant.budgets)


def _part(budget: quota_pb2.Budget) -> tuple[str, str, str, str]:
    return budget.budget_id, budget.provider, budget.model, budget.tag
