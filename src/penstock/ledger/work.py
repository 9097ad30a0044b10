"""A run's side of the ledger: take the lease, claim, settle, let go.

The lease serialises a dataset. Its token grows with every holder, and each statement here names it: a run that lost its
lease changes nothing and learns so by LeaseLost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    case,
    delete,
    func,
    literal,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from penstock.declarations import Backfill
from penstock.errors import LeaseLost
from penstock.ledger import settling
from penstock.ledger.backlog import Bounds, any_live, any_old, choose
from penstock.ledger.database import Database
from penstock.ledger.decide import backoff
from penstock.ledger.leases import LONGEST_LEASE, backlog_waits, live, on_hold
from penstock.ledger.rows import by_bucket, end_claims, line, move, ref_of, tell
from penstock.ledger.tables import Moment, leases, objects, wakeups
from penstock.ledger.wakeups import request
from penstock.model import Lease, ObjectRef, Outcome, State

_OUTRUN = "the warehouse had a greater token than the ledger"
_DIED = "the run that held it ended without a word"


class Work:
    """Leases, claims and outcomes."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    def acquire(self, dataset: str, *, holder: str, ttl: timedelta) -> Lease | None:
        """Take the dataset's lease, or None while another holds it. Answers the outstanding wake-up.

        What a dead holder had claimed goes back to pending, with one attempt more.
        """
        assert ttl <= LONGEST_LEASE, ttl
        with self._database.write() as connection:
            now = self._database.clock()
            dialect = sqlite if self._database.is_sqlite else postgresql
            expires_at = now + ttl
            before = connection.execute(select(leases.c.holder).where(leases.c.dataset == dataset)).scalar()
            token = connection.execute(
                dialect.insert(leases)
                .values(dataset=dataset, token=1, holder=holder, expires_at=expires_at)
                .on_conflict_do_update(
                    index_elements=[leases.c.dataset],
                    set_={"token": leases.c.token + 1, "holder": holder, "expires_at": expires_at},
                    where=not_(live(now)),
                )
                .returning(leases.c.token)
            ).scalar()
            if token is None:
                return None
            connection.execute(delete(wakeups).where(wakeups.c.dataset == dataset))
            self._take_back(connection, dataset, token, now)
            return Lease(
                dataset=dataset,
                token=token,
                holder=holder,
                expires_at=expires_at,
                taken_over=before is not None,
            )

    def renew(self, lease: Lease, *, ttl: timedelta) -> Lease:
        """The heartbeat. Raises LeaseLost."""
        with self._database.write() as connection:
            expires_at = self._database.clock() + ttl
            renewed = connection.execute(
                update(leases)
                .where(
                    leases.c.dataset == lease.dataset, leases.c.token == lease.token, leases.c.holder == lease.holder
                )
                .values(expires_at=expires_at)
            )
            if not renewed.rowcount:
                raise _lost(lease)
            # One may have been asked for while the lease was overdue; the holder looks again before it lets go.
            connection.execute(delete(wakeups).where(wakeups.c.dataset == lease.dataset))
        return Lease(dataset=lease.dataset, token=lease.token, holder=lease.holder, expires_at=expires_at)

    def claim(
        self, lease: Lease, *, run: str, max_objects: int, max_bytes: int, backfill: Backfill | None = None
    ) -> list[ObjectRef]:
        """Claim what is pending, in arrival order, up to the bounds; the first one always, however large.

        What a run died with or failed on comes with ever fewer others, until it is alone: so the culprit is found, and
        takes nothing else with it. Old ones are claimed as `backfill` says, apart from others; None: as if new.
        """
        with self._database.write() as connection:
            now = self._database.clock()
            self._own(connection, lease)
            held = connection.execute(
                select(
                    func.coalesce(on_hold(now), False).label("all"),
                    func.coalesce(backlog_waits(now), False).label("old"),
                ).where(leases.c.dataset == lease.dataset)
            ).one()
            if held.all:
                return []
            bounds = Bounds(objects=max_objects, size=max_bytes)
            chosen = choose(connection, lease.dataset, bounds, backfill, waits=held.old, now=now)
            move(
                connection,
                [ref.id for ref in chosen],
                State.CLAIMED,
                {"claim_token": lease.token, "run": run, "changed_at": now, "reason": None},
            )
            return chosen

    def settle(
        self, lease: Lease, outcomes: Sequence[Outcome], *, run: str, replaced: Sequence[ObjectRef] = ()
    ) -> None:
        """Record what became of claimed objects, with the events that tell of it, in one transaction.

        `replaced` are older generations whose rows the load took out. Raises LeaseLost.
        """
        with self._database.write() as connection:
            now = self._database.clock()
            self._own(connection, lease)
            settling.settle(connection, self._project, lease, outcomes, replaced, run=run, now=now)

    def give_back(self, lease: Lease, refs: Sequence[ObjectRef], *, run: str, failed: ObjectRef, reason: str) -> None:
        """Return claimed objects to pending; the dataset waits until `failed`, which met a transient error, is due."""
        with self._database.write() as connection:
            now = self._database.clock()
            self._own(connection, lease)
            values: dict[str, Any] = {"claim_token": None, "changed_at": now}
            move(connection, [ref.id for ref in refs], State.PENDING, values, token=lease.token)
            hiccups = connection.execute(
                update(objects)
                .where(objects.c.id == failed.id)
                .values(hiccups=objects.c.hiccups + 1, reason=reason)
                .returning(objects.c.hiccups)
            ).scalar_one()
            wait = backoff(hiccups)
            detail = f"{reason}; again in {wait.seconds} s"
            tell(connection, [line(failed.id, now, "postponed", detail, run)])
            connection.execute(update(leases).where(leases.c.dataset == lease.dataset).values(hold_until=now + wait))

    def finish(self, lease: Lease) -> bool:
        """Let go of the lease in the same statement that finds nothing to claim now; False: there is more.

        What is not due yet, after an error or by the rate of a backfill, is asked for by `wakeups.find` when it is.
        """
        with self._database.write() as connection:
            now = self._database.clock()
            self._own(connection, lease)
            old = any_old(lease.dataset) & not_(func.coalesce(backlog_waits(now), False))
            waiting = or_(any_live(lease.dataset), old) & not_(func.coalesce(on_hold(now), False))
            let_go = connection.execute(
                update(leases)
                .where(leases.c.dataset == lease.dataset, leases.c.token == lease.token, ~waiting)
                .values(holder=None)
            )
            return bool(let_go.rowcount)

    def release(self, lease: Lease) -> None:
        """Let go of the lease; if there is more to claim now, a run is asked for in the same transaction."""
        with self._database.write() as connection:
            now = self._database.clock()
            self._own(connection, lease)
            connection.execute(update(leases).where(leases.c.dataset == lease.dataset).values(holder=None))
            if connection.execute(select(or_(any_live(lease.dataset), any_old(lease.dataset)))).scalar_one():
                request(connection, lease.dataset, now)

    def abandon(self, lease: Lease, *, reason: str, run: str, blame: bool) -> None:
        """The run failed: what it had claimed goes back, the lease is free after a pause.

        With `blame` the failure counts as an attempt of each object; without, it was not the objects' fault, and the
        pause grows each time.
        """
        with self._database.write() as connection:
            now = self._database.clock()
            self._own(connection, lease)
            # A token above ours stands for the holder that will come: everything up to ours goes back.
            hiccups = self._take_back(
                connection, lease.dataset, lease.token + 1, now, reason=reason, run=run, blame=blame
            )
            pause = now + backoff(max(1, hiccups))
            connection.execute(
                update(leases)
                .where(leases.c.dataset == lease.dataset, leases.c.token == lease.token)
                # Expired, not let go: the next holder fences, since what failed may still be writing.
                .values(
                    holder=f"{lease.holder} (failed)",
                    expires_at=now,
                    hold_until=case(
                        (on_hold(now) & (leases.c.hold_until > pause), leases.c.hold_until),
                        else_=literal(pause, Moment),
                    ),
                )
            )

    def outrun(self, lease: Lease, greater: int) -> None:
        """The warehouse knows a greater token although nobody took the lease over: the ledger is older than it.

        So is one that was restored, or made anew for a warehouse that was there. The lease goes back, and the next
        holder's token is greater than that one.
        """
        with self._database.write() as connection:
            now = self._database.clock()
            self._own(connection, lease)
            self._take_back(
                connection, lease.dataset, lease.token + 1, now, reason=_OUTRUN, run=lease.holder, blame=False
            )
            connection.execute(
                update(leases)
                .where(leases.c.dataset == lease.dataset)
                .values(token=max(lease.token, greater), holder=f"{lease.holder} (outrun)", expires_at=now)
            )

    def older(self, refs: Sequence[ObjectRef]) -> Mapping[int, list[ObjectRef]]:
        """For each object id, the older generations of its key that have rows in the warehouse, or remains of them."""
        found: dict[int, list[ObjectRef]] = {ref.id: [] for ref in refs if not ref.entry and ref.generation > 1}
        newer: dict[tuple[str, str], list[ObjectRef]] = {}
        for ref in refs:
            if ref.id in found:
                newer.setdefault((ref.bucket, ref.key), []).append(ref)
        has_rows = or_(objects.c.state == State.LOADED.value, objects.c.again > 0)
        with self._database.read() as connection:
            for bucket, keys in by_bucket(newer):
                query = select(objects).where(
                    objects.c.bucket == bucket, objects.c.key.in_(keys), objects.c.entry == 0, has_rows
                )
                for row in connection.execute(query.order_by(objects.c.id)):
                    old = ref_of(row)
                    for ref in newer[(bucket, old.key)]:
                        if old.generation < ref.generation:
                            found[ref.id].append(old)
        return found

    def _own(self, connection: Connection, lease: Lease) -> None:
        row = connection.execute(
            select(leases.c.token, leases.c.holder).where(leases.c.dataset == lease.dataset)
        ).first()
        if row is None or row.token != lease.token or row.holder != lease.holder:
            raise _lost(lease)

    def _take_back(
        self,
        connection: Connection,
        dataset: str,
        token: int,
        now: datetime,
        *,
        reason: str = _DIED,
        run: str | None = None,
        blame: bool = True,
    ) -> int:
        """End the claims of tokens under `token`; returns how often one of the objects met a blameless failure."""
        query = select(objects).where(
            objects.c.dataset == dataset, objects.c.state == State.CLAIMED.value, objects.c.claim_token < token
        )
        most, changes, lines = 0, [], []
        for row in connection.execute(query).all():
            attempts = row.attempts + blame
            hiccups = row.hiccups + (not blame)
            most = max(most, 0 if blame else hiccups)
            why = f"{reason} (attempt {attempts})" if blame else reason
            changes.append(
                {
                    "row_id": row.id,
                    "state": State.PENDING.value,
                    "attempts": attempts,
                    "hiccups": hiccups,
                    "reason": why,
                }
            )
            lines.append(line(row.id, now, State.PENDING.value, why, run or row.run))
        end_claims(connection, changes, now=now)
        tell(connection, lines)
        return most


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"the lease of {lease.dataset} with token {lease.token} is no longer this run's")
