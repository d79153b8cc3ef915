"""The operator's keys of logged prompts and answers."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import zlib
from typing import Final, NamedTuple

from services.auth.domain.request_log import MOST_CONTENT_BYTES

_KEY: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,32}):(?P<key>[0-9a-fA-F]{64})")
_NONCE_BYTES: Final = 12


class Sealed(NamedTuple):
    """Encrypted content."""

    key: str
    """The name of the operator's key."""
    data: bytes


class ContentKeys:
    """Compresses and encrypts content by AES-256-GCM, under a key of its own for each request.

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

    def seal(self, log_id: str, content: bytes) -> Sealed:
        """Return content encrypted under the first key; it can be opened as this request's only."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 8 MB that few need

        name, key = next(iter(self._keys.items()))
        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(_derived(key, log_id)).encrypt(nonce, zlib.compress(content, 1), log_id.encode())
        return Sealed(name, nonce + sealed)

    def open(self, log_id: str, sealed: Sealed) -> bytes | None:
        """Return content; None where its key is not there, or it is not what was sealed for this request."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self._keys.get(sealed.key)
        if key is None:
            return None
        nonce, data = sealed.data[:_NONCE_BYTES], sealed.data[_NONCE_BYTES:]
        try:
            packed = AESGCM(_derived(key, log_id)).decrypt(nonce, data, log_id.encode())
        except (InvalidTag, ValueError):
            return None
        return zlib.decompressobj().decompress(packed, 2 * MOST_CONTENT_BYTES)


def _derived(key: bytes, log_id: str) -> bytes:
    return hmac.digest(key, b"moa request log " + log_id.encode(), hashlib.sha256)
