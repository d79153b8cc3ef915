"""The settings that the text and the image service have in common."""

from __future__ import annotations

from pydantic import Field

from services.common import settings
from services.common.rpc.target import Addresses


class ProvidingSettings(settings.FactsSettings):
    """Settings of a service that answers with providers."""

    listen: str
    """Where it listens."""
    auth_address: Addresses = "127.0.0.1:8102"
    """The auth service, which books for a router that was killed; several parted by commas."""
    left_call_s: float = Field(default=5.0, gt=0, le=5)
    """How long whoever called is given to settle a call that it left, before this service books it."""
