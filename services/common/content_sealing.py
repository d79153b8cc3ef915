"""Encryption at rest of what callers sent and were answered, under keys that the operator can change one by one.

AES-256-GCM, a key of its own for each record, and the record's name as associated data: no row can be shown as another.
What is encrypted is compressed before, where that makes it smaller.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 4
_PLAIN, _DEFLATED = b"\0", b"\1"
_LEVEL: Final = 1
"""Events and items shrink to a fifth by it; more effort gains little."""
_KEY: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,32}):(?P<key>[0-9a-fA-F]{64})")


class ContentSealer:
    """Encrypts records under secrets; what is sealed begins with its secret's id.

    Args:
        secrets: The first encrypts; each of them decrypts what it has encrypted.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        keys = [hmac.digest(secret, b"moa stored content", hashlib.sha256) for secret in secrets]
        self._keys = {hmac.digest(key, b"id", hashlib.sha256)[:_ID_BYTES]: key for key in reversed(keys)}
        self._first = hmac.digest(keys[0], b"id", hashlib.sha256)[:_ID_BYTES]

    def seal(self, record: str, plain: bytes) -> bytes:
        """Return the encrypted bytes, which can be opened as this record only."""
        deflated = zlib.compress(plain, _LEVEL)
        inner = _DEFLATED + deflated if len(deflated) < len(plain) else _PLAIN + plain
        return self._first + _encrypted(_derived(self._keys[self._first], record), record, inner)

    def open(self, record: str, sealed: bytes) -> bytes | None:
        """Return what was sealed; None where no key here sealed it as this record."""
        key = self._keys.get(sealed[:_ID_BYTES])
        inner = None if key is None else _decrypted(_derived(key, record), record, sealed[_ID_BYTES:])
        if inner is None:
            return None
        return inner[1:] if inner[:1] == _PLAIN else zlib.decompress(inner[1:])


class Sealed(NamedTuple):
    """Encrypted content, beside the name of its key."""

    key: str
    """The name of the operator's key."""
    data: bytes


class ContentKeys:
    """Encrypts logged content under keys that have names, by which each row tells what opens it.

    The first of the operator's keys encrypts; the others open what they once encrypted. What was encrypted by a key
    that is not there any more is lost.

    Args:
        text: `name:64 hexadecimal digits`, parted by commas; empty: there is none. Raises ValueError for anything else.
    """

    def __init__(self, text: str) -> None:
        self._keys: dict[str, bytes] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            matched = _KEY.fullmatch(part)
            if matched is None or matched["name"] in self._keys:
                # Its own words would show the key.
                raise ValueError("name:64 hexadecimal digits, parted by commas, each name once")
            self._keys[matched["name"]] = bytes.fromhex(matched["key"])

    def __bool__(self) -> bool:
        """Return whether anything can be encrypted."""
        return bool(self._keys)

    @property
    def first(self) -> str:
        """The name of the key that encrypts; only where there is any."""
        return next(iter(self._keys))

    def seal(self, log_id: str, content: bytes) -> Sealed:
        """Return content encrypted under the first key; it can be opened as this request's only."""
        name, key = next(iter(self._keys.items()))
        return Sealed(name, _encrypted(_logged(key, log_id), log_id, zlib.compress(content, _LEVEL)))

    def open(self, log_id: str, sealed: Sealed) -> bytes | None:
        """Return content; None where its key is not there, or it is not what was sealed for this request."""
        key = self._keys.get(sealed.key)
        inner = None if key is None else _decrypted(_logged(key, log_id), log_id, sealed.data)
        return None if inner is None else zlib.decompress(inner)


def packed(pieces: Iterable[bytes]) -> bytes:
    """Return pieces as one, each behind its length."""
    return b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)


def unpacked(data: bytes) -> list[bytes]:
    """Return the pieces that `packed` made one of."""
    pieces, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        pieces.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return pieces


def _derived(key: bytes, record: str) -> bytes:
    return hmac.digest(key, record.encode(), hashlib.sha256)


def _logged(key: bytes, log_id: str) -> bytes:
    return _derived(key, "moa request log " + log_id)


def _encrypted(key: bytes, record: str, inner: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 8 MB that few need

    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, inner, record.encode())


def _decrypted(key: bytes, record: str, sealed: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, rest, record.encode())
    except (InvalidTag, ValueError):
        return None
