"""gRPC's health protocol, with a name of its own for whether requests should be sent here.

Health as such (the empty name, and each service's) is whether the process answers: where it does not, it is started
again. One that answers and had better not be asked now is not `ready`: whoever spreads requests leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

READY: Final = "ready"
"""The name to ask for."""
DATABASE: Final = "database"
"""Of a process with a database: whether that answers. No reason not to be asked."""


class Health(HealthServicer):  # type: ignore[misc]  # it has no types
    """Answers for a server.

    Args:
        checks: What is answered by names beyond those of services: whether it is well, asked with each question.
    """

    def __init__(self, checks: Mapping[str, Callable[[], bool]]) -> None:
        super().__init__()
        self.checks = checks

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """Tell how a service is."""
        well = self.checks.get(request.service)
        if well is not None and not well():
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        answer: health_pb2.HealthCheckResponse = await super().Check(request, context)
        return answer
