"""What every arrival has, by whichever way it came: its moment, and the events that tell of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from penstock import events
from penstock.ledger import outbox
from penstock.ledger.tables import Moment

# The greatest id is found without reading through the table, and its row by it. Sent as it stands, because each arrival
# waits for it.
_NEWEST = "SELECT arrived_at FROM objects WHERE id = (SELECT max(id) FROM objects)"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def newest(connection: Connection) -> datetime:
    """When the newest arrival of all came; long ago where nothing did."""
    found = connection.exec_driver_sql(_NEWEST).scalar()
    return Moment().process_result_value(found, connection.dialect) or _LONG_AGO


def moment(connection: Connection, now: datetime) -> datetime:
    """When what is recorded in this transaction arrived: now, but never before what arrived before it.

    A clock that was put back would otherwise turn the order of arrivals round, by which rows are merged.
    """
    return max(now, newest(connection))


def announce(connection: Connection, project: str, dataset: str, keys: Sequence[str], size: int, now: datetime) -> None:
    """Queue the one event that tells of these arrivals of `dataset`, in the caller's transaction."""
    outbox.enqueue(
        connection,
        event_id=events.event_id(project, events.OBJECT_ARRIVED, dataset, now.isoformat(), *keys),
        name=events.OBJECT_ARRIVED,
        resource=events.dataset_resource(project, dataset),
        related=[],
        payload=events.summary(list(keys), size),
        occurred_at=now,
    )


def announce_object(
    connection: Connection, project: str, dataset: str, found: Mapping[str, Any], now: datetime
) -> None:
    """Queue the event that tells of one arrival: its `bucket`, `key`, `generation` and `size`."""
    bucket, key, generation = found["bucket"], found["key"], found["generation"]
    outbox.enqueue(
        connection,
        event_id=events.event_id(project, events.OBJECT_ARRIVED, bucket, key, generation),
        name=events.OBJECT_ARRIVED,
        resource=events.object_resource(project, bucket, key),
        related=[
            {**events.dataset_resource(project, dataset), "prefect.resource.role": "dataset"},
        ],
        payload={"key": key, "generation": generation, "bytes": found["size"]},
        occurred_at=now,
    )
