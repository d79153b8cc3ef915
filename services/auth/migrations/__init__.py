"""The database's schema, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.common import migrations

SCHEMA: Final = migrations.Schema(Path(__file__).parent, table=("alembic_version",), lock=0x6D6F61, works_from="0032")


def migrate(database_url: str) -> None:
    """Bring the database's schema up to date, in this process. Safe to run from several processes at once."""
    migrations.migrate(database_url, SCHEMA)
