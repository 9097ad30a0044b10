"""Objects that no dataset took when they came, and those that wait for what nobody asks for any more.

The declarations changed since. Each pass of the sweep looks, and takes the write lock only where it found something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, not_, or_, select, update

from penstock.declarations import Dataset
from penstock.keys import backlog_of, prefixes, takes
from penstock.ledger import states, waiting, wakeups
from penstock.ledger.database import Database
from penstock.ledger.rows import line, move, tell, which
from penstock.ledger.tables import Moment, objects
from penstock.ledger.waiting import MARKER
from penstock.model import NOTIFICATIONS_BUCKET, REFUSED_BUCKET, State

# As many as one transaction moves: what is left is for the next pass.
_MOST = 10_000

_LEFT = (
    objects.c.dataset.is_(None),
    objects.c.state == State.QUARANTINED.value,
    objects.c.bucket.not_in([REFUSED_BUCKET, NOTIFICATIONS_BUCKET]),
)
_COLUMNS = tuple(objects.c[name] for name in ("id", "bucket", "key", "modified_at"))


@dataclass(frozen=True, kw_only=True)
class _Found:
    id: int
    name: waiting.Name
    modified_at: datetime | None
    dataset: Dataset


def adopt(database: Database, project: str, datasets: Sequence[Dataset]) -> int:
    """Give what is left to the datasets that take it by now; returns how many objects are to be loaded by that."""
    with database.read() as connection:
        found = [one for dataset in datasets for one in _left_for(connection, dataset)][:_MOST]
        outdated = [(dataset, rows) for dataset in datasets if (rows := _outdated(connection, dataset))]
        rest = [name for dataset in datasets for name in waiting.stranded(connection, dataset, limit=_MOST)]
    declared = {dataset.name: dataset for dataset in datasets}
    adopted = 0
    if found or outdated:
        adopted += _adopt(database, project, declared, found, outdated, rest)
    return adopted + waiting.release_rest(database, project, list(dict.fromkeys(rest)), declared)


def _adopt(
    database: Database,
    project: str,
    declared: Mapping[str, Dataset],
    found: Sequence[_Found],
    outdated: Sequence[tuple[Dataset, Sequence[Any]]],
    rest: list[waiting.Name],
) -> int:
    """Move what was found; adds to `rest` the markers that release more than this transaction should."""
    with database.write() as connection:
        now = database.clock()
        there = set(which(connection, [one.id for one in found], *_LEFT))
        adopted = _take(connection, project, [one for one in found if one.id in there], declared, now, rest)
        for dataset, rows in outdated:
            _wait_anew(connection, project, dataset, rows, declared, now, rest)
        return adopted


def _left_for(connection: Connection, dataset: Dataset) -> list[_Found]:
    found: list[_Found] = []
    for prefix in prefixes(dataset):
        query = select(*_COLUMNS).where(*_LEFT, func.substr(objects.c.key, 1, len(prefix)) == prefix)
        for row in connection.execute(query.order_by(objects.c.id)):
            if takes(dataset, row.key):
                name = (row.bucket, row.key)
                found.append(_Found(id=row.id, name=name, modified_at=row.modified_at, dataset=dataset))
    return found


_TAKE = (
    update(objects)
    .where(objects.c.id == bindparam("row_id"), objects.c.state == State.QUARANTINED.value)
    .values(
        dataset=bindparam("taker"),
        state=bindparam("becomes"),
        reason=bindparam("why"),
        waits_for=bindparam("marker"),
        backlog=bindparam("old"),
        changed_at=bindparam("at", type_=Moment),
    )
)


def _take(
    connection: Connection,
    project: str,
    found: Sequence[_Found],
    declared: Mapping[str, Dataset],
    now: datetime,
    rest: list[waiting.Name],
) -> int:
    if not found:
        return 0
    signals = waiting.look(connection, {one.name: one.dataset for one in found})
    changes: list[dict[str, Any]] = []
    told = []
    for one in found:
        state = State.PENDING
        if one.name in signals.markers:
            state = State.IGNORED
        elif one.name in signals.waits:
            state = State.WAITING
        assert state in states.MOVES[State.QUARANTINED]
        old = one.modified_at is not None and backlog_of(one.dataset, one.name[1], one.modified_at)
        changes.append(
            {
                "row_id": one.id,
                "taker": one.dataset.name,
                "becomes": state.value,
                "why": MARKER if state is State.IGNORED else None,
                "marker": signals.waits.get(one.name),
                "old": int(old and state is not State.IGNORED),
                "at": now,
            }
        )
        told.append(line(one.id, now, state.value, f"taken by {one.dataset.name}"))
    connection.execute(_TAKE, changes)
    tell(connection, told)
    for dataset in sorted({change["taker"] for change in changes if change["becomes"] == State.PENDING}):
        wakeups.request(connection, dataset, now)
    rest += waiting.release_marked(connection, project, signals.markers, declared, now)
    return sum(change["becomes"] != State.IGNORED for change in changes)


def _outdated(connection: Connection, dataset: Dataset) -> list[Any]:
    """What waits in the dataset for anything but what its `ready` says now."""
    query = select(*_COLUMNS).where(
        objects.c.dataset == dataset.name, objects.c.state == State.WAITING.value, *_asks_for_another(dataset)
    )
    return list(connection.execute(query.order_by(objects.c.id).limit(_MOST)))


def _asks_for_another(dataset: Dataset) -> list[ColumnElement[bool]]:
    ready = dataset.ready
    if ready is None:
        return []
    if ready.beside is not None:
        return [objects.c.waits_for != objects.c.key + ready.beside]
    if ready.folder is not None:
        end = f"/{ready.folder}"
        length = func.length(objects.c.waits_for)
        return [func.substr(objects.c.waits_for, length - len(end) + 1) != end]
    return [not_(or_(*(objects.c.waits_for == f"{prefix}{ready.manifest}" for prefix in prefixes(dataset))))]


_POINT = (
    update(objects)
    .where(objects.c.id == bindparam("row_id"), objects.c.state == State.WAITING.value)
    .values(waits_for=bindparam("marker"))
)


def _wait_anew(
    connection: Connection,
    project: str,
    dataset: Dataset,
    rows: Sequence[Any],
    declared: Mapping[str, Dataset],
    now: datetime,
    rest: list[waiting.Name],
) -> None:
    signals = waiting.look(connection, {(row.bucket, row.key): dataset for row in rows})
    still = [row for row in rows if (row.bucket, row.key) in signals.waits]
    if still:
        changes = [{"row_id": row.id, "marker": signals.waits[(row.bucket, row.key)]} for row in still]
        connection.execute(_POINT, changes)
    markers = [row.id for row in rows if (row.bucket, row.key) in signals.markers]
    if markers:
        values = {"reason": MARKER, "waits_for": None, "backlog": 0, "changed_at": now}
        move(connection, markers, State.IGNORED, values)
        tell(connection, [line(row_id, now, State.IGNORED.value, MARKER) for row_id in markers])
        rest += waiting.release_marked(connection, project, signals.markers, declared, now)
    others = {*signals.waits, *signals.markers}
    ids = [row.id for row in rows if (row.bucket, row.key) not in others]
    waiting.release_ids(
        connection, project, ids, {dataset.name: dataset}, now, because="its dataset asks for something else by now"
    )
