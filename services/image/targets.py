"""The image providers that can be asked now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.providers.aws import image as aws
from services.providers.azure import image as azure
from services.providers.google import image as google
from services.providers.hosting import targets
from services.providers.ideogram import image as ideogram
from services.providers.image.base import Adapter
from services.providers.openai import image as openai
from services.providers.stability import image as stability

ADAPTERS: Final[Mapping[str, Adapter]] = {
    adapter.name: adapter
    for adapter in (
        openai.ADAPTER,
        azure.ADAPTER,
        google.ADAPTER,
        aws.ADAPTER,
        ideogram.ADAPTER,
        stability.ADAPTER,
    )
}
"""The protocols that the image service speaks, by the name that catalogue rows write as `adapter`."""

Target = targets.Target[Adapter]


class Targets(targets.Targets[Adapter]):
    """Image providers, by the catalogue.

    Args:
        environment: Where the providers' secrets are.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(ADAPTERS, makes="image", environment=environment)
