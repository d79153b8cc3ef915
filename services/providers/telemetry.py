"""What vendors are called in traces: by OpenTelemetry's conventions, by the catalogue's adapter.

All that a router knows of vendors. It imports nothing of theirs but these words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.providers import vendors

SYSTEMS: Final[Mapping[str, str]] = {"inference": "moa", **vendors.systems()}
"""By adapter; one that is not here is called as its adapter."""
