"""The warehouse compared with the ledger: what should be loaded, and what goes back to pending because it is not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from penstock import events
from penstock.ledger import outbox, wakeups
from penstock.ledger.database import Database
from penstock.ledger.tables import history, objects, sweeps
from penstock.ledger.work import ref_of
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
        count = 0
        with self._database.write() as connection:
            now = self._database.clock()
            for ref in refs:
                moved = connection.execute(
                    update(objects)
                    .where(objects.c.id == ref.id, objects.c.state == State.LOADED.value)
                    .values(state=State.PENDING.value, again=1, attempts=0, reason=what, changed_at=now)
                )
                if not moved.rowcount:
                    continue
                count += 1
                connection.execute(
                    insert(history).values(object_id=ref.id, at=now, what=State.PENDING.value, detail=what)
                )
                outbox.enqueue(
                    connection,
                    event_id=events.event_id(self._project, events.OBJECT_LOST, ref.name, now.isoformat()),
                    name=events.OBJECT_LOST,
                    resource=events.object_resource(self._project, ref.bucket, ref.key),
                    related=[
                        {**events.dataset_resource(self._project, ref.dataset), "prefect.resource.role": "dataset"}
                    ],
                    payload={"key": ref.key, "object": ref.name, "reason": what},
                    occurred_at=now,
                )
            for dataset in sorted({ref.dataset for ref in refs}) if count else ():
                wakeups.request(connection, dataset, now)
        return count

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
