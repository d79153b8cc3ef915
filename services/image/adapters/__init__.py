"""The protocols that the image service speaks, by the name that catalogue rows write as `adapter`."""

from __future__ import annotations

from collections.abc import Mapping

from services.image.adapters import azure, bedrock, gemini, ideogram, openai, stability
from services.image.adapters.base import Adapter, Call, Link, Reader

ADAPTERS: Mapping[str, Adapter] = {
    module.ADAPTER.name: module.ADAPTER for module in (openai, azure, gemini, bedrock, ideogram, stability)
}

__all__ = ["ADAPTERS", "Adapter", "Call", "Link", "Reader"]
