"""How an account's limits stand, as it sees them itself."""

from __future__ import annotations

from moa.account.v1 import account_service_pb2 as pb
from moa.quota.v1 import quota_pb2
from services.auth import render
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.keys import Keys
from services.auth.adapters.paces import PacesKept
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.rules import Rules
from services.auth.adapters.spent import shared_by
from services.auth.adapters.verified_keys import VerifiedKeys
from services.auth.domain.accounts import Owner, Standing
from services.auth.minute_standings import Subject, minute_standings
from services.quota_client import priorities
from services.quota_client.amounts import BOUNDLESS, Period


class OwnLimits:
    """Tells accounts their limits: their own, their keys', their team's and those of budgets."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._accounts = Accounts(postgres)
        self._keys = Keys(postgres)
        self._paces = PacesKept(postgres)
        self._rules = Rules(postgres)
        self._verified_keys = VerifiedKeys(postgres)

    async def told(self, account_id: str, key_id: str | None) -> pb.GetLimitsResponse:
        """Return an account's limits, what is left of today, and the limits of the key that asks, if one does."""
        record = await self._accounts.get(account_id)
        own = [one for one in await self._keys.list(account_id) if one.id == key_id]
        spent = await self._verified_keys.spent(record.id, [key.id for key in own])
        used, resets_at = spent[record.id][Period.DAY]
        limit = (
            BOUNDLESS
            if record.unlimited
            else Standing.of(Owner.ACCOUNT, record.id, record.amounts(), {}).limits[Period.DAY]
        )
        remaining = quota_pb2.Remaining(
            limit=limit.message_within(limit),
            free=(limit - used).message_within(limit),
            unlimited=record.unlimited,
        )
        if resets_at is not None:
            remaining.resets_at.CopyFrom(render.timestamp(resets_at))
        standings = [] if record.unlimited else list(render.standings(record, "", spent[record.id]))
        paced = [Subject(record.id, record)]
        for key in own:
            standings += render.standings(key, key.id, spent[key.counter])
            paced.append(Subject(key.counter, key, key_id=key.id))
        owners = [record.id, *(key.counter for key in own), *filter(None, [record.team_id])]
        for shared, used_of_it in await shared_by(self._postgres, owners, record.zone):
            standings += render.standings(shared, "", used_of_it, owner=shared.id, name_of_owner=shared.name)
            paced.append(Subject(shared.id, shared, owner=shared.id, name=shared.name))
        standings += await minute_standings(self._paces, paced)
        rules = [render.rule(one).rule for one in await self._rules.of(account_id)]
        found = pb.GetLimitsResponse(
            limits=render.limits(record),
            remaining=remaining,
            granted_micro_credits=record.micro_credits,
            left_micro_credits=max(0, record.micro_credits - spent[record.id][Period.TOTAL][0].micro_credits),
            rules=rules,
            priority=priorities.NUMBERS[record.priority],
            standings=standings,
        )
        if key_id is not None:
            found.key.CopyFrom(render.key(await self._keys.get(account_id, key_id)))
        return found
