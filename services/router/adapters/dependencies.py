"""What a router cannot reach of what it needs: asked when somebody asks whether requests are served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.credential import Credential
from services.common.rpc.client import metadata
from services.common.rpc.health import DATABASE
from services.router.domain.ports import Missing

AUTH: Final = "auth"
_FRESH_S: Final = 1.0
WAIT_S: Final = 0.75
"""How long an answer is waited for; who asks this router waits for two seconds."""
_TRIES: Final = 2
"""Of two replicas one may stand still, and they are asked in turn."""
WARM_S: Final = 30.0
"""How long keys that were used lately go on without auth."""
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING


class Dependencies:
    """Asks the services behind a router whether they are there, once a second at most.

    Args:
        channels: To each, by its name; `auth` among them.
        service_token: The credential between services.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        channels: Mapping[str, grpc.aio.Channel],
        *,
        service_token: Credential,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stubs: dict[str, Any] = {name: health_pb2_grpc.HealthStub(each) for name, each in channels.items()}
        self._token = service_token
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._missing = Missing()
        self._auth_at = float("-inf")
        """When auth and its database were last there."""

    async def missing(self) -> Missing:
        """Return what cannot be reached now."""
        async with self._asking:
            if self._clock() - self._asked_at >= _FRESH_S:
                asked = await asyncio.gather(*map(self._fault, self._stubs))
                found = tuple(sorted(filter(None, asked)))
                self._asked_at = self._clock()
                if not {AUTH, DATABASE} & set(found):
                    self._auth_at = self._asked_at
                self._missing = Missing(found, refuses=self._asked_at - self._auth_at >= WARM_S)
        return self._missing

    async def _fault(self, name: str) -> str:
        """Return what is missing of a service: its own name, its database's, or nothing."""
        for _ in range(_TRIES):
            request = health_pb2.HealthCheckRequest(service=DATABASE if name == AUTH else "")
            try:
                answer = await self._stubs[name].Check(
                    request, metadata=metadata(self._token, "readiness"), timeout=WAIT_S
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:  # of a release that tells nothing of its database
                    return ""
                continue
            if answer.status == _SERVING:
                return ""
            if name == AUTH:
                return DATABASE
        return name
