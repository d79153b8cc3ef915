"""An identity provider (OpenID Connect Core 1.0) that logs in whoever comes, and checks what a client sends it.

It makes its tokens by itself, from `cryptography`'s keys, so that what reads them is held against another
implementation.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus, urlencode

from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.emulators.base import Emulator

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_RSA: Final = rsa.generate_private_key(65537, 2048)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@dataclass
class SigningKey:
    """A key with its name."""

    kid: str | None
    private: PrivateKey
    alg: str
    names_alg: bool = True
    """Whether the key set says what it is for."""

    @classmethod
    def make(cls, alg: str = "ES256", kid: str | None = "first") -> SigningKey:
        """Make a key; RSA keys are one and the same: making them is slow."""
        if alg == "RS256":
            return cls(kid, _RSA, alg)
        return cls(kid, ec.generate_private_key(ec.SECP256R1()) if alg == "ES256" else _ed25519(), alg)

    def jwk(self) -> dict[str, Any]:
        public: Any = self.private.public_key()
        named = {"use": "sig", "alg": self.alg, "kid": self.kid}
        named = {name: value for name, value in named.items() if value and (name != "alg" or self.names_alg)}
        if self.alg == "RS256":
            numbers = public.public_numbers()
            return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e), **named}
        if self.alg == "ES256":
            numbers = public.public_numbers()
            return {"kty": "EC", "crv": "P-256", "x": _number(numbers.x, 32), "y": _number(numbers.y, 32), **named}
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), **named}

    def pem(self) -> bytes:
        """Return the public key as a text, which some take for a shared secret."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def signature(self, data: bytes) -> bytes:
        key: Any = self.private
        if self.alg == "RS256":
            return bytes(key.sign(data, padding.PKCS1v15(), hashes.SHA256()))
        if self.alg == "ES256":
            r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return bytes(key.sign(data))

    def token(self, claims: Any, **header: Any) -> str:
        """Return a token; `header` overrides what its head says."""
        named = {"alg": self.alg, "typ": "JWT", **({"kid": self.kid} if self.kid is not None else {}), **header}
        signed = f"{b64(json.dumps(named).encode())}.{b64(json.dumps(claims).encode())}"
        if named["alg"] == "none":
            return f"{signed}."
        if named["alg"] == "HS256":
            return f"{signed}.{b64(hmac.digest(self.pem(), signed.encode(), hashlib.sha256))}"
        return f"{signed}.{b64(self.signature(signed.encode()))}"


def _ed25519() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@dataclass
class _Grant:
    redirect_uri: str
    challenge: str
    nonce: str


@dataclass
class Manners:
    """What the issuer does otherwise than it should."""

    claims: dict[str, Any] = field(default_factory=dict)
    """Of the next tokens; None: missing."""
    head: dict[str, Any] = field(default_factory=dict)
    """Of the next tokens' heads."""
    document: dict[str, Any] = field(default_factory=dict)
    """Of the discovery document; None: missing."""
    token_answer: web.Response | None = None
    """In the place of tokens."""
    declines: bool = False
    id_token: str | None = None
    """In the place of the one that is made."""


class Issuer(Emulator):
    """The issuer. Use it as `async with Issuer() as issuer`."""

    def __init__(self, *, client_id: str = "moa", client_secret: str = "a secret: +%") -> None:
        super().__init__()
        self.client_id, self.client_secret = client_id, client_secret
        self.redirect_uri = "https://moa.example.com/auth/oidc/callback"
        self.person: dict[str, Any] = {"sub": "person-1"}
        self.keys = [SigningKey.make()]
        self.manners = Manners()
        self.grants: dict[str, _Grant] = {}
        self.fetched: list[str] = []
        """Paths of what was asked of it, in order."""

    def routes(self) -> Sequence[web.RouteDef]:
        return [
            web.get("/.well-known/openid-configuration", self._document),
            web.get("/jwks", self._jwks),
            web.get("/authorize", self._authorize),
            web.post("/token", self._token),
            web.get("/logout", self._log_out),
            web.route("*", "/elsewhere", self._elsewhere),
        ]

    async def _document(self, request: web.Request) -> web.StreamResponse:
        self.fetched.append(request.path)
        said = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "end_session_endpoint": f"{self.url}/logout?realm=a",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
            "code_challenge_methods_supported": ["S256"],
            **self.manners.document,
        }
        return web.json_response({name: value for name, value in said.items() if value is not None})

    async def _log_out(self, request: web.Request) -> web.StreamResponse:
        """End the session with the issuer, for whoever has a token of it."""
        self.fetched.append(request.path)
        asked = request.query
        home = self.redirect_uri.removesuffix("auth/oidc/callback")
        wrong = (asked["client_id"], asked["post_logout_redirect_uri"]) != (self.client_id, home)
        if wrong or asked["id_token_hint"].count(".") != 2:
            return self._wrong("log-out")
        raise web.HTTPFound(asked["post_logout_redirect_uri"])

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        self.fetched.append(request.path)
        return web.json_response({"id_token": self.keys[0].token(self.claims("n" * 43))})

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        self.fetched.append(request.path)
        return web.json_response({"keys": [{"kty": "new", "kid": "unread"}, *(key.jwk() for key in self.keys)]})

    def _wrong(self, why: str) -> web.Response:
        self.refused.append((400, why))
        return web.json_response({"error": "invalid_request", "error_description": why}, status=400)

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        asked = dict(request.query)
        if len(asked) != len(request.query):
            return self._wrong("a parameter is given twice")
        exact = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "code_challenge_method": "S256",
        }
        for name, value in exact.items():
            if asked.get(name) != value:
                return self._wrong(name)
        if "openid" not in asked.get("scope", "").split():
            return self._wrong("scope")
        if len(base64.urlsafe_b64decode(asked.get("code_challenge", "") + "=")) != 32:
            return self._wrong("code_challenge")
        if min(len(asked.get("state", "")), len(asked.get("nonce", ""))) < 32:
            return self._wrong("state or nonce")
        back = {"state": asked["state"], "iss": self.url}
        if self.manners.declines:
            back["error"] = "access_denied"
        else:
            back["code"] = secrets.token_urlsafe(24)
            self.grants[back["code"]] = _Grant(self.redirect_uri, asked["code_challenge"], asked["nonce"])
        raise web.HTTPFound(f"{self.redirect_uri}?{urlencode(back)}")

    async def _token(self, request: web.Request) -> web.StreamResponse:
        self.fetched.append(request.path)
        if request.content_type != "application/x-www-form-urlencoded":
            return self._wrong("content type")
        form = dict(parse_qsl(await request.text(), strict_parsing=True))
        if not self._is_client(request, form):
            self.refused.append((401, "client"))
            return web.json_response({"error": "invalid_client"}, status=401)
        grant = self.grants.pop(form.get("code", ""), None)
        verifier = form.get("code_verifier", "")
        right = (
            form.get("grant_type") == "authorization_code"
            and grant is not None
            and form.get("redirect_uri") == grant.redirect_uri
            and 43 <= len(verifier) <= 128
            and b64(hashlib.sha256(verifier.encode()).digest()) == grant.challenge
        )
        if not right or grant is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.note(request, form)
        if self.manners.token_answer is not None:
            return self.manners.token_answer
        token = self.manners.id_token or self.keys[0].token(self.claims(grant.nonce), **self.manners.head)
        return web.json_response({"access_token": "not for us", "token_type": "Bearer", "id_token": token})

    def claims(self, nonce: str) -> dict[str, Any]:
        """Return what a token says now."""
        now = int(time.time())
        said = {
            "iss": self.url,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            **self.person,
            **self.manners.claims,
        }
        return {name: value for name, value in said.items() if value is not None}

    def _is_client(self, request: web.Request, form: dict[str, str]) -> bool:
        """A client with a secret sends both in the header, encoded as in a form (RFC 6749, 2.3.1)."""
        if not self.client_secret:
            return form.get("client_id") == self.client_id and "authorization" not in request.headers
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        if kind != "Basic" or "client_secret" in form:
            return False
        name, _, secret = base64.b64decode(value).decode().partition(":")
        return (unquote_plus(name), unquote_plus(secret)) == (self.client_id, self.client_secret)


@contextmanager
def running(issuer: Issuer) -> Iterator[Issuer]:
    """Yield an issuer that runs in a thread of its own, for callers that wait for it."""
    began: Future[None] = Future()
    loop, ended = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with issuer:
            began.set_result(None)
            await ended.wait()

    thread = Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    began.result(timeout=60)
    yield issuer
    loop.call_soon_threadsafe(ended.set)
    thread.join(timeout=60)
    loop.close()
