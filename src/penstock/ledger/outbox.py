"""The events that must still be emitted. A row leaves when Prefect has accepted it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from penstock.ledger.database import Database
from penstock.ledger.tables import outbox
from penstock.model import OutboxEvent


def enqueue(
    connection: Connection,
    *,
    event_id: str,
    name: str,
    resource: dict[str, str],
    related: list[dict[str, str]],
    payload: dict[str, Any],
    occurred_at: datetime,
) -> None:
    """Add an event to the caller's transaction; the same event id twice is one row."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(
        dialect.insert(outbox)
        .values(
            event_id=event_id,
            name=name,
            resource=resource,
            related=related,
            payload=payload,
            occurred_at=occurred_at,
        )
        .on_conflict_do_nothing()
    )


class Outbox:
    """Reading and emptying the outbox: the relay's side."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unsent(self, limit: int) -> list[OutboxEvent]:
        """The oldest events that were not accepted yet, at most `limit`."""
        with self._database.read() as connection:
            return [
                OutboxEvent(
                    row=row.id,
                    id=row.event_id,
                    name=row.name,
                    resource=row.resource,
                    related=row.related,
                    payload=row.payload,
                    occurred_at=row.occurred_at,
                )
                for row in connection.execute(select(outbox).order_by(outbox.c.id).limit(limit))
            ]

    def sent(self, rows: Sequence[int]) -> None:
        """Prefect has accepted these rows."""
        with self._database.write() as connection:
            connection.execute(delete(outbox).where(outbox.c.id.in_(rows)))

    def count(self) -> int:
        """How many events wait."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(outbox)).scalar_one()
