"""The Responses dialect in the router."""

from __future__ import annotations

from typing import Final

from moa.router.v1 import responses_service_pb2
from services.router.dialects import responses
from services.router.dialects.methods import registered

REGISTRATION: Final = registered(responses_service_pb2.DESCRIPTOR, responses)
