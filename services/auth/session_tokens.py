"""How sessions begin: their tokens, which only who logs in is given."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from services.auth import render
from services.auth.adapters.sessions import Sessions
from services.auth.domain import keys
from services.common.rpc.keys import SESSION_PREFIX


class SessionTokens:
    """Begins sessions.

    Args:
        pepper: What tokens are digested with.
    """

    def __init__(self, sessions: Sessions, *, pepper: bytes) -> None:
        self._sessions = sessions
        self._pepper = pepper

    async def begin(
        self,
        account_id: str,
        address: str = "",
        *,
        by: str | None = None,
        kept: Callable[[bytes], bytes] | None = None,
    ) -> tuple[str, Timestamp]:
        """Begin a session; return its token, and when it ends if it is not used.

        `by` is how somebody logged in, for the audit log; None: it is not noted. `kept` returns, by the session's
        digest, what is kept of the identity provider's word.
        """
        token = SESSION_PREFIX + secrets.token_urlsafe(32)
        digest = keys.digest(self._pepper, token)
        expires_at = await self._sessions.begin(
            account_id, digest, address=address, by=by, id_token=kept(digest) if kept is not None else None
        )
        return token, render.timestamp(expires_at)
