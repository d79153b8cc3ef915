"""moa.operator.v1: what routers and services that ask providers need of auth for the operator."""

from __future__ import annotations

from typing import Any, Final

from moa.operator.v1 import operator_store_service_pb2 as pb
from moa.operator.v1 import operator_store_service_pb2_grpc
from services.auth import render
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.audit import audit
from services.auth.adapters.keys import Keys
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.provider_keys import ProviderKeyRow, ProviderKeys, version_of
from services.auth.adapters.traffic import Traffic
from services.auth.callers import Callers
from services.auth.managers import manager_of
from services.common.errors import InvalidField

_MOST_SLOTS: Final = 5000
_MOST_TARGETS: Final = 1000
_MOST_DETAILS: Final = 50
_LONGEST_DETAIL: Final = 500
_DAY_S: Final = 86_400


class OperatorStoreServicer(operator_store_service_pb2_grpc.OperatorStoreServiceServicer):
    """Answers Moa's other services."""

    def __init__(
        self,
        *,
        postgres: Postgres,
        provider_keys: ProviderKeys,
        traffic: Traffic,
        accounts: Accounts,
        keys_kept: Keys,
        callers: Callers,
    ) -> None:
        self._postgres = postgres
        self._provider_keys = provider_keys
        self._traffic = traffic
        self._accounts = accounts
        self._keys = keys_kept
        self._callers = callers

    async def AuthorizeOperator(
        self, request: pb.AuthorizeOperatorRequest, context: Any
    ) -> pb.AuthorizeOperatorResponse:
        """Return which administrator a credential is of."""
        caller = await self._callers.with_credential(request.credential, request.address)
        manager = await manager_of(self._accounts, self._keys, caller, "", gives=request.changes)
        return pb.AuthorizeOperatorResponse(account_id=manager.account_id)

    async def AuditOperation(self, request: pb.AuditOperationRequest, context: Any) -> pb.AuditOperationResponse:
        """Note what an administrator did."""
        details = [detail[:_LONGEST_DETAIL] for detail in request.details[:_MOST_DETAILS]]
        async with self._postgres.transaction() as link:
            await audit(link, request.actor, request.act, "", *details)
        return pb.AuditOperationResponse()

    async def ListProviderKeys(self, request: pb.ListProviderKeysRequest, context: Any) -> pb.ListProviderKeysResponse:
        """List stored keys, unless the caller has them."""
        rows = await self._provider_keys.all()
        version = version_of(rows)
        if version == request.known_version:
            return pb.ListProviderKeysResponse(version=version, unchanged=True)
        keys = [self._shown(row, with_value=request.values) for row in rows]
        return pb.ListProviderKeysResponse(version=version, keys=keys)

    async def ReportTraffic(self, request: pb.ReportTrafficRequest, context: Any) -> pb.ReportTrafficResponse:
        """Keep what a router saw."""
        if len(request.slots) > _MOST_SLOTS:
            raise InvalidField(f"at most {_MOST_SLOTS} in one call", param="slots")
        for name in ("breakers", "rates"):
            if len(getattr(request, name)) > _MOST_TARGETS:
                raise InvalidField(f"at most {_MOST_TARGETS} in one call", param=name)
        await self._traffic.write(request)
        return pb.ReportTrafficResponse()

    async def ReadTraffic(self, request: pb.ReadTrafficRequest, context: Any) -> pb.ReadTrafficResponse:
        """Return what all routers saw."""
        if not 0 < request.seconds <= _DAY_S:
            raise InvalidField(f"from 1 to {_DAY_S}", param="seconds")
        return await self._traffic.read(request.seconds)

    def _shown(self, row: ProviderKeyRow, *, with_value: bool) -> pb.StoredProviderKey:
        value = self._provider_keys.opened(row)
        return pb.StoredProviderKey(
            variable=row.variable,
            value=value or "" if with_value else "",
            last_four=row.last_four,
            set_at=render.timestamp(row.set_at),
            set_by=row.set_by,
            unreadable=value is None,
        )
