"""Who calls the public services: by session token or API key, and from where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from services.auth.adapters.sessions import Sessions
from services.auth.adapters.tries import Tries
from services.auth.arrivals import Arrivals
from services.auth.domain import keys
from services.auth.domain.accounts import VerifiedKey
from services.auth.domain.powers import check_manages
from services.common.errors import Unauthenticated
from services.common.rpc import call as calls
from services.common.rpc.keys import SESSION_PREFIX, key_of

INVITATION_PREFIX = "inv-"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls."""

    account_id: str
    session: bytes | None
    """The session's digest; None when an API key was sent."""
    key_id: str | None = None
    """The key; None when the token of a session was sent."""
    manages: frozenset[str] = frozenset()
    """What the key manages; somebody who is logged in manages everything of theirs."""

    def check_manages(self, scope: str) -> None:
        """Raise PermissionDenied unless the caller is logged in, or has a key with the scope."""
        if self.key_id is not None:
            check_manages(self.manages, scope)


class Verifier(Protocol):
    """What finds keys."""

    async def verify(self, api_key: str) -> VerifiedKey: ...  # noqa: D102


class Callers:
    """Finds out who calls.

    Args:
        wrong: Counts wrong credentials by the address that they came from.
        arrivals: Counts all calls by their account and key.
        pepper: What tokens are digested with.
    """

    def __init__(self, quota: Verifier, sessions: Sessions, wrong: Tries, arrivals: Arrivals, *, pepper: bytes) -> None:
        self._quota = quota
        self._arrivals = arrivals
        self._sessions = sessions
        self._pepper = pepper
        self._wrong = wrong

    async def of(self, context: Any) -> Caller:
        """Return the caller. Raises Unauthenticated; RateLimited after many wrong credentials from one address, and for
        one that is beyond its requests a minute."""
        return await self.with_credential(key_of(context.invocation_metadata() or ()), address_of(context))

    async def with_credential(self, token: str, address: str) -> Caller:
        """Return whose an API key or a session's token is that came from an address. Raises as `of` does."""
        if not token:
            raise Unauthenticated("log in, or send an API key")
        try:
            caller = await self._found(token)
        except Unauthenticated:
            await self._wrong.check(address)
            raise
        calls.current().fields["account"] = caller.account_id
        return caller

    async def _found(self, token: str) -> Caller:
        if token.startswith(SESSION_PREFIX):
            digest = keys.digest(self._pepper, token)
            account_id = await live_account(self._sessions, digest)
            await self._arrivals.of_session(account_id)
            return Caller(account_id=account_id, session=digest)
        who = await self._quota.verify(token)
        await self._arrivals.of_key(who)
        return Caller(account_id=who.account_id, session=None, key_id=who.key_id, manages=who.manages)


async def live_account(sessions: Sessions, digest: bytes) -> str:
    """Return the account of a live session. Raises Unauthenticated."""
    account_id = await sessions.account_of(digest)
    if account_id is None:
        raise Unauthenticated("the session has ended; log in again")
    return account_id


def address_of(context: Any) -> str:
    """Return the caller's address: as the edge saw it, else the connection's own. Only the edge reaches this port."""
    return calls.current().address or str(context.peer()).rpartition(":")[0]
