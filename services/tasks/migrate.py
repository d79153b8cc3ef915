"""Bring the database's schema `tasks` to this version."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psycopg

_FOLDER: Final = Path(__file__).with_name("migrations")


def migrate(url: str) -> None:
    """Apply what is missing. Safe to run from several processes at once."""
    if _is_current(url):
        return
    # Imported for what is rarely needed: Alembic and SQLAlchemy would stay in memory for nothing.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["url"] = url.replace("postgresql://", "postgresql+psycopg://", 1)
    command.upgrade(config, "head")


def _is_current(url: str) -> bool:
    newest = max(path.name.partition("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*.py"))
    try:
        with psycopg.connect(url, connect_timeout=5) as link:
            row = link.execute("select version_num from tasks.alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        return False
    return row is not None and row[0] == newest
