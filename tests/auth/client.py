"""A caller of the public services."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import pytest

from moa.account.v1 import account_service_pb2 as pb
from moa.account.v1 import (
    account_service_pb2_grpc,
    admin_service_pb2_grpc,
    budget_service_pb2_grpc,
    request_log_service_pb2_grpc,
    team_service_pb2_grpc,
)

PASSWORD: Final = "correct horse battery"
_NUMBERS = itertools.count(1)


def _address() -> str:
    """Return an address that nobody had: tries are counted by it, whatever test makes them."""
    number = next(_NUMBERS)
    return f"198.18.{number // 250}.{number % 250 + 1}"


@dataclass
class Client:
    """The public services, as one address reaches them."""

    account: account_service_pb2_grpc.AccountServiceAsyncStub
    admin: admin_service_pb2_grpc.AdminServiceAsyncStub
    team: team_service_pb2_grpc.TeamServiceAsyncStub
    budget: budget_service_pb2_grpc.BudgetServiceAsyncStub
    log: request_log_service_pb2_grpc.RequestLogServiceAsyncStub
    address: str = field(default_factory=_address)

    def sent(self, token: str = "") -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call."""
        base = (("x-envoy-external-address", self.address),)
        return (*base, ("authorization", f"Bearer {token}")) if token else base

    async def sign_up(self, email: str, **more: Any) -> pb.SignUpResponse:
        """Sign up."""
        request = pb.SignUpRequest(email=email, password=PASSWORD, **more)
        return await self.account.SignUp(request, metadata=self.sent())


async def connected(port: int) -> tuple[Client, grpc.aio.Channel]:
    """Connect to a replica's public port."""
    link = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    return Client(
        account_service_pb2_grpc.AccountServiceStub(link),
        admin_service_pb2_grpc.AdminServiceStub(link),
        team_service_pb2_grpc.TeamServiceStub(link),
        budget_service_pb2_grpc.BudgetServiceStub(link),
        request_log_service_pb2_grpc.RequestLogServiceStub(link),
    ), link


async def code_of(call: Any) -> grpc.StatusCode:
    """Return what a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    code = failure.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code
