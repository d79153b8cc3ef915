"""Second factors of accounts in PostgreSQL: their secrets are sealed, and a code counts once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Link, Postgres
from services.auth.adapters.sealing import Sealer
from services.auth.domain import totp
from services.common.errors import Conflict, InvalidField

_WRONG: Final = "the code is not correct; send the one that your app shows now"


class SecondFactors:
    """Keeps second factors.

    Args:
        pepper: What secrets are sealed with.
        clock: Seconds since 1970.
    """

    def __init__(self, postgres: Postgres, *, pepper: bytes, clock: Callable[[], float] = time.time) -> None:
        self._postgres = postgres
        self._sealer = Sealer(pepper, "second factor")
        self._clock = clock

    async def needed(self, account_id: str) -> bool:
        """Return whether an account logs in with a code beside its password."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute("select totp is not null from accounts where id = %s", (account_id,))
            row = await cursor.fetchone()
        return bool(row and row[0])

    async def begin(self, account_id: str) -> bytes:
        """Make a secret, which counts once a code of it is confirmed. Raises Conflict where there is a factor."""
        secret = totp.new_secret()
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "update accounts set totp_pending = %s where id = %s and totp is null",
                (self._sealer.seal(_record(account_id), secret), account_id),
            )
            if cursor.rowcount == 0:
                raise Conflict("the account has a second factor; remove it first")
        return secret

    async def confirm(self, account_id: str, code: str) -> None:
        """Have the secret that was made count from now on. Raises InvalidField for a code that is not of it."""
        async with self._postgres.transaction() as link:
            step = await self._step(link, account_id, "totp_pending", code)
            await link.execute(
                "update accounts set totp = totp_pending, totp_pending = null, totp_step = %s where id = %s",
                (step, account_id),
            )
            await audit(link, account_id, "second_factor.set", account_id)

    async def check(self, account_id: str, code: str) -> bool:
        """Return whether a code is right, and take it: it is right once."""
        async with self._postgres.transaction() as link:
            try:
                step = await self._step(link, account_id, "totp", code)
            except InvalidField:
                return False
            await link.execute("update accounts set totp_step = %s where id = %s", (step, account_id))
        return True

    async def remove(self, account_id: str, *, actor: str) -> None:
        """Take an account's second factor away, if it has one."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "update accounts set totp = null, totp_pending = null, totp_step = 0"
                " where id = %s and totp is not null",
                (account_id,),
            )
            if cursor.rowcount:
                await audit(link, actor, "second_factor.removed", account_id)

    async def _step(self, link: Link, account_id: str, column: str, code: str) -> int:
        columns = "totp_pending, 0::bigint" if column == "totp_pending" else "totp, totp_step"
        cursor = await link.execute(f"select {columns} from accounts where id = %s for update", (account_id,))
        row = await cursor.fetchone()
        secret = self._sealer.open(_record(account_id), bytes(row[0])) if row and row[0] else None
        step = totp.step_of(secret, code, now=self._clock(), after=row[1]) if row and secret else None
        if step is None:
            raise InvalidField(_WRONG, param="code")
        return step


def _record(account_id: str) -> UUID:
    return uuid5(NAMESPACE_URL, f"moa:account:{account_id}")
