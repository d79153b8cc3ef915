"""The OpenAI dialect in the router."""

from __future__ import annotations

from typing import Final

from moa.router.v1 import openai_service_pb2
from services.router.dialects import openai
from services.router.dialects.methods import registered

REGISTRATION: Final = registered(openai_service_pb2.DESCRIPTOR, openai)
