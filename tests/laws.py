"""How often laws are tried: a few times in `make test`, many times more in `make laws`."""

from __future__ import annotations

import os
from typing import Final

TIMES: Final = int(os.environ.get("MOA_LAWS", "1"))


def tries(few: int) -> int:
    """Return how many examples of a law are tried where `make test` tries a few."""
    return few * TIMES
