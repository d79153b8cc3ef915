"""Which trace a task belongs to: its work and its webhooks are recorded there too."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Apply."""
    # With a default: a process of the version before goes on writing rows while others are brought up to date.
    op.execute("alter table tasks.tasks add column traceparent text not null default ''")
