"""What came to the edge as a notification and could not be used, so that somebody may see it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, func, select

from penstock.ledger.arrived import moment
from penstock.ledger.database import Database
from penstock.ledger.rows import line, pieces, tell
from penstock.ledger.tables import insert_new, objects
from penstock.model import NOTIFICATIONS_BUCKET, State, Via
from penstock.notifications import Unusable, excerpt

# Nothing more is kept while so many wait in quarantine: whoever sends so much does not send it to be read.
MOST_KEPT = 1000

_INSERT = insert_new(
    objects,
    "bucket",
    "key",
    "generation",
    "entry",
    "etag",
    "size",
    "via",
    "state",
    "reason",
    "arrived_at",
    "changed_at",
)


class UnusableNotifications:
    """Keeping them in quarantine. The same bytes again are nothing new, also when they were dropped."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, parts: Sequence[Unusable]) -> int:
        """Record these, each with its reason and its beginning; returns how many were new and are kept."""
        by_digest = {part.digest: part for part in parts}
        with self._database.read() as connection:
            for digest in _known(connection, by_digest):
                del by_digest[digest]
        if not by_digest:
            return 0
        with self._database.write() as connection:
            now = self._database.clock()
            room = max(0, MOST_KEPT - _waiting(connection))
            known = _known(connection, by_digest)
            fresh = {digest: part for digest, part in by_digest.items() if digest not in known}
            arrived_at = moment(connection, now)
            rows = [
                {
                    "bucket": NOTIFICATIONS_BUCKET,
                    "key": digest,
                    "generation": 1,
                    "entry": 0,
                    "etag": digest,
                    "size": len(part.part),
                    "via": Via.NOTIFICATION.value,
                    "state": State.QUARANTINED.value,
                    "reason": part.reason,
                    "arrived_at": arrived_at,
                    "changed_at": now,
                }
                for digest, part in list(fresh.items())[:room]
            ]
            if not rows:
                return 0
            connection.execute(_INSERT, rows)
            for row_id, digest in _ids(connection, [str(row["key"]) for row in rows]):
                part = fresh[digest]
                kept = [line(row_id, now, State.QUARANTINED.value, part.reason)]
                if part.part:
                    kept.append(line(row_id, now, "received", excerpt(part.part)))
                tell(connection, kept)
            return len(rows)


def _known(connection: Connection, digests: Collection[str]) -> set[str]:
    return {digest for _, digest in _ids(connection, digests)}


def _ids(connection: Connection, digests: Collection[str]) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for piece in pieces(sorted(digests)):
        query = select(objects.c.id, objects.c.key).where(
            objects.c.bucket == NOTIFICATIONS_BUCKET, objects.c.key.in_(piece)
        )
        found += [(row.id, row.key) for row in connection.execute(query.order_by(objects.c.id))]
    return found


def _waiting(connection: Connection) -> int:
    query = select(func.count()).where(
        objects.c.state == State.QUARANTINED.value,
        objects.c.dataset.is_(None),
        objects.c.bucket == NOTIFICATIONS_BUCKET,
    )
    return connection.execute(query).scalar_one()
