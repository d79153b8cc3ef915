"""Secrets and signatures, by the Standard Webhooks scheme (standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

OVERLAP: Final = timedelta(days=1)
"""How long a replaced secret still signs beside the new one."""


class Secrets:
    """Derives accounts' secrets, so that no database holds them.

    Args:
        root: What they are derived from; a change replaces every secret at once.
    """

    def __init__(self, root: str) -> None:
        self._root = hmac.digest(root.encode(), b"moa webhook secrets", hashlib.sha256)

    def secret(self, account_id: str, generation: int) -> str:
        """Return an account's secret of a generation, as its receiver configures it: `whsec_` and base64."""
        derived = hmac.digest(self._root, f"{account_id}\n{generation}".encode(), hashlib.sha256)
        return "whsec_" + base64.b64encode(derived).decode()

    def in_force(self, account_id: str, generation: int, rotated_at: datetime, now: datetime) -> list[str]:
        """Return the secrets that sign now: the newest first, and the one before it while they overlap."""
        results = [self.secret(account_id, generation)]
        if generation > 1 and now < rotated_at + OVERLAP:
            results.append(self.secret(account_id, generation - 1))
        return results


def headers(secrets: Sequence[str], message_id: str, body: str, now: datetime) -> Mapping[str, str]:
    """Return the headers of a delivery; several secrets give several signatures, of which a receiver needs one."""
    return {
        "content-type": "application/json",
        "user-agent": "moa-webhooks/1",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(_signature(secret, message_id, now, body) for secret in secrets),
    }


def _signature(secret: str, message_id: str, now: datetime, body: str) -> str:
    """Return `v1,` and the base64 of the HMAC over `id.timestamp.body`, by the scheme's specification."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{int(now.timestamp())}.{body}".encode()
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
