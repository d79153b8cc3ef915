"""The database's schema, step by step."""

from __future__ import annotations

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config

_LOCK = 0x6D6F61  # "moa": replicas that start together migrate one after the other


def migrate(database_url: str) -> None:
    """Bring the database's schema up to date. Safe to run from several processes at once."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    with psycopg.connect(database_url, autocommit=True) as link:
        link.execute("select pg_advisory_lock(%s)", (_LOCK,))
        command.upgrade(config, "head")
