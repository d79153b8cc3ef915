"""The image providers that can be asked now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.providers import vendors
from services.providers.hosting import targets
from services.providers.image.base import Adapter

ADAPTERS: Final[Mapping[str, Adapter]] = vendors.adapters("image", Adapter)
"""The protocols that the image service speaks, by the name that catalogue rows write as `adapter`."""

Target = targets.Target[Adapter]
Targets = targets.Targets[Adapter]
