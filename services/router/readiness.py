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
        facts_refused: Why what is told of models by the operator's address was; likewise.
    """

    def __init__(self, refused: Callable[[], str], facts_refused: Callable[[], str] = lambda: "") -> None:
        self._refused = refused
        self._facts_refused = facts_refused

    async def GetReadiness(self, request: pb.GetReadinessRequest, context: Any) -> pb.GetReadinessResponse:
        """Tell that this router serves."""
        fault, facts_fault = self._refused(), self._facts_refused()
        internal = INTERNAL_KEY in dict(context.invocation_metadata() or ())
        return pb.GetReadinessResponse(
            status="ready",
            catalogue_refused=bool(fault),
            catalogue_fault=fault if internal else "",
            facts_refused=bool(facts_fault),
            facts_fault=facts_fault if internal else "",
        )
