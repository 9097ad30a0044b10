"""What the webhook refused, kept for as long as its source said; see `webhook/rejected.py` for what goes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, insert, select

from penstock.ledger.database import Database
from penstock.ledger.tables import rejections

# Of each source the newest so many, whatever comes: a flood must not fill the disk. Of what was not verified, which
# anybody can send, as many apart from the others: it must not push those out either.
MOST_OF_SOURCE = 1000
UNVERIFIED = "unverified"
_EXPIRE = 200
_BUT_BODY = [column for column in rejections.c if column.name != "body"]


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A request that was refused as `kind`. `headers` hold no secret; `body` is the beginning of its `bytes` bytes."""

    source: str
    at: datetime
    kind: str
    detail: str
    address: str
    request: str
    content_type: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A kept one, under the number by which people name it; without its body in a list."""

    number: int
    expires_at: datetime
    rejected: Rejected


class Rejections:
    """Keeping, asking and forgetting what was refused."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, found: Sequence[tuple[Rejected, datetime]]) -> None:
        """Keep each until its moment.

        What a source has more than `MOST_OF_SOURCE`, verified or not, goes, the oldest first.
        """
        if not found:
            return
        with self._database.write() as connection:
            connection.execute(insert(rejections), [_row(rejected, expires_at) for rejected, expires_at in found])
            for source, verified in sorted({(one.source, one.kind != UNVERIFIED) for one, _ in found}):
                kind = rejections.c.kind
                part = and_(rejections.c.source == source, kind != UNVERIFIED if verified else kind == UNVERIFIED)
                newest = select(rejections.c.id).where(part).order_by(rejections.c.id.desc())
                too_many = connection.execute(newest.offset(MOST_OF_SOURCE).limit(1)).scalar()
                if too_many is not None:
                    connection.execute(delete(rejections).where(part, rejections.c.id <= too_many))

    def expire(self) -> int:
        """Forget a bounded number of those whose time is over, whatever the project declares now; returns how many."""
        with self._database.write() as connection:
            now = self._database.clock()
            over = select(rejections.c.id).where(rejections.c.expires_at < now).limit(_EXPIRE)
            return connection.execute(delete(rejections).where(rejections.c.id.in_(over))).rowcount

    def page(
        self, *, limit: int, source: str | None = None, since: datetime | None = None, before: int | None = None
    ) -> list[Kept]:
        """The newest ones that fit all that is given, without their bodies; the next page is `before` the last."""
        query = select(*_BUT_BODY).where(rejections.c.expires_at >= self._database.clock())
        if source is not None:
            query = query.where(rejections.c.source == source)
        if since is not None:
            query = query.where(rejections.c.at >= since)
        if before is not None:
            query = query.where(rejections.c.id < before)
        with self._database.read() as connection:
            return [_kept(row, b"") for row in connection.execute(query.order_by(rejections.c.id.desc()).limit(limit))]

    def get(self, number: int) -> Kept | None:
        """The one of this number, whole; None when there is none, or its time is over."""
        query = select(rejections).where(rejections.c.id == number)
        with self._database.read() as connection:
            row = connection.execute(query.where(rejections.c.expires_at >= self._database.clock())).first()
        return _kept(row, row.body) if row is not None else None

    def of_request(self, request: str) -> list[Kept]:
        """Those that an HTTP request left, without their bodies."""
        query = select(*_BUT_BODY).where(
            rejections.c.request == request, rejections.c.expires_at >= self._database.clock()
        )
        with self._database.read() as connection:
            return [_kept(row, b"") for row in connection.execute(query.order_by(rejections.c.id.desc()))]


def _row(rejected: Rejected, expires_at: datetime) -> dict[str, Any]:
    return {
        "source": rejected.source,
        "at": rejected.at,
        "expires_at": expires_at,
        "kind": rejected.kind,
        "detail": rejected.detail,
        "address": rejected.address,
        "request": rejected.request,
        "content_type": rejected.content_type,
        "headers": [list(header) for header in rejected.headers],
        "bytes": rejected.bytes,
        "body": rejected.body,
    }


def _kept(row: Any, body: bytes) -> Kept:
    rejected = Rejected(
        source=row.source,
        at=row.at,
        kind=row.kind,
        detail=row.detail,
        address=row.address,
        request=row.request,
        content_type=row.content_type,
        headers=tuple((name, value) for name, value in row.headers),
        body=body,
        bytes=row.bytes,
    )
    return Kept(number=row.id, expires_at=row.expires_at, rejected=rejected)
