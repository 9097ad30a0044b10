"""How far a sweep has come, so that one that was cut short goes on from there."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from penstock.ledger.database import Database
from penstock.ledger.tables import sweeps


class Positions:
    """One position for each bucket and prefix that is being swept; none once the sweep is through."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, bucket: str, prefix: str) -> str:
        """The key up to which everything was compared; empty when the sweep begins at the beginning."""
        query = select(sweeps.c.after).where(sweeps.c.bucket == bucket, sweeps.c.prefix == prefix)
        with self._database.read() as connection:
            return connection.execute(query).scalar() or ""

    def move(self, bucket: str, prefix: str, after: str) -> None:
        """Everything up to the key `after` was compared."""
        with self._database.write() as connection:
            now = self._database.clock()
            dialect = sqlite if self._database.is_sqlite else postgresql
            connection.execute(
                dialect.insert(sweeps)
                .values(bucket=bucket, prefix=prefix, after=after, moved_at=now)
                .on_conflict_do_update(
                    index_elements=[sweeps.c.bucket, sweeps.c.prefix], set_={"after": after, "moved_at": now}
                )
            )

    def clear(self, bucket: str, prefix: str) -> None:
        """The sweep is through."""
        with self._database.write() as connection:
            connection.execute(delete(sweeps).where(sweeps.c.bucket == bucket, sweeps.c.prefix == prefix))
