"""Rows of `objects`: how one is read, how its state moves, and how its history is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, insert, select, update

from penstock.ledger import states
from penstock.ledger.decide import Again
from penstock.ledger.tables import history, objects
from penstock.model import ObjectRef, State

_T = TypeVar("_T")

_CHUNK = 500  # keys or ids in one IN (…), well under the databases' limits of parameters


def ref_of(row: Any) -> ObjectRef:
    """The reference to the object of a row of `objects`."""
    return ObjectRef(
        id=row.id,
        dataset=row.dataset,
        bucket=row.bucket,
        key=row.key,
        generation=row.generation,
        etag=row.etag,
        size=row.size,
        entry=row.entry,
        version_id=row.version_id,
        attempts=row.attempts,
        delivery=row.delivery,
        claimed_before=row.run is not None,
        again=row.again == Again.OVER_ITS_ROWS,
        only_rejected=row.again == Again.ONLY_REJECTED,
        old=bool(row.backlog),
        # By this arrivals are compared: what is old must not come after what was loaded while it waited.
        arrived_at=(row.modified_at if row.backlog else None) or row.arrived_at,
        trouble=row.reason,
    )


def again_of(ref: ObjectRef) -> Again:
    """What `ref_of` read from the row's `again`."""
    if ref.only_rejected:
        return Again.ONLY_REJECTED
    return Again.OVER_ITS_ROWS if ref.again else Again.NO


def pieces(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """`items`, as many at a time as fit into one IN (…)."""
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def by_bucket(names: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Sequence[str]]]:
    """Each bucket of these (bucket, key) with its keys, as many at a time as fit into one IN (…)."""
    keys: dict[str, list[str]] = {}
    for bucket, key in names:
        keys.setdefault(bucket, []).append(key)
    for bucket, found in keys.items():
        for piece in pieces(found):
            yield bucket, piece


def which(connection: Connection, ids: Sequence[int], *conditions: ColumnElement[bool]) -> list[int]:
    """Those of `ids` that fulfil the conditions, in their order."""
    found: set[int] = set()
    for piece in pieces(ids):
        found.update(
            connection.execute(select(objects.c.id).where(objects.c.id.in_(piece), are(*conditions))).scalars()
        )
    return [row_id for row_id in ids if row_id in found]


def are(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Conditions that no index is used for: SQLite would rather read all of a state than look up some dozen ids."""
    return case((and_(*conditions), 1), else_=0) == 1


def move(
    connection: Connection,
    ids: Sequence[int],
    target: State,
    values: Mapping[str, Any],
    *,
    token: int | None = None,
) -> int:
    """Move to a state what may come to it, and with `token` only what that holder has claimed; returns how many."""
    moved = 0
    for piece in pieces(ids):
        may_come = objects.c.state.in_(states.sources(target))
        statement = update(objects).where(objects.c.id.in_(piece), are(may_come))
        if token is not None:
            statement = statement.where(objects.c.claim_token == token)
        moved += connection.execute(statement.values(state=target.value, **values)).rowcount
    return moved


def end_claims(
    connection: Connection, changes: Sequence[dict[str, Any]], *, now: datetime, token: int | None = None
) -> None:
    """Let go of claimed rows, each with its own end: `row_id`, `state`, and what else of it changes, alike for all.

    With `token` only what that holder has; what is not claimed any more stays as it is.
    """
    assert {State(change["state"]) for change in changes} <= states.MOVES[State.CLAIMED], changes
    if not changes:
        return
    statement = update(objects).where(objects.c.id == bindparam("row_id"), objects.c.state == State.CLAIMED.value)
    if token is not None:
        statement = statement.where(objects.c.claim_token == token)
    connection.execute(statement.values(claim_token=None, changed_at=now), changes)


def outcome_of(found: Any) -> str:
    """What became of an outcome, or of a row, in the words of its history."""
    # A row has no note: once its history is archived with it, the numbers are what is left.
    note = getattr(found, "note", None)
    return found.reason or f"{found.rows or 0} rows, {found.rejected or 0} rejected" + (f"; {note}" if note else "")


def line(row_id: int, now: datetime, what: str, detail: str, run: str | None = None) -> dict[str, Any]:
    """One line of an object's history."""
    return {"object_id": row_id, "at": now, "what": what, "detail": detail, "run": run}


def tell(connection: Connection, lines: Sequence[dict[str, Any]]) -> None:
    """Write lines of history."""
    if lines:
        connection.execute(insert(history), lines)
