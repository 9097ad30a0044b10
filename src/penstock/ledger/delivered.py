"""What people ask about deliveries: the newest ones, and the one that they name; archived ones included."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, or_, select

from penstock.ledger.database import Database
from penstock.ledger.facts import named_delivery, named_generation, requested_ids
from penstock.ledger.tables import archive, objects
from penstock.model import State, object_name

_MOST_FOUND = 1000


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """One accepted delivery and where its envelope is; `archived_at` is when retention removed that.

    `number` is its place in the order of arrival.
    """

    number: int
    source: str
    delivery: str
    request: str | None
    dataset: str
    state: State
    reason: str | None
    size: int
    bucket: str
    key: str
    generation: int
    entry: int
    etag: str
    version_id: str | None
    arrived_at: datetime
    changed_at: datetime
    rows: int | None
    rejected: int | None
    run: str | None
    archived_at: datetime | None = None

    @property
    def name(self) -> str:
        """Its full name, by which it is meant and no other: `bucket/key@1#3`."""
        return object_name(self.bucket, self.key, self.generation, self.entry)


class DeliveryFacts:
    """Read-only questions about deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self,
        *,
        limit: int,
        source: str | None = None,
        dataset: str | None = None,
        state: State | None = None,
        since: datetime | None = None,
        before: int | None = None,
        archived: bool = False,
    ) -> list[Delivered]:
        """The newest deliveries that fit all that is given, by the time they came; with `archived` those too.

        The next page is what came `before` the number of the last one. Raises LookupError for a number of none.
        """
        with self._database.read() as connection:
            conditions = [] if before is None else [_before(connection, before)]
            found: list[Delivered] = []
            for table in (objects, archive) if archived else (objects,):
                of = [_on(table, condition) for condition in conditions]
                query = select(table).where(*_narrowed(table, source, dataset, state, since), *of)
                newest = query.order_by(table.c.arrived_at.desc(), table.c.id.desc()).limit(limit)
                found += [_delivered(row) for row in connection.execute(newest)]
        return sorted(found, key=lambda one: (one.arrived_at, one.number), reverse=True)[:limit]

    def find(self, text: str, *, source: str | None = None) -> list[Delivered]:
        """What is meant by a delivery's id, `source:id`, a full name, or else a request's id; the newest first.

        More than one when several sources have the id, or when a request brought several.
        """
        with self._database.read() as connection:
            found: list[Delivered] = []
            for by_request in (False, True):
                for table in (objects, archive):
                    ids = (
                        requested_ids(text, table)
                        if by_request
                        else select(table.c.id).where(or_(named_delivery(text, table), named_generation(text, table)))
                    )
                    query = select(table).where(table.c.id.in_(ids), table.c.delivery.is_not(None))
                    newest = query.order_by(table.c.id.desc()).limit(_MOST_FOUND)
                    found += [_delivered(row) for row in connection.execute(newest)]
                found = [one for one in found if source in (None, one.source)]
                if found:
                    break
        return sorted(found, key=lambda one: one.number, reverse=True)


def _narrowed(
    table: Table, source: str | None, dataset: str | None, state: State | None, since: datetime | None
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [table.c.delivery.is_not(None)]
    if source is not None:
        conditions.append(table.c.source == source)
    if dataset is not None:
        conditions.append(table.c.dataset == dataset)
    if since is not None:
        conditions.append(table.c.arrived_at >= since)
    if state is not None:
        # Nearly all are loaded: by their state a planner would read and sort all of them instead of the newest.
        column = table.c.state.concat("") if state is State.LOADED else table.c.state
        conditions.append(column == state.value)
    return conditions


Place = tuple[datetime, int]


def _before(connection: Connection, number: int) -> Place:
    for table in (objects, archive):
        query = select(table.c.arrived_at).where(table.c.id == number, table.c.delivery.is_not(None))
        if (arrived_at := connection.execute(query).scalar()) is not None:
            return arrived_at, number
    raise LookupError(number)


def _on(table: Table, place: Place) -> ColumnElement[bool]:
    arrived_at, number = place
    earlier = or_(table.c.arrived_at < arrived_at, table.c.id < number)
    return and_(table.c.arrived_at <= arrived_at, earlier)


def _delivered(row: Any) -> Delivered:
    return Delivered(
        number=row.id,
        source=row.source,
        delivery=row.delivery,
        request=row.request,
        dataset=row.dataset,
        state=State(row.state),
        reason=row.reason,
        size=row.size,
        bucket=row.bucket,
        key=row.key,
        generation=row.generation,
        entry=row.entry,
        etag=row.etag,
        version_id=row.version_id,
        arrived_at=row.arrived_at,
        changed_at=row.changed_at,
        rows=row.rows,
        rejected=row.rejected,
        run=row.run,
        archived_at=getattr(row, "archived_at", None),
    )
