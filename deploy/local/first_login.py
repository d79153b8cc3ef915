"""The one-time link by which the first administrator comes to the page: who starts the gateway is its administrator."""

from __future__ import annotations

import secrets
import time
from typing import Final

from deploy.local.readiness import NotReady

LASTS_S: Final = 3600.0
"""How long a link lasts."""


class FirstLogin:
    """The link of one start of the gateway. It is behind `#`, which browsers send to nobody: it is in no log."""

    def __init__(self) -> None:
        self._token = secrets.token_urlsafe(32)
        self._until = time.time() + LASTS_S

    @property
    def environment(self) -> dict[str, str]:
        """Return what the auth service is told."""
        return {"MOA_SETUP_TOKEN": self._token, "MOA_SETUP_UNTIL": f"{self._until:.0f}"}

    def url(self, public: str) -> str:
        """Return the link."""
        return f"{public}/#setup={self._token}"


def is_unclaimed(database_url: str) -> bool:
    """Return whether there is an administrator, and none can log in yet. Raises NotReady."""
    # A launcher has this done by another process, and is spared the library.
    import psycopg

    from services.auth.adapters.unclaimed import UNCLAIMED

    try:
        with psycopg.connect(database_url) as link:
            return link.execute(UNCLAIMED).fetchone() is not None
    except psycopg.Error as error:
        raise NotReady(f"the database does not tell whether somebody has logged in: {error}") from error
