"""One-time passwords by time, the second factor of log-ins (RFC 6238): HMAC-SHA1, 30 s and six digits."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import Final
from urllib.parse import quote

STEP_S: Final = 30
_DIGITS: Final = 6
_DRIFT: Final = 1
"""How many steps a clock may be off."""
_CODE: Final = re.compile(r"[0-9]{6}")


def new_secret() -> bytes:
    """Return a random secret of 160 bits."""
    return secrets.token_bytes(20)


def written(secret: bytes) -> str:
    """Return a secret as people type it into their app."""
    return base64.b32encode(secret).decode()


def address(secret: bytes, name: str) -> str:
    """Return a secret as apps read it from a picture."""
    label = quote(f"Moa:{name}", safe="")
    return f"otpauth://totp/{label}?secret={written(secret)}&issuer=Moa&digits={_DIGITS}&period={STEP_S}"


def code_at(secret: bytes, step: int) -> str:
    """Return the code of a step of time."""
    mac = hmac.digest(secret, step.to_bytes(8, "big"), hashlib.sha1)
    at = mac[-1] & 0xF
    number = int.from_bytes(mac[at : at + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**_DIGITS).zfill(_DIGITS)


def step_of(secret: bytes, code: str, *, now: float, after: int) -> int | None:
    """Return the step whose code it is, of those about now and later than `after`; None where it is none's.

    A code that was taken once is of no later step: nobody who saw it can use it again.
    """
    given = code.replace(" ", "")
    if not _CODE.fullmatch(given):
        return None
    current = int(now) // STEP_S
    found = None
    for step in range(max(0, current - _DRIFT), current + _DRIFT + 1):
        if hmac.compare_digest(code_at(secret, step), given) and step > after:
            found = step
    return found
