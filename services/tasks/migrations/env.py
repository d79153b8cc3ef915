"""Alembic's entry: runs the migrations in one transaction, in a schema of their own, under a lock.

Several processes that start at once migrate one after the other: the first does it, the others find it done.
"""

from alembic import context
from sqlalchemy import create_engine, pool, text

_LOCK = 0x6D6F6174  # "moat"

_engine = create_engine(context.config.attributes["url"], poolclass=pool.NullPool)
with _engine.connect() as _link, _link.begin():
    _link.execute(text(f"select pg_advisory_xact_lock({_LOCK})"))
    _link.execute(text("create schema if not exists tasks"))
    context.configure(connection=_link, version_table_schema="tasks")
    context.run_migrations()
_engine.dispose()
