"""Anthropic's name in traces."""

from typing import Final

SYSTEMS: Final = {"anthropic": "anthropic"}
