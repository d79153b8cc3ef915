"""Alembic's entry: runs the migrations in one transaction over the URL that `migrate` was given."""

from alembic import context
from sqlalchemy import create_engine, pool

_engine = create_engine(context.config.attributes["url"], poolclass=pool.NullPool)
with _engine.connect() as _link:
    context.configure(connection=_link)
    with context.begin_transaction():
        context.run_migrations()
_engine.dispose()
