"""Objects that wait for another one to say that they are whole, old ones that wait for new ones, and watermarks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_BEFORE = "state IN ('pending', "
_AFTER = "state IN ('waiting', 'pending', "
_WAITING = sa.text("waits_for IS NOT NULL")
_OLD = sa.text("backlog = 1 AND state = 'pending'")
_LIVE = sa.text("backlog = 0 AND state = 'pending'")
_STATES = ("waiting", "pending", "claimed", "loaded", "quarantined", "empty", "missing", "superseded", "ignored")


def upgrade() -> None:
    """Let objects be `waiting`, add what says for what, and what is old; add `announced` and `watermarks`."""
    if op.get_bind().dialect.name == "sqlite":
        _make_anew()
    else:
        op.drop_constraint("state_known", "objects", type_="check")
        known = ", ".join(f"'{state}'" for state in _STATES)
        op.create_check_constraint("state_known", "objects", f"state IN ({known})")
    op.add_column(
        "objects",
        sa.Column("waits_for", sa.Text(), nullable=True, comment="the key, or the glob of keys, that says it is whole"),
    )
    op.add_column(
        "objects",
        sa.Column(
            "backlog",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="1: old, to be loaded when nothing new is pending",
        ),
    )
    op.add_column(
        "objects",
        sa.Column("modified_at", sa.BigInteger(), nullable=True, comment="when the store says that it was written"),
    )
    op.add_column(
        "leases",
        sa.Column("backlog_due", sa.BigInteger(), nullable=True, comment="until then no old object is claimed"),
    )
    op.add_column(
        "archive",
        sa.Column("backlog", sa.Integer(), nullable=False, server_default="0", comment="as it was in objects"),
    )
    op.add_column("archive", sa.Column("modified_at", sa.BigInteger(), nullable=True, comment="as it was in objects"))
    op.create_index(
        "waiting_for",
        "objects",
        ["waits_for", "bucket", "id"],
        sqlite_where=_WAITING,
        postgresql_where=_WAITING,
    )
    op.create_index("live", "objects", ["dataset", "backlog", "id"], sqlite_where=_LIVE, postgresql_where=_LIVE)
    op.create_index("backlog", "objects", ["dataset", "modified_at", "id"], sqlite_where=_OLD, postgresql_where=_OLD)
    op.create_table(
        "announced",
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False, comment="the key of the manifest that named it first"),
        sa.PrimaryKeyConstraint("key", "bucket"),
    )
    op.create_table(
        "watermarks",
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("event_time", sa.BigInteger(), nullable=False, comment="the greatest one that was loaded"),
        sa.Column("late", sa.BigInteger(), nullable=False, comment="rows that came after it by more than is allowed"),
        sa.PrimaryKeyConstraint("dataset"),
    )


def _make_anew() -> None:
    """SQLite has no other way to change a CHECK. The sequence is kept: an id is never given twice, archived or not."""
    bind = op.get_bind()
    created = str(bind.execute(sa.text("SELECT sql FROM sqlite_master WHERE name = 'objects'")).scalar_one())
    assert created.count(_BEFORE) == 1, created
    body = created.replace(_BEFORE, _AFTER).partition("(")[2]
    indexes = bind.execute(
        sa.text("SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'objects' AND sql IS NOT NULL")
    ).scalars()
    last = bind.execute(sa.text("SELECT seq FROM sqlite_sequence WHERE name = 'objects'")).scalar()
    statements = [
        f"CREATE TABLE objects_anew ({body}",
        "INSERT INTO objects_anew SELECT * FROM objects",
        "DROP TABLE objects",
        "ALTER TABLE objects_anew RENAME TO objects",
        *indexes,
    ]
    for statement in statements:
        bind.exec_driver_sql(statement)
    if last is not None:
        bind.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = 'objects'"))
        bind.execute(sa.text("INSERT INTO sqlite_sequence VALUES ('objects', :last)"), {"last": last})
