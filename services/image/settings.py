"""The image service's settings."""

from __future__ import annotations

from pydantic import Field

from services.common.settings import ServiceSettings


class ImageSettings(ServiceSettings):
    """Settings of the image service."""

    listen: str = "127.0.0.1:8108"
    """Where it listens."""
    auth_address: str = "127.0.0.1:8102"
    """The auth service, which books for a router that was killed; several as `ipv4:a:1,b:2`."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Loopback port of its metrics; 0: none."""
