"""The Google dialect in the router."""

from __future__ import annotations

from typing import Final

from moa.router.v1 import google_service_pb2
from services.router.dialects import google
from services.router.dialects.methods import registered

REGISTRATION: Final = registered(google_service_pb2.DESCRIPTOR, google)
