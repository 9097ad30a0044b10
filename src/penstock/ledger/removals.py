"""What the ledger makes of objects that left the bucket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, and_, func, or_, select

from penstock.ledger import wakeups
from penstock.ledger.database import Database
from penstock.ledger.rows import line, move, pieces, ref_of, tell, which
from penstock.ledger.settling import heed_ignored
from penstock.ledger.tables import history, objects
from penstock.ledger.waiting import MARKER, MARKER_REMOVED
from penstock.model import ObjectRef, State

REMOVED_BEFORE = "removed from the bucket before it was read"
REMOVED_AFTER = "from the bucket; its rows stay in the table"
_REMOVED = "removed"

# A run that had it may have loaded it: that run's successor asks the warehouse, and says what became of it.
_UNTRIED = (
    or_(
        and_(objects.c.state.in_([State.PENDING.value, State.WAITING.value]), objects.c.run.is_(None)),
        and_(objects.c.state == State.IGNORED.value, objects.c.reason == MARKER),
    ),
)


class Removals:
    """Recording removals. One that is told of again changes nothing, and no removal takes rows out of the warehouse."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def untried(self, bucket: str, keys: Iterable[str]) -> dict[str, list[ObjectRef]]:
        """The generations of each key that wait and that no run has had, and markers, oldest first.

        Of what waits for its marker, and of a marker, no version counts: with its key it was withdrawn.
        """
        found: dict[str, list[ObjectRef]] = {}
        with self._database.read() as connection:
            for piece in pieces(sorted(set(keys))):
                query = select(objects).where(
                    objects.c.bucket == bucket, objects.c.key.in_(piece), objects.c.entry == 0, *_UNTRIED
                )
                for row in connection.execute(query.order_by(objects.c.id)):
                    ref = ref_of(row)
                    ref = ref if row.state == State.PENDING else replace(ref, version_id=None)
                    found.setdefault(row.key, []).append(ref)
        return found

    def record(self, bucket: str, gone: Sequence[str], lost: Sequence[ObjectRef]) -> list[ObjectRef]:
        """Record that the keys `gone` are not in the bucket, and that nobody can read the generations `lost` any more.

        What is lost becomes missing, unless a run took it meanwhile; of a key whose newest generation is loaded only
        its history tells, once. Returns what became missing.
        """
        with self._database.read() as connection:
            if not lost and not _untold(connection, bucket, gone):
                return []
        with self._database.write() as connection:
            now = self._database.clock()
            ids = set(which(connection, [ref.id for ref in lost], *_UNTRIED))
            # What waited when it was asked for, and is pending by now, may still be read by its version.
            unasked = [ref.id for ref in lost if ref.version_id is None]
            released = (objects.c.state == State.PENDING.value, objects.c.version_id.is_not(None))
            ids -= set(which(connection, unasked, *released))
            missing = [ref for ref in lost if ref.id in ids]
            markers = set(which(connection, sorted(ids), objects.c.reason == MARKER))
            told = []
            for reason, meant in ((REMOVED_BEFORE, ids - markers), (MARKER_REMOVED, markers)):
                move(connection, sorted(meant), State.MISSING, {"reason": reason, "changed_at": now})
                told += [line(row_id, now, State.MISSING.value, reason) for row_id in sorted(meant)]
            told += [line(row_id, now, _REMOVED, REMOVED_AFTER) for row_id in _untold(connection, bucket, gone)]
            tell(connection, told)
            for dataset in sorted({ref.dataset for ref in missing}):
                lost_data = [ref for ref in missing if ref.dataset == dataset and ref.id not in markers]
                if heed_ignored(connection, lost_data, None, now):
                    wakeups.request(connection, dataset, now)
            return missing


def _untold(connection: Connection, bucket: str, keys: Sequence[str]) -> list[int]:
    """The loaded newest generations of these keys whose history does not tell of the removal yet."""
    found: list[int] = []
    for piece in pieces(keys):
        newest = (
            select(objects.c.key, func.max(objects.c.generation).label("generation"))
            .where(objects.c.bucket == bucket, objects.c.key.in_(piece), objects.c.entry == 0)
            .group_by(objects.c.key)
            .subquery()
        )
        told = select(history.c.id).where(history.c.object_id == objects.c.id, history.c.what == _REMOVED)
        query = (
            select(objects.c.id)
            .join(newest, and_(objects.c.key == newest.c.key, objects.c.generation == newest.c.generation))
            .where(
                objects.c.bucket == bucket,
                objects.c.entry == 0,
                objects.c.state == State.LOADED.value,
                ~told.exists(),
            )
        )
        found += connection.execute(query.order_by(objects.c.id)).scalars()
    return found
