"""What routers saw of providers and virtual models, in PostgreSQL."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from moa.operator.v1 import operator_store_service_pb2 as pb
from services.auth.adapters.postgres import Postgres
from services.common.clock import now_utc

KEPT_S: Final = 90_000
"""How long slots are kept: a day, and what a slot may be begun before."""
_TIDY_S: Final = 600.0
_STALE_S: Final = 900
"""How long the last word of a router that says nothing more is told."""


class Traffic:
    """Keeps what routers report."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._tidy_at = float("-inf")

    async def write(self, report: pb.ReportTrafficRequest) -> None:
        """Keep a report: its slots, and the router's state in the place of the one before."""
        state = pb.ReportTrafficRequest(breakers=report.breakers, rates=report.rates)
        rows = [
            (
                datetime.fromtimestamp(slot.at, UTC),
                report.holder,
                *(slot.route, slot.provider, slot.model),
                *(slot.requests, slot.errors, slot.fallbacks),
                list(slot.first_events),
            )
            for slot in report.slots
        ]
        async with self._postgres.transaction() as link:
            async with link.cursor() as cursor:
                await cursor.executemany(
                    "insert into traffic values (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
                    " on conflict (at, holder, route, provider, model) do update set requests = excluded.requests,"
                    " errors = excluded.errors, fallbacks = excluded.fallbacks, first_events = excluded.first_events",
                    rows,
                )
            await link.execute(
                "insert into router_states (holder, state) values (%s, %s)"
                " on conflict (holder) do update set at = now(), state = excluded.state",
                (report.holder, state.SerializeToString()),
            )

    async def read(self, seconds: int) -> pb.ReadTrafficResponse:
        """Return what all routers saw since, merged."""
        response = pb.ReadTrafficResponse()
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select extract(epoch from min(at))::bigint, route, provider, model, sum(requests)::bigint,"
                " sum(errors)::bigint, sum(fallbacks)::bigint, array_agg(first_events::text)"
                " from traffic where at > now() - make_interval(secs => %s)"
                " group by route, provider, model order by provider, model, route",
                (seconds,),
            )
            for at, route, provider, model, requests, errors, fallbacks, events in await cursor.fetchall():
                slot = response.slots.add(at=at, route=route, provider=provider, model=model, requests=requests)
                slot.errors, slot.fallbacks = errors, fallbacks
                slot.first_events.extend(_summed(events))
            cursor = await link.execute(
                "select state from router_states where at > now() - make_interval(secs => %s)", (_STALE_S,)
            )
            states = [bytes(state) for (state,) in await cursor.fetchall()]
        _merge(response, states, now_utc())
        return response

    async def tidy(self) -> None:
        """Forget what is over, every few minutes."""
        if time.monotonic() < self._tidy_at:
            return
        self._tidy_at = time.monotonic() + _TIDY_S
        async with self._postgres.transaction() as link:
            await link.execute("delete from traffic where at < now() - make_interval(secs => %s)", (KEPT_S,))
            await link.execute("delete from router_states where at < now() - make_interval(secs => %s)", (KEPT_S,))


def _summed(arrays: list[str]) -> list[int]:
    """Return the sum of arrays as PostgreSQL writes them (`{1,2}`); one that is shorter counts as far as it goes."""
    sums: list[int] = []
    for text in arrays:
        for place, number in enumerate(filter(None, text.strip("{}").split(","))):
            if place == len(sums):
                sums.append(0)
            sums[place] += int(number)
    return sums


def _merge(response: pb.ReadTrafficResponse, states: list[bytes], now: datetime) -> None:
    """Put routers' states together: who rests, at how many of them, and the newest word on each limit."""
    breakers: dict[tuple[str, str], pb.OpenBreaker] = {}
    rates: dict[tuple[str, str], pb.LearnedRates] = {}
    for state in states:
        report = pb.ReportTrafficRequest.FromString(state)
        for breaker in report.breakers:
            if breaker.until.ToDatetime(UTC) < now:
                continue
            known = breakers.setdefault((breaker.provider, breaker.model), breaker)
            if known is breaker:
                known.routers = 1
                continue
            known.routers += 1
            if breaker.until.ToNanoseconds() > known.until.ToNanoseconds():
                known.until.CopyFrom(breaker.until)
        for learned in report.rates:
            newest = rates.setdefault((learned.provider, learned.model), learned)
            if learned.at.ToNanoseconds() > newest.at.ToNanoseconds():
                rates[learned.provider, learned.model] = learned
    response.breakers.extend(breakers.values())
    response.rates.extend(rates.values())
