"""Whose ledger it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table `owner`, whose one row the first project writes that migrates or opens the ledger."""
    op.create_table("owner", sa.Column("project", sa.Text(), nullable=False), sa.PrimaryKeyConstraint("project"))
