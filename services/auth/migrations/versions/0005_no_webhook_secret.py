"""Webhooks' secrets are the task service's, which signs: no account keeps another."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Apply."""
    op.execute("alter table accounts drop column webhook_secret")
