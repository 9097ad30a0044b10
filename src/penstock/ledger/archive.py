"""What retention took out of the store: its rows leave `objects`, so that the ledger in use stays small.

A key's numbers are never used again, for its markers stay in the warehouse: when a key comes back, what was archived of
it comes back first. Delivery ids stay for their source's window. History goes; what became of a row does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from penstock.ledger.database import Database
from penstock.ledger.decide import Known
from penstock.ledger.rows import by_bucket, line, outcome_of, pieces, tell
from penstock.ledger.tables import Moment, archive, history, objects, tallies
from penstock.model import Stat, State

_FORGET = 5000

Name = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Held:
    """One row of a key, or of an envelope's deliveries, as far as retention asks for it."""

    id: int
    generation: int
    entry: int
    etag: str
    version_id: str | None
    state: State
    arrived_at: datetime
    changed_at: datetime


class Archive:
    """Retention's side of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, dataset: str, state: State, *, after: int, limit: int) -> list[tuple[int, Name, Held]]:
        """The next rows of a dataset in a state after the id `after`, in arrival order: id, (bucket, key), row."""
        query = (
            select(objects)
            .where(objects.c.dataset == dataset, objects.c.state == state.value, objects.c.id > after)
            .order_by(objects.c.id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [(row.id, (row.bucket, row.key), _held(row)) for row in connection.execute(query)]

    def of_keys(self, names: Iterable[Name]) -> dict[Name, list[Held]]:
        """Every row of these (bucket, key), oldest generation first."""
        with self._database.read() as connection:
            return _of_keys(connection, names)

    def retire(self, found: Mapping[Name, Collection[Held]]) -> int:
        """Archive these rows, whose bytes are gone from the store; returns how many were.

        Of a key whose rows changed since they were read nothing is: the next pass looks at it again.
        """
        with self._database.write() as connection:
            now = self._database.clock()
            there = _of_keys(connection, found)
            ids = [row.id for name, rows in found.items() if _still_so(rows, there.get(name, [])) for row in rows]
            for piece in pieces(ids):
                _count(connection, piece, 1)
                columns = [column.name for column in archive.c if column.name != "archived_at"]
                chosen = select(*(objects.c[name] for name in columns), literal(now, Moment))
                connection.execute(
                    insert(archive).from_select([*columns, "archived_at"], chosen.where(objects.c.id.in_(piece)))
                )
                connection.execute(delete(history).where(history.c.object_id.in_(piece)))
                connection.execute(delete(objects).where(objects.c.id.in_(piece)))
            return len(ids)

    def forget(self, source: str, dataset: str, *, before: datetime) -> int:
        """Forget a source's archived deliveries to a dataset that came before a moment, a bounded number.

        Returns how many.
        """
        of = (archive.c.source == source, archive.c.dataset == dataset)
        old = select(archive.c.id).where(*of, archive.c.arrived_at < before).limit(_FORGET)
        with self._database.write() as connection:
            return connection.execute(delete(archive).where(archive.c.id.in_(old))).rowcount

    def unknown(self, deliveries: Iterable[Name]) -> set[Name]:
        """Those of these (source, delivery id) that the ledger does not know, archived ones included."""
        wanted = set(deliveries)
        with self._database.read() as connection:
            return wanted - accepted(connection, wanted)


def accepted(connection: Connection, deliveries: Iterable[Name]) -> set[Name]:
    """Those of these (source, delivery id) that were accepted and are not forgotten."""
    wanted = set(deliveries)
    return _deliveries(connection, objects, wanted) | _deliveries(connection, archive, wanted)


def archived(connection: Connection, deliveries: Iterable[Name]) -> set[Name]:
    """Those of these (source, delivery id) that are in the archive."""
    return _deliveries(connection, archive, deliveries)


def _deliveries(connection: Connection, table: Table, deliveries: Iterable[Name]) -> set[Name]:
    found: set[Name] = set()
    for source, ids in by_bucket(sorted(deliveries)):
        query = select(table.c.delivery).where(table.c.source == source, table.c.delivery.in_(ids))
        found.update((source, delivery) for delivery in connection.execute(query).scalars())
    return found


def bring_back(connection: Connection, found: Mapping[Name, Stat], known: dict[Name, Known], now: datetime) -> None:
    """Take back what of these keys is archived and counts, in the caller's transaction, and add it to what is `known`.

    What counts is the newest, whose number the next one follows, and what has rows in the warehouse, since a newer
    generation may have to replace them. Where the same bytes came again, they are the newest: known, and not loaded
    twice; from now on they are retained anew.
    """
    for bucket, keys in by_bucket(sorted(found)):
        query = select(archive).where(archive.c.bucket == bucket, archive.c.key.in_(keys), archive.c.entry == 0)
        rows = connection.execute(query.order_by(archive.c.generation)).all()
        newest = {row.key: row for row in rows}
        counts = [row for row in rows if row.state == State.LOADED.value or newest[row.key] is row]
        columns = [column.name for column in archive.c if column.name != "archived_at"]
        for piece in pieces([row.id for row in counts]):
            chosen = select(*(archive.c[name] for name in columns)).where(archive.c.id.in_(piece))
            connection.execute(insert(objects).from_select(columns, chosen))
            _count(connection, piece, -1)
            connection.execute(delete(archive).where(archive.c.id.in_(piece)))
        for row in counts:
            told = [
                line(row.id, row.changed_at, row.state, outcome_of(row), row.run),
                line(row.id, row.archived_at, "removed", REMOVED),
                line(row.id, now, "back", "its key came again"),
            ]
            tell(connection, told)
        for row in newest.values():
            stat = found[(bucket, row.key)]
            same = stat.etag == row.etag
            if same:
                there = {"version_id": stat.version_id, "changed_at": now}
                connection.execute(update(objects).where(objects.c.id == row.id).values(there))
            known[(bucket, row.key)] = Known(
                id=row.id,
                generation=row.generation,
                etag=row.etag,
                state=State(row.state),
                version_id=stat.version_id if same else row.version_id,
                tried=row.run is not None,
            )


REMOVED = "from the bucket, after the days that its dataset retains"


def _count(connection: Connection, ids: Sequence[int], sign: int) -> None:
    """Count what leaves `objects`, or comes back, with its rows, dataset by dataset."""
    query = select(objects.c.dataset, objects.c.rows, objects.c.rejected).where(
        objects.c.id.in_(ids), objects.c.state == State.LOADED.value
    )
    sums: dict[str, list[int]] = {}
    for row in connection.execute(query):
        of = sums.setdefault(row.dataset, [0, 0, 0])
        for place, value in enumerate((1, row.rows or 0, row.rejected or 0)):
            of[place] += sign * value
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    for dataset, (count, rows, rejected) in sums.items():
        connection.execute(
            dialect.insert(tallies)
            .values(dataset=dataset, objects=count, rows=rows, rejected=rejected)
            .on_conflict_do_update(
                index_elements=[tallies.c.dataset],
                set_={
                    "objects": tallies.c.objects + count,
                    "rows": tallies.c.rows + rows,
                    "rejected": tallies.c.rejected + rejected,
                },
            )
        )


def _of_keys(connection: Connection, names: Iterable[Name]) -> dict[Name, list[Held]]:
    found: dict[Name, list[Held]] = {}
    for bucket, keys in by_bucket(names):
        query = select(objects).where(objects.c.bucket == bucket, objects.c.key.in_(keys))
        for row in connection.execute(query.order_by(objects.c.generation, objects.c.entry)):
            found.setdefault((bucket, row.key), []).append(_held(row))
    return found


def _still_so(rows: Collection[Held], there: Sequence[Held]) -> bool:
    """Whether these rows are as they were read, and are all of their key, or replaced by what is left of it."""
    if any(row not in there for row in rows):
        return False
    left = [row.generation for row in there if row not in rows]
    replaced = all(row.state is State.SUPERSEDED and row.generation < max(left, default=0) for row in rows)
    return not left or replaced


def _held(row: Any) -> Held:
    return Held(
        id=row.id,
        generation=row.generation,
        entry=row.entry,
        etag=row.etag,
        version_id=row.version_id,
        state=State(row.state),
        arrived_at=row.arrived_at,
        changed_at=row.changed_at,
    )
