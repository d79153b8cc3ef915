"""Log-ins that an identity provider vouches for (OpenID Connect Core 1.0): what is believed of an ID token, and whom it
speaks of."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from services.auth.domain.emails import EMAIL

SKEW_S: Final = 60
"""How far the issuer's clock and this one may be apart."""
_OLDEST_S: Final = 600 + SKEW_S
"""How long ago a token may have been issued: a log-in that is being made has just been."""
_LONGEST_SUBJECT: Final = 255
_LONGEST_NAME: Final = 100
_MOST_GROUPS: Final = 2000
_LONGEST_GROUP: Final = 256
_RETURN: Final = re.compile(r"/(?![/\\])[A-Za-z0-9/._~!$&'()*+,;=:@%?-]{0,511}", re.ASCII)

Reason = Literal["declined", "expired", "issuer", "token", "busy"]
"""What the page is told of a log-in that failed."""
SignUp = Literal["closed", "groups", "open"]


class LogInFailed(Exception):
    """A log-in failed before it is known whose it is.

    Args:
        reason: What the page is told.
        cause: A constant word for logs, metrics and the audit log.
    """

    def __init__(self, reason: Reason, cause: str) -> None:
        super().__init__(cause)
        self.reason: Reason = reason
        self.cause = cause


class Expected(NamedTuple):
    """What an ID token must say."""

    issuer: str
    client_id: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Person:
    """Whom an issuer vouches for."""

    issuer: str
    subject: str
    email: str | None
    """The address, where the issuer says that it is verified; of others nothing is known."""
    name: str
    groups: tuple[str, ...] | None
    """None where the issuer did not tell them for their number: they stay what they were."""
    second_factor: bool
    """Whether the issuer asked for more than one factor."""


class GroupRule(NamedTuple):
    """What a group's members are here."""

    group: str
    team: str | None = None
    role: Literal["owner", "member"] = "member"
    administrator: bool = False


def check_claims(claims: Mapping[str, Any], expected: Expected, *, now: float) -> None:
    """Raise LogInFailed unless a token whose signature is right is this issuer's, for this client, of this log-in and
    of now (OpenID Connect Core 1.0, section 3.1.3.7)."""
    if claims.get("iss") != expected.issuer:
        raise LogInFailed("token", "token_issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if expected.client_id not in audiences:
        raise LogInFailed("token", "token_audience")
    party = claims.get("azp")
    if (party is not None or len(audiences) > 1) and party != expected.client_id:
        raise LogInFailed("token", "token_party")
    expires, issued, earliest = (_time(claims, name) for name in ("exp", "iat", "nbf"))
    if expires is None or issued is None:
        raise LogInFailed("token", "token_malformed")
    if now >= expires + SKEW_S or issued < now - _OLDEST_S:
        raise LogInFailed("token", "token_expired")
    if issued > now + SKEW_S or (earliest is not None and earliest > now + SKEW_S):
        raise LogInFailed("token", "token_early")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(
        nonce.encode("utf-8", "surrogatepass"), expected.nonce.encode()
    ):
        raise LogInFailed("token", "token_nonce")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
        raise LogInFailed("token", "token_subject")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate; None where it is missing. Raises LogInFailed for anything else."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise LogInFailed("token", "token_malformed")
    return float(value)


def person_of(claims: Mapping[str, Any], groups_claim: str) -> Person:
    """Return whom checked claims speak of."""
    email, name = claims.get("email"), claims.get("name")
    written = email.strip().lower() if isinstance(email, str) else ""
    verified = claims.get("email_verified") is True and EMAIL.fullmatch(written) is not None
    methods = claims.get("amr")
    return Person(
        issuer=str(claims["iss"]),
        subject=str(claims["sub"]),
        email=written if verified else None,
        name=_printable(name) if isinstance(name, str) else "",
        groups=_groups(claims, groups_claim),
        second_factor=isinstance(methods, list) and "mfa" in methods,
    )


def _printable(name: str) -> str:
    return "".join(one for one in name if one.isprintable()).strip()[:_LONGEST_NAME]


def _groups(claims: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    found: Any = claims.get(name)
    if found is None:
        sources = claims.get("_claim_names")
        if claims.get("hasgroups") is True or (isinstance(sources, dict) and name in sources):
            return None
        # As in `realm_access.roles`; a claim of that very name counts before.
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    given = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    if len(given) > _MOST_GROUPS:
        return None
    return tuple(one for one in given if isinstance(one, str) and 0 < len(one) <= _LONGEST_GROUP)


def wanted(groups: Sequence[str], rules: Sequence[GroupRule]) -> list[GroupRule]:
    """Return the rules of a person's groups, in the order of the operator's file."""
    own = frozenset(groups)
    return [rule for rule in rules if rule.group in own]


def may_sign_up(person: Person, rules: Sequence[GroupRule], sign_up: SignUp, domains: Sequence[str]) -> bool:
    """Return whether somebody who has no account gets one."""
    if sign_up == "closed" or (sign_up == "groups" and not wanted(person.groups or (), rules)):
        return False
    return not domains or (person.email is not None and person.email.rpartition("@")[2] in domains)


def is_path_of_ours(path: str) -> bool:
    """Return whether somebody may be sent there after a log-in: a path of this gateway's and no other address."""
    return _RETURN.fullmatch(path) is not None
