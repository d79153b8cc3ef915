"""The ledger's checker: recomputes every counter from the ledger, and lists what needs a person's eye."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import psycopg

from services.auth.adapters import checks
from services.auth.adapters.postgres import Link
from services.quota_client.amounts import DIMENSIONS

_ROWS_A_STEP: Final = 500_000
"""A step takes some ten seconds, which is all that an audit that is interrupted loses."""
_ROWS_AT_FIRST: Final = 20_000
"""The first step takes less than a second, and each next one twice as many rows: whoever watches sees that it runs."""
AUDIT_LOCK: Final = 0x6D6F6175
"""Held shared while rows are checked: none is removed meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a check found."""

    rows: int
    """Rows of the ledger, those that were removed included."""
    totals: dict[str, dict[str, int]]
    """Borrowed, spent, returned and outstanding, by dimension; outstanding is what is left of borrowed."""
    faults: dict[str, list[dict[str, Any]]]
    """Where the books do not balance; empty when they do."""
    notes: dict[str, list[dict[str, Any]]]
    """Orphans, and what was consumed and not charged."""


@dataclass
class _Found:
    most: int
    faults: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, name: str, rows: list[dict[str, Any]]) -> None:
        known = self.faults.get(name, [])
        fresh = [row for row in rows if row not in known]
        if fresh:
            self.faults[name] = [*known, *fresh][: self.most]


class Checker:
    """Checks the books, over a connection of its own that may take its time.

    Args:
        url: As libpq takes it.
        rows_a_step: How many rows of the ledger are checked on one snapshot of the database, at most.
        rows_at_first: How many are at the first.
    """

    def __init__(self, url: str, *, rows_a_step: int = _ROWS_A_STEP, rows_at_first: int = _ROWS_AT_FIRST) -> None:
        self._url = url
        self._rows_at_first = rows_at_first
        self._rows_a_step = rows_a_step

    async def check(
        self,
        *,
        most: int = 100,
        whole: bool = False,
        told: Callable[[int, int], None] = lambda _, __: None,
        looks: Callable[[str], None] = lambda _: None,
    ) -> Findings:
        """Check what was booked since the last check, or the `whole`; list `most` rows of each finding at most.

        A check that is interrupted is gone on with by the next; one that finds faults is made again from there.

        Args:
            told: Is told how far the check is, at its beginning and after each step: the last row that was checked, and
                the last of all.
            looks: Is told what is looked for in all there is, before each such look.
        """
        async with await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=5, options="-c statement_timeout=0 -c lock_timeout=0"
        ) as link:
            await link.execute("select pg_advisory_lock_shared(%s)", (AUDIT_LOCK,))
            found = _Found(most)
            sums = await self._whole(link, found, looks) if whole else await self._since(link, found, told)
            async with _snapshot(link):
                await _check(link, found, checks.OF_NOW, looks)
                notes = {}
                for name, statement in checks.NOTES.items():
                    looks(name)
                    notes[name] = await _dicts(link, statement, (most,))
            # The server releases it some moments after this connection's end; a removal that meets it rests an hour.
            await link.execute("select pg_advisory_unlock_shared(%s)", (AUDIT_LOCK,))
        return Findings(
            rows=sums[0],
            totals={name: _summed(*sums[1 + at :: len(DIMENSIONS)]) for at, name in enumerate(DIMENSIONS)},
            faults=found.faults,
            notes=notes,
        )

    async def _whole(self, link: Link, found: _Found, looks: Callable[[str], None]) -> list[int]:
        async with _snapshot(link):
            await _check(link, found, checks.WHOLE, looks)
            looks("the sums of all rows")
            return _added(await _carried(link), await _sums(link, 0, 2**63 - 1))

    async def _since(self, link: Link, found: _Found, told: Callable[[int, int], None]) -> list[int]:
        at, sums = await _position(link)
        last, sure = await _ends(link)
        if at > await _given(link):
            # The database is an older one than the position was written in.
            at, sums = 0, await _carried(link)
        told(at, last)
        rows = self._rows_at_first
        while at < last:
            upto = min(at + min(rows, self._rows_a_step), last if at >= sure else sure)
            rows *= 2
            async with _snapshot(link):
                for statement in checks.TOUCHED:
                    await link.execute(statement, {"after": at, "upto": upto})
                await _check(link, found, checks.OF_ROWS)
                sums = _added(sums, await _sums(link, at, upto))
            at = upto
            if at <= sure and not found.faults:
                await link.execute(
                    "insert into audit_position (upto, sums) values (%s, %s) on conflict (single) do update"
                    " set upto = excluded.upto, sums = excluded.sums, at = now()",
                    (at, sums),
                )
            told(at, last)
        return sums


@asynccontextmanager
async def _snapshot(link: Link) -> AsyncIterator[None]:
    async with link.transaction():
        await link.execute("set transaction isolation level repeatable read")
        yield


async def _check(
    link: Link,
    found: _Found,
    statements: Mapping[str, LiteralString],
    looks: Callable[[str], None] = lambda _: None,
) -> None:
    for name, statement in statements.items():
        looks(name)
        found.add(name, await _dicts(link, statement, None))


async def _sums(link: Link, after: int, upto: int) -> list[int]:
    row = await (await link.execute(checks.TOTALS, {"after": after, "upto": upto})).fetchone()
    assert row is not None
    return list(row)


async def _position(link: Link) -> tuple[int, list[int]]:
    """Return up to which row everything was checked before, and the sums up to there.

    Those that a release with other dimensions wrote, beside this one, are of no use.
    """
    row = await (await link.execute("select upto, sums from audit_position")).fetchone()
    carried = await _carried(link)
    return (row[0], row[1]) if row and len(row[1]) == len(carried) else (0, carried)


async def _given(link: Link) -> int:
    """Return the last number that a row was given, whether the row is still there or not."""
    cursor = await link.execute("select pg_sequence_last_value(pg_get_serial_sequence('ledger', 'id')::regclass)")
    row = await cursor.fetchone()
    return int(row[0]) if row and row[0] is not None else 0


async def _carried(link: Link) -> list[int]:
    """Return the sums of the rows that were removed."""
    row = await (await link.execute(checks.CARRIED)).fetchone()
    assert row is not None
    return list(row)


def _added(sums: list[int], more: list[int]) -> list[int]:
    return [one + other for one, other in zip(sums, more, strict=True)]


async def _ends(link: Link) -> tuple[int, int]:
    """Return the last row, and the last one before which none is missing: no transaction takes a minute."""
    cursor = await link.execute(
        "select coalesce(max(id), 0), coalesce((select id from ledger where at < now() - interval '1 minute'"
        " order by id desc limit 1), 0) from ledger"
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]


def _summed(borrowed: int, settled: int, returned: int, late: int) -> dict[str, int]:
    return {
        "borrowed": borrowed,
        "spent": settled + late,
        "returned": returned,
        "outstanding": borrowed - settled - returned,
    }


async def _dicts(link: Link, statement: LiteralString, parameters: Any) -> list[dict[str, Any]]:
    cursor = await link.execute(statement, parameters)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]
