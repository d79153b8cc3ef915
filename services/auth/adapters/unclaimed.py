"""Whether nobody can log in as an administrator yet: the service asks, and the launcher before it offers a link."""

from __future__ import annotations

from typing import Final, LiteralString

UNCLAIMED: Final[LiteralString] = (
    "select id from accounts where role = 'admin' and disabled_at is null and email is null and password_hash is null"
    " and not exists (select 1 from accounts where role = 'admin' and disabled_at is null"
    " and password_hash is not null) order by created_at, id limit 1"
)
"""The first administrator, as long as no administrator has a password."""
