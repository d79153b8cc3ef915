"""A limit in dollars holds only where prices are known: what costs nobody knows how much is not asked for under one."""

from __future__ import annotations

from typing import Protocol

from services.catalogue import Model
from services.common.errors import PermissionDenied
from services.quota_client.amounts import NOTHING, UNLIMITED, Amount


class Limited(Protocol):
    """A verified key."""

    def free(self, enough: Amount) -> Amount:
        """Return what is left of its limits."""


def may_pay(verified_key: Limited, model: Model) -> bool:
    """Return whether a key's limits can hold for a model: it has a price, or no limit is in dollars."""
    return not model.lacks_price or verified_key.free(NOTHING).nano_usd >= UNLIMITED


def check(verified_key: Limited, model: Model) -> None:
    """Raise PermissionDenied where a key's limit in dollars cannot hold for a model."""
    if not may_pay(verified_key, model):
        raise PermissionDenied(
            f"nobody knows what model {model.id!r} costs, and this key is under a limit in dollars; use a model with a"
            " price, or have the operator set `assume_price` in the catalogue's row",
            param="model",
        )
