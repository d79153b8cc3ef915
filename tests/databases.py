"""Databases whose schema is there at once: each is copied from one that was brought up to date for that."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

from deploy.local.database import Database
from services.common import migrations
from services.common.migrations import Schema

_templates: set[tuple[Path, str]] = set()
_numbers = count(1)


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
