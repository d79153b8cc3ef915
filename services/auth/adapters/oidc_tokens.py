"""The keys of an issuer and the signatures of its tokens (RFC 7515, RFC 7517).

Apart from what asks the issuer, and loaded by the first log-in that needs it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwk, jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError

from services.auth.domain.oidc import LogInFailed

_KINDS: Final = {
    "RS256": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),  # its name since RFC 9864
}
"""What is taken: the key type and curve of each algorithm. Neither `none` nor one whose key is a shared secret."""
_MOST_KEYS: Final = 100
_RSA_BITS: Final = range(2048, 8193)


class NoKeySet(Exception):
    """What an issuer answered is no JWK set."""


class _Registry(jws.JWSRegistry):
    """Takes those algorithms alone, without a warning for the older name of Ed25519."""

    max_header_length = 16 * 1024
    max_payload_length = 64 * 1024

    def get_alg(self, name: str) -> Any:
        """Return an algorithm. Raises UnsupportedAlgorithmError."""
        if name not in _KINDS:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


# A parameter of the head that is not known is passed over, unless it is said to be critical (RFC 7515, 4.1.11).
_REGISTRY: Final = _Registry(strict_check_header=False)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key by which an issuer signs."""

    kid: str | None
    kind: tuple[str, str | None]
    """The key type and curve."""
    algorithm: str | None
    """The one that it is for; None: any of its kind."""
    key: Any


def read_keys(data: bytes) -> list[PublicKey]:
    """Return those keys of a JWK set by which tokens may be signed; what is not understood is passed over.

    Raises NoKeySet.
    """
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        given = None
    found = given.get("keys") if isinstance(given, dict) else None
    if not isinstance(found, list) or len(found) > _MOST_KEYS:
        raise NoKeySet
    return [key for one in found if isinstance(one, dict) and (key := _read(one)) is not None]


def _read(given: dict[str, Any]) -> PublicKey | None:
    kid, curve, algorithm = given.get("kid"), given.get("crv"), given.get("alg")
    kind: Any = (given.get("kty"), curve)
    if kind not in _KINDS.values() or given.get("use", "sig") != "sig":
        return None
    if any(value is not None and not isinstance(value, str) for value in (kid, algorithm)):
        return None
    # Only what makes the key itself: another member that is wrong is nothing to it.
    members: dict[str, Any] = {name: given[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in given}
    try:
        if kind[0] == "RSA" and _bits(members["n"]) not in _RSA_BITS:
            return None
        key = jwk.import_key(members)
        _ = key.public_key  # a point that is on no curve is found out here
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return PublicKey(kid, kind, algorithm, key)


def _bits(number: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))).bit_length()


class SignedToken:
    """A token as it was received, whose header is read and nothing believed.

    Raises LogInFailed for what is no JWS in compact form, and for an algorithm that is not taken.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode("utf-8", "surrogatepass")
        try:
            header = jws.extract_compact(self._token, registry=_REGISTRY).headers()
        except (JoseError, ValueError, TypeError):
            raise LogInFailed("token", "token_malformed") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in _KINDS:
            raise LogInFailed("token", "token_algorithm")
        if kid is not None and not isinstance(kid, str):
            raise LogInFailed("token", "token_malformed")
        self.algorithm: str = algorithm
        self.kid: str | None = kid

    def key_of(self, keys: Sequence[PublicKey]) -> PublicKey | None:
        """Return the key that the header names; without a name the only one of its kind, None where there are more."""
        fit = [
            key
            for key in keys
            if key.kind == _KINDS[self.algorithm]
            and key.algorithm in (None, self.algorithm)
            and (self.kid is None or key.kid == self.kid)
        ]
        return fit[0] if len(fit) == 1 else None

    def claims(self, key: PublicKey) -> dict[str, Any] | None:
        """Return what the token says; None where the key did not sign it.

        Raises LogInFailed for what is no JSON object.
        """
        try:
            payload = jws.deserialize_compact(self._token, key.key, registry=_REGISTRY).payload
        except (JoseError, ValueError, TypeError):
            return None
        try:
            found = json.loads(payload or b"")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise LogInFailed("token", "token_malformed")
        return found
