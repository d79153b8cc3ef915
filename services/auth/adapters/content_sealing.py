"""Encryption of what accounts have stored, under keys that the operator can change one by one."""

from __future__ import annotations

import hashlib
import hmac
import os
import zlib
from collections.abc import Iterable, Sequence
from typing import Final

_NONCE_BYTES: Final = 12
_ID_BYTES: Final = 4
_PLAIN, _DEFLATED = b"\0", b"\1"
_LEVEL: Final = 1
"""Events and items shrink to a fifth by it; more effort gains little."""


class ContentSealer:
    """Encrypts by AES-256-GCM, under a key of its own for each record.

    Args:
        secrets: The first encrypts; each of them decrypts what it has encrypted.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        keys = [hmac.digest(secret, b"moa stored content", hashlib.sha256) for secret in secrets]
        self._keys = {hmac.digest(key, b"id", hashlib.sha256)[:_ID_BYTES]: key for key in reversed(keys)}
        self._first = hmac.digest(keys[0], b"id", hashlib.sha256)[:_ID_BYTES]

    def seal(self, record: str, plain: bytes) -> bytes:
        """Return the encrypted bytes, which can be opened as this record only."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 8 MB that few need

        deflated = zlib.compress(plain, _LEVEL)
        inner = _DEFLATED + deflated if len(deflated) < len(plain) else _PLAIN + plain
        nonce = os.urandom(_NONCE_BYTES)
        key = _key_of(self._keys[self._first], record)
        return self._first + nonce + AESGCM(key).encrypt(nonce, inner, record.encode())

    def open(self, record: str, sealed: bytes) -> bytes | None:
        """Return what was sealed; None where no key here sealed it as this record."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self._keys.get(sealed[:_ID_BYTES])
        if key is None:
            return None
        nonce, rest = sealed[_ID_BYTES : _ID_BYTES + _NONCE_BYTES], sealed[_ID_BYTES + _NONCE_BYTES :]
        try:
            inner = AESGCM(_key_of(key, record)).decrypt(nonce, rest, record.encode())
        except (InvalidTag, ValueError):
            return None
        return inner[1:] if inner[:1] == _PLAIN else zlib.decompress(inner[1:])


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


def _key_of(key: bytes, record: str) -> bytes:
    return hmac.digest(key, record.encode(), hashlib.sha256)
