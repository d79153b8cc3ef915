"""moa.quota.v1 over the quota domain."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from google.protobuf.duration_pb2 import Duration

from moa.quota.v1 import quota_pb2, quota_service_pb2, quota_service_pb2_grpc
from services.auth.adapters.sessions import Sessions
from services.auth.arrivals import Arrivals
from services.auth.callers import live_account
from services.auth.domain import keys
from services.auth.domain.accounts import SHARED, Budget, Owner, Standing, VerifiedKey
from services.auth.domain.carrying import CarriedCredits
from services.auth.domain.paces import Paces
from services.auth.domain.pool import Lease
from services.auth.domain.powers import ACCOUNT
from services.auth.domain.quota import Admitted, Quota
from services.auth.domain.storing import USUAL, Storing
from services.common.clock import now_utc
from services.common.errors import InvalidField, Unauthenticated
from services.common.rpc import call as calls
from services.common.rpc.keys import SESSION_PREFIX
from services.quota_client import priorities
from services.quota_client.amounts import HELPING, Amount, Period, least

_MAX_KEYS = 10_000
_MAX_BATCH = 1_000
_TOLD = 100_000


class _Told(NamedTuple):
    """What a holder was told of a key last, and of what."""

    who: VerifiedKey
    pooled: Amount
    grant: quota_pb2.Grant


class Guesses(Protocol):
    """Who counts wrong keys by the address that they came from."""

    async def check(self, name: str) -> None: ...  # noqa: D102


class QuotaServicer(quota_service_pb2_grpc.QuotaServiceServicer):
    """Answers the other services.

    Args:
        fresh_s: How long a verified key counts as verified.
        pepper: What tokens of sessions are digested with.
    """

    def __init__(
        self,
        quota: Quota,
        sessions: Sessions,
        paces: Paces,
        guesses: Guesses,
        arrivals: Arrivals,
        carried: CarriedCredits,
        *,
        fresh_s: float,
        pepper: bytes,
        storing: Storing = USUAL,
    ) -> None:
        self._arrivals = arrivals
        self._carried = carried
        self._quota = quota
        self._sessions = sessions
        self._paces = paces
        self._guesses = guesses
        self._pepper = pepper
        self._storing = storing
        self._fresh_for = _duration(fresh_s)
        self._told: dict[str, _Told] = {}

    async def Admit(self, request: quota_service_pb2.AdmitRequest, context: Any) -> quota_service_pb2.AdmitResponse:
        """Verify a key and lease quota."""
        if request.WhichOneof("credential") == "key_id":
            who = await self._quota.known(request.key_id)
        else:
            who = await self._verified(request.api_key, request.address)
        calls.current().fields.update(account=who.account_id, key=who.key_id)
        need = Amount.read(request.need)
        admitted = await self._quota.admit(
            who,
            holder=request.holder,
            operation=request.operation,
            provider=request.provider,
            model=request.model,
            least=Amount.read(request.least) if request.HasField("least") else need,
            need=need,
            want=Amount.read(request.want),
            lasting=request.lasting,
            tags=request.tags,
            budgets=request.budgets if request.budgets_known else None,
            alone=request.alone,
        )
        return quota_service_pb2.AdmitResponse(grant=self._grant(admitted))

    async def Refresh(
        self, request: quota_service_pb2.RefreshRequest, context: Any
    ) -> quota_service_pb2.RefreshResponse:
        """Verify keys again and renew leases."""
        _bounded("key_ids", request.key_ids, _MAX_KEYS)
        if len(request.versions) not in (0, len(request.key_ids)):
            raise InvalidField("give one version for each key, or none at all", param="versions")
        good, ended = await self._quota.refreshed(request.key_ids)
        places = {key_id: place for place, key_id in enumerate(request.key_ids)} if request.versions else {}
        unchanged: list[int] = []
        grants: list[quota_pb2.Grant] = []
        for who in good:
            grant = self._refreshed(who)
            place = places.get(who.key_id)
            if place is not None and request.versions[place] == grant.version:
                unchanged.append(place)
            else:
                grants.append(grant)
        leases = await self._quota.renew(request.lease_ids)
        reported = await self._quota.report(request.open)
        return quota_service_pb2.RefreshResponse(
            grants=grants,
            unchanged=unchanged,
            wanted=[places[who.key_id] for who in good if self._quota.recalls.wants(who)] if places else (),
            ended_key_ids=ended,
            reported=reported,
            leases=[quota_pb2.Lease(lease_id=lease_id, expires_in=_duration(lasts_s)) for lease_id, lasts_s in leases],
        )

    async def Settle(self, request: quota_service_pb2.SettleRequest, context: Any) -> quota_service_pb2.SettleResponse:
        """Book what reservations consumed."""
        _bounded("settlements", request.settlements, _MAX_BATCH)
        booked, refused, known = await self._quota.settle(request.settlements)
        calls.current().fields.update(booked=len(booked), refused=len(refused))
        return quota_service_pb2.SettleResponse(
            booked=booked,
            refused=refused,
            known=[
                quota_service_pb2.KnownSettlement(
                    reservation_id=reservation_id, charged=settled.charged.message(), usage=settled.usage
                )
                for reservation_id, settled in known.items()
            ],
        )

    async def LeasePace(
        self, request: quota_service_pb2.LeasePaceRequest, context: Any
    ) -> quota_service_pb2.LeasePaceResponse:
        """Lease some of the paces that accounts and keys must keep."""
        _bounded("needs", request.needs, _MAX_BATCH)
        return quota_service_pb2.LeasePaceResponse(shares=await self._paces.lease(request.holder, request.needs))

    async def ReturnLeases(
        self, request: quota_service_pb2.ReturnLeasesRequest, context: Any
    ) -> quota_service_pb2.ReturnLeasesResponse:
        """Take unspent pieces of leases back."""
        _bounded("returns", request.returns, _MAX_BATCH)
        await self._quota.give_back(request.returns)
        return quota_service_pb2.ReturnLeasesResponse()

    async def CarryCredits(
        self, request: quota_service_pb2.CarryCreditsRequest, context: Any
    ) -> quota_service_pb2.CarryCreditsResponse:
        """Book what the task service counted of credits by itself."""
        _bounded("entries", request.entries, _MAX_BATCH)
        return quota_service_pb2.CarryCreditsResponse(entry_ids=await self._carried.carry(request.entries))

    async def IdentifySession(
        self, request: quota_service_pb2.IdentifySessionRequest, context: Any
    ) -> quota_service_pb2.IdentifySessionResponse:
        """Tell whose session it is."""
        account_id = await live_account(self._sessions, keys.digest(self._pepper, request.session_token))
        calls.current().fields["account"] = account_id
        await self._arrivals.of_session(account_id)
        return quota_service_pb2.IdentifySessionResponse(account_id=account_id)

    async def _verified(self, api_key: str, address: str) -> VerifiedKey:
        try:
            if api_key.startswith(SESSION_PREFIX):
                digest = keys.digest(self._pepper, api_key)
                await live_account(self._sessions, digest)
                await self._sessions.keep_key(digest)
            return await self._quota.verify(api_key)
        except Unauthenticated:
            if address:
                await self._guesses.check(address)
            raise

    def _refreshed(self, who: VerifiedKey) -> quota_pb2.Grant:
        pooled = self._quota.pools.free(who.key_id)
        known = self._told.get(who.key_id)
        if known is not None and known.who is who and known.pooled == pooled:
            return known.grant
        grant = self._grant(Admitted(who=who, lease=None, pooled=pooled))
        grant.version = _digest(grant.SerializeToString(deterministic=True))
        if len(self._told) >= _TOLD:
            self._told.clear()
        self._told[who.key_id] = _Told(who, pooled, grant)
        return grant

    def _grant(self, admitted: Admitted) -> quota_pb2.Grant:
        who = admitted.who
        grant = quota_pb2.Grant(
            account_id=who.account_id,
            key_id=who.key_id,
            rules=who.rules,
            scopes=who.scopes,
            remaining=_remaining(who, who.standings[:1], admitted.pooled),
            fresh_for=self._fresh_for,
            pace=who.pace,
            granted_micro_credits=who.micro_credits,
            priority=priorities.NUMBERS[who.priority],
            manages_account=ACCOUNT in who.manages,
            counts_as=who.counter,
            bound_by=who.bound_by,
            bound_pace=who.bound_pace,
            limits_version=_limits_version(who),
            team_id=who.team_id,
            team_pace=who.team_pace,
            budgets=[_budget(budget) for budget in who.budgets],
            stores_responses=self._storing.of(who.stores_responses),
            request_logging=who.request_logging,
        )
        if admitted.lease:
            grant.lease.CopyFrom(self._lease(who, admitted.lease))
        if who.key_pace:
            grant.key_pace.CopyFrom(who.key_pace)
        if own := [standing for standing in who.own if standing.limited]:
            grant.key_remaining.CopyFrom(_remaining(who, own, admitted.pooled))
        return grant

    def _lease(self, who: VerifiedKey, lease: Lease) -> quota_pb2.Lease:
        return quota_pb2.Lease(
            lease_id=lease.lease_id,
            day=who.day.isoformat(),
            amount=lease.amount.message(),
            expires_in=_duration(lease.expires_in_s),
            budgets=who.lane,
            day_ends_in=_duration((who.resets_at - now_utc()).total_seconds()),
        )


def _budget(budget: Budget) -> quota_pb2.Budget:
    free, limit = budget.standing.free, least(budget.standing.limits.values())
    return quota_pb2.Budget(
        budget_id=budget.id,
        provider=budget.provider,
        model=budget.model,
        tag=budget.tag,
        free=free.message_within(limit),
        pace=budget.pace,
        name=budget.standing.label,
    )


def _limits_version(who: VerifiedKey) -> int:
    """Return a number that is the same at every replica, of the dimensions that are lent ahead of need."""
    always = [one for one in who.standings if one.owner is not Owner.BUDGET]
    told = repr([_lent(one) for one in always])
    if shared := [one.subject for one in always if one.owner in SHARED]:
        told += repr(shared)
    if who.budgets:
        told += repr([(one.id, one.provider, one.model, one.tag, _lent(one.standing)) for one in who.budgets])
    return _digest(told.encode())


def _lent(standing: Standing) -> list[tuple[int, ...]]:
    return [tuple(amount.of(HELPING)) for amount in standing.limits.values()]


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") or 1


def _remaining(who: VerifiedKey, standings: Sequence[Standing], pooled: Amount) -> quota_pb2.Remaining:
    """Return what is left of a day: the least that any of the limits leaves, of each dimension."""
    limit = least(standing.limits[Period.DAY] for standing in standings)
    remaining = quota_pb2.Remaining(
        limit=limit.message_within(limit),
        free=(least(standing.free for standing in standings) + pooled).message_within(limit),
        unlimited=who.unlimited,
    )
    remaining.resets_at.FromDatetime(who.resets_at)
    return remaining


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(int(seconds * 1000))
    return duration


def _bounded(name: str, items: Sequence[object], most: int) -> None:
    if len(items) > most:
        raise InvalidField(f"at most {most} in one call", param=name)
