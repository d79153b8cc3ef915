"""Databases whose schema is there at once: each is copied from one that was brought up to date for that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from deploy.local.database import Database
from services.auth.migrations import SCHEMA
from services.common import migrations
from services.common.migrations import Schema

_templates: set[tuple[Path, str]] = set()
_numbers = count(1)
_HOUR: Final = datetime.now(UTC).hour
NOON: Final = timezone(timedelta(hours=12 - _HOUR))
"""Where it is noon while the tests run, on the day that it is in UTC."""
NOON_NAME: Final = f"Etc/GMT{_HOUR - 12:+d}"


def copied(server: Database, schema: Schema, revision: str | None = None) -> str:
    """Make a database of a schema, as a revision left it; return its URL. It takes a tenth of the migrations' time."""
    template = f"of_{schema.folder.parent.name}_{revision or 'today'}"
    if (server.folder, template) not in _templates:
        migrations.upgrade(server.create(template), schema, revision)
        _templates.add((server.folder, template))
    name = f"t_{next(_numbers)}"
    with psycopg.connect(server.url(), autocommit=True) as link:
        # By files, and not through the log: nothing here outlives a power failure anyway.
        statement = sql.SQL("create database {} template {} strategy file_copy")
        link.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return server.url(name)


def books(server: Database) -> str:
    """Make a database of auth's whose accounts have noon: none of their days and months ends amid a test."""
    url = copied(server, SCHEMA)
    with psycopg.connect(url, autocommit=True) as link:
        link.execute(sql.SQL("alter table accounts alter column zone set default {}").format(NOON_NAME))
    return url
