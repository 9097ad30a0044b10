"""What manifests have named: objects that wait for it are released, and those that are not there are told of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, exists, func, select, text

from penstock.declarations import Dataset
from penstock.keys import Role, role
from penstock.ledger import waiting
from penstock.ledger.database import Database
from penstock.ledger.rows import pieces
from penstock.ledger.tables import announced, archive, objects
from penstock.model import State

# As many keys as one transaction names: a manifest of a million must not keep every other writer waiting.
_STEP = 5000

# As text, because SQLAlchemy compiles its own ON CONFLICT anew each time.
_NAME = text(
    "INSERT INTO announced (bucket, key, manifest) VALUES (:bucket, :key, :manifest) ON CONFLICT DO NOTHING"
).bindparams(bindparam("bucket"), bindparam("key"), bindparam("manifest"))


@dataclass(frozen=True, kw_only=True)
class Announced:
    """How many objects a manifest named, how many of them are recorded by now, and how many its dataset never loads."""

    named: int
    there: int
    foreign: int = 0

    def __str__(self) -> str:
        foreign = f"; {self.foreign:,} more are no data of its dataset" if self.foreign else ""
        return f"a manifest: it named {self.named:,} objects, {self.there:,} of them were there{foreign}"


@dataclass(frozen=True, kw_only=True)
class Absent:
    """An object that a manifest named and nobody has seen."""

    key: str
    manifest: str


class Announcements:
    """Recording what manifests say. One that is read again changes nothing."""

    def __init__(self, database: Database, project: str) -> None:
        self._database = database
        self._project = project

    def announce(
        self,
        bucket: str,
        keys: Sequence[str],
        *,
        manifest: str,
        dataset: Dataset,
        progress: Callable[[], None] = lambda: None,
    ) -> Announced:
        """Remember that the manifest named these keys, and move those that wait for it to pending.

        What is not data of the dataset is passed over: no sender speaks for another's objects. A crash between two
        steps leaves the first ones named, and reading the manifest again does the rest. `progress` is called for each.
        """
        meant = [key for key in keys if role(dataset, key) is Role.DATA]
        there = 0
        for start in range(0, len(meant), _STEP):
            step = meant[start : start + _STEP]
            progress()
            with self._database.write() as connection:
                now = self._database.clock()
                connection.execute(_NAME, [{"bucket": bucket, "key": key, "manifest": manifest} for key in step])
                for piece in pieces(step):
                    of = (objects.c.bucket == bucket, objects.c.key.in_(piece))
                    why = f"{manifest} named it"
                    waiting.release(connection, self._project, of, {dataset.name: dataset}, now, because=why)
                    there += _there(connection, bucket, piece)
        return Announced(named=len(meant), there=there, foreign=len(keys) - len(meant))

    def absent(self, *, limit: int) -> tuple[int, list[Absent]]:
        """How many objects manifests have named that are not there, and the first of them by key."""
        seen = exists().where(
            objects.c.key == announced.c.key,
            objects.c.bucket == announced.c.bucket,
            objects.c.entry == 0,
            objects.c.state != State.MISSING.value,
        )
        kept = exists().where(archive.c.key == announced.c.key, archive.c.bucket == announced.c.bucket)
        with self._database.read() as connection:
            count = connection.execute(select(func.count()).select_from(announced).where(~seen, ~kept)).scalar_one()
            query = select(announced).where(~seen, ~kept).order_by(announced.c.key, announced.c.bucket).limit(limit)
            rows = connection.execute(query).all() if count else []
        return count, [Absent(key=row.key, manifest=row.manifest) for row in rows]

    def naming(self, key: str) -> list[str]:
        """The manifests that named a key, or `bucket/key`; of each bucket the first that did."""
        bucket, _, rest = key.partition("/")
        meant = (announced.c.key == key) | ((announced.c.key == rest) & (announced.c.bucket == bucket))
        with self._database.read() as connection:
            return list(connection.execute(select(announced.c.manifest).where(meant).distinct()).scalars())


def _there(connection: Connection, bucket: str, keys: Sequence[str]) -> int:
    seen = {
        found
        for table in (objects, archive)
        for found in connection.execute(
            select(table.c.key).where(
                table.c.bucket == bucket,
                table.c.key.in_(keys),
                table.c.entry == 0,
                table.c.state != State.MISSING.value,
            )
        ).scalars()
    }
    return len(seen)
