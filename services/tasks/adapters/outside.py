"""The world outside: webhooks' receivers, through the egress guard."""

from __future__ import annotations

from services.common.egress import Egress


class Outside(Egress):
    """The guard, as settings name it.

    Args:
        allow: Hosts that callers' URLs may name although they are not public, parted by commas.
    """

    def __init__(self, allow: str) -> None:
        super().__init__(allow.split(","))
