"""What became of claimed objects, written for the whole batch at once, in the transaction of the lease's holder.

One transaction writes at a time: what a statement here has found of a row still holds when the next one moves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from penstock import events
from penstock.ledger import outbox, states
from penstock.ledger.decide import OVERWRITE_IGNORED, Again
from penstock.ledger.rows import again_of, by_bucket, end_claims, line, move, outcome_of, tell, which
from penstock.ledger.tables import objects
from penstock.model import Lease, ObjectRef, Outcome, State


def settle(
    connection: Connection,
    project: str,
    lease: Lease,
    outcomes: Sequence[Outcome],
    replaced: Sequence[ObjectRef],
    *,
    run: str,
    now: datetime,
) -> None:
    """End the claims of `outcomes`, with their history and events; what was settled before is passed over."""
    wanted = {outcome.ref.id: outcome for outcome in outcomes}
    claimed = (objects.c.state == State.CLAIMED.value, objects.c.claim_token == lease.token)
    moved = [wanted[row_id] for row_id in which(connection, list(wanted), *claimed)]
    end_claims(connection, [_end_of(outcome) for outcome in moved], now=now, token=lease.token)
    tell(connection, [line(one.ref.id, now, one.state.value, outcome_of(one), run) for one in moved])
    quarantined = [outcome for outcome in moved if outcome.state is State.QUARANTINED]
    outbox.enqueue_all(connection, [_quarantine_event(project, outcome, run, now) for outcome in quarantined])
    lost = [outcome.ref for outcome in moved if outcome.state in (State.MISSING, State.SUPERSEDED)]
    heed_ignored(connection, lost, run, now)
    _supersede(connection, [ref.id for ref in replaced], run, now)
    if loaded := [outcome for outcome in moved if outcome.state is State.LOADED]:
        outbox.enqueue_all(connection, [_load_event(project, lease, loaded, run, now)])


def _end_of(outcome: Outcome) -> dict[str, Any]:
    assert outcome.state in states.OUTCOMES, outcome
    return {
        "row_id": outcome.ref.id,
        "state": outcome.state.value,
        "again": Again.NO if outcome.state in (State.LOADED, State.EMPTY) else again_of(outcome.ref),
        "rows": outcome.rows,
        "rejected": outcome.rejected,
        "reason": outcome.reason,
    }


def heed_ignored(connection: Connection, lost: Sequence[ObjectRef], run: str | None, now: datetime) -> int:
    """Generations could not be read: an overwrite that was ignored meanwhile is all that is left of a key.

    Returns how many are pending by that.
    """
    read_until = {(ref.bucket, ref.key): ref.generation for ref in sorted(lost, key=lambda ref: ref.generation)}
    heeded = 0
    for bucket, keys in by_bucket(read_until):
        query = (
            select(objects.c.id, objects.c.key, objects.c.generation, objects.c.state, objects.c.reason)
            .where(objects.c.bucket == bucket, objects.c.key.in_(keys), objects.c.entry == 0)
            .order_by(objects.c.generation)
        )
        newest = {row.key: row for row in connection.execute(query)}
        ids = [
            row.id
            for row in newest.values()
            if row.generation > read_until[(bucket, row.key)]
            and row.state == State.IGNORED.value
            and row.reason == OVERWRITE_IGNORED
        ]
        move(connection, ids, State.PENDING, {"reason": None, "changed_at": now})
        detail = "the generation before it could not be read"
        tell(connection, [line(row_id, now, State.PENDING.value, detail, run) for row_id in ids])
        heeded += len(ids)
    return heeded


def _supersede(connection: Connection, ids: Sequence[int], run: str, now: datetime) -> None:
    """The load took the rows of these generations out."""
    found = which(connection, ids, objects.c.state.in_(states.sources(State.SUPERSEDED)))
    values = {"reason": "its rows were replaced by a newer generation", "changed_at": now}
    move(connection, found, State.SUPERSEDED, values)
    tell(connection, [line(row_id, now, State.SUPERSEDED.value, "rows replaced", run) for row_id in found])


def _load_event(project: str, lease: Lease, loaded: Sequence[Outcome], run: str, now: datetime) -> dict[str, Any]:
    return {
        "event_id": events.event_id(project, events.DATASET_LOADED, lease.dataset, lease.token, loaded[0].ref.id),
        "name": events.DATASET_LOADED,
        "resource": events.dataset_resource(project, lease.dataset),
        "related": [],
        "payload": {
            **events.summary([o.ref.key for o in loaded], sum(o.ref.size for o in loaded)),
            "rows": sum(o.rows for o in loaded),
            "rejected": sum(o.rejected for o in loaded),
            "run": run,
        },
        "occurred_at": now,
    }


def _quarantine_event(project: str, outcome: Outcome, run: str, now: datetime) -> dict[str, Any]:
    ref = outcome.ref
    return {
        "event_id": events.event_id(project, events.OBJECT_QUARANTINED, ref.name, run, now.isoformat()),
        "name": events.OBJECT_QUARANTINED,
        "resource": events.object_resource(project, ref.bucket, ref.key),
        "related": [{**events.dataset_resource(project, ref.dataset), "prefect.resource.role": "dataset"}],
        "payload": {"key": ref.key, "object": ref.name, "reason": outcome.reason, "run": run},
        "occurred_at": now,
    }
