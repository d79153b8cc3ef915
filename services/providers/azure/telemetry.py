"""Azure's name in traces."""

from typing import Final

SYSTEMS: Final = {"azure": "azure.ai.openai"}
