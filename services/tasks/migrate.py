"""Bring the database's schema `tasks` to this version."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.common import migrations

SCHEMA: Final = migrations.Schema(
    Path(__file__).with_name("migrations"), table=("tasks", "alembic_version"), lock=0x6D6F6174, works_from="0006"
)


def migrate(url: str) -> None:
    """Apply what is missing, in this process. Safe to run from several processes at once."""
    migrations.migrate(url, SCHEMA)
