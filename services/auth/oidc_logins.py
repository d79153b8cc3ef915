"""Log-ins with an identity provider: a browser is sent there and comes back, and the page asks for a session.

What is known of a log-in while its browser is away is sealed in a cookie of that browser, under the state that the
issuer sends back: any replica completes it, and no other browser can. What the issuer vouched for waits in the
database.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
from prometheus_client import Counter

from services.auth.adapters.group_rules import GroupRules
from services.auth.adapters.identities import ARRIVAL_S, Arrival, Identities, Raced
from services.auth.adapters.oidc_issuer import Issuer
from services.auth.adapters.sealing import Sealer
from services.auth.adapters.tries import Tries
from services.auth.domain import keys
from services.auth.domain.oidc import GroupRule, LogInFailed, SignUp, is_path_of_ours, may_sign_up, wanted
from services.common import logs
from services.common.errors import Conflict, InvalidField, PermissionDenied, RateLimited, Unauthenticated

LASTS_S: Final = 600
"""How long somebody may take to log in at the issuer."""
CALLBACK: Final = "/auth/oidc/callback"
START: Final = "/auth/oidc/start"
_LONGEST: Final = 4096
"""Of a code or a state; RFC 6749 sets no limit."""

LOG_INS: Final = Counter(
    "moa_oidc_log_ins_total",
    "Log-ins with the identity provider: begun, arrived, completed, or why they failed.",
    ["outcome"],
)
_log = logs.get("auth")


class Sent(NamedTuple):
    """Where a browser is sent, and with which cookies."""

    location: str
    cookies: Sequence[str]


class _Away(msgspec.Struct):
    """A log-in while its browser is at the issuer's."""

    nonce: str
    verifier: str
    return_to: str
    ends_at: float


class OidcLogins:
    """Sends browsers to the issuer and takes them back.

    Args:
        tries: Counts by address.
        notes: Bounds what strangers have the audit log hold, which is kept for ever.
        public_url: Where callers reach the gateway.
        sign_up, domains: Who gets an account.
        by_email: Whether an account belongs to whoever has its address verified.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        issuer: Issuer,
        identities: Identities,
        rules: GroupRules,
        tries: Tries,
        notes: Tries,
        *,
        pepper: bytes,
        public_url: str,
        sign_up: SignUp,
        domains: Sequence[str],
        by_email: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._identities = identities
        self._rules = rules
        self._tries = tries
        self._notes = notes
        self._pepper = pepper
        self._sealer = Sealer(pepper, "oidc state")
        self._home = public_url.rstrip("/")
        self._secure = public_url.startswith("https:")
        self._sign_up: SignUp = sign_up
        self._domains = domains
        self._by_email = by_email
        self._clock = clock

    @property
    def start_url(self) -> str:
        """Where a page sends its browser."""
        return self._home + START

    async def begin(self, return_to: str, address: str) -> Sent:
        """Send a browser to the issuer, or back with why not. Raises InvalidField for a path that is not ours."""
        return_to = return_to or "/"
        if not is_path_of_ours(return_to):
            raise InvalidField("a path of this gateway is expected, such as /console", param="return_to")
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        try:
            await self._count(address)
            location = await self._issuer.begin(state=state, nonce=nonce, verifier=verifier)
        except LogInFailed as failure:
            return self._failed(failure, return_to)
        away = _Away(nonce, verifier, return_to, self._clock() + LASTS_S)
        sealed = self._sealer.seal(_record(state), msgspec.json.encode(away))
        LOG_INS.labels("begun").inc()
        value = base64.urlsafe_b64encode(sealed).decode()
        return Sent(location, [self._cookie(_name_of(state), value, LASTS_S, site="Lax")])

    async def finish(self, given: Mapping[str, str], cookies: Mapping[str, str], address: str) -> Sent:
        """Take a browser back from the issuer, with what the way back says, and send it to where it began."""
        state = given.get("state", "")
        used = [self._cookie(_name_of(state), "", 0, site="Lax")]
        away: _Away | None = None
        try:
            await self._count(address)
            away = self._opened(state, cookies)
            if not await self._identities.take_state(self._digest(f"state {state}"), lasts_s=2 * LASTS_S):
                raise LogInFailed("expired", "state_replayed")
            if "error" in given or not 0 < len(given.get("code", "")) <= _LONGEST:
                raise LogInFailed("declined", "declined")
            person, id_token = await self._issuer.person(
                code=given["code"], verifier=away.verifier, nonce=away.nonce, named=given.get("iss")
            )
        except LogInFailed as failure:
            if away is not None:
                # Of others it is not known whether there ever was a log-in.
                await self._note(failure.cause)
            return self._failed(failure, away.return_to if away is not None else "/", used)
        ticket = secrets.token_urlsafe(32)
        await self._identities.arrive(self._digest(ticket), person, id_token)
        LOG_INS.labels("arrived").inc()
        # Cookies of the strict kind are sent with what the page itself asks, which is when this one is needed.
        arrived = self._cookie("moa_oidc_ready", ticket, ARRIVAL_S, site="Strict")
        return Sent(f"{self._home}{away.return_to}#oidc=ready", [*used, arrived])

    async def arrival(self, cookies: Mapping[str, str], address: str) -> Arrival:
        """Return the log-in that a browser came back with. Raises Unauthenticated, RateLimited."""
        await self._tries.check(address)
        ticket = cookies.get(self._full_name("moa_oidc_ready"), "")
        if not ticket:
            raise Unauthenticated("log in with the identity provider first, in this browser")
        return await self._identities.arrived(self._digest(ticket))

    async def account_of(self, arrival: Arrival) -> str | None:
        """Return the account that a log-in is of; None: one that is still to be made.

        Raises PermissionDenied where there is none for the person, or it is disabled.
        """
        person = arrival.person
        found = await self._identities.find(person, by_email=self._by_email)
        if found is not None and found.disabled:
            await self.refused("account_disabled", found.account_id)
            raise PermissionDenied("this account is disabled; ask an administrator")
        if found is None and not may_sign_up(person, await self._rules.now(), self._sign_up, self._domains):
            await self.refused("no_account")
            raise PermissionDenied(
                "no account is linked to this identity; log in with a password and link it, or ask an administrator"
            )
        return found.account_id if found is not None else None

    async def enter(self, arrival: Arrival, account_id: str | None) -> str:
        """Complete a log-in; return its account. Raises what `Identities.enter` raises, but for Raced."""
        groups = arrival.person.groups
        rules: Sequence[GroupRule] | None = None if groups is None else wanted(groups, await self._rules.now())
        try:
            entered = await self._identities.enter(arrival, account_id, rules)
        except Conflict:
            await self.refused("address_taken")
            raise
        except Raced:
            raise Conflict("another log-in of the same identity was completed meanwhile; try again") from None
        LOG_INS.labels("completed").inc()
        return entered

    async def refused(self, cause: str, account_id: str = "") -> None:
        """Note that a log-in which had come back was refused."""
        LOG_INS.labels(cause).inc()
        await self._note(cause, account_id)

    def sealed_token(self, session: bytes, id_token: str) -> bytes:
        """Return the issuer's token as a session keeps it."""
        return self._sealer.seal(_record(session.hex()), id_token.encode())

    async def end_session_url(self, session: bytes, sealed: bytes) -> str:
        """Return where a browser ends its session with the issuer; empty where it cannot."""
        token = self._sealer.open(_record(session.hex()), sealed)
        return await self._issuer.end_session_url(token.decode()) if token is not None else ""

    def spent(self) -> str:
        """Return the cookie that takes the place of the one which a completed log-in came back with."""
        return self._cookie("moa_oidc_ready", "", 0, site="Strict")

    async def _note(self, cause: str, account_id: str = "") -> None:
        with contextlib.suppress(RateLimited):
            await self._notes.check(account_id)
            await self._identities.note_failure(cause, account_id)

    async def _count(self, address: str) -> None:
        try:
            await self._tries.check(address)
        except RateLimited:
            raise LogInFailed("busy", "too_many") from None

    def _opened(self, state: str, cookies: Mapping[str, str]) -> _Away:
        """Return what a browser's cookie holds of its log-in. Raises LogInFailed."""
        value = cookies.get(self._full_name(_name_of(state)))
        if not state or len(state) > _LONGEST or value is None:
            raise LogInFailed("expired", "state_foreign")
        try:
            plain = self._sealer.open(_record(state), base64.urlsafe_b64decode(value))
        except (ValueError, binascii.Error):
            plain = None
        if plain is None:
            raise LogInFailed("expired", "state_foreign")
        away = msgspec.json.decode(plain, type=_Away)
        if self._clock() >= away.ends_at:
            raise LogInFailed("expired", "state_ended")
        return away

    def _failed(self, failure: LogInFailed, return_to: str, cookies: Sequence[str] = ()) -> Sent:
        LOG_INS.labels(failure.cause).inc()
        _log.info("oidc.log_in_failed", cause=failure.cause)
        return Sent(f"{self._home}{return_to}#oidc=failed:{failure.reason}", cookies)

    def _full_name(self, name: str) -> str:
        # With this prefix no other host of the domain can set it (RFC 6265bis).
        return f"__Host-{name}" if self._secure else name

    def _cookie(self, name: str, value: str, lasts_s: int, *, site: str) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{self._full_name(name)}={value}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite={site}{secure}"

    def _digest(self, text: str) -> bytes:
        return keys.digest(self._pepper, text)


def _name_of(state: str) -> str:
    """Return the name of a log-in's cookie: a browser may have several under way, as many as a request can hold."""
    return "moa_oidc_" + hashlib.sha256(state.encode("utf-8", "surrogatepass")).hexdigest()[0]


def _record(name: str) -> UUID:
    return uuid5(NAMESPACE_URL, f"moa:oidc:{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}")
