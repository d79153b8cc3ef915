"""What vendors are called in traces: by OpenTelemetry's conventions, by the catalogue's adapter.

All that a router knows of vendors. It imports nothing of theirs but these words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.providers.aws import telemetry as aws
from services.providers.azure import telemetry as azure
from services.providers.google import telemetry as google

SYSTEMS: Final[Mapping[str, str]] = {"inference": "moa", **aws.SYSTEMS, **azure.SYSTEMS, **google.SYSTEMS}
"""By adapter; one that is not here is called as its adapter."""
