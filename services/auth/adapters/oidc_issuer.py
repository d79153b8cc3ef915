"""An identity provider, asked over HTTP (OpenID Connect Core and Discovery 1.0): the code flow with PKCE (RFC 7636).

Its address is the operator's; what it answers is not trusted: sizes and times are bounded, no redirect is followed, and
what it names on other hosts is called by the egress guard alone.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

from services.auth.domain.oidc import Expected, LogInFailed, Person, check_claims, person_of
from services.common import logs
from services.common.egress import Answered, Egress
from services.common.errors import MoaError

if TYPE_CHECKING:
    from services.auth.adapters.oidc_tokens import PublicKey

T = TypeVar("T")

_TOKENS: Final = "services.auth.adapters.oidc_tokens"
_WELL_KNOWN: Final = "/.well-known/openid-configuration"
_TIMEOUT_S: Final = 8.0
"""Of one answer; a log-in waits for three of them at most twice."""
_LIMIT_BYTES: Final = 512 * 1024
_DOCUMENT_S: Final = 3600.0
_KEYS_S: Final = 600.0
"""For so long a key that the issuer has taken back may still be believed."""
_LONGEST_TOKEN: Final = 64 * 1024
_LONGEST_HINT: Final = 4096
"""Of an ID token in a URL; the issuer asks the person without one."""
_WORD: Final = re.compile(r"[a-z_]{1,64}")
_log = logs.get("auth")


@dataclass(frozen=True, slots=True)
class _Document:
    """What an issuer says of itself."""

    authorization: str
    token: str
    keys: str
    end_session: str
    names_itself: bool
    """Whether the way back names the issuer (RFC 9207)."""
    by_post: bool
    """Whether the client's secret is sent in the form: the header is not taken."""


class _Cache(Generic[T]):
    """Keeps what was fetched for a while; many who ask at once wait for one answer."""

    def __init__(self, fetch: Callable[[], Any], lasts_s: float) -> None:
        self._fetch = fetch
        self._lasts_s = lasts_s
        self._lock = asyncio.Lock()
        self._kept: tuple[T, float] | None = None

    async def get(self, *, newer_than: float | None = None) -> T:
        """Return it, not older than it lasts, and fetched after `newer_than` (monotonic seconds)."""
        async with self._lock:
            least = max(time.monotonic() - self._lasts_s, newer_than if newer_than is not None else float("-inf"))
            if self._kept is None or self._kept[1] <= least:
                at = time.monotonic()
                self._kept = (await self._fetch(), at)
            return self._kept[0]


class Issuer:
    """An identity provider.

    Args:
        egress: Calls it. Its own host is among those that are allowed.
        issuer: Its name, which is its address: exactly as its tokens say it.
        client_id: Whom it knows this gateway as.
        client_secret: Empty: a public client, by PKCE alone.
        redirect_uri: Where it sends people back.
        home: Where it sends people who logged out.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        egress: Egress,
        *,
        issuer: str,
        client_id: str,
        client_secret: str,
        redirect_uri: str,
        home: str,
        scopes: str,
        groups_claim: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._egress = egress
        self.name = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri
        self._home = home
        self._scopes = " ".join(dict.fromkeys(["openid", *scopes.split()]))
        self._groups_claim = groups_claim
        self._clock = clock
        self._document: _Cache[_Document] = _Cache(self._discover, _DOCUMENT_S)
        self._keys: _Cache[Sequence[PublicKey]] = _Cache(self._fetch_keys, _KEYS_S)

    async def begin(self, *, state: str, nonce: str, verifier: str) -> str:
        """Return where a browser is sent to log in. Raises LogInFailed."""
        document = await self._document.get()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        return _with(
            document.authorization,
            response_type="code",
            client_id=self._client_id,
            redirect_uri=self._redirect_uri,
            scope=self._scopes,
            state=state,
            nonce=nonce,
            code_challenge=challenge,
            code_challenge_method="S256",
        )

    async def person(self, *, code: str, verifier: str, nonce: str, named: str | None) -> tuple[Person, str]:
        """Return whom the issuer vouches for by a code, and its ID token; `named` is the issuer on the way back.

        Raises LogInFailed.
        """
        document = await self._document.get()
        if named != self.name and (named is not None or document.names_itself):
            raise LogInFailed("token", "other_issuer")
        token = await self._exchange(document, code, verifier)
        claims = await self._verified(token)
        expected = Expected(issuer=self.name, client_id=self._client_id, nonce=nonce)
        check_claims(claims, expected, now=self._clock())
        return person_of(claims, self._groups_claim), token

    async def end_session_url(self, id_token: str) -> str:
        """Return where a browser ends its session with the issuer (RP-Initiated Logout 1.0); empty where it cannot."""
        try:
            document = await self._document.get()
        except LogInFailed:
            return ""
        if not document.end_session:
            return ""
        hint = {"id_token_hint": id_token} if len(id_token) <= _LONGEST_HINT else {}
        return _with(document.end_session, client_id=self._client_id, post_logout_redirect_uri=self._home, **hint)

    async def _verified(self, text: str) -> dict[str, Any]:
        # In a thread: nobody else waits for the import.
        tokens: Any = await asyncio.to_thread(import_module, _TOKENS)
        token = tokens.SignedToken(text)
        began = None
        for _ in range(2):
            keys = await self._keys.get(newer_than=began)
            began = time.monotonic()
            key = token.key_of(keys)
            claims: dict[str, Any] | None = token.claims(key) if key is not None else None
            if claims is not None:
                return claims
            if key is not None and token.kid is not None:
                break
            # A key that is not known may be new, and one without a name another than it was: they are asked for once.
        raise LogInFailed("token", "token_key" if key is None else "token_signature")

    async def _exchange(self, document: _Document, code: str, verifier: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        headers = {"accept": "application/json"}
        if not self._client_secret:
            form["client_id"] = self._client_id
        elif document.by_post:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        else:
            # RFC 6749, 2.3.1: both are encoded as in a form first.
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret)}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        answer = await self._ask("token_endpoint", document.token, headers=headers, form=form)
        given = _object(answer.data)
        if answer.status != 200:
            word = given.get("error") if given is not None else None
            shown = word if isinstance(word, str) and _WORD.fullmatch(word) else ""
            _log.warning("oidc.code_refused", status=answer.status, error=shown)
            if answer.status == 400 and shown == "invalid_grant":
                raise LogInFailed("token", "code_refused")
            raise LogInFailed("issuer", "token_endpoint_refused")
        token = given.get("id_token") if given is not None else None
        if not isinstance(token, str) or len(token) > _LONGEST_TOKEN:
            raise LogInFailed("issuer", "token_endpoint_wrong")
        return token

    async def _discover(self) -> _Document:
        answer = await self._ask("document", self.name.rstrip("/") + _WELL_KNOWN)
        given = _object(answer.data)
        if answer.status != 200 or given is None or given.get("issuer") != self.name:
            _log.warning("oidc.document_wrong", status=answer.status, issuer=self.name)
            raise LogInFailed("issuer", "document_wrong")
        methods = given.get("token_endpoint_auth_methods_supported")
        posts = isinstance(methods, list) and "client_secret_post" in methods and "client_secret_basic" not in methods
        end_session = given.get("end_session_endpoint")
        try:
            return _Document(
                authorization=self._endpoint(given, "authorization_endpoint", called=False),
                token=self._endpoint(given, "token_endpoint"),
                keys=self._endpoint(given, "jwks_uri"),
                end_session="" if end_session is None else self._endpoint(given, "end_session_endpoint", called=False),
                names_itself=given.get("authorization_response_iss_parameter_supported") is True,
                by_post=posts,
            )
        except (MoaError, ValueError) as wrong:
            _log.warning("oidc.document_wrong", issuer=self.name, why=str(wrong))
            raise LogInFailed("issuer", "document_wrong") from None

    def _endpoint(self, given: dict[str, Any], name: str, *, called: bool = True) -> str:
        """Return an endpoint: not less secret than the issuer itself, and if it is called from here, one that may be.

        Raises MoaError, ValueError.
        """
        url = given.get(name)
        if not isinstance(url, str) or not url.isascii() or not url.isprintable() or "#" in url:
            raise ValueError(f"{name} is no URL")
        parts = urlsplit(url)
        if not parts.hostname or parts.scheme not in ("https", urlsplit(self.name).scheme):
            raise ValueError(f"{name} is no https URL")
        if called:
            self._egress.check(url, param=name)
        return url

    async def _fetch_keys(self) -> Sequence[PublicKey]:
        tokens: Any = await asyncio.to_thread(import_module, _TOKENS)
        document = await self._document.get()
        answer = await self._ask("keys", document.keys)
        try:
            found: Sequence[PublicKey] = tokens.read_keys(answer.data if answer.status == 200 else b"")
        except tokens.NoKeySet:
            _log.warning("oidc.keys_wrong", status=answer.status, issuer=self.name)
            raise LogInFailed("issuer", "keys_wrong") from None
        return found

    async def _ask(
        self, what: str, url: str, *, headers: dict[str, str] | None = None, form: dict[str, str] | None = None
    ) -> Answered:
        try:
            return await self._egress.ask(
                url, headers=headers, form=form, limit_bytes=_LIMIT_BYTES, timeout_s=_TIMEOUT_S
            )
        except MoaError as error:
            _log.warning("oidc.issuer_unreachable", what=what, issuer=self.name, why=error.message)
            raise LogInFailed("issuer", f"{what}_unreachable") from None


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _with(url: str, **parameters: str) -> str:
    return url + ("&" if "?" in url else "?") + urlencode(parameters)
