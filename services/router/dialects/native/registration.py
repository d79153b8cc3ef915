"""The native API in the router."""

from __future__ import annotations

from typing import Final

from moa.router.v1 import native_service_pb2
from services.router.dialects import native
from services.router.dialects.methods import registered

REGISTRATION: Final = registered(native_service_pb2.DESCRIPTOR, native)
