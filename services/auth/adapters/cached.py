"""Keys from memory, while it is certain that they have not changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from services.auth.adapters.feed import Feed
from services.auth.adapters.ledger import RECALL
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.domain.accounts import Standing, VerifiedKey
from services.common import logs
from services.common.cancelling import cancel_and_wait
from services.common.clock import now_utc
from services.common.errors import Unavailable

_log = logs.get("cached")

SURE_S: Final = 0.4
"""How long what was heard last may be trusted."""
AWAY_S: Final = 35.0
"""How long keys are trusted while the database is away: nobody can revoke one in it meanwhile."""
_KEEP_S: Final = 60.0
REREAD_S: Final = 2.0
AT_ONCE: Final = 100
"""Keys of one statement: each takes 0.05 ms of the loop to read."""
_REST: Final = 4
"""Reading keys again rests so many times as long as it works."""

_EVERYBODY: Final = "everybody"
"""What is told where a budget that binds every account has changed."""


class _Entry:
    __slots__ = ("sure_at", "used_at", "who")

    def __init__(self, who: VerifiedKey, now: float) -> None:
        self.who = who
        self.used_at = now
        self.sure_at: float | None = None
        """Up to when every change of it is known to have been heard; None: as far as the feed knows. Where it is told,
        the key is to be read before it is taken from memory again."""


class CachedVerifiedKeys:
    """Finds keys in memory or in PostgreSQL, while its context is open.

    A key is taken from memory only when every change until a moment ago has been heard of. While the database is
    away, from memory as well, for `AWAY_S` at most; then Unavailable.
    """

    def __init__(self, verified_keys: VerifiedKeys, url: str) -> None:
        self._verified_keys = verified_keys
        self._by_digest: dict[bytes, _Entry] = {}
        self._by_id: dict[str, _Entry] = {}
        self._of_subject: dict[str, set[str]] = {}
        """Keys by what binds them and may change: their account, and its team."""
        self._any = asyncio.Event()
        """Set while any key is remembered."""
        self._changes = 0
        self.recalled: Callable[[str], None] | None = None
        """Hears whose idle quota is wanted."""
        self._feed = Feed(url, self._changed)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._feed.__aenter__()
        self._task = asyncio.create_task(self._reread(), name="verified_keys")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancel_and_wait(self._task)
        await self._feed.__aexit__(kind, error, trace)

    async def by_digest(self, digest: bytes) -> VerifiedKey | None:
        """Find the key with this digest. Raises Unavailable."""
        self._feed.used(time.monotonic())
        entry = self._by_digest.get(digest)
        if entry is not None and self._sure(entry, time.monotonic()):
            return entry.who
        before = self._changes
        try:
            who = await self._verified_keys.by_digest(digest)
        except Unavailable:
            # A change may have been heard of meanwhile.
            entry = self._by_digest.get(digest)
            if entry is not None and self._trusted(entry, AWAY_S):
                return entry.who
            raise
        if who is not None:
            self._keep(who, before)
        elif (gone := self._by_digest.get(digest)) is not None:
            self._drop(gone)
        return who

    async def by_ids(self, key_ids: Sequence[str]) -> list[VerifiedKey]:
        """Find keys; those that are not there are left out. Raises Unavailable when any must be read and cannot."""
        now = time.monotonic()
        self._feed.used(now)
        found: list[VerifiedKey] = []
        missing: list[str] = []
        for key_id in key_ids:
            entry = self._by_id.get(key_id)
            if entry is not None and self._sure(entry, now):
                found.append(entry.who)
            else:
                missing.append(key_id)
        for start in range(0, len(missing), AT_ONCE):
            before = self._changes
            read = await self._verified_keys.by_ids(missing[start : start + AT_ONCE])
            for who in read:
                self._keep(who, before)
            for key_id in {*missing[start : start + AT_ONCE]} - {who.key_id for who in read}:
                if (gone := self._by_id.get(key_id)) is not None:
                    self._drop(gone)
            found += read
        return found

    def trusted(self, key_ids: Sequence[str]) -> list[VerifiedKey]:
        """Return those of the keys that may be trusted while the database is away."""
        now = time.monotonic()
        self._feed.used(now)
        entries = [self._by_id.get(key_id) for key_id in key_ids]
        return [entry.who for entry in entries if entry is not None and self._trusted(entry, AWAY_S, now)]

    def note(self, key_id: str, standings: tuple[Standing, ...]) -> None:
        """Take over how a key's day stands, as the ledger just said."""
        entry = self._by_id.get(key_id)
        if entry is not None:
            entry.who = entry.who.stood(standings)

    def _sure(self, entry: _Entry, now: float) -> bool:
        return entry.sure_at is None and self._trusted(entry, SURE_S, now)

    def _trusted(self, entry: _Entry, within_s: float, now: float | None = None) -> bool:
        now = time.monotonic() if now is None else now
        who = entry.who
        sure_at = self._feed.sure_at if entry.sure_at is None else entry.sure_at
        if now - sure_at > within_s or now_utc() >= who.resets_at:
            return False
        if who.expires_at is not None and now_utc() >= who.expires_at:
            return False
        entry.used_at = now
        return True

    def _keep(self, who: VerifiedKey, before: int) -> None:
        """Remember a key, unless something changed while it was being read."""
        if before != self._changes:
            return
        if (known := self._by_id.get(who.key_id)) is not None:
            self._drop(known)
        if who.ended and not who.disabled:
            return
        entry = _Entry(who, time.monotonic())
        self._by_digest[who.digest] = entry
        self._by_id[who.key_id] = entry
        self._any.set()
        for subject in _bound_by(who):
            self._of_subject.setdefault(subject, set()).add(who.key_id)

    def _changed(self, subject: str | None) -> None:
        if subject is not None and subject.startswith(RECALL):
            if self.recalled is not None:
                self.recalled(subject.removeprefix(RECALL))
            return
        self._changes += 1
        if subject is None:
            # The feed may be back before connections for statements are: what cannot be read yet is trusted as it was.
            for entry in self._by_id.values():
                entry.sure_at = self._feed.sure_at if entry.sure_at is None else entry.sure_at
            return
        everybody = subject == _EVERYBODY
        changed = list(self._by_id) if everybody else list(self._of_subject.get(subject or "", ()))
        for key_id in changed:
            self._drop(self._by_id[key_id])

    def _drop(self, entry: _Entry) -> None:
        who = entry.who
        self._by_id.pop(who.key_id, None)
        self._by_digest.pop(who.digest, None)
        for subject in _bound_by(who):
            others = self._of_subject.get(subject, set())
            others.discard(who.key_id)
            if not others:
                self._of_subject.pop(subject, None)

    async def _reread(self) -> None:
        """Keep what is left of the day of keys in use up to date, and forget the others; a part at a time."""
        while True:
            await self._any.wait()
            await asyncio.sleep(REREAD_S)
            now = time.monotonic()
            for entry in list(self._by_id.values()):
                if now - entry.used_at > _KEEP_S:
                    self._drop(entry)
            if not self._by_id:
                self._any.clear()
            used = [key_id for key_id, entry in self._by_id.items() if now - entry.used_at < 2 * REREAD_S]
            for start in range(0, len(used), AT_ONCE):
                began = time.monotonic()
                try:
                    await self._read_again(used[start : start + AT_ONCE])
                except Unavailable:
                    break
                except Exception:
                    _log.exception("reread.failed")
                    break
                await asyncio.sleep(min(REREAD_S, _REST * (time.monotonic() - began)))

    async def _read_again(self, key_ids: Sequence[str]) -> None:
        before = self._changes
        for who in await self._verified_keys.by_ids(key_ids):
            known = self._by_id.get(who.key_id)
            if known is not None and before == self._changes:
                if known.who.ended != who.ended or _bound_by(known.who) != _bound_by(who):
                    self._keep(who, before)
                    continue
                known.sure_at = None
                # One that has not changed stays the same object: what was made of it is still good.
                if known.who != who:
                    known.who = who


def _bound_by(who: VerifiedKey) -> tuple[str, ...]:
    """Return whose changes concern a key."""
    return (who.account_id, who.team_id) if who.team_id else (who.account_id,)
