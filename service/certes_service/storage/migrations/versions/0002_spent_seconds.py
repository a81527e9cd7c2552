"""Seconds that earlier attempts at a job took."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Take the step."""
    op.add_column("jobs", sa.Column("spent", sa.Double(), nullable=False, server_default=sa.text("0")))
