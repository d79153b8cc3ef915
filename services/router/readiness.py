"""moa.router.v1.ReadinessService: whether this router serves, and by which catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from moa.router.v1 import readiness_service_pb2 as pb
from moa.router.v1 import readiness_service_pb2_grpc

INTERNAL_KEY: Final = "x-moa-internal"
"""What the edge's internal port adds. A caller's own is taken away, as everything that begins like it."""


class ReadinessServicer(readiness_service_pb2_grpc.ReadinessServiceServicer):
    """Answers operators, and whoever balances load.

    Args:
        refused: Why the catalogue's last change was refused; empty where it was not. For the operator alone.
    """

    def __init__(self, refused: Callable[[], str]) -> None:
        self._refused = refused

    async def GetReadiness(self, request: pb.GetReadinessRequest, context: Any) -> pb.GetReadinessResponse:
        """Tell that this router serves."""
        fault = self._refused()
        internal = INTERNAL_KEY in dict(context.invocation_metadata() or ())
        return pb.GetReadinessResponse(
            status="ready", catalogue_refused=bool(fault), catalogue_fault=fault if internal else ""
        )
