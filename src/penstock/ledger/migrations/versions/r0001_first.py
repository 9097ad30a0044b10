"""The first ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "files",
        sa.Column("path", sa.Text(), nullable=False, comment="below the inbox"),
        sa.Column("inode", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False, comment="empty: refused, with the reason in objects"),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("path"),
    )
    op.create_table(
        "history",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("object_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("run", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_history_object_id"), "history", ["object_id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True, comment="NULL: nobody"),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "hold_until", sa.BigInteger(), nullable=True, comment="a transient error holds the dataset until then"
        ),
        sa.CheckConstraint("token > 0", name="token_positive"),
        sa.PrimaryKeyConstraint("dataset"),
    )
    op.create_table(
        "objects",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
            comment="the arrival sequence",
        ),
        sa.Column("dataset", sa.Text(), nullable=True, comment="NULL while no dataset takes the key"),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column(
            "entry", sa.Integer(), nullable=False, comment="0: the whole object; n: the n-th delivery of an envelope"
        ),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("delivery", sa.Text(), nullable=True, comment="the sender's delivery id, unique per source"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column(
            "attempts", sa.Integer(), server_default="0", nullable=False, comment="runs that died or failed with it"
        ),
        sa.Column(
            "hiccups",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="transient errors, which never quarantine",
        ),
        sa.Column("claim_token", sa.BigInteger(), nullable=True),
        sa.Column("run", sa.Text(), nullable=True, comment="the run that claimed it last"),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("rejected", sa.BigInteger(), nullable=True),
        sa.Column("arrived_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("(state = 'claimed') = (claim_token IS NOT NULL)", name="claimed_has_token"),
        sa.CheckConstraint(
            "dataset IS NOT NULL OR state IN ('quarantined', 'superseded', 'ignored')", name="has_dataset"
        ),
        sa.CheckConstraint("state <> 'loaded' OR rows IS NOT NULL", name="loaded_has_rows"),
        sa.CheckConstraint("state <> 'quarantined' OR reason IS NOT NULL", name="quarantined_has_reason"),
        sa.CheckConstraint(
            "state IN ('pending', 'claimed', 'loaded', 'quarantined', 'empty', 'missing', 'superseded', 'ignored')",
            name="state_known",
        ),
        sa.CheckConstraint("(entry = 0) = (delivery IS NULL)", name="entry_has_delivery"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("by_state", "objects", ["state", "dataset"], unique=False)
    op.create_index("one_delivery", "objects", ["source", "delivery"], unique=True)
    op.create_index("one_generation", "objects", ["bucket", "key", "generation", "entry"], unique=True)
    op.create_index(
        "open_work",
        "objects",
        ["dataset", "id"],
        unique=False,
        sqlite_where=sa.text("state IN ('pending', 'claimed')"),
        postgresql_where=sa.text("state IN ('pending', 'claimed')"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("resource", sa.JSON(), nullable=False),
        sa.Column("related", sa.JSON(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("event_id"),
    )
    op.create_table(
        "schemas",
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False, comment="one dataset may be fed as CSV and as JSON"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("columns", sa.JSON(), nullable=False),
        sa.Column("dialect", sa.JSON(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("dataset", "format", "version"),
    )
    op.create_table(
        "wakeups",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
            comment="names the wake-up; never used again",
        ),
        sa.Column("dataset", sa.Text(), nullable=False, comment="at most one outstanding wake-up each"),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True, comment="why it stays unanswered, for `penstock status`"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("dataset"),
        sqlite_autoincrement=True,
    )
