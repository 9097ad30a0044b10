"""Old objects (`backlog` is 1), claimed when nothing new is pending: which, how many, when; and how far their load is.

The conditions are written as literals: PostgreSQL takes a partial index only where a prepared statement says what the
index says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Exists, and_, exists, func, literal_column, select, update

from penstock.declarations import Backfill
from penstock.ledger.database import Database
from penstock.ledger.decide import together
from penstock.ledger.leases import backlog_waits
from penstock.ledger.rows import by_bucket, ref_of
from penstock.ledger.tables import leases, objects
from penstock.model import ObjectRef, State

_PENDING = objects.c.state == literal_column("'pending'")
LIVE = and_(_PENDING, objects.c.backlog == literal_column("0"))
OLD = and_(_PENDING, objects.c.backlog == literal_column("1"))

# Of a batch's bounds, and of a minute's budget: a live arrival waits for one batch of old objects at the most.
_SHARE = 4

# Of what was done within this, the observed rate is.
_RECENTLY = timedelta(minutes=10)
_LEAST_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How many objects, and how many bytes of them, are claimed together."""

    objects: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the backfill of a dataset is, in objects, claimed ones counted as left.

    `newest` and `oldest` are when the newest and the oldest of those that wait were written. `recently` ended in the
    `seconds` before `at`; by `limit` no more may be claimed in a minute.
    """

    dataset: str
    done: int
    left: int
    failed: int
    newest: datetime | None
    oldest: datetime | None
    recently: int
    seconds: float
    at: datetime
    due: datetime | None
    limit: int | None

    @property
    def per_minute(self) -> float | None:
        """How many end in a minute, as was observed; None: nothing did lately, or not for long enough to tell."""
        return self.recently / self.seconds * 60 if self.recently and self.seconds >= _LEAST_SECONDS else None

    @property
    def estimate(self) -> tuple[datetime, str] | None:
        """When the last one will be done, and by which of the two rates: the slower one. None: nothing tells."""
        seen = self.per_minute
        if not self.left or (seen is None and self.limit is None):
            return None
        if seen is None or (self.limit is not None and self.limit <= seen):
            return self.at + timedelta(minutes=self.left / (self.limit or 1)), "limit"
        return self.at + timedelta(minutes=self.left / seen), "observed"


def bounds_of_old(bounds: Bounds, per_minute: int | None) -> Bounds:
    """What one batch of old objects may have: a share of any other's, and of a minute's budget; one object always."""
    most = bounds.objects if per_minute is None else min(bounds.objects, per_minute)
    return Bounds(objects=max(1, most // _SHARE), size=bounds.size // _SHARE)


def pause_after(count: int, per_minute: int) -> timedelta:
    """For how long the budget is used when so many were claimed."""
    return timedelta(minutes=1) * count / per_minute


def any_live(dataset: str | ColumnElement[str]) -> Exists:
    """Whether a new object of the dataset is pending."""
    return exists().where(objects.c.dataset == dataset, LIVE)


def any_old(dataset: str | ColumnElement[str]) -> Exists:
    """Whether an old object of the dataset is pending."""
    return exists().where(objects.c.dataset == dataset, OLD)


def choose(
    connection: Connection, dataset: str, bounds: Bounds, backfill: Backfill | None, *, waits: bool, now: datetime
) -> list[ObjectRef]:
    """What is to be claimed next, up to the bounds: new ones in arrival order, and only if there is none, old ones.

    Without a `backfill` all are as new. `waits`: the budget for old ones is used; it is charged with what is chosen.
    """
    query = select(objects).where(objects.c.dataset == dataset)
    if backfill is None:
        rows = connection.execute(
            query.where(objects.c.state == State.PENDING.value).order_by(objects.c.id).limit(bounds.objects)
        )
        return _fitting(map(ref_of, rows), bounds)
    order: tuple[ColumnElement[Any], ...] = (objects.c.modified_at, objects.c.id)
    if backfill.order == "newest":
        order = (objects.c.modified_at.desc(), objects.c.id.desc())
    live = connection.execute(query.where(LIVE).order_by(objects.c.id).limit(bounds.objects))
    found = sorted(_with_older(connection, [ref_of(row) for row in live]), key=lambda ref: ref.id)
    chosen, old = _fitting(found, bounds), False
    if not chosen and (backfill.per_minute is None or not waits):
        fewer = bounds_of_old(bounds, backfill.per_minute)
        rows = connection.execute(query.where(OLD).order_by(*order).limit(fewer.objects))
        chosen, old = _fitting(_with_older(connection, [ref_of(row) for row in rows]), fewer), True
    if old and chosen and backfill.per_minute is not None:
        due = now + pause_after(len(chosen), backfill.per_minute)
        connection.execute(update(leases).where(leases.c.dataset == dataset).values(backlog_due=due))
    return chosen


def _fitting(refs: Iterable[ObjectRef], bounds: Bounds) -> list[ObjectRef]:
    """As many as fit the bounds, the first one always; what failed before comes with ever fewer others."""
    chosen: list[ObjectRef] = []
    size, most = 0, bounds.objects
    for ref in refs:
        most = min(most, together(ref.attempts, bounds.objects))
        if chosen and (size + ref.size > bounds.size or len(chosen) >= most):
            break
        chosen.append(ref)
        size += ref.size
    return chosen


def _with_older(connection: Connection, chosen: Sequence[ObjectRef]) -> list[ObjectRef]:
    """These, and before each the old generations of its key that are pending too.

    Generations of a key are loaded in their order, or an older one's rows would come after a newer one's.
    """
    older: dict[tuple[str, str], list[ObjectRef]] = {}
    for bucket, keys in by_bucket({(ref.bucket, ref.key) for ref in chosen if ref.generation > 1 and not ref.entry}):
        query = select(objects).where(objects.c.bucket == bucket, objects.c.key.in_(keys), objects.c.entry == 0)
        for row in connection.execute(query.order_by(objects.c.generation)):
            if row.state == State.PENDING and row.backlog:
                older.setdefault((bucket, row.key), []).append(ref_of(row))
    found: dict[int, ObjectRef] = {}
    for ref in chosen:
        before = [old for old in older.get((ref.bucket, ref.key), []) if old.generation < ref.generation]
        found.update((one.id, one) for one in (*before, ref) if one.id not in found)
    return list(found.values())


class Backlog:
    """What people ask of old objects."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def is_waiting(self, dataset: str) -> bool:
        """Whether old objects of a dataset are pending; how many takes reading them all."""
        with self._database.read() as connection:
            return bool(connection.execute(select(any_old(dataset))).scalar_one())

    def progress(self, dataset: str, backfill: Backfill) -> Progress:
        """How far the backfill of a dataset is. What retention removed since is not counted any more."""
        mine = (objects.c.dataset == dataset, objects.c.backlog == 1)
        with self._database.read() as connection:
            now = self._database.clock()
            query = select(objects.c.state, func.count().label("n")).where(*mine).group_by(objects.c.state)
            counts = {State(row.state): row.n for row in connection.execute(query)}
            waiting = objects.c.modified_at
            edges = [
                connection.execute(
                    select(waiting)
                    .where(objects.c.dataset == dataset, OLD, waiting.is_not(None))
                    .order_by(order)
                    .limit(1)
                ).scalar()
                for order in (waiting.desc(), waiting.asc())
            ]
            ended = objects.c.state.not_in([State.WAITING.value, State.PENDING.value, State.CLAIMED.value])
            recent = connection.execute(
                select(func.count().label("n"), func.min(objects.c.changed_at).label("first")).where(
                    *mine,
                    ended,
                    objects.c.run.is_not(None),
                    objects.c.changed_at > now - _RECENTLY,
                    objects.c.changed_at <= now,
                )
            ).one()
            due = connection.execute(
                select(leases.c.backlog_due).where(leases.c.dataset == dataset, backlog_waits(now))
            ).scalar()
        left = sum(counts.pop(state, 0) for state in (State.WAITING, State.PENDING, State.CLAIMED))
        failed = counts.pop(State.QUARANTINED, 0)
        return Progress(
            dataset=dataset,
            done=sum(counts.values()),
            left=left,
            failed=failed,
            newest=edges[0],
            oldest=edges[1],
            recently=recent.n,
            seconds=(now - recent.first).total_seconds() if recent.n else 0.0,
            at=now,
            due=due,
            limit=backfill.per_minute,
        )
