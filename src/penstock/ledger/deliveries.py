"""How webhook deliveries enter the ledger: those of one envelope in one transaction, wake-up and events included."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, select

from penstock import events
from penstock.ledger import outbox, wakeups
from penstock.ledger.archive import accepted, archived
from penstock.ledger.arrived import announce, newest
from penstock.ledger.database import Database
from penstock.ledger.rows import pieces
from penstock.ledger.tables import insert_new, objects
from penstock.model import Delivery, Stat, State, Via

log = logging.getLogger(__name__)

# A longer one is none of ours: somebody wrote it into the bucket, and no index holds whatever they like.
_REQUEST_CHARACTERS = 200

_INSERT = insert_new(
    objects,
    "dataset",
    "bucket",
    "key",
    "generation",
    "entry",
    "etag",
    "version_id",
    "size",
    "via",
    "source",
    "delivery",
    "state",
    "arrived_at",
    "changed_at",
    "request",
)
# Made once: to build a statement takes longer than to run it.
_ENTRIES = select(objects.c.entry).where(
    objects.c.bucket == bindparam("of_bucket"), objects.c.key == bindparam("of_key"), objects.c.generation == 1
)


class Deliveries:
    """Recording deliveries. One that comes again changes nothing."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    def record(
        self,
        bucket: str,
        key: str,
        stat: Stat,
        deliveries: Mapping[int, Delivery],
        via: Via,
        *,
        announce_each: Collection[str] = (),
    ) -> set[int]:
        """Record the entries (from 1) of a durable envelope; returns those whose delivery id was known already.

        What is new brings its further events, and of the sources `announce_each` an event for each delivery.
        """
        if not deliveries:
            return set()
        with self._database.write() as connection:
            now = self._database.clock()
            arrived = _moments(deliveries, newest(connection), now)
            before = archived(connection, ((delivery.source, delivery.id) for delivery in deliveries.values()))
            rows = [
                {
                    "dataset": delivery.dataset,
                    "bucket": bucket,
                    "key": key,
                    "generation": 1,
                    "entry": entry,
                    "etag": stat.etag,
                    "version_id": stat.version_id,
                    "size": len(delivery.body),
                    "via": via.value,
                    "source": delivery.source,
                    "delivery": delivery.id,
                    "state": State.PENDING.value,
                    "arrived_at": arrived[entry],
                    "changed_at": now,
                    "request": delivery.request[:_REQUEST_CHARACTERS] or None,
                }
                for entry, delivery in deliveries.items()
                if (delivery.source, delivery.id) not in before
            ]
            inserted = _insert_new(connection, bucket, key, rows)
            for dataset in sorted({deliveries[entry].dataset for entry in inserted}):
                entries = [entry for entry in sorted(inserted) if deliveries[entry].dataset == dataset]
                keys = [f"{key}#{entry}" for entry in entries]
                size = sum(len(deliveries[entry].body) for entry in entries)
                wakeups.request(connection, dataset, now)
                announce(connection, self._project, dataset, keys, size, now)
            outbox.enqueue_all(
                connection,
                [
                    event
                    for entry in sorted(inserted)
                    for event in _events(self._project, deliveries[entry], deliveries[entry].source in announce_each)
                ],
            )
            return set(deliveries) - inserted

    def known(self, source: str, ids: Iterable[str]) -> set[str]:
        """Which of a source's delivery ids were accepted before."""
        with self._database.read() as connection:
            return {found for _, found in accepted(connection, ((source, one) for one in ids))}

    def envelopes(self, bucket: str, keys: Iterable[str]) -> set[str]:
        """Which of these envelope keys have at least one delivery in the ledger."""
        found: set[str] = set()
        with self._database.read() as connection:
            for piece in pieces(sorted(set(keys))):
                query = select(objects.c.key).distinct().where(objects.c.bucket == bucket, objects.c.key.in_(piece))
                found.update(connection.execute(query).scalars())
        return found


def _moments(deliveries: Mapping[int, Delivery], earliest: datetime, now: datetime) -> dict[int, datetime]:
    """When each entry arrived: as it was received, but not before what was recorded before it.

    Nor later than now: who writes into the bucket could name any moment, and what comes next would be as late.
    """
    found: dict[int, datetime] = {}
    last = earliest
    for entry, delivery in sorted(deliveries.items()):
        found[entry] = last = max(last, min(delivery.received_at, now))
    return found


def _events(project: str, delivery: Delivery, announce: bool) -> list[dict[str, Any]]:
    """The events of a delivery that is new: with `announce` that it was accepted, and its further ones."""
    source = events.source_resource(project, delivery.source)
    request = delivery.request[:_REQUEST_CHARACTERS]
    found = []
    if announce:
        found.append(
            {
                "event_id": events.event_id(project, events.DELIVERY_ACCEPTED, delivery.source, delivery.id),
                "name": events.DELIVERY_ACCEPTED,
                "resource": source,
                "related": [],
                "payload": {
                    "delivery": delivery.id,
                    "dataset": delivery.dataset,
                    "bytes": len(delivery.body),
                    "request": request,
                },
                "occurred_at": delivery.received_at,
            }
        )
    for index, event in enumerate(delivery.events):
        if event.name.startswith(events.RESERVED):
            # Declared ones are checked where they are made; who writes to the bucket could name any in an envelope.
            log.warning("delivery %r of %s: its event %r is not sent", delivery.id, delivery.source, event.name)
            continue
        found.append(
            {
                "event_id": events.event_id(project, event.name, delivery.source, delivery.id, index),
                "name": event.name,
                "resource": {"prefect.resource.id": event.resource},
                "related": [
                    {
                        **events.dataset_resource(project, delivery.dataset),
                        "prefect.resource.role": "dataset",
                    },
                    # Beside the payload, which is the user's own.
                    {
                        **source,
                        "prefect.resource.role": "source",
                        **({events.REQUEST: request} if request else {}),
                    },
                ],
                "payload": event.payload,
                "occurred_at": delivery.received_at,
            }
        )
    return found


def _insert_new(connection: Connection, bucket: str, key: str, rows: list[dict[str, Any]]) -> set[int]:
    """Insert what is not known, and tell which entries that were.

    A statement for many rows does not tell which it skipped, so the envelope's entries are asked for before and after.
    """
    envelope = {"of_bucket": bucket, "of_key": key}
    before = set(connection.execute(_ENTRIES, envelope).scalars())
    if not rows or connection.execute(_INSERT, rows).rowcount == len(rows):
        return {row["entry"] for row in rows}
    return set(connection.execute(_ENTRIES, envelope).scalars()) - before
