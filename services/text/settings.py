"""The text service's settings."""

from __future__ import annotations

from services.providers.hosting.settings import ProvidingSettings


class TextSettings(ProvidingSettings):
    """Settings of the text service."""

    listen: str = "127.0.0.1:8103"
