"""API keys: how they are made, and what is stored of them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, NamedTuple

STYLES: Final = ("moa", "sk", "dk")
"""Prefixes that keys are made with; all are accepted alike."""
_SECRET_BYTES: Final = 32
_SHOWN: Final = 6
MAX_KEY_CHARS: Final = 512
"""Longer ones are no keys of ours; they are refused unread."""


class NewKey(NamedTuple):
    """A key that was just made."""

    secret: str
    """What the caller sends. Shown once, stored nowhere."""
    prefix: str
    """What is shown of it ever after."""
    digest: bytes
    """What is stored."""


def make(pepper: bytes, style: str = "moa") -> NewKey:
    """Make a key of 256 random bits in a style of `STYLES`."""
    if style not in STYLES:
        raise ValueError(f"no key style {style!r}")
    secret = f"{style}-{secrets.token_urlsafe(_SECRET_BYTES)}"
    return NewKey(secret, secret[: len(style) + 1 + _SHOWN], digest(pepper, secret))


def digest(pepper: bytes, secret: str) -> bytes:
    """Return what is stored of a key: HMAC-SHA256 under the pepper (32 bytes).

    Keys are random, so a fast digest is enough; passwords are not and take argon2.
    """
    return hmac.digest(pepper, secret.encode("utf-8", "surrogatepass"), hashlib.sha256)


def new_id(kind: str) -> str:
    """Return a fresh, unguessable id: `acc_…`, `key_…`."""
    return f"{kind}_{secrets.token_hex(12)}"
