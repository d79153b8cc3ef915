"""A forgotten password: a link is mailed to the account's address, by which another is set once."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from services.auth.adapters.mail import Mailer
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.resets import Resets
from services.auth.adapters.tries import Tries
from services.auth.domain import keys
from services.auth.domain.passwords import Passwords
from services.common import logs
from services.common.errors import MoaError, PermissionDenied, RateLimited

_PREFIX: Final = "reset_"
_SUBJECT: Final = "A new password for Moa"
_TEXT: Final = """Somebody asked for a new password for your account.

{link}

The link works once, for half an hour. If it was not you, nothing has changed and there is nothing to do.
"""
_log = logs.get("auth")


class PasswordResets:
    """Mails links, and sets passwords by them.

    Whether an email has an account is not told: the answer does not wait for the mail.

    Args:
        pepper: What tokens are digested with.
        public_url: Where callers reach the gateway.
        mails: Whether mail can be sent at all.
    """

    def __init__(
        self, postgres: Postgres, mailer: Mailer, passwords: Passwords, *, pepper: bytes, public_url: str, mails: bool
    ) -> None:
        self._resets = Resets(postgres)
        self._mailer = mailer
        self._passwords = passwords
        self._pepper = pepper
        self._public_url = public_url.rstrip("/")
        self._mails = mails
        self._mailboxes = Tries(postgres, pepper=pepper, kind="password reset", tries=3, every_s=1200)
        self._sending: set[asyncio.Task[None]] = set()

    async def ask(self, email: str) -> None:
        """Mail a link to an address, if it has an account.

        Raises PermissionDenied where this gateway sends no mail, RateLimited for many to one address.
        """
        if not self._mails:
            raise PermissionDenied("this gateway sends no e-mail; ask an administrator for a new password")
        try:
            await self._mailboxes.check(email)
        except RateLimited as limited:
            raise RateLimited(
                "too many links were asked for this address; wait as long as Retry-After says",
                retry_after_s=limited.retry_after_s,
            ) from None
        task = asyncio.create_task(self._mail(email))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def use(self, token: str, password: str) -> None:
        """Set a password by a link. Raises PermissionDenied for one that was used or has ended, InvalidField."""
        password_hash = await self._passwords.hash(password)
        if not await self._resets.use(keys.digest(self._pepper, token), password_hash):
            raise PermissionDenied("this link has been used or has ended; ask for another one")

    async def _mail(self, email: str) -> None:
        token = _PREFIX + secrets.token_urlsafe(32)
        try:
            if await self._resets.begin(email, keys.digest(self._pepper, token)):
                text = _TEXT.format(link=f"{self._public_url}/#reset={token}")
                await self._mailer.send(email, _SUBJECT, text, message_id=secrets.token_hex(16))
        except MoaError as error:
            _log.warning("reset.not_mailed", why=error.message)
