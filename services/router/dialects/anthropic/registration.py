"""The Anthropic dialect in the router."""

from __future__ import annotations

from typing import Final

from moa.router.v1 import anthropic_service_pb2
from services.router.dialects import anthropic
from services.router.dialects.methods import registered

REGISTRATION: Final = registered(anthropic_service_pb2.DESCRIPTOR, anthropic)
