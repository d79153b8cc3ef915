"""The text providers that can be asked now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.providers.aws import text as aws
from services.providers.azure import text as azure
from services.providers.google import text as google
from services.providers.hosting import targets
from services.providers.openai import text as openai
from services.providers.text.base import Adapter

ADAPTERS: Final[Mapping[str, Adapter]] = {
    adapter.name: adapter for adapter in (openai.ADAPTER, azure.ADAPTER, google.ADAPTER, aws.ADAPTER)
}
"""The protocols that the text service speaks, by the name that catalogue rows write as `adapter`."""

Target = targets.Target[Adapter]


class Targets(targets.Targets[Adapter]):
    """Text providers, by the catalogue.

    Args:
        environment: Where the providers' secrets are.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(ADAPTERS, makes="text", environment=environment)
