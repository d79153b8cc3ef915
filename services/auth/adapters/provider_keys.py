"""Providers' keys in PostgreSQL, encrypted by the operator's keys."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from services.auth.adapters.audit import audit
from services.auth.adapters.postgres import Postgres
from services.common.content_sealing import ContentKeys, Sealed
from services.common.errors import Conflict

_SHOWN: Final = 4
_LEAST_SHOWN: Final = 12
"""Of shorter values nothing is shown: their last characters would be much of them."""
_ROWS: LiteralString = "select variable, key_name, sealed, last_four, set_at, set_by from provider_keys"


@dataclass(frozen=True)
class ProviderKeyRow:
    """A stored part of a provider's credentials."""

    variable: str
    sealed: Sealed
    last_four: str
    set_at: datetime
    set_by: str


class ProviderKeys:
    """Keeps providers' keys. What is done to them is in the audit log, in the same transaction.

    Args:
        keys: What encrypts them.
    """

    def __init__(self, postgres: Postgres, keys: ContentKeys) -> None:
        self._postgres = postgres
        self._keys = keys

    async def set(self, provider: str, values: Mapping[str, str], *, actor: str) -> list[ProviderKeyRow]:
        """Store values by variable, over those that are there. Raises Conflict without a key to encrypt them."""
        if not self._keys:
            raise Conflict(
                "keys of providers are stored encrypted, and the operator has set no key for that: set"
                " MOA_REQUEST_LOG_KEYS and restart, or set the provider's key in the environment"
            )
        rows = []
        async with self._postgres.transaction() as link:
            for variable, value in sorted(values.items()):
                sealed = self._keys.seal(_record(variable), value.encode())
                shown = value[-_SHOWN:] if len(value) >= _LEAST_SHOWN else ""
                cursor = await link.execute(
                    "insert into provider_keys (variable, key_name, sealed, last_four, set_by)"
                    " values (%(variable)s, %(key)s, %(sealed)s, %(shown)s, %(actor)s)"
                    " on conflict (variable) do update set key_name = excluded.key_name, sealed = excluded.sealed,"
                    " last_four = excluded.last_four, set_at = excluded.set_at, set_by = excluded.set_by"
                    " returning set_at",
                    {
                        "variable": variable,
                        "key": sealed.key,
                        "sealed": sealed.data,
                        "shown": shown,
                        "actor": actor,
                    },
                )
                (set_at,) = await cursor.fetchone() or (None,)
                assert set_at is not None
                rows.append(ProviderKeyRow(variable, sealed, shown, set_at, actor))
            await audit(link, actor, "provider_key.set", "", f"provider={provider}", *_named(values))
        return rows

    async def delete(self, provider: str, variables: Collection[str], *, actor: str) -> None:
        """Forget what is stored of variables."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "delete from provider_keys where variable = any(%s) returning variable", (list(variables),)
            )
            if deleted := sorted(variable for (variable,) in await cursor.fetchall()):
                await audit(link, actor, "provider_key.deleted", "", f"provider={provider}", *_named(deleted))

    async def all(self) -> list[ProviderKeyRow]:
        """Return everything that is stored, by variable."""
        async with self._postgres.transaction() as link:
            cursor = await link.execute(_ROWS + " order by variable")
            return [
                ProviderKeyRow(variable, Sealed(key, bytes(data)), last_four, set_at, set_by)
                for variable, key, data, last_four, set_at, set_by in await cursor.fetchall()
            ]

    async def reseal(self) -> int:
        """Encrypt anew what older keys of the operator encrypted; return how many values. What no key opens stays."""
        if not self._keys:
            return 0
        resealed = 0
        async with self._postgres.transaction() as link:
            cursor = await link.execute(
                "select variable, key_name, sealed from provider_keys where key_name <> %s for update skip locked",
                (self._keys.first,),
            )
            for variable, key, data in await cursor.fetchall():
                plain = self._keys.open(_record(variable), Sealed(key, bytes(data)))
                if plain is None:
                    continue
                sealed = self._keys.seal(_record(variable), plain)
                await link.execute(
                    "update provider_keys set key_name = %s, sealed = %s where variable = %s",
                    (sealed.key, sealed.data, variable),
                )
                resealed += 1
        return resealed

    def opened(self, row: ProviderKeyRow) -> str | None:
        """Return a value; None where the operator's key that encrypted it is not there any more."""
        plain = self._keys.open(_record(row.variable), row.sealed)
        return None if plain is None else plain.decode()


def version_of(rows: Collection[ProviderKeyRow]) -> int:
    """Return a number that changes with what is stored; never 0."""
    digest = hashlib.sha256()
    for row in rows:
        for part in (row.variable.encode(), row.sealed.key.encode(), row.sealed.data):
            digest.update(len(part).to_bytes(4, "big") + part)
    return int.from_bytes(digest.digest()[:8], "big") | 1


def _record(variable: str) -> str:
    """Return what a value is encrypted as: no request of the log is called so."""
    return f"provider key {variable}"


def _named(variables: Collection[str]) -> list[str]:
    return [f"variable={variable}" for variable in sorted(variables)]
