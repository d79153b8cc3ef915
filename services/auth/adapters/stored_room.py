"""How much an account has stored: counted in one row, so that nobody sums it up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from services.auth.adapters.postgres import Link, Postgres
from services.common.errors import QuotaExhausted, TooLarge

_BATCH: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one account may have stored, and for how long."""

    keep_s: float = 30 * 86400.0
    """How long a response or a conversation is kept after it was last written or gone on from."""
    entries: int = 10_000
    """How many of both."""
    bytes: int = 256 * 1024 * 1024
    """How many bytes of them, as they are stored."""
    one_bytes: int = 16 * 1024 * 1024
    """How many bytes one response may have, and how many one may go on from."""
    chain: int = 1_000
    """How many responses one may go on from."""


async def check_room(link: Link, account_id: str, bounds: Bounds) -> None:
    """Raise QuotaExhausted where an account has no room for one more."""
    cursor = await link.execute("select entries, bytes from stored_room where account_id = %s", (account_id,))
    row = await cursor.fetchone()
    if row is not None:
        _check(row[0] + 1, row[1] + 1, bounds)


async def take_room(link: Link, account_id: str, bounds: Bounds, *, entries: int, size_bytes: int) -> None:
    """Count what is stored. Raises QuotaExhausted where it is too much, TooLarge where it is for anybody."""
    if size_bytes > bounds.one_bytes:
        raise TooLarge(f"this has {size_bytes:,} bytes, and {bounds.one_bytes:,} are stored at most; send store: false")
    cursor = await link.execute(
        "insert into stored_room as r values (%s, %s, %s) on conflict (account_id) do update"
        " set entries = r.entries + excluded.entries, bytes = r.bytes + excluded.bytes returning entries, bytes",
        (account_id, entries, size_bytes),
    )
    row = await cursor.fetchone()
    if row is not None and (entries > 0 or size_bytes > 0):
        _check(row[0], row[1], bounds)


async def give_back(link: Link, freed: Iterable[tuple[str, int, int]]) -> None:
    """Count what is stored no more: of each account how many entries and bytes."""
    sums: dict[str, tuple[int, int]] = {}
    for account_id, entries, size in freed:
        before = sums.get(account_id, (0, 0))
        sums[account_id] = before[0] + entries, before[1] + size
    # In one order, so that no two of these wait for each other.
    for account_id in sorted(sums):
        await link.execute(
            "update stored_room set entries = entries - %s, bytes = bytes - %s where account_id = %s",
            (*sums[account_id], account_id),
        )
        await link.execute("delete from stored_room where account_id = %s and entries <= 0", (account_id,))


async def remove_one(link: Link, table: LiteralString, account_id: str, name: str) -> bool:
    """Remove an account's response or conversation; return whether there was one."""
    return await _remove(link, table, "id = %s and account_id = %s", (name, account_id)) > 0


async def remove_expired(postgres: Postgres, table: LiteralString) -> None:
    """Remove those whose time is over, a batch in each transaction."""
    while True:
        async with postgres.transaction() as link:
            if await _remove(link, table, "expires_at <= now()", (), lock="for update skip locked") < _BATCH:
                return


async def _remove(
    link: Link, table: LiteralString, which: LiteralString, given: Sequence[Any], *, lock: LiteralString = "for update"
) -> int:
    """Remove rows, at most a batch of them; return how many went."""
    cursor = await link.execute(
        f"delete from {table} where id in (select id from {table} where {which} order by id limit %s {lock})"
        " returning account_id, size_bytes",
        (*given, _BATCH),
    )
    rows = await cursor.fetchall()
    await give_back(link, [(account_id, 1, size) for account_id, size in rows])
    return len(rows)


def _check(entries: int, size_bytes: int, bounds: Bounds) -> None:
    what = ""
    if entries > bounds.entries:
        what = f"{bounds.entries:,} responses and conversations"
    elif size_bytes > bounds.bytes:
        what = f"{bounds.bytes // (1024 * 1024):,} MiB of responses and conversations"
    if what:
        raise QuotaExhausted(
            f"this account has stored {what}, which is all that it may; delete some"
            " (DELETE /v1/responses/{id} or /v1/conversations/{id}), or send store: false"
        )
