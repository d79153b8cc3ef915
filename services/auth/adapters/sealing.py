"""Encryption of what the database keeps for callers."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Final
from uuid import UUID

_NONCE_BYTES: Final = 12


class Sealer:
    """Encrypts by AES-256-GCM, under a key of its own for each record.

    The keys are derived from the pepper, as all that is not to be read out of a stolen database. Whoever changes the
    pepper ends every API key, and with them all that could ask for what was sealed.

    Args:
        pepper: The secret that is not in the database.
        kind: What is sealed; records of one kind cannot be opened as another's.
    """

    def __init__(self, pepper: bytes, kind: str) -> None:
        self._secret = hmac.digest(pepper, f"moa sealed {kind}".encode(), hashlib.sha256)

    def seal(self, record: UUID, plain: bytes) -> bytes:
        """Return the encrypted bytes, which can be opened as this record only."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 8 MB that few need

        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._key(record)).encrypt(nonce, plain, record.bytes)

    def open(self, record: UUID, sealed: bytes) -> bytes | None:
        """Return what was sealed; None where it is not what this sealer made of the record."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._key(record)).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], record.bytes)
        except (InvalidTag, ValueError):
            return None

    def _key(self, record: UUID) -> bytes:
        return hmac.digest(self._secret, record.bytes, hashlib.sha256)
