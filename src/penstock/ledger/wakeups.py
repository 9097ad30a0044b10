"""Wake-ups that are sure: at most one outstanding for a dataset, sent again until a run takes the lease.

A row is made in the arrival's own transaction, unless a live lease exists: its holder looks again before it lets go.
`find` makes the rows that nobody asked for: a lease that expired, a back-off that ended, old objects that are due, a
row lost with a crash.
Taking the lease deletes the row. The relay is the only one that sends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CTE, ColumnElement, Connection, Row, and_, exists, func, or_, select, update

from penstock.ledger.backlog import any_live
from penstock.ledger.database import Database, to_send
from penstock.ledger.leases import backlog_waits, busy
from penstock.ledger.tables import insert_new, leases, objects, wakeups
from penstock.model import State

# 5 s become 80 s at the most.
_DOUBLINGS = 4

_INSERT = insert_new(wakeups, "dataset", "attempt", "asked_at", "due_at")


@dataclass(frozen=True, kw_only=True)
class WakeUp:
    """One attempt to wake a run for `dataset`; `id` and `attempt` (from 1) name it."""

    id: int
    dataset: str
    attempt: int
    asked_at: datetime
    note: str | None = None


def request(connection: Connection, dataset: str, now: datetime) -> None:
    """Ask for a run for what is pending, in the caller's transaction.

    Nothing is asked while a live lease or another request exists, nor for old objects alone that are not due.
    """
    held = connection.execute(
        select(busy(now).label("busy"), backlog_waits(now).label("old_waits")).where(leases.c.dataset == dataset)
    ).first()
    if held is not None and held.busy:
        return
    if held is not None and held.old_waits and not connection.execute(select(any_live(dataset))).scalar_one():
        return
    _ask(connection, dataset, now)


def _ask(connection: Connection, dataset: str, now: datetime) -> None:
    connection.execute(_INSERT, {"dataset": dataset, "attempt": 0, "asked_at": now, "due_at": now})
    to_send(connection)


def _unattended(dataset: ColumnElement[str], now: datetime) -> ColumnElement[bool]:
    working = exists().where(leases.c.dataset == dataset, busy(now))
    asked = exists().where(wakeups.c.dataset == dataset)
    return and_(dataset.is_not(None), ~working, ~asked)


def _datasets_in(state: State) -> CTE:
    """The datasets with objects in a state, each found by one look into the index, however many objects it has."""
    first = select(func.min(objects.c.dataset).label("dataset")).where(objects.c.state == state.value)
    found = first.cte(f"datasets_{state.value}", recursive=True)
    following = select(func.min(objects.c.dataset)).where(
        objects.c.state == state.value, objects.c.dataset > found.c.dataset
    )
    return found.union_all(select(following.scalar_subquery()).where(found.c.dataset.is_not(None)))


class WakeUps:
    """The relay's side of the wake-ups."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self) -> int:
        """Ask for every dataset that has open work and that nobody works on or was asked for; returns how many."""
        with self._database.read() as connection:
            now = self._database.clock()
            pending, claimed = _datasets_in(State.PENDING), _datasets_in(State.CLAIMED)
            old_wait = exists().where(leases.c.dataset == pending.c.dataset, backlog_waits(now))
            found = connection.execute(
                select(pending.c.dataset, old_wait.label("old_wait")).where(_unattended(pending.c.dataset, now))
            ).all()
            waiting = {
                row.dataset
                for row in found
                if not row.old_wait or connection.execute(select(any_live(row.dataset))).scalar_one()
            }
            dead = select(claimed.c.dataset).where(_unattended(claimed.c.dataset, now))
            waiting |= set(connection.execute(dead).scalars())
        if waiting:
            with self._database.write() as connection:
                now = self._database.clock()
                for dataset in sorted(waiting):
                    # Once more: a run may have begun since.
                    if not connection.execute(select(exists().where(leases.c.dataset == dataset, busy(now)))).scalar():
                        _ask(connection, dataset, now)
        return len(waiting)

    def take_due(self, *, again_after: timedelta) -> list[WakeUp]:
        """The wake-ups to send now; each is counted as one more attempt.

        It is due again after `again_after`, doubled with every attempt: a busy server gets time, not more work.
        """
        with self._database.read() as connection:
            due_now = _due(self._database.clock(), again_after)
            if connection.execute(select(wakeups.c.id).where(due_now).limit(1)).first() is None:
                return []
        with self._database.write() as connection:
            now = self._database.clock()
            due = connection.execute(select(wakeups).where(_due(now, again_after)).order_by(wakeups.c.id)).all()
            taken = []
            for row in due:
                pause = again_after * 2 ** min(row.attempt, _DOUBLINGS)
                # By its attempt too: of two relays that both saw it due, one takes it.
                if connection.execute(
                    update(wakeups)
                    .where(wakeups.c.id == row.id, wakeups.c.attempt == row.attempt)
                    .values(attempt=row.attempt + 1, due_at=now + pause)
                ).rowcount:
                    taken.append(replace(_wakeup(row), attempt=row.attempt + 1))
            return taken

    def not_sent(self, wakeup: WakeUp, *, again_after: timedelta) -> None:
        """Sending failed: the attempt does not count, and is made again after `again_after`."""
        with self._database.write() as connection:
            connection.execute(
                update(wakeups)
                .where(wakeups.c.id == wakeup.id, wakeups.c.attempt == wakeup.attempt)
                .values(attempt=wakeup.attempt - 1, due_at=self._database.clock() + again_after)
            )

    def explain(self, wakeup: WakeUp, note: str | None) -> None:
        """Say why the wake-up stays unanswered, for `penstock status`; None: nothing is known any more."""
        with self._database.write() as connection:
            connection.execute(update(wakeups).where(wakeups.c.id == wakeup.id).values(note=note))

    def outstanding(self) -> list[WakeUp]:
        """Every wake-up that no run has answered yet."""
        with self._database.read() as connection:
            return [_wakeup(row) for row in connection.execute(select(wakeups).order_by(wakeups.c.id))]


def _due(now: datetime, again_after: timedelta) -> ColumnElement[bool]:
    """Due, or further ahead than it can ever have been set: the clock was put back since."""
    return or_(wakeups.c.due_at <= now, wakeups.c.due_at > now + again_after * 2**_DOUBLINGS)


def _wakeup(row: Row[Any]) -> WakeUp:
    return WakeUp(id=row.id, dataset=row.dataset, attempt=row.attempt, asked_at=row.asked_at, note=row.note)
