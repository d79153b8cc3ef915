"""Google's name in traces."""

from typing import Final

SYSTEMS: Final = {"gemini": "gcp.gemini", "imagen": "gcp.gemini"}
