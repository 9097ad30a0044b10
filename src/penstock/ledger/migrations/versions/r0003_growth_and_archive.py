"""Indexes that hold at a million objects, and the archive of what retention removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_A_DELIVERY = sa.text("delivery IS NOT NULL")
_A_SOURCE = sa.text("source IS NOT NULL")


def upgrade() -> None:
    """Make the indexes of `objects` anew, and add the tables `archive` and `tallies`."""
    for name in ("open_work", "by_state", "one_delivery", "one_generation"):
        op.drop_index(name, "objects")
    op.create_index("one_generation", "objects", ["key", "bucket", "generation", "entry"], unique=True)
    op.create_index(
        "one_delivery",
        "objects",
        ["delivery", "source"],
        unique=True,
        sqlite_where=_A_DELIVERY,
        postgresql_where=_A_DELIVERY,
    )
    op.create_index("by_state", "objects", ["state", "dataset", "id"], unique=False)
    op.create_index("by_change", "objects", ["changed_at"], unique=False)
    op.create_table(
        "archive",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
            comment="the one it had in objects",
        ),
        sa.Column("dataset", sa.Text(), nullable=True, comment="NULL: superseded before a dataset took its key"),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("delivery", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("run", sa.Text(), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("rejected", sa.BigInteger(), nullable=True),
        sa.Column("arrived_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("archived_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("archived_key", "archive", ["key", "bucket"], unique=False)
    op.create_index(
        "archived_delivery",
        "archive",
        ["delivery", "source"],
        unique=False,
        sqlite_where=_A_DELIVERY,
        postgresql_where=_A_DELIVERY,
    )
    op.create_index(
        "archived_source",
        "archive",
        ["source", "arrived_at"],
        unique=False,
        sqlite_where=_A_SOURCE,
        postgresql_where=_A_SOURCE,
    )
    op.create_table(
        "tallies",
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column(
            "objects", sa.BigInteger(), nullable=False, comment="loaded ones that were archived, forgotten ones too"
        ),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("dataset"),
    )
