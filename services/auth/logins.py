"""A brake on guessed passwords, by address and by account, that keeps no owner out."""

from __future__ import annotations

from typing import Final

from services.auth.adapters.postgres import Postgres
from services.auth.adapters.tries import Tries
from services.common.errors import RateLimited

_REFUSED_S: Final = 1200.0
"""After so long an address may ask in vain once more."""


class Logins:
    """Slows whoever guesses.

    An address has so many tries for all accounts, and fewer for each. When many wrong passwords came for one account,
    from whatever addresses, each address has fewer still for it: but one that has not tried yet, its owner's, has some.

    Args:
        pepper: What names are digested with.
        at_once: Wrong passwords for one account, from all addresses, before it counts as attacked; it recovers by one
            in each `recovers_s`.
    """

    def __init__(self, postgres: Postgres, *, pepper: bytes, at_once: int = 30, recovers_s: float = 30) -> None:
        def tries(kind: str, tries: int, every_s: float) -> Tries:
            return Tries(postgres, pepper=pepper, kind=kind, tries=tries, every_s=every_s)

        self._address = tries("address", 10, 6)
        self._pair = tries("login", 5, 12)
        self._account = tries("wrong login", at_once, recovers_s)
        self._attacked = tries("attacked login", 2, 600)
        self._refused = tries("refused sign-up", 3, _REFUSED_S)

    async def arrive(self, address: str) -> None:
        """Count a call of an address that names no account yet. Raises RateLimited."""
        try:
            await self._address.check(address)
        except RateLimited as limited:
            raise RateLimited(
                "too many tries from this address; wait as long as Retry-After says",
                retry_after_s=limited.retry_after_s,
            ) from None

    async def check_sign_up(self, address: str) -> None:
        """Raise RateLimited when lately too many sign-ups from an address were refused: it asks who has an account."""
        if await self._refused.spent(address):
            raise RateLimited(
                "too many sign-ups were refused; wait as long as Retry-After says", retry_after_s=_REFUSED_S
            )

    async def refused_sign_up(self, address: str) -> None:
        """Note that a sign-up was refused because its email is taken."""
        await self._refused.count(address)

    async def check(self, account: str, address: str) -> None:
        """Count a try at an account's password. Raises RateLimited with the time until the next."""
        pair = f"{account}\n{address}"
        await self._pair.check(pair)
        if await self._account.spent(account):
            await self._attacked.check(pair)

    async def wrong(self, account: str) -> None:
        """Note that the password was wrong."""
        await self._account.count(account)

    async def right(self, account: str, address: str) -> None:
        """Note that the password was right: this address has all its tries for the account back."""
        pair = f"{account}\n{address}"
        await self._pair.forgive(pair)
        await self._attacked.forgive(pair)
