"""Loading an object again over its own rows, and sweeps that go on where they stopped."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `objects.again` and the table `sweeps`."""
    op.add_column(
        "objects",
        sa.Column(
            "again",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="1: load it although the warehouse has it; its rows there are replaced",
        ),
    )
    op.create_table(
        "sweeps",
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False, comment="every key up to this one was compared"),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bucket", "prefix"),
    )
