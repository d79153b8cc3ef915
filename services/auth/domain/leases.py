"""Lease ids that cannot be forged, and how much a lease gets."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from functools import lru_cache
from typing import Final
from uuid import UUID

from services.quota_client.amounts import NOTHING, Amount

_MAC_BYTES: Final = 14
_SHARE: Final = 8
_REMEMBERED: Final = 1000


class LeaseIds:
    """Makes and reads lease ids: the block, a number within it, and a MAC, in 48 URL-safe characters.

    Args:
        secret: The key of the MAC; the same for every replica.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = hmac.digest(secret, b"lease ids", hashlib.sha256)
        # A busy lease is read with each of its reservations' settlements.
        self.read = lru_cache(_REMEMBERED)(self._read)
        """Return the block that a lease was cut from, and its number there; None when the id is not one of ours."""

    def make(self, block: UUID, number: int) -> str:
        """Return the id of a block's `number`th lease."""
        body = block.bytes + number.to_bytes(6, "big")
        return base64.urlsafe_b64encode(body + self._mac(body)).decode()

    def _read(self, lease_id: str) -> tuple[UUID, int] | None:
        try:
            raw = base64.urlsafe_b64decode(lease_id.encode("ascii"))
        except (binascii.Error, UnicodeEncodeError, ValueError):
            return None
        body, mac = raw[:22], raw[22:]
        if len(raw) != 22 + _MAC_BYTES or not hmac.compare_digest(mac, self._mac(body)):
            return None
        return UUID(bytes=body[:16]), int.from_bytes(body[16:], "big")

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, hashlib.sha256)[:_MAC_BYTES]


def sized(*, least: Amount, need: Amount, want: Amount, free: Amount) -> Amount | None:
    """Return how much to lease when `free` is free; None when not even `least` is.

    What exceeds the need is at most an eighth of what would remain: many holders share a plenty without asking
    often, and near the limit each gets its need alone.
    """
    if not free.covers(least):
        return None
    given = need.at_most(free)
    return given + (want - given).at_most((free - given) // _SHARE).at_least(NOTHING)
