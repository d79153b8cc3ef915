"""moa.router.v1.ReadinessService: whether this router serves, and by which catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from moa.router.v1 import readiness_service_pb2 as pb
from moa.router.v1 import readiness_service_pb2_grpc
from services.common.errors import Unavailable
from services.quota_client import Recording
from services.router.domain.ports import Missing

INTERNAL_KEY: Final = "x-moa-internal"
"""What the edge's internal port adds. A caller's own is taken away, as everything that begins like it."""


class ReadinessServicer(readiness_service_pb2_grpc.ReadinessServiceServicer):
    """Answers operators, and whoever balances load.

    Args:
        refused: Why the catalogue's last change was refused; empty where it was not. For the operator alone.
        facts_refused: Why what is told of models by the operator's address was; likewise.
        recording: Whether what requests consume can be recorded.
        missing: What this router needs and cannot reach.
    """

    def __init__(
        self,
        refused: Callable[[], str],
        facts_refused: Callable[[], str] = lambda: "",
        recording: Callable[[], Recording] = Recording,
        missing: Callable[[], Awaitable[Missing]] | None = None,
    ) -> None:
        self._refused = refused
        self._facts_refused = facts_refused
        self._recording = recording
        self._missing = missing

    async def GetReadiness(self, request: pb.GetReadinessRequest, context: Any) -> pb.GetReadinessResponse:
        """Tell that this router serves. Raises Unavailable where it refuses whatever comes."""
        recording = self._recording()
        if recording.refuses:
            raise Unavailable(
                "requests are refused, for what they use could not be recorded now: auth does not book it, and the "
                f"journal cannot be written ({recording.fault}); try again",
                retry_after_s=1,
            )
        missing = await self._missing() if self._missing is not None else Missing()
        if missing.refuses:
            raise Unavailable(f"requests are refused: {' and '.join(missing.names)} cannot be reached", retry_after_s=1)
        fault, facts_fault = self._refused(), self._facts_refused()
        internal = INTERNAL_KEY in dict(context.invocation_metadata() or ())
        return pb.GetReadinessResponse(
            status="ready",
            catalogue_refused=bool(fault),
            catalogue_fault=fault if internal else "",
            facts_refused=bool(facts_fault),
            facts_fault=facts_fault if internal else "",
            missing=missing.names,
            journal_failed=bool(recording.fault),
            journal_fault=recording.fault if internal else "",
        )
