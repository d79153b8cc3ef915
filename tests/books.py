"""Auth, as far as it books what backends tell it, for the tests of backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.common.rpc.server import Server


class Books(quota_service_pb2_grpc.QuotaServiceServicer):
    """What was booked. Whatever else auth is asked is unimplemented."""

    def __init__(self) -> None:
        self.settled: list[quota_pb2.Settlement] = []

    async def Settle(self, request: quota_service_pb2.SettleRequest, context: Any) -> quota_service_pb2.SettleResponse:
        self.settled += request.settlements
        return quota_service_pb2.SettleResponse(booked=[s.reservation_id for s in request.settlements])


@asynccontextmanager
async def keeping(token: str) -> AsyncIterator[tuple[Books, str]]:
    """Serve them until the block ends; give them and their address."""
    books = Books()  # type: ignore[abstract]
    server = Server(service_token=token)
    quota_service_pb2_grpc.add_QuotaServiceServicer_to_server(books, server.grpc)
    port = await server.start("127.0.0.1:0")
    yield books, f"127.0.0.1:{port}"
    await server.stop(0)
