"""What Alembic runs: the connection comes from `ledger/database.py`, never from a file."""

from __future__ import annotations

from alembic import context

from penstock.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
