"""The protocols that the text service speaks, by the name that catalogue rows write as `adapter`."""

from __future__ import annotations

from collections.abc import Mapping

from services.text.adapters import azure, bedrock, gemini, openai
from services.text.adapters.base import Adapter, Reader

ADAPTERS: Mapping[str, Adapter] = {
    adapter.name: adapter for adapter in (openai.ADAPTER, azure.ADAPTER, gemini.ADAPTER, bedrock.ADAPTER)
}

__all__ = ["ADAPTERS", "Adapter", "Reader"]
