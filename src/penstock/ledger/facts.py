"""What people ask the ledger: how it stands, and what happened to an object."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, false, func, or_, select

from penstock.ledger.archive import REMOVED
from penstock.ledger.database import Database
from penstock.ledger.leases import live, on_hold
from penstock.ledger.rows import outcome_of
from penstock.ledger.tables import archive, history, leases, objects, tallies
from penstock.ledger.waiting import MARKER, MARKER_REMOVED
from penstock.model import Fact, State, Via, object_name

# At least one of the two numbers, of no more digits than an integer column takes.
_GENERATION = re.compile(r"(?s)(?P<name>.+?)(?=[@#])(?:@(?P<generation>\d{1,9}))?(?:#(?P<entry>\d{1,9}))?\Z")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one dataset stands. `oldest_pending` is when the oldest open object arrived, `holder` who works on it,
    `oldest_waiting` when the oldest of those came that another object has yet to say of that they are whole.

    `archived` are loaded objects that retention removed; `rows` and `rejected` count theirs too, and rows that others
    have taken the place of since. `markers` are those of the ignored that are marker files.
    """

    dataset: str
    counts: dict[str, int]
    rows: int
    rejected: int
    archived: int
    markers: int
    oldest_pending: datetime | None
    oldest_waiting: datetime | None
    holder: str | None
    lease_expires_at: datetime | None
    hold_until: datetime | None


@dataclass(frozen=True, kw_only=True)
class Story:
    """Everything the ledger knows of one object or delivery; `archived_at` is when retention removed it.

    `waits_for` is the key, or the glob of keys, of which one has to come first.
    """

    id: int
    name: str
    key: str
    dataset: str | None
    state: State
    reason: str | None
    via: Via
    size: int
    source: str | None
    delivery: str | None
    arrived_at: datetime
    changed_at: datetime
    rows: int | None
    rejected: int | None
    run: str | None
    attempts: int
    hiccups: int
    facts: tuple[Fact, ...]
    archived_at: datetime | None = None
    request: str | None = None
    waits_for: str | None = None


class Facts:
    """Read-only questions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def standings(self) -> list[Standing]:
        """One line per dataset that ever had an object, by name; `""` stands for what no dataset takes."""
        with self._database.read() as connection:
            counted = connection.execute(
                select(
                    objects.c.dataset,
                    objects.c.state,
                    func.count().label("n"),
                    func.coalesce(func.sum(objects.c.rows), 0).label("rows"),
                    func.coalesce(func.sum(objects.c.rejected), 0).label("rejected"),
                    func.min(objects.c.arrived_at).label("oldest"),
                ).group_by(objects.c.dataset, objects.c.state)
            ).all()
            ignored = (objects.c.state == State.IGNORED.value, objects.c.reason.in_((MARKER, MARKER_REMOVED)))
            marked = select(objects.c.dataset, func.count()).where(*ignored).group_by(objects.c.dataset)
            markers = {dataset or "": n for dataset, n in connection.execute(marked)}
            now = self._database.clock()
            query = select(leases, live(now).label("live"), func.coalesce(on_hold(now), False).label("on_hold"))
            held = {row.dataset: row for row in connection.execute(query)}
            gone = {row.dataset: row for row in connection.execute(select(tallies))}
        by_dataset: dict[str, list[Any]] = {dataset: [] for dataset in gone}
        for row in counted:
            by_dataset.setdefault(row.dataset or "", []).append(row)
        lines = []
        for dataset, rows in sorted(by_dataset.items()):
            lease, tally = held.get(dataset), gone.get(dataset)
            open_since = [row.oldest for row in rows if row.state in (State.PENDING, State.CLAIMED)]
            lines.append(
                Standing(
                    dataset=dataset,
                    counts={row.state: row.n for row in rows},
                    rows=sum(row.rows for row in rows if row.state == State.LOADED) + (tally.rows if tally else 0),
                    rejected=sum(row.rejected for row in rows if row.state == State.LOADED)
                    + (tally.rejected if tally else 0),
                    archived=tally.objects if tally else 0,
                    markers=markers.get(dataset, 0),
                    oldest_pending=min(open_since) if open_since else None,
                    oldest_waiting=next((row.oldest for row in rows if row.state == State.WAITING), None),
                    holder=lease.holder if lease is not None and lease.live else None,
                    lease_expires_at=lease.expires_at if lease is not None and lease.live else None,
                    hold_until=lease.hold_until if lease is not None and lease.on_hold else None,
                )
            )
        return lines

    def waiting_longest(self, dataset: str) -> Story | None:
        """Of what waits for another object to say that it is whole the one that came first, without history."""
        waits = (objects.c.dataset == dataset, objects.c.state == State.WAITING.value)
        with self._database.read() as connection:
            row = connection.execute(select(objects).where(*waits).order_by(objects.c.id).limit(1)).first()
        return _story(row, []) if row is not None else None

    def stories(self, key: str, *, limit: int = 20, state: State | None = None) -> list[Story]:
        """What happened to a key, an object's name, a delivery's or a request's id; the newest generation first.

        With `state` only what is so.
        """
        with self._database.read() as connection:
            rows = _rows_of(connection, objects, named_ids(key), limit, state)
            gone = _rows_of(connection, archive, named_ids(key, archive), limit, state)
            if not rows and not gone:
                rows = _rows_of(connection, objects, requested_ids(key), limit, state)
                gone = _rows_of(connection, archive, requested_ids(key, archive), limit, state)
            facts: dict[int, list[Fact]] = {}
            for row in connection.execute(
                select(history).where(history.c.object_id.in_([row.id for row in rows])).order_by(history.c.id)
            ):
                facts.setdefault(row.object_id, []).append(
                    Fact(at=row.at, what=row.what, detail=row.detail, run=row.run)
                )
        found = [_story(row, facts.get(row.id, [])) for row in rows] + [_archived_story(row) for row in gone]
        return sorted(found, key=lambda story: story.id, reverse=True)[:limit]

    def recent(self, *, after: datetime, limit: int = 100) -> list[Story]:
        """What changed after a moment, oldest first, without history: what `penstock up` shows as it happens."""
        query = (
            select(objects)
            .where(objects.c.changed_at > after)
            .order_by(objects.c.changed_at, objects.c.id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [_story(row, []) for row in connection.execute(query)]

    def by_state(
        self,
        state: State,
        *,
        limit: int = 100,
        dataset: str | None = None,
        since: datetime | None = None,
        before: int | None = None,
    ) -> list[Story]:
        """What is in one state, newest first, without history; `since` when it came to it.

        The next page is what arrived `before` the last one's id.
        """
        query = select(objects).where(objects.c.state == state.value).order_by(objects.c.id.desc()).limit(limit)
        if dataset is not None:
            query = query.where(objects.c.dataset == dataset)
        if since is not None:
            query = query.where(objects.c.changed_at >= since)
        if before is not None:
            query = query.where(objects.c.id < before)
        with self._database.read() as connection:
            return [_story(row, []) for row in connection.execute(query)]


def named(text: str, table: Table = objects) -> ColumnElement[bool]:
    """Which rows a key, `bucket/key` or a delivery means; an envelope's key means all that ride in it."""
    bucket, slash, key = text.partition("/")
    meant = [table.c.key == text, named_delivery(text, table)]
    if slash:
        meant.append(and_(table.c.bucket == bucket, table.c.key == key))
    return or_(*meant)


def named_delivery(text: str, table: Table = objects) -> ColumnElement[bool]:
    """Which rows a delivery's id means, one for each source that has it, or `source:id`."""
    source, colon, delivery = text.partition(":")
    meant: list[ColumnElement[bool]] = [table.c.delivery == text]
    if colon:
        meant.append(and_(table.c.source == source, table.c.delivery == delivery))
    return or_(*meant)


def named_generation(text: str, table: Table = objects) -> ColumnElement[bool]:
    """Which rows a name with its generation means: `bucket/key@2`, `key@2`, `bucket/key@1#3`; `key#3` a delivery."""
    found = _GENERATION.match(text)
    if found is None:
        return false()
    name, number, entry = found["name"], found["generation"], found["entry"]
    bucket, _, key = name.partition("/")
    conditions = [or_(table.c.key == name, and_(table.c.bucket == bucket, table.c.key == key))]
    if number is not None:
        conditions.append(table.c.generation == int(number))
    if entry is not None:
        conditions.append(table.c.entry == int(entry))
    return and_(*conditions)


def named_ids(text: str, table: Table = objects) -> Select[Any]:
    """The ids of what a key, a delivery or a name with its generation means.

    To be asked for by id: with the order and the limit in the same query, a planner reads the table in that order
    instead of by what was named.
    """
    return select(table.c.id).where(or_(named(text, table), named_generation(text, table)))


def requested_ids(request: str, table: Table = objects) -> Select[Any]:
    """The ids of the deliveries that an HTTP request brought; to be asked for by id, as `named_ids`."""
    return select(table.c.id).where(table.c.request == request)


def _rows_of(connection: Connection, table: Table, ids: Select[Any], limit: int, state: State | None) -> Sequence[Any]:
    query = select(table).where(table.c.id.in_(ids))
    if state is not None:
        query = query.where(table.c.state == state.value)
    return connection.execute(query.order_by(table.c.id.desc()).limit(limit)).all()


def _archived_story(row: Any) -> Story:
    facts = [
        Fact(at=row.changed_at, what=row.state, detail=outcome_of(row), run=row.run),
        Fact(at=row.archived_at, what="removed", detail=REMOVED),
    ]
    return _story(row, facts, archived_at=row.archived_at)


def _story(row: Any, facts: list[Fact], *, archived_at: datetime | None = None) -> Story:
    return Story(
        id=row.id,
        name=object_name(row.bucket, row.key, row.generation, row.entry),
        key=row.key,
        dataset=row.dataset,
        state=State(row.state),
        reason=row.reason,
        via=Via(row.via),
        size=row.size,
        source=row.source,
        delivery=row.delivery,
        arrived_at=row.arrived_at,
        changed_at=row.changed_at,
        rows=row.rows,
        rejected=row.rejected,
        run=row.run,
        attempts=row.attempts if archived_at is None else 0,
        hiccups=row.hiccups if archived_at is None else 0,
        facts=tuple(facts),
        archived_at=archived_at,
        request=row.request,
        waits_for=row.waits_for if archived_at is None and row.state == State.WAITING else None,
    )
