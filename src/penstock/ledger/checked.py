"""The warehouse compared with the ledger: what should be loaded, and what goes back to pending because it is not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite

from penstock import events
from penstock.ledger import outbox, wakeups
from penstock.ledger.database import Database
from penstock.ledger.rows import line, move, ref_of, tell, which
from penstock.ledger.tables import objects, sweeps
from penstock.model import ObjectRef, State

# Where `sweeps` keeps the moment of the last comparison.
_WAREHOUSE = "(warehouse)"


class Checked:
    """The ledger's side of the comparison."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    def loaded_counts(self) -> dict[str, int]:
        """How many objects of each dataset are loaded."""
        with self._database.read() as connection:
            query = (
                select(objects.c.dataset, func.count().label("n"))
                .where(objects.c.state == State.LOADED.value)
                .group_by(objects.c.dataset)
            )
            return {row.dataset: row.n for row in connection.execute(query)}

    def loaded(self, dataset: str, *, after: int, limit: int) -> list[ObjectRef]:
        """The next loaded objects of a dataset after the id `after`, at most `limit`, by id."""
        with self._database.read() as connection:
            query = (
                select(objects)
                .where(objects.c.dataset == dataset, objects.c.state == State.LOADED.value, objects.c.id > after)
                .order_by(objects.c.id)
                .limit(limit)
            )
            return [ref_of(row) for row in connection.execute(query)]

    def lost(self, refs: Sequence[ObjectRef], *, what: str) -> int:
        """These are not whole in the warehouse: back to pending, to be loaded over what is there, with an event each.

        One that is no longer loaded was dealt with meanwhile and is left alone. Returns how many went back.
        """
        with self._database.write() as connection:
            now = self._database.clock()
            found = set(which(connection, [ref.id for ref in refs], objects.c.state == State.LOADED.value))
            gone = [ref for ref in refs if ref.id in found]
            values = {"again": 1, "attempts": 0, "reason": what, "changed_at": now}
            move(connection, [ref.id for ref in gone], State.PENDING, values)
            tell(connection, [line(ref.id, now, State.PENDING.value, what) for ref in gone])
            outbox.enqueue_all(connection, [self._lost_event(ref, what, now) for ref in gone])
            for dataset in sorted({ref.dataset for ref in gone}):
                wakeups.request(connection, dataset, now)
        return len(gone)

    def _lost_event(self, ref: ObjectRef, what: str, now: datetime) -> dict[str, Any]:
        return {
            "event_id": events.event_id(self._project, events.OBJECT_LOST, ref.name, now.isoformat()),
            "name": events.OBJECT_LOST,
            "resource": events.object_resource(self._project, ref.bucket, ref.key),
            "related": [{**events.dataset_resource(self._project, ref.dataset), "prefect.resource.role": "dataset"}],
            "payload": {"key": ref.key, "object": ref.name, "reason": what},
            "occurred_at": now,
        }

    def compared(self, dataset: str) -> None:
        """Remember that the dataset was compared now."""
        with self._database.write() as connection:
            dialect = sqlite if self._database.is_sqlite else postgresql
            now = self._database.clock()
            connection.execute(
                dialect.insert(sweeps)
                .values(bucket=_WAREHOUSE, prefix=dataset, after="", moved_at=now)
                .on_conflict_do_update(index_elements=[sweeps.c.bucket, sweeps.c.prefix], set_={"moved_at": now})
            )

    def last_compared(self) -> dict[str, datetime]:
        """When each dataset was compared last."""
        with self._database.read() as connection:
            query = select(sweeps.c.prefix, sweeps.c.moved_at).where(sweeps.c.bucket == _WAREHOUSE)
            return {row.prefix: row.moved_at for row in connection.execute(query)}
