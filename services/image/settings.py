"""The image service's settings."""

from __future__ import annotations

from services.providers.hosting.settings import ProvidingSettings


class ImageSettings(ProvidingSettings):
    """Settings of the image service."""

    listen: str = "127.0.0.1:8108"
