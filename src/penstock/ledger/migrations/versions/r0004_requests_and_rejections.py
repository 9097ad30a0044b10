"""The HTTP request that brought a delivery, an index that lists deliveries, and what the webhook refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_A_DELIVERY = sa.text("delivery IS NOT NULL")
_A_REQUEST = sa.text("request IS NOT NULL")


def upgrade() -> None:
    """Add `request` to deliveries in use and archived, index both, and add the table `rejections`."""
    op.add_column(
        "objects", sa.Column("request", sa.Text(), nullable=True, comment="the HTTP request that brought a delivery")
    )
    op.add_column("archive", sa.Column("request", sa.Text(), nullable=True))
    for table, by_request, by_arrival in (
        ("objects", "by_request", "deliveries_by_arrival"),
        ("archive", "archived_request", "archived_arrival"),
    ):
        op.create_index(
            by_request, table, ["request"], unique=False, sqlite_where=_A_REQUEST, postgresql_where=_A_REQUEST
        )
        op.create_index(
            by_arrival,
            table,
            ["arrived_at", "source", "dataset"],
            unique=False,
            sqlite_where=_A_DELIVERY,
            postgresql_where=_A_DELIVERY,
        )
    op.create_table(
        "rejections",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False, comment="as its source said when it was refused"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column(
            "bytes",
            sa.BigInteger(),
            nullable=False,
            comment="as far as is known: the body below may be its beginning",
        ),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("rejections_of_source", "rejections", ["source", "id"], unique=False)
    op.create_index("rejections_by_end", "rejections", ["expires_at"], unique=False)
    op.create_index("rejections_by_request", "rejections", ["request"], unique=False)
