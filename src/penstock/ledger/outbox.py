"""The events that must still be emitted. A row leaves when Prefect has accepted it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, select

from penstock.ledger.database import Database, to_send
from penstock.ledger.tables import insert_new, outbox
from penstock.model import OutboxEvent

_INSERT = insert_new(outbox, "event_id", "name", "resource", "related", "payload", "occurred_at")


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
    event = {
        "event_id": event_id,
        "name": name,
        "resource": resource,
        "related": related,
        "payload": payload,
        "occurred_at": occurred_at,
    }
    enqueue_all(connection, [event])


def enqueue_all(connection: Connection, events: Sequence[dict[str, Any]]) -> None:
    """As `enqueue`, of many at once: each event is that one's arguments."""
    if not events:
        return
    connection.execute(_INSERT, events)
    to_send(connection)


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
