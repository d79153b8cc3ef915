"""Alembic's entry: runs the migrations in one transaction over the URL that was given, under a lock.

Replicas that start together migrate one after the other: the first does it, the others find it done.
"""

from alembic import context
from sqlalchemy import create_engine, pool, text

_LOCK = 0x6D6F61  # "moa"

_engine = create_engine(context.config.attributes["url"], poolclass=pool.NullPool)
with _engine.connect() as _link, _link.begin():
    _link.execute(text(f"select pg_advisory_xact_lock({_LOCK})"))
    context.configure(connection=_link)
    context.run_migrations()
_engine.dispose()
