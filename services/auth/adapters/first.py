"""How the first administrator comes by an email and a password, in PostgreSQL."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

import psycopg

from services.auth.adapters.accounts import CONSOLE
from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.unclaimed import UNCLAIMED
from services.common.errors import Conflict, PermissionDenied

_LOCK = 0x6D6F6163
_NO_MORE = (
    "this link has been used or has ended; the gateway prints another one when it starts, as long as it is needed"
)


class FirstLogin:
    """Lets whoever has the token claim the first administrator's account, once.

    Args:
        token: The token; empty: nobody may.
        until: When it ends, in seconds since 1970.
        clock: Seconds since 1970.
    """

    def __init__(self, postgres: Postgres, *, token: str, until: float, clock: Callable[[], float] = time.time) -> None:
        self._postgres = postgres
        self._token = token.encode()
        self._until = until
        self._clock = clock

    def check(self, token: str) -> None:
        """Raise PermissionDenied unless the token is right and has not ended."""
        right = hmac.compare_digest(self._token, token.encode("utf-8", "surrogatepass"))
        if not (self._token and right and self._clock() < self._until):
            raise PermissionDenied(_NO_MORE)

    async def claim(self, email: str, password_hash: str) -> str:
        """Set the account's email and password, and return its id.

        Raises PermissionDenied when somebody was sooner, Conflict when another account has the email.
        """
        async with self._postgres.transaction() as link:
            await link.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            cursor = await link.execute(UNCLAIMED)
            row = await cursor.fetchone()
            if row is None:
                raise PermissionDenied(_NO_MORE)
            account_id = str(row[0])
            try:
                await link.execute(
                    "update accounts set email = %s, password_hash = %s where id = %s",
                    (email, password_hash, account_id),
                )
            except psycopg.errors.UniqueViolation:
                raise Conflict("another account has this email", param="email") from None
            await audit(link, CONSOLE, "account.claimed", account_id, f"email={email}")
        return account_id
