"""`thoughtSignature`: a vendor's opaque proof, and whose it is where that is not Google.

A conversation may go on at another vendor's model, which refuses a signature that is not its own.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

SIGNER: Final = "google"
_OTHERS: Final = b"moa-signer:"
_MOST_NAME: Final = 32


def written(signature: bytes, signer: str) -> str:
    """Return what a part of an answer shows."""
    if signer not in ("", SIGNER):
        signature = _OTHERS + signer.encode() + b":" + signature
    return base64.b64encode(signature).decode()


def read(text: str) -> tuple[bytes, str]:
    """Return the signature that a caller gives back, and its signer. Raises ValueError for what is no base64."""
    signature = from_base64(text)
    if signature.startswith(_OTHERS):
        signer, colon, own = signature.removeprefix(_OTHERS).partition(b":")
        if colon and len(signer) <= _MOST_NAME and signer.isalnum():
            return own, signer.decode("ascii", "replace")
    return signature, SIGNER


def from_base64(text: str) -> bytes:
    """Decode base64 in either alphabet, padded or not, as proto JSON takes it. Raises ValueError."""
    padded = text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4)
    return binascii.a2b_base64(padded, strict_mode=True)
