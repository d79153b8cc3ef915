"""The text providers that can be asked now."""

from __future__ import annotations

from collections.abc import Mapping

from services.common.http import targets
from services.text.adapters import ADAPTERS, Adapter

Target = targets.Target[Adapter]


class Targets(targets.Targets[Adapter]):
    """Text providers, by the catalogue.

    Args:
        environment: Where the providers' secrets are.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(ADAPTERS, makes="text", environment=environment)
