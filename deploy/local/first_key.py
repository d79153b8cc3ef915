"""The first key of an installation, which may do everything: its state folder keeps it in `dev.env`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from deploy.local import keep, once
from deploy.local.errors import StackError
from deploy.local.plan import REPOSITORY
from deploy.local.topology import AUTH


class FirstKey:
    """The key of the first administrator, in a state folder."""

    def __init__(self, root: Path) -> None:
        self._file = root / "dev.env"
        self._unshown = root / "key-not-shown"

    @property
    def secret(self) -> str:
        """Return the key; empty where there is none yet."""
        return keep.read(self._file).get("MOA_API_KEY", "")

    @property
    def is_new(self) -> bool:
        """Return whether nobody has been shown it: the start that made it may have failed."""
        return self._unshown.exists()

    def was_shown(self) -> None:
        """Note that it has been shown."""
        self._unshown.unlink(missing_ok=True)

    def write(self, url: str, secret: str) -> None:
        """Keep a key, and the address that it is for; without an address what is kept already stays."""
        if secret and (url or not self.secret):
            keep.write_private(self._file, {"MOA_URL": url, "MOA_API_KEY": secret})

    def make(self, url: str, environment: Mapping[str, str]) -> None:
        """Make the first administrator and key, unless there is one; `environment` is that of the auth service.

        Raises StackError.
        """
        try:
            made = json.loads(once.run(AUTH.module, "bootstrap", "--json", environment=environment, folder=REPOSITORY))
        except (once.Failed, ValueError) as failure:
            raise StackError(f"the first account cannot be made: {failure}") from None
        if "api_key" in made:
            self._unshown.touch(mode=0o600)
            self.write(url, made["api_key"])
