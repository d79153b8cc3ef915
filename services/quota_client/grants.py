"""Grants: how a service acts as an account without its key.

A grant is a short-lived bearer credential that one of Moa's processes signs with the service credential. It stands
where an API key stands (`x-api-key`), names the account's key by id, and may carry a reservation of quota that the
signer made and will settle itself; whoever serves the call then neither reserves nor settles. It is checked with the
service credential alone; whether the key is still good is still asked of auth, by its id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import asdict, dataclass
from typing import Final

from services.common.credential import Credential, accepted, sent

PREFIX: Final = "moa-grant."
"""How a grant begins; no API key does."""
TTL_S: Final = 60.0
"""How long a grant is good for beginning a call, where the clocks of who made it and who reads it agree."""
SKEW_S: Final = 300.0
"""How far their clocks may be apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActingFor:
    """Whom a grant's bearer acts for."""

    account_id: str
    key_id: str
    reservation_id: str = ""
    """The reservation that pays for the call; empty: the callee reserves and settles as for a key."""
    images: int = 0
    """How many images the reservation is for."""


def mint(service_token: Credential, acting: ActingFor, *, now_s: float | None = None) -> str:
    """Return a grant that is good for the next `TTL_S` seconds."""
    until = int((time.time() if now_s is None else now_s) + TTL_S)
    payload = _text(json.dumps({**asdict(acting), "until": until}, separators=(",", ":")).encode())
    return f"{PREFIX}{payload}.{_text(_signature(sent(service_token), payload))}"


def read(service_token: Credential, text: str, *, now_s: float | None = None) -> ActingFor | None:
    """Return whom a grant is for; None for what is none, is forged, or has run out, by any clock within `SKEW_S`."""
    payload, _, signature = text.removeprefix(PREFIX).partition(".")
    if not text.startswith(PREFIX) or not any(
        hmac.compare_digest(_text(_signature(each, payload)).encode(), signature.encode())
        for each in accepted(service_token)
    ):
        return None
    fields = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if fields.pop("until") + SKEW_S <= (time.time() if now_s is None else now_s):
        return None
    return ActingFor(**fields)


def _signature(service_token: str, payload: str) -> bytes:
    key = hmac.digest(service_token.encode(), b"moa grant", hashlib.sha256)
    return hmac.digest(key, payload.encode(), hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
