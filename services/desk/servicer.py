"""moa.desk.v1 over the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from moa.desk.v1 import desk_pb2, desk_service_pb2, desk_service_pb2_grpc
from services.common.credential import Credential
from services.common.errors import MoaError, Unauthenticated, detail_of
from services.common.rpc import call as calls
from services.common.rpc.keys import key_of
from services.desk import health
from services.desk.domain.items import ITEMS
from services.desk.domain.pipeline import Pipeline, Style
from services.quota_client import grants


class DeskServicer(desk_service_pb2_grpc.DeskServiceServicer):
    """Answers the task service.

    Args:
        pipeline: Gives the pipeline that runs for an account.
        checks: How each part is asked for its health.
        style: How images are made.
        version: The gateway's.
        service_token: What grants are checked with.
    """

    def __init__(
        self,
        pipeline: Callable[[grants.ActingFor], Pipeline],
        checks: Mapping[str, health.Check],
        style: Style,
        *,
        version: str,
        service_token: Credential,
    ) -> None:
        self._pipeline = pipeline
        self._checks = checks
        self._style = style
        self._version = version
        self._token = service_token

    async def StyleDesk(self, request: desk_service_pb2.StyleDeskRequest, context: Any) -> None:  # type: ignore[override]
        """Run the pipeline."""
        acting = grants.read(self._token, key_of(context.invocation_metadata() or ()))
        if acting is None or acting.account_id != request.account_id:
            raise Unauthenticated("a grant for the account is required")
        calls.current().fields["account"] = acting.account_id
        wrote = False
        async with aclosing(self._pipeline(acting).run(request)) as events:
            try:
                async for event in events:
                    await context.write(desk_service_pb2.StyleDeskResponse(events=[event]))
                    wrote = True
            except MoaError as error:
                if not wrote:
                    raise
                last = desk_pb2.DeskEvent(error=detail_of(error, calls.current().request_id))
                await context.write(desk_service_pb2.StyleDeskResponse(events=[last]))

    async def CheckHealth(
        self, request: desk_service_pb2.CheckHealthRequest, context: Any
    ) -> desk_service_pb2.CheckHealthResponse:
        """Tell how the parts are."""
        return desk_service_pb2.CheckHealthResponse(dependencies=await health.ask_all(self._checks))

    async def GetInfo(self, request: desk_service_pb2.GetInfoRequest, context: Any) -> desk_service_pb2.GetInfoResponse:
        """Tell what the pipeline runs with."""
        side = min(1024, self._style.max_side)
        return desk_service_pb2.GetInfoResponse(
            version=self._version,
            model=self._style.model,
            lora=self._style.lora,
            width=side,
            height=side,
            num_inference_steps=self._style.steps,
            guidance_scale=self._style.guidance_scale,
            items=ITEMS.values(),
        )
