"""The text providers that can be asked now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.providers import vendors
from services.providers.hosting import targets
from services.providers.text.base import Adapter

ADAPTERS: Final[Mapping[str, Adapter]] = vendors.adapters("text", Adapter)
"""The protocols that the text service speaks, by the name that catalogue rows write as `adapter`."""

Target = targets.Target[Adapter]
Targets = targets.Targets[Adapter]
