"""Passwords: argon2id, off the event loop, never more at once than the machine bears."""

from __future__ import annotations

import asyncio
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.common.errors import InvalidField

HASHER = PasswordHasher()
"""Makes hashes at today's cost, and verifies those of any."""
DECOY: Final = "$argon2id$v=19$m=65536,t=3,p=4$QzjmcGNaAK0Qx5hzZgaWVQ$qwey2ayZ/phL7UNFeuW7lYJ2JP2kE6vj/xNNhE8X0sg"
"""The hash of a password that nobody has, at the cost of `HASHER`: making it took each start 0.2 s of CPU."""
_SHORTEST = 8
_LONGEST = 256


class Passwords:
    """Hashes and verifies.

    Args:
        at_once: How many may be worked on at the same time; each takes 64 MiB and some 50 ms of a core.
    """

    def __init__(self, *, at_once: int = 2) -> None:
        self._turns = asyncio.Semaphore(at_once)

    async def hash(self, password: str) -> str:
        """Return what to store. Raises InvalidField when the password is too short or too long."""
        if not _SHORTEST <= len(password) <= _LONGEST:
            raise InvalidField(f"a password has {_SHORTEST} to {_LONGEST} characters", param="password")
        async with self._turns:
            return await asyncio.to_thread(HASHER.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Return whether the password is right; takes as long when there is none to compare with."""
        if len(password) > _LONGEST:
            return False
        async with self._turns:
            # Verified in place of a missing account's, so that the time tells nothing.
            right = await asyncio.to_thread(_matches, stored or DECOY, password)
        return right and stored is not None


def _matches(stored: str, password: str) -> bool:
    try:
        return HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False
